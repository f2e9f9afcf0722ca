"""Laws of the network: exact identities, agreement with a plain loop, errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplimits import initialisation, residual
from deeplimits.residual import (
    Convolution,
    Matrix,
    OneLayer,
    OuterLayer,
    ResNet,
    TwoLayer,
)


def two_layer(depth, q, m, *, activation="tanh", dtype="float64", key, **options):
    outer_key, inner_key = jr.split(key)
    block = TwoLayer(
        initialisation.independent(depth, (q, m), key=outer_key).astype(dtype),
        initialisation.independent(depth, (m, q), key=inner_key).astype(dtype),
        activation=activation,
    )
    return ResNet(block, **options)


@pytest.mark.parametrize("depth", [1, 2, 7, 64])
def test_tied_linear_network_is_a_matrix_power(depth, dtype):
    a = jnp.asarray([[0.3, -1.0, 0.2], [0.5, 0.1, 0.0], [-0.4, 0.6, -0.7]], dtype)
    block = OneLayer(jnp.broadcast_to(a, (depth, 3, 3)), activation="identity")
    x = jnp.asarray([1.0, -2.0, 0.5], dtype)
    power = np.linalg.matrix_power(np.eye(3) + np.asarray(a, float) / depth, depth)
    found = ResNet(block)(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, power @ np.asarray(x), rtol=TOLERANCE[dtype])


PLAIN = {
    "identity": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * scipy.stats.norm.cdf(x),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "centred softplus": lambda x: 2 * np.log((1 + np.exp(x)) / 2),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sin": np.sin,
}


@pytest.mark.parametrize("activation", sorted(residual.ACTIVATIONS))
def test_activations_are_their_formulas(activation):
    x = np.linspace(-4, 4, 9)
    found = residual.ACTIVATIONS[activation](jnp.asarray(x))
    np.testing.assert_allclose(found, PLAIN[activation](x), rtol=1e-10, atol=1e-14)


@settings(max_examples=12, deadline=None)
@given(
    depth=st.integers(1, 6),
    q=st.integers(1, 5),
    m=st.integers(1, 5),
    activation=st.sampled_from(sorted(residual.ACTIVATIONS)),
    factors=st.booleans(),
    beta=st.floats(0, 2),
    seed=st.integers(0, 2**31),
)
def test_scan_equals_a_plain_loop(depth, q, m, activation, factors, beta, seed):
    v_key, w_key, x_key = jr.split(jr.key(seed), 3)
    v, w = jr.normal(v_key, (depth, q, m)), jr.normal(w_key, (depth, m, q))
    x = jr.normal(x_key, (q,))
    block = TwoLayer(v, w, activation=activation, width_factors=factors)
    network = ResNet(block, beta=beta)
    sigma = PLAIN[activation]
    h, states = np.asarray(x), [np.asarray(x)]
    for k in range(depth):
        inner = w[k] @ h / (np.sqrt(q) if factors else 1)
        h = h + depth**-beta * v[k] @ sigma(inner) / (np.sqrt(m) if factors else 1)
        states.append(h)
    np.testing.assert_allclose(network.trajectory(x), states, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(network(x), h, rtol=1e-9, atol=1e-9)


def test_one_layer_equals_a_plain_loop():
    w, b = jr.normal(jr.key(9), (4, 3, 3)), jr.normal(jr.key(10), (4, 3))
    h = np.asarray([1.0, -2.0, 0.5])
    found = ResNet(OneLayer(w, b))(jnp.asarray(h))
    for k in range(4):
        h = h + np.tanh(w[k] @ h + b[k]) / 4
    np.testing.assert_allclose(found, h, rtol=1e-10)


def test_outer_layer_equals_a_plain_loop():
    v, h = jr.normal(jr.key(9), (4, 3, 3)), np.asarray([1.0, -2.0, 0.5])
    found = ResNet(OuterLayer(v), beta=0.5)(jnp.asarray(h))
    for k in range(4):
        h = h + 4**-0.5 * v[k] @ np.maximum(h, 0)
    np.testing.assert_allclose(found, h, rtol=1e-10)


def test_gelu_is_the_exact_one():
    x = jnp.linspace(-4, 4, 9)
    expected = np.asarray(x) * scipy.stats.norm.cdf(x)
    np.testing.assert_allclose(residual.ACTIVATIONS["gelu"](x), expected, rtol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "softplus"])
def test_gradient_equals_centred_differences(activation):
    net_key, x_key, direction_key = jr.split(jr.key(1), 3)
    network = two_layer(5, 3, 4, activation=activation, key=net_key)
    x = jr.normal(x_key, (3,))
    params, fixed = eqx.partition(network, eqx.is_inexact_array)
    direction = jax.tree.map(lambda p: jr.normal(direction_key, p.shape), params)

    def value(step):
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return jnp.sum(eqx.combine(moved, fixed)(x) ** 2)

    step = 1e-5
    difference = (value(step) - value(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(value)(0.0), difference, rtol=1e-7)


def test_recomputation_changes_memory_not_gradients():
    n, q, m = 16, 4, 32
    x = jr.normal(jr.key(3), (n, q))

    def gradient(depth, recompute):
        def value(block):
            return jnp.sum(jax.vmap(ResNet(block, recompute=recompute))(x) ** 2)

        block = two_layer(depth, q, m, key=jr.key(2)).block
        compiled = jax.jit(jax.grad(value)).lower(block).compile()
        return compiled(block), compiled.memory_analysis().temp_size_in_bytes

    def bytes_a_layer(recompute):  # on a CPU: another device lays memory out otherwise
        few, many = (gradient(depth, recompute)[1] for depth in (64, 192))
        return (many - few) / 128

    kept, again = (jax.tree.leaves(gradient(9, r)[0]) for r in (False, True))
    for a, b in zip(kept, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    with jax.default_device(jax.devices("cpu")[0]):
        found = [bytes_a_layer(recompute) for recompute in (True, False)]
    # the state of each example and, without recomputation, its product before the
    # activation; what is written of the gradient lies in the result
    np.testing.assert_allclose(found, [8 * n * q, 8 * n * (q + m)], rtol=0.1)


def test_trained_scale_multiplies_the_step():
    x = jnp.asarray([0.3, -0.7])
    network = two_layer(3, 2, 4, key=jr.key(4))
    scale = jnp.asarray([1.0, 0.0, -2.0])
    scaled = ResNet(network.block, scale=scale)
    outer = network.block.outer * scale[:, None, None]
    expected = ResNet(TwoLayer(outer, network.block.inner, activation="tanh"))
    np.testing.assert_allclose(scaled(x), expected(x), rtol=1e-10)
    shared = ResNet(network.block, scale=jnp.asarray(3.0), beta=0.0)
    np.testing.assert_allclose(shared.steps, [3.0, 3.0, 3.0])
    modulus = ResNet(network.block, scale=scale, absolute=True)
    np.testing.assert_allclose(modulus.steps, [1 / 3, 0.0, 2 / 3])


def test_the_scale_may_be_a_plain_number(dtype, as_in_use):
    block = OneLayer(jnp.ones((2, 3, 3), dtype))
    plain, array = (ResNet(block, scale=a) for a in (0.5, jnp.asarray(0.5, dtype)))
    assert plain.scale.dtype == plain(jnp.ones(3, dtype)).dtype == dtype
    np.testing.assert_array_equal(plain.steps, array.steps)


def test_a_state_of_whole_numbers_becomes_one_of_floats(as_in_use):
    network, whole = two_layer(3, 2, 4, key=jr.key(4)), jnp.asarray([3, -1])
    for found in (network, network.trajectory):
        np.testing.assert_array_equal(found(whole), found(whole.astype(float)))


def test_convolution_equals_a_plain_sum():
    key_k, key_b, key_h = jr.split(jr.key(5), 3)
    kernels = jr.normal(key_k, (1, 2, 3, 3, 3, 3))
    biases = jr.normal(key_b, (1, 2, 3))
    h = jr.normal(key_h, (3, 4, 5))

    def plain(image, kernel, bias):
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
        out = np.zeros((3, 4, 5))
        for r, c in np.ndindex(3, 3):
            out += np.einsum(
                "oi,ihw->ohw", kernel[..., r, c], padded[:, r : r + 4, c : c + 5]
            )
        return out + np.asarray(bias)[:, None, None]

    middle = np.tanh(plain(np.asarray(h), kernels[0, 0], biases[0, 0]))
    expected = h + plain(middle, kernels[0, 1], biases[0, 1])
    network = ResNet(Convolution(kernels, biases, activation="tanh"))
    np.testing.assert_allclose(network(h), expected, rtol=1e-9, atol=1e-9)


def test_strided_convolution_halves_the_image():
    image, kernel = jnp.ones((1, 8, 8)), jnp.ones((5, 1, 3, 3))
    assert residual.convolve(image, kernel, stride=2).shape == (5, 4, 4)


def test_maps_in_and_out():
    encoder, decoder = Matrix(jnp.eye(4, 2)), Matrix(jnp.eye(3, 4, 1))
    network = two_layer(2, 4, 5, key=jr.key(6), encoder=encoder, decoder=decoder)
    x = jnp.asarray([1.0, -1.0])
    trajectory = network.trajectory(x)
    np.testing.assert_array_equal(trajectory[0], [1, -1, 0, 0])
    np.testing.assert_allclose(network(x), trajectory[-1, 1:], rtol=1e-10)


def test_one_dimension_keeps_its_order():
    """With steps small against the slope of the residual, points never cross."""
    v_key, w_key = jr.split(jr.key(7))
    block = TwoLayer(
        jr.normal(v_key, (50, 1, 8)), jr.normal(w_key, (50, 8, 1)), activation="tanh"
    )
    x = jnp.linspace(-2, 2, 31)[:, None]
    assert bool(jnp.all(jnp.diff(jax.vmap(ResNet(block))(x)[:, 0]) > 0))


def test_one_compilation_serves_every_weight():
    counted = eqx.debug.assert_max_traces(max_traces=1)(lambda network, x: network(x))
    call = eqx.filter_jit(counted)
    for seed in range(3):
        call(two_layer(4, 3, 2, key=jr.key(seed)), jnp.ones(3))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # by default a recent GPU multiplies float32 matrices in TensorFloat-32
    [("float32", TOLERANCE["float32"]), ("tensorfloat32", 2e-3)],
)
def test_gpu_agrees_with_cpu(gpu, precision, tolerance):
    network = two_layer(32, 4, 8, dtype="float32", key=jr.key(8))
    x = jnp.ones(4, "float32")
    gradient = eqx.filter_jit(eqx.filter_grad(lambda n, x: jnp.sum(n(x) ** 2)))
    with jax.default_matmul_precision(precision):
        here, there = (
            jax.tree.leaves(gradient(*jax.device_put((network, x), device)))
            for device in (jax.devices("cpu")[0], gpu)
        )
    for a, b in zip(here, there, strict=True):
        size = float(jnp.abs(a).max())
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: residual.named_activation("swish"), "unknown activation 'swish'"),
        (lambda: OneLayer(jnp.ones((2, 3, 4))), r"got \(2, 3, 4\)"),
        (lambda: OneLayer(jnp.ones((2, 3, 3)), jnp.ones((2, 4))), r"got \(2, 4\)"),
        (lambda: TwoLayer(jnp.ones((2, 3, 4)), jnp.ones((2, 3, 4))), "got"),
        (lambda: TwoLayer(jnp.ones((2, 3, 4)), jnp.ones((5, 4, 3))), "got"),
        (lambda: OuterLayer(jnp.ones((2, 3, 4))), r"got \(2, 3, 4\)"),
        (lambda: Convolution(jnp.ones((2, 2, 3, 3, 5, 5))), "3 by 3"),
        (lambda: OneLayer([[1.0]]), "weight must be an array: got list"),
        (
            lambda: OuterLayer(jnp.ones((3, 3), complex)),
            "outer must be floats: got comp",
        ),
        (lambda: Matrix(jnp.ones(3)), r"weight must have shape \(any, any\)"),
        (lambda: Matrix(jnp.eye(3))(jnp.ones(2)), "x must have 3 entries"),
        (lambda: ResNet(OneLayer(jnp.ones((2, 3, 3))), scale="1"), "scale must be an"),
        (lambda: ResNet(OneLayer(jnp.ones((2, 3, 3))), scale=np.nan), "scale holds"),
        (
            lambda: residual.convolve(jnp.ones((2, 4, 4)), jnp.ones((5, 1, 3, 3))),
            r"kernel must have shape \(any, 2, any, any\)",
        ),
        (lambda: ResNet(OneLayer(jnp.ones((0, 3, 3)))), "at least 1"),
        (
            lambda: ResNet(OneLayer(jnp.ones((2, 3, 3))), scale=jnp.ones(3)),
            r"\(2,\): got \(3,\)",
        ),
        (lambda: ResNet(OneLayer(jnp.ones((2, 3, 3), int))), "floats: got int64"),
        (
            lambda: ResNet(OneLayer(jnp.ones((2, 3, 3))), beta=float("nan")),
            r"beta must lie in \(-inf, inf\): got nan",
        ),
        (
            lambda: ResNet(OneLayer(jnp.ones((3, 3))))(jnp.ones(3)),
            r"map \(3,\) to itself: got \(\); its arrays need the depth",
        ),
    ],
)
def test_bad_shapes_are_refused(make, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        make()
