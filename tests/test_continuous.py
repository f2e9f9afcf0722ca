"""Laws of the limit: the Euler rate, the adjoint, conversion both ways."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from deeplimits import continuous, initialisation, statistics
from deeplimits.residual import Matrix, OneLayer, ResNet, TwoLayer


def smooth_ode(key):
    v_key, w_key = jr.split(key)
    v = initialisation.SmoothPath((3, 4), 0.3, key=v_key)
    w = initialisation.SmoothPath((4, 3), 0.3, key=w_key)
    return continuous.NeuralODE(continuous.TwoLayerPath(v, w))


def test_path_of_two_layers_samples_both_weights():
    path = smooth_ode(jr.key(5)).block_at
    block = initialisation.along_path(path, 6)
    for weights, of in ((block.outer, path.outer), (block.inner, path.inner)):
        np.testing.assert_array_equal(weights, initialisation.along_path(of, 6))
    h = jnp.asarray([0.5, -1.0, 2.0])
    s = jnp.asarray(0.25)
    V, W = path.outer(s), path.inner(s)
    expected = V @ jnp.tanh(W @ h / 3**0.5) / 4**0.5
    np.testing.assert_allclose(path(s)(h), expected, rtol=1e-10)
    with pytest.raises(ValueError, match="activation"):
        continuous.TwoLayerPath(path.outer, path.inner, "tan")


def test_euler_rate_is_one():
    ode, x = smooth_ode(jr.key(0)), jnp.asarray([0.5, -1.0, 2.0])
    limit = ode(x, tolerance=1e-11)
    depths = [32, 64, 128, 256]
    gaps = [
        float(jnp.linalg.norm(continuous.to_network(ode, L)(x) - limit)) for L in depths
    ]
    assert statistics.loglog_slope(depths, gaps).value == pytest.approx(-1, abs=0.06)


def test_linear_ode_is_the_matrix_exponential(dtype):
    a = jnp.asarray([[0.0, -2.0, 0.3], [1.0, 0.1, 0.0], [0.5, 0.0, -1.0]], dtype)
    block = OneLayer(jnp.broadcast_to(a, (4, 3, 3)), activation="identity")
    ode = continuous.from_network(ResNet(block))
    x = jnp.asarray([1.0, 2.0, -1.0], dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-11}[dtype]
    found = ode(x, tolerance=tolerance)
    assert found.dtype == dtype
    expected = jax.scipy.linalg.expm(a) @ x
    # the solver's tolerance is local: allow its accumulation
    np.testing.assert_allclose(found, expected, rtol=20 * tolerance)


@pytest.mark.parametrize("interpolation", ["constant", "linear"])
def test_network_to_ode_and_back(interpolation):
    v_key, w_key, x_key = jr.split(jr.key(1), 3)
    block = TwoLayer(jr.normal(v_key, (7, 3, 4)), jr.normal(w_key, (7, 4, 3)))
    network = ResNet(block, Matrix(jnp.eye(3, 2)), Matrix(jnp.eye(1, 3)))
    back = continuous.to_network(continuous.from_network(network, interpolation), 7)
    x = jr.normal(x_key, (2,))
    np.testing.assert_allclose(back(x), network(x), rtol=1e-10)


def test_equal_euler_steps_are_the_network():
    ode, x = smooth_ode(jr.key(2)), jnp.asarray([0.5, -1.0, 2.0])
    network = continuous.to_network(ode, 16)
    euler = ode.trajectory(x, jnp.arange(17) / 16, solver=diffrax.Euler(), steps=16)
    np.testing.assert_allclose(euler, network.trajectory(x), rtol=1e-10)


def test_adjoint_states_are_the_gradients_at_every_depth():
    network = continuous.to_network(smooth_ode(jr.key(3)), 9)
    x, direction = jnp.asarray([0.5, -1.0, 2.0]), jnp.asarray([1.0, 0.0, -3.0])
    adjoints = continuous.adjoint_states(network, x, direction)
    assert adjoints.shape == (10, 3)
    hidden = network.trajectory(x)
    for k in (0, 4, 8):
        rest = jax.tree.map(lambda z, k=k: z[k:], network.block)
        tail = ResNet(rest, beta=0.0, scale=jnp.asarray(1 / 9))
        expected = jax.grad(lambda h, tail=tail: tail(h) @ direction)(hidden[k])
        np.testing.assert_allclose(adjoints[k], expected, rtol=1e-9)


def test_adjoints_agree_on_the_gradient():
    v_key, w_key = jr.split(jr.key(4))
    block = TwoLayer(jr.normal(v_key, (5, 2, 3)), jr.normal(w_key, (5, 3, 2)))
    ode = continuous.from_network(ResNet(block))
    x = jnp.asarray([0.4, -0.2])

    def gradient(adjoint):
        def value(layers):
            moved = eqx.tree_at(lambda o: o.block_at.layers, ode, layers)
            return jnp.sum(moved(x, tolerance=1e-9, adjoint=adjoint) ** 2)

        return jax.grad(value)(block)

    direct = gradient(diffrax.RecursiveCheckpointAdjoint())
    solved = gradient(diffrax.BacksolveAdjoint())
    for a, b in zip(jax.tree.leaves(direct), jax.tree.leaves(solved), strict=True):
        # backwards, the kinks of the weights cost the adaptive solver accuracy
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_other_scalings_have_another_limit():
    block = OneLayer(jnp.ones((3, 2, 2)))
    for beta in (0.5, 2.0):
        with pytest.raises(ValueError, match=f"beta={beta}"):
            continuous.from_network(ResNet(block, beta=beta))
    with pytest.raises(ValueError, match="a trained scale"):
        continuous.from_network(ResNet(block, scale=jnp.ones(3)))
    with pytest.raises(ValueError, match="unknown interpolation 'cubic'"):
        continuous.from_network(ResNet(block), "cubic")
    with pytest.raises(ValueError, match=r"steps must be .* got 0"):
        continuous.from_network(ResNet(block))(jnp.ones(2), steps=0)


def test_times_may_be_a_list(as_in_use):
    ode, x = smooth_ode(jr.key(5)), jnp.asarray([0.5, -1.0, 2.0])
    found = ode.trajectory(x, [0.0, 0.5])
    np.testing.assert_array_equal(found, ode.trajectory(x, jnp.asarray([0.0, 0.5])))


def test_linear_flow_has_its_closed_forms():
    rotation, bias = jnp.asarray([[0.0, 1.0], [-1.0, 0.0]]), jnp.asarray([0.5, -2.0])
    x = jnp.asarray([1.0, 3.0])
    found = continuous.linear_flow(0 * rotation, bias, x)
    np.testing.assert_allclose(found, x + bias, rtol=1e-12)
    # it turns about the point where the right-hand side vanishes
    centre = jnp.asarray([-2.0, -0.5])
    turned = np.asarray([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    expected = centre + turned @ (x - centre)
    found = continuous.linear_flow(rotation, bias, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_whole_numbers_are_numbers(as_in_use):
    """Times in the type of a whole state would all be 0 or 1."""
    ode, whole, times = smooth_ode(jr.key(5)), jnp.asarray([1, -1, 2]), [0.0, 0.5, 1.0]
    found, expected = (ode.trajectory(x, times) for x in (whole, whole.astype(float)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ode.trajectory(whole, [0, 1]), expected[::2])
    flows = [
        continuous.linear_flow(
            *(jnp.asarray(z, kind) for z in ([[0, 1], [-1, 0]], [1, 0], [1, 2]))
        )
        for kind in (int, float)
    ]
    np.testing.assert_array_equal(*flows)


@pytest.mark.parametrize(
    ("x", "times", "message"),
    [
        ([1.0, 2.0, 3.0], [0.5, 0.2], r"increase within \[0, 1\].*\[0.5, 0.2\]"),
        ([1.0, 2.0, 3.0], [0.0, np.nan], "without NaN"),
        ([1.0, 2.0, 3.0], [0.0, 1.5], r"1\.5"),
        ([1.0, 2.0, 3.0], [-0.5, 1.0], r"-0\.5"),
        ([1.0, 2.0, 3.0], [], "times is empty"),
        ([1.0, 2.0, 3.0], 0.5, r"times must have shape \(any\): got \(\)"),
        ([1.0, np.nan, 3.0], [0.0, 1.0], "the x holds NaN"),
        ([1.0, 2.0j, 3.0], [0.0, 1.0], "x must hold real numbers: got complex"),
        ("one", [0.0, 1.0], "x must be an array of numbers: got str"),
        ([1.0, 2.0], [0.0, 1.0], r"h must have 3 entries: got shape \(2,\)"),
    ],
)
def test_what_is_no_state_and_no_time_is_refused(x, times, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        smooth_ode(jr.key(5)).trajectory(x, times)


def test_neural_sde_by_scan_and_by_diffrax_agree():
    noise = jr.normal(jr.key(20), (64, 3, 3))
    x, sde = jnp.asarray([1.0, -0.5, 2.0]), continuous.NeuralSDE("tanh")
    np.testing.assert_allclose(sde(x, noise), sde.network(noise)(x), rtol=1e-10)


def test_noise_in_half_precision_gives_the_numbers_of_floats():
    """The path on its grid of 600 places: bfloat16 tells 256 of them apart."""
    noise, x = jr.normal(jr.key(4), (600, 2, 2), jnp.bfloat16), jnp.ones(2, jnp.float32)
    sde = continuous.NeuralSDE("tanh")
    found, expected = sde(x, noise), sde(x, noise.astype(jnp.float32))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_linear_neural_sde_is_the_exponential_martingale():
    """On the line with sigma = id: H(1) = x exp(B_1 - 1/2)."""
    noise = jr.normal(jr.key(21), (4096, 1, 1))
    found = continuous.NeuralSDE("identity").network(noise)(jnp.ones(1))
    end = float(noise.sum()) / 64
    np.testing.assert_allclose(found[0], np.exp(end - 0.5), rtol=0.05)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_solved_in_single(dtype, as_in_use):
    layers = jnp.sin(jnp.arange(300, dtype=jnp.float32)).reshape(300, 1, 1)
    ode = continuous.NeuralODE(
        initialisation.PiecewiseLinear(OneLayer(layers, activation="tanh"))
    )
    found, whole = ode(jnp.ones(1, dtype)), ode(jnp.ones(1, "float32"))
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    rotation = jnp.array([[0, 1], [-1, 0]], dtype)
    start = jnp.array([1, 0], dtype)
    turned = continuous.linear_flow(rotation, jnp.zeros(2, dtype), start)
    np.testing.assert_allclose(turned, [np.cos(1), -np.sin(1)], rtol=1e-6)
