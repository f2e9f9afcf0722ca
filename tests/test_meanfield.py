"""Laws of the mean field: particles, characteristics, finite volumes, Fokker–Planck."""

import math
import os
import subprocess
import sys

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import TOLERANCE, assert_mean
from scipy import stats

from deeplimits import meanfield
from deeplimits.meanfield import Noise, line_control, steady
from deeplimits.residual import OneLayer, ResNet

W = jnp.asarray([[0.5, -2.0], [1.0, -0.75]])
PLANE = OneLayer(jnp.stack([W, -W, W.T]), jnp.asarray([[0.1, 0.2], [-0.3, 0], [0, 1]]))
CLOUD = jr.normal(jr.key(0), (2, 50))


# ------------------------------------------------------------------------ particles


ON_EIGHT_DEVICES = """
import jax, jax.numpy as jnp, jax.random as jr, numpy as np

jax.config.update("jax_enable_x64", True)
from deeplimits import devices, meanfield
from deeplimits.residual import OneLayer

W = jnp.asarray([[0.5, -2.0], [1.0, -0.75]])
control = OneLayer(jnp.stack([W, -W]), jnp.asarray([[0.1, 0.2], [-0.3, 1.0]]))
x = jr.normal(jr.key(0), (2, 56))
blocks = x.reshape(2, 8, 7).swapaxes(0, 1)
found = devices.over_devices(lambda x: meanfield.flow(x, control, steps=3))(blocks)
assert len(found.sharding.device_set) == 8
whole = meanfield.flow(x, control, steps=3)
assert np.array_equal(found.swapaxes(0, 1).reshape(2, 56), whole)
np.testing.assert_allclose((found**2).mean(), (whole**2).mean(), rtol=1e-13)


def same(density, edges, control, order):
    here = meanfield.transport(density, edges, control, order=order, keep=True)
    there = meanfield.transport(
        density, edges, control, order=order, keep=True, spread=True
    )
    assert len(there.density.sharding.device_set) == 8
    assert abs(here.defect) < 1e-13 and abs(there.defect) < 1e-13
    for name in ("density", "history", "lost", "least", "courant"):
        a, b = getattr(here, name), getattr(there, name)
        np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13, err_msg=name)
    return here


e1, e2 = jnp.linspace(-5, 5, 33), jnp.linspace(-4, 4, 18)
m1, m2 = ((e[1:] + e[:-1]) / 2 for e in (e1, e2))
g = jnp.exp(-((m1[:, None] - 0.5) ** 2) - 2 * m2**2)
same(g / g.sum() / (e1[1] - e1[0]) / (e2[1] - e2[0]), (e1, e2), control, 2)
away = OneLayer(jnp.full((1, 1, 1), 2.0), jnp.ones((1, 1)), activation="identity")
g = jnp.exp(-(m1**2)) / np.sqrt(np.pi)
assert same(g, e1, away, 1).lost > 0.1
for cells in (20, 8):
    edges = jnp.linspace(0, 1, cells + 1)
    try:
        meanfield.transport(jnp.ones(cells), edges, away, spread=True)
    except ValueError as error:
        assert f"{cells} cells do not divide over 8 devices, 2 or more" in str(error)
    else:
        raise AssertionError(f"{cells} cells on 8 devices")
"""


def test_eight_devices_find_the_same():
    """Particles bit by bit; cells, which need their neighbours, and sums to 1e-13."""
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_EIGHT_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_particles_are_the_columns_of_the_network(dtype):
    control = jax.tree.map(lambda z: z.astype(dtype), PLANE)
    x = CLOUD.astype(dtype)
    network = jax.jit(jax.vmap(ResNet(control).trajectory, in_axes=1, out_axes=2))
    found = meanfield.trajectory(x, control)
    assert found.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(found, network(x), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(meanfield.flow(x, control), found[-1])


@pytest.mark.parametrize("d", [2, 9])  # written out, and as a product
def test_steps_divide_the_pieces(d):
    draws = np.random.default_rng(d)
    weight, bias = draws.normal(size=(2, d, d)), draws.normal(size=(2, d))
    x = expected = draws.normal(size=(d, 5))
    for w, b in zip(weight, bias, strict=True):
        for _ in range(3):
            expected = expected + 0.25 * np.tanh(w @ expected + b[:, None])
    control = OneLayer(jnp.asarray(weight), jnp.asarray(bias))
    found = meanfield.flow(jnp.asarray(x), control, duration=1.5, steps=3)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_growing_cosine_units_gather_at_every_second_zero():
    control = line_control(1.0, 0.0, activation=meanfield.growing_cosine)
    x = jnp.asarray([[1e-3, 1.0, 4.6, 4.8, -1.0, -4.8]])
    found = meanfield.flow(x, control, duration=20.0, steps=2000)[0] / math.pi
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 2.5, -0.5, -2.5], atol=1e-8)


def noisy(kind, key):
    """One particle, six steps in two pieces, and the path that it takes."""
    control, noise = line_control([-1.0, -2.0], [0.5, 1.5]), Noise([0.5, 0.25], kind)
    draws = [float(jr.normal(jr.fold_in(key, n), (1, 1))[0, 0]) for n in range(6)]
    start = jnp.asarray([[0.7]])
    found = meanfield.diffuse(start, control, noise, duration=0.6, steps=3, key=key)
    return float(found[0, 0]), draws


@pytest.mark.parametrize("kind", ["constant", "root", "linear"])
def test_euler_maruyama_steps_are_a_plain_loop(kind):
    found, draws = noisy(kind, jr.key(4))
    x = 0.7
    for n, xi in enumerate(draws):
        w, b, kappa = ((-1.0, 0.5, 0.5), (-2.0, 1.5, 0.25))[n // 3]
        K = kappa * {"constant": 1, "root": max(x, 0) ** 0.5, "linear": x}[kind]
        x = x + 0.1 * math.tanh(w * x + b) + 0.1**0.5 * K * xi
    assert found == pytest.approx(x, rel=1e-12)


def test_euler_maruyama_steps_are_those_of_diffrax():
    found, draws = noisy("linear", jr.key(4))
    times = 0.1 * jnp.arange(7.0)
    path = jnp.asarray(np.append(0.0, np.cumsum(draws) * 0.1**0.5))

    def piece(t, pair):
        return jnp.where(t < 0.3 - 1e-9, *pair)

    def drift(t, x, _):
        return jnp.tanh(piece(t, (-1.0, -2.0)) * x + piece(t, (0.5, 1.5)))

    terms = diffrax.MultiTerm(
        diffrax.ODETerm(drift),
        diffrax.ControlTerm(
            lambda t, x, _: piece(t, (0.5, 0.25)) * x,
            diffrax.LinearInterpolation(times, path),
        ),
    )
    solution = diffrax.diffeqsolve(
        terms,
        diffrax.Euler(),
        times[0],
        times[-1],
        None,
        jnp.asarray(0.7),
        stepsize_controller=diffrax.StepTo(times),
    )
    np.testing.assert_allclose(found, solution.ys[-1], rtol=1e-12)


def test_noise_of_steps_has_the_variance_of_the_steps():
    """Not that of the equation: the steady one is kappa^2/(|w| (2 - |w| h))."""
    w, kappa, h, steps = -2.0, 0.5, 0.25, 12
    ratio = (1 + w * h) ** 2
    expected = kappa**2 * h * (1 - ratio**steps) / (1 - ratio)
    assert expected == pytest.approx(kappa**2 / (-w * (2 + w * h)), rel=1e-6)
    control, noise = line_control(w, 1.0, activation="identity"), Noise(kappa)
    settings = {"duration": h * steps, "steps": steps, "key": jr.key(5)}
    start = jnp.full((1, 20000), 0.5)  # the mean stays
    (found,) = meanfield.diffuse(start, control, noise, **settings)
    assert_mean((found - 0.5) ** 2, expected)
    (together,) = meanfield.diffuse(start, control, noise, common=True, **settings)
    assert np.ptp(together) == 0
    assert together[0] != 0.5


def test_noise_of_the_root_never_is_that_of_a_negative_number():
    control = line_control(-1.0, 0.05, activation="identity")
    x = jnp.full((1, 1000), 0.05)
    noise = Noise(1.0, "root")
    found = meanfield.diffuse(x, control, noise, steps=10, key=jr.key(6))
    assert found.min() < 0  # a step may leave
    assert np.isfinite(found).all()


def test_sensitivities_are_the_derivatives_of_the_layers():
    w, b, x = jnp.asarray([0.5, -1.0]), jnp.asarray([0.3, 0.1]), CLOUD[0]

    def end(x, dw, db):
        return meanfield.flow(x[None], line_control(w + dw, b + db), steps=4)[0]

    found = meanfield.sensitivities(x, line_control(w, b), steps=4)
    zero, one = jnp.zeros(()), jnp.ones(())
    at = x, zero, zero
    np.testing.assert_allclose(found.state, end(*at), rtol=1e-12)
    for name, tangent in (
        ("to_start", (jnp.ones_like(x), zero, zero)),
        ("to_weight", (0 * x, one, zero)),
        ("to_bias", (0 * x, zero, one)),
    ):
        _, expected = jax.jvp(end, at, tangent)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-10)


def test_the_sensitivity_to_the_bias_is_that_to_the_start():
    for w in (-1.5, 0.7):
        found = meanfield.sensitivities(CLOUD[0], line_control(w, 0.2), steps=9)
        np.testing.assert_allclose(found.to_start, 1 + w * found.to_bias, rtol=1e-12)
    rest = meanfield.sensitivities(CLOUD[0], line_control(0.0, 0.2), steps=9)
    np.testing.assert_array_equal(rest.to_start, 1)


# --------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("activation", ["identity", "relu", "tanh"])
def test_characteristics_solve_their_equation(activation):
    sigma = line_control(0.0, 0.0, activation=activation).activation
    x = jnp.asarray([-3000.0, -20.0, -1.0, -1e-9, 0.4, 2.0, 800.0])

    def at(t, w, x=x):
        return meanfield.characteristic(x, t, w, 0.3, activation=activation)

    for w in (-1.3, -1e-6, 0.0, 1e-12, 0.8):
        np.testing.assert_allclose(at(0.0, w), x, rtol=1e-15)
        moved, speed = jax.jvp(lambda t, w=w: at(t, w), (0.7,), (1.0,))
        np.testing.assert_allclose(speed, sigma(w * moved + 0.3), rtol=1e-9)
        np.testing.assert_allclose(at(-0.7, w, moved), x, rtol=1e-12, atol=1e-12)


def test_characteristics_keep_their_digits(dtype):
    x = jnp.asarray([-3000.0, 0.1, 3000.0], dtype)
    found = meanfield.characteristic(x, 2.0, 1.0, 0.0)
    assert found.dtype == dtype
    middle = np.arcsinh(np.exp(2) * np.sinh(0.1))
    expected = [-3002.0, middle, 3002.0]
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype])
    slope = jax.grad(lambda w: meanfield.characteristic(x, 2.0, w, 0.5)[1])
    # at w = 0 it is t (x + t tanh(b)/2) sech^2(b)
    expected = 2 * (0.1 + math.tanh(0.5)) / math.cosh(0.5) ** 2
    np.testing.assert_allclose(slope(1e-7), expected, rtol=1e-5)


def test_the_law_moves_with_its_points():
    cdf = stats.norm(0.5, 0.8).cdf
    x = np.linspace(-2, 2, 9)
    moved = meanfield.transported_cdf(cdf, 1.5, -1.0, 0.4)
    end = meanfield.characteristic(jnp.asarray(x), 1.5, -1.0, 0.4)
    np.testing.assert_allclose(moved(end), cdf(x), rtol=1e-12)


def test_moments_are_those_of_the_moved_points():
    x = np.random.default_rng(7).normal(0.5, 1, 40)
    moments = np.mean(x[:, None] ** np.arange(5), axis=0)
    found = meanfield.linear_moments(moments, 1.2, -0.7, 0.3)
    end = np.exp(-0.84) * x + 0.3 * (np.exp(-0.84) - 1) / -0.7
    np.testing.assert_allclose(
        found, np.mean(end[:, None] ** np.arange(5), axis=0), rtol=1e-12
    )
    solved = meanfield.moment_trajectory(moments, -0.7, 0.3, duration=1.2)
    np.testing.assert_allclose(solved[-1], found, rtol=1e-7)


def variance(moments):
    return moments[..., 2] - moments[..., 1] ** 2


@pytest.mark.parametrize("policy", ["zero", "mean", "energy"])
def test_three_biases_share_one_variance(policy):
    w, moments = -0.8, jnp.asarray([1.0, 0.7, 1.9])
    found = meanfield.moment_trajectory(moments, w, policy=policy)
    times = np.linspace(0, 1, 101)
    start = float(variance(moments))
    np.testing.assert_allclose(
        variance(found), start * np.exp(2 * w * times), rtol=1e-7
    )
    layers = meanfield.network_moments(moments, w, policy=policy, depth=10)
    np.testing.assert_allclose(
        variance(layers), start * (1 + w / 10) ** (2 * np.arange(11)), rtol=1e-12
    )
    means, energies = found[:, 1], found[:, 2]
    if policy == "zero":
        np.testing.assert_allclose(means, 0.7 * np.exp(w * times), rtol=1e-8)
    elif policy == "mean":
        np.testing.assert_allclose(means, 0.7, rtol=1e-12)
    else:
        np.testing.assert_allclose(energies, 1.9, rtol=1e-8)
        m1, m2 = layers[:-1, 1], layers[:-1, 2]
        grown = m2 + (w / 10) ** 2 * (m2**2 / m1**2 - m2)
        np.testing.assert_allclose(layers[1:, 2], grown, rtol=1e-12)


def test_the_networks_moments_are_those_of_its_particles():
    x = jr.normal(jr.key(8), (1, 30)) + 0.5
    moments = jnp.mean(x[0][:, None] ** jnp.arange(3.0)[None], axis=0)
    layers = meanfield.network_moments(moments, -1.0, policy="energy", depth=5)
    biases = [meanfield.policy_bias("energy", m, -1.0) for m in layers[:-1]]
    control = line_control(-1.0, jnp.stack(biases), activation="identity")
    end = meanfield.flow(x, control)[0]
    expected = jnp.mean(end[:, None] ** jnp.arange(3.0)[None], axis=0)
    np.testing.assert_allclose(layers[-1], expected, rtol=1e-12)


def test_one_sided_constants_have_their_closed_forms():
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    bounds = meanfield.growth_bounds
    assert bounds(turn, activation="identity") == pytest.approx((0, 0), abs=1e-15)
    assert bounds(turn) == pytest.approx((-0.5, 0.5))
    assert bounds(np.diag([-1.0, 2.0]), activation="identity") == pytest.approx((-1, 2))
    assert bounds([[-3.0]]) == (-3, 0)
    assert bounds([[2.0]], activation="sigmoid") == (0, 0.5)
    z = jnp.linspace(-6, 6, 1201) + 0.003
    for name, (least, most) in meanfield.controls.SLOPES.items():
        sigma = line_control(0.0, 0.0, activation=name).activation
        slopes = np.diff(sigma(z)) / np.diff(z)
        assert least - 1e-9 <= slopes.min() <= least + 0.01, name
        assert most - 0.01 <= slopes.max() <= most + 1e-9, name


@pytest.mark.parametrize("w", [-1.0, 1.0, 2.0])
def test_laws_come_no_nearer_and_no_farther_than_the_constants_say(w):
    """W_1 on the line is the mean distance of the sorted points."""
    x, y = jnp.sort(jr.normal(jr.key(9), (2, 30)) * 2, axis=1)
    start = jnp.abs(x - y).mean()
    ends = [meanfield.characteristic(z, 1.0, w, 0.3) for z in (x, y)]
    ratio = float(jnp.abs(ends[0] - ends[1]).mean() / start)
    low, high = meanfield.growth_bounds([[w]])
    assert math.exp(low) - 1e-12 <= ratio <= math.exp(high) * (1 + 1e-12)
    near = jnp.asarray([-0.3 / w, -0.3 / w + 1e-3])  # the fixed point: it is attained
    ends = meanfield.characteristic(near, 1.0, w, 0.3)
    stretched = float((ends[1] - ends[0]) / (near[1] - near[0]))
    assert stretched == pytest.approx(math.exp(w), rel=1e-3)


# ------------------------------------------------------------------- finite volumes


def two_bumps(x):
    return (stats.norm.cdf(x, -1.5, 0.4) + stats.norm.cdf(x, 1, 0.6)) / 2


def transported(n, w, b, **settings):
    edges = np.linspace(-8, 8, n + 1)
    start = meanfield.cell_averages(two_bumps, edges)
    return meanfield.transport(start, edges, line_control(w, b), **settings)


def distance(found, n, w, b):
    exact = meanfield.transported_cdf(two_bumps, 1.0, w, b)
    averages = meanfield.cell_averages(exact, np.linspace(-8, 8, n + 1))
    return float(jnp.abs(found.density - averages).sum()) * 16 / n


@pytest.mark.parametrize(("order", "low", "high"), [(1, 0.9, 1.05), (2, 1.8, 2.15)])
def test_finite_volumes_have_their_order(order, low, high):
    cells = [400, 1600]
    for w in (-1.0, 1.0):
        found = [transported(n, w, 0.3, order=order) for n in cells]
        errors = [distance(f, n, w, 0.3) for f, n in zip(found, cells, strict=True)]
        assert low < math.log2(errors[0] / errors[1]) / 2 < high
        for each in found:
            assert abs(each.defect) < 1e-13
            assert each.least >= 0
            assert each.courant <= 1 + 1e-9
            each.require_kept(1e-12)


def test_the_second_order_pays_on_a_coarse_grid():
    """Also against upwind with its longest step (see `mean-field-moments`)."""
    first, second = (
        distance(transported(200, 1.0, 0.3, order=order), 200, 1.0, 0.3)
        for order in (1, 2)
    )
    assert second < 0.8 * first


def test_in_the_plane_mass_turns_about_the_centre():
    w, b, t = jnp.asarray([[-0.3, -1.0], [1.0, -0.3]]), jnp.zeros(2), 1.2
    control = OneLayer(w[None], b[None], activation="identity")
    shrunk = math.exp(-0.3 * t)
    mean = shrunk * np.array(
        [math.cos(t) - 0.5 * math.sin(t), math.sin(t) + 0.5 * math.cos(t)]
    )
    errors = []
    for n in (32, 128):
        edges = np.linspace(-4, 4, n + 1)

        def gaussian(mean, std, edges=edges):
            parts = [stats.norm(m, std).cdf for m in mean]
            rows = [meanfield.cell_averages(part, edges) for part in parts]
            return np.outer(*rows)

        start, exact = gaussian((1.0, 0.5), 0.6), gaussian(mean, 0.6 * shrunk)
        found = meanfield.transport(start, (edges, edges), control, duration=t)
        errors.append(float(np.abs(found.density - exact).sum()) * (8 / n) ** 2)
        assert abs(found.defect) < 1e-13
        assert found.least >= 0
    assert 1.8 < math.log2(errors[0] / errors[1]) / 2 < 2.2
    turned = meanfield.transport(start.T, (edges, edges), control, duration=t)
    assert np.abs(turned.density - found.density).max() > 0.1


def test_what_leaves_the_box_is_counted():
    edges, control = (
        np.linspace(-2, 2, 101),
        line_control(1.0, 0.0, activation="identity"),
    )
    start = meanfield.cell_averages(stats.norm(0, 0.5).cdf, edges)
    start /= start.sum() * 0.04
    found = meanfield.transport(start, edges, control)
    outside = 2 * stats.norm(0, 0.5 * math.e).sf(2)
    assert float(found.lost) == pytest.approx(outside, abs=2e-3)
    assert abs(found.defect) < 1e-13
    with pytest.raises(ValueError, match=r"the box is too small: mass 0\.14"):
        found.require_kept()


def test_a_step_too_long_is_refused_with_the_longest_one():
    with pytest.raises(
        ValueError, match=r"steps=99 a piece makes the Courant number 1\.0"
    ):
        transported(1600, 1.0, 0.0, order=1, steps=99)
    with pytest.raises(ValueError, match=r"longest step is 0\.01.* at least 100\."):
        transported(1600, 1.0, 0.0, order=1, steps=10)
    assert transported(1600, 1.0, 0.3, order=1, steps=100).steps == 100
    assert transported(1600, 1.0, 0.3, order=2).steps == 200


def test_pieces_follow_one_another():
    edges, halves = np.linspace(-8, 8, 201), line_control([1.0, -2.0], [0.3, 0.5])
    start = meanfield.cell_averages(two_bumps, edges)
    settings = {"order": 1, "steps": 40}
    both = meanfield.transport(start, edges, halves, keep=True, **settings)
    parts = [start]
    for w, b in ((1.0, 0.3), (-2.0, 0.5)):
        control = line_control(w, b)
        found = meanfield.transport(parts[-1], edges, control, duration=0.5, **settings)
        parts.append(found.density)
    np.testing.assert_allclose(both.history, np.stack(parts), rtol=1e-12, atol=1e-16)
    assert both.steps == 80


def test_derivatives_go_forwards_through_finite_volumes():
    edges = np.linspace(-8, 8, 201)
    start = meanfield.cell_averages(two_bumps, edges)
    x = jnp.asarray((edges[1:] + edges[:-1]) / 2)

    @jax.jit
    def mean(w):
        control = line_control(w, 0.3)
        found = meanfield.transport(start, edges, control, order=1, steps=40)
        return found.density @ x * 0.08

    slope = jax.jacfwd(mean)(-1.0)
    difference = (mean(-1.0 + 1e-5) - mean(-1.0 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


# ----------------------------------------------------------------- Fokker–Planck

LAWS = {
    "normal": ("identity", -1.0, 0.3, Noise(0.5), np.linspace(-5, 5, 301)),
    "tanh": ("tanh", -1.5, 0.3, Noise(0.6), np.linspace(-8, 8, 301)),
    "Gamma": ("identity", -1.0, 1.0, Noise(0.8, "root"), np.linspace(0, 12, 301)),
    "inverse": (
        "identity",
        -2.0,
        1.0,
        Noise(0.9, "linear"),
        np.geomspace(0.01, 400, 301),
    ),
}


def density_in_the_middles(name):
    activation, w, b, noise, edges = LAWS[name]
    law = meanfield.steady_law(w, b, noise, activation=activation)
    values = np.exp(law.log_density((edges[1:] + edges[:-1]) / 2))
    return values / (values @ np.diff(edges))


@pytest.mark.parametrize("name", LAWS)
def test_steady_laws_are_kept_and_found(name):
    activation, w, b, noise, edges = LAWS[name]
    steady, control = (
        density_in_the_middles(name),
        line_control(w, b, activation=activation),
    )
    kept = meanfield.evolve(steady, edges, control, noise, duration=10.0, steps=500)
    np.testing.assert_allclose(
        kept.density, steady, rtol=1e-9, atol=1e-13 * steady.max()
    )
    assert kept.residual < 1e-12
    assert abs(kept.defect) < 1e-12
    spread = np.full(300, 1 / np.ptp(edges))
    found = meanfield.evolve(spread, edges, control, noise, duration=500.0, steps=500)
    np.testing.assert_allclose(
        found.density, steady, rtol=1e-7, atol=1e-9 * steady.max()
    )
    assert found.least > 0
    assert abs(found.defect) < 1e-11


@pytest.mark.parametrize("name", LAWS)
def test_steady_laws_have_their_moments(name):
    activation, w, b, noise, _ = LAWS[name]
    law = meanfield.steady_law(w, b, noise, activation=activation)
    u = (np.arange(10**5) + 0.5) / 10**5
    draws = law.quantile(u)
    np.testing.assert_allclose(law.cdf(draws), u, rtol=1e-9)
    np.testing.assert_allclose(law.survival(draws), 1 - u, rtol=1e-8)
    assert law.mean == pytest.approx(draws.mean(), rel=1e-3)
    assert law.variance == pytest.approx(draws.var(), rel=0.03)
    x = draws[1000::8000]
    slope = (law.cdf(x + 1e-5) - law.cdf(x - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.exp(law.log_density(x)), slope, rtol=1e-6)
    if activation == "identity":  # the moments close
        start = jnp.asarray([1.0, 2.0, 5.0])
        settings = {"noise": noise, "duration": 20.0, "steps": 400}
        end = meanfield.moment_trajectory(start, w, b, **settings)[-1]
        assert float(end[1]) == pytest.approx(law.mean, rel=1e-6)
        assert float(variance(end)) == pytest.approx(law.variance, rel=1e-6)


def test_any_step_is_a_markov_matrix():
    activation, w, b, noise, edges = LAWS["tanh"]
    A = meanfield.generator(edges, w, b, noise, activation=activation)
    step = jax.vmap(lambda p: A.resolve(jnp.asarray(50.0), p))(jnp.eye(300))
    assert step.min() >= 0
    np.testing.assert_allclose(step.sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "entropy", "rate"),
    [("identity", 0.43886, -2), ("tanh", 0.5502, -1.738)],
)
def test_entropy_falls_at_every_step(activation, entropy, rate):
    """From N(1.2, 0.09): the normal law's rate is twice its gap from the start on, that
    of tanh comes near to twice its gap, 1.75."""
    edges, noise = np.linspace(-6, 6, 401), Noise(0.5)
    law = meanfield.steady_law(-1.0, 0.3, noise, activation=activation).averages(edges)
    start = meanfield.cell_averages(stats.norm(1.2, 0.3).cdf, edges)
    control = line_control(jnp.full(40, -1.0), 0.3, activation=activation)
    settings = {"duration": 4.0, "keep": True}
    found = meanfield.evolve(start, edges, control, noise, steps=10, **settings)
    for divergence in (meanfield.relative_entropy, meanfield.chi_square):
        values = [float(divergence(g, law, edges)) for g in found.history]
        assert (np.diff(values) < 0).all()
    assert float(found.step_diffusion) < 0.05 * 0.125
    smooth = "crank-nicolson"
    found = meanfield.evolve(
        start, edges, control, noise, steps=10, scheme=smooth, **settings
    )
    H = [
        float(meanfield.relative_entropy(found.history[k], law, edges))
        for k in (10, 20, 40)
    ]
    assert H[0] == pytest.approx(entropy, rel=3e-3)
    assert math.log(H[2] / H[1]) / 2 == pytest.approx(rate, rel=5e-3)
    assert found.step_diffusion == 0


@pytest.mark.parametrize(("scheme", "order"), [("implicit", 1), ("crank-nicolson", 2)])
def test_schemes_have_their_order_in_time(scheme, order):
    """Against the normal law that the identity keeps normal."""
    edges, noise = np.linspace(-5, 5, 401), Noise(0.8)
    control = line_control(-1.0, 0.0, activation="identity")
    start = meanfield.cell_averages(stats.norm(1, 0.5).cdf, edges)
    fine = meanfield.evolve(
        start, edges, control, noise, steps=640, scheme="crank-nicolson"
    )
    variance = 0.32 + math.exp(-2) * (0.25 - 0.32)
    exact = meanfield.cell_averages(stats.norm(math.exp(-1), variance**0.5).cdf, edges)
    assert np.abs(fine.density - exact).sum() * 0.025 < 2e-3
    counts, errors = [10, 40], []
    for steps in counts:
        found = meanfield.evolve(
            start, edges, control, noise, steps=steps, scheme=scheme
        )
        errors.append(float(jnp.abs(found.density - fine.density).sum()))
    measured = math.log2(errors[0] / errors[1]) / 2
    assert measured == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize(
    ("activation", "w", "noise", "edges"),
    [
        ("identity", -1.0, Noise(0.5), np.linspace(-5, 5, 801)),
        ("identity", -1.0, Noise(0.8, "root"), np.linspace(0, 12, 801)),
        ("identity", -1.0, Noise(0.5**0.5, "linear"), np.geomspace(0.01, 1e4, 801)),
        ("tanh", -1.0, Noise(0.5), np.linspace(-10, 10, 801)),
        ("tanh", -1.0, Noise(0.8), np.linspace(-10, 10, 801)),
        ("tanh", -2.0, Noise(0.5), np.linspace(-10, 10, 801)),
    ],
)
def test_the_slowest_rate_is_the_gap(activation, w, noise, edges):
    bias = 0.0 if noise.kind == "constant" else 1.0
    rates = meanfield.slowest_rates(edges, w, bias, noise, activation=activation)
    found = meanfield.relaxation(w, noise, activation=activation, count=2)
    assert rates[0] == pytest.approx(found.gap, rel=1.5e-3)
    for rate, expected in zip(rates, found.rates, strict=False):
        assert rate == pytest.approx(expected, rel=2e-3)


def test_the_gap_of_tanh_has_a_transition():
    """At kappa^2 |w| = 1: value 1/2, and slope -1/2 in kappa^2 from both sides."""

    def gap(square, w=-1.0):
        return meanfield.relaxation(w, Noise(square**0.5)).gap

    assert gap(1.0) == pytest.approx(0.5)
    for side in (-1e-4, 1e-4):
        assert (gap(1 + side) - gap(1.0)) / side == pytest.approx(-0.5, abs=1e-3)
    assert gap(0.25) == 0.875
    assert gap(0.25, -2.0) == 1.5
    assert gap(4.0) == 0.125
    beyond = meanfield.relaxation(-1.0, Noise(2.0, "linear"), activation="identity")
    assert (beyond.rates, beyond.gap) == ((), pytest.approx(9 / 8))


def test_a_singular_law_is_kept_by_its_averages():
    edges, noise = np.linspace(0, 6, 301), Noise(0.8, "root")  # 2b < kappa^2
    law = meanfield.steady_law(-1.0, 0.1, noise, activation="identity")
    averages = law.averages(edges)
    control = line_control(-1.0, 0.1, activation="identity")
    found = meanfield.evolve(
        averages, edges, control, noise, steps=50, averages=averages
    )
    np.testing.assert_allclose(found.density, averages, rtol=1e-11)
    middles = meanfield.evolve(averages, edges, control, noise, steps=50)
    assert np.abs(middles.density - averages).sum() * 0.02 > 0.1


@pytest.mark.parametrize("activation", ["identity", "tanh", "sigmoid", "relu", "gelu"])
def test_increments_of_the_steady_law_are_integrals(activation):
    """Against a fine sum, over a cell in which the ReLU has its corner."""
    sigma = line_control(0.0, 0.0, activation=activation).activation
    for kind, low, high in (
        ("constant", -0.9, 0.4),
        ("root", 0.5, 0.8),
        ("linear", 0.5, 0.8),
    ):
        noise = Noise(0.7, kind)
        for w in (-1.3, 1e-9):
            x = jnp.asarray(low + (high - low) * (np.arange(4000) + 0.5) / 4000)
            D, slope = jax.vmap(jax.value_and_grad(noise.diffusion))(x)
            expected = (high - low) * ((sigma(w * x - 0.1) - slope) / D).mean()
            ends = jnp.asarray(low), jnp.asarray(high)
            found = meanfield.log_ratio(
                *ends, jnp.asarray(w), jnp.asarray(-0.1), noise, activation
            )
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_gradient_goes_through_every_step():
    edges, noise = np.linspace(-6, 6, 101), 0.6
    start, target = (
        jnp.asarray(meanfield.cell_averages(stats.norm(*law).cdf, edges))
        for law in ((0, 1), (0.5, 0.6))
    )

    @jax.jit
    def loss(theta):
        w, b, log_kappa = theta
        noise = Noise(jnp.exp(log_kappa))
        found = meanfield.evolve(start, edges, line_control(w, b), noise, steps=10)
        return meanfield.relative_entropy(target, found.density, edges)

    theta = jnp.asarray([-1.3, 0.4, math.log(noise)])
    gradient = jax.grad(loss)(theta)
    shifts = 1e-5 * jnp.eye(3)
    differences = [(loss(theta + s) - loss(theta - s)) / 2e-5 for s in shifts]
    np.testing.assert_allclose(gradient, jnp.stack(differences), rtol=1e-7)


def test_walls_that_hold_mass_are_noticed():
    edges = np.linspace(-2, 2, 101)
    start = meanfield.cell_averages(stats.norm(0, 0.4).cdf, edges)
    wide = meanfield.evolve(start, edges, line_control(0.0, 0.0), Noise(3.0), steps=10)
    with pytest.raises(ValueError, match=r"mass 0\.0\d+ is in the cells at its ends"):
        wide.require_inside()
    calm = meanfield.evolve(start, edges, line_control(-1.0, 0.0), Noise(0.4), steps=10)
    assert calm.require_inside(1e-4) is calm


def test_single_precision_serves_densities():
    edges = np.linspace(-6, 6, 201)
    start = meanfield.cell_averages(stats.norm(0.5, 0.5).cdf, edges)
    control = line_control(-1.0, 0.3)
    double = meanfield.evolve(start, edges, control, Noise(0.5), steps=50).density
    upwind = meanfield.transport(start, edges, control, order=2).density
    with jax.enable_x64(False):
        control = line_control(-1.0, 0.3)
        single = meanfield.evolve(start, edges, control, Noise(0.5), steps=50)
        moved = meanfield.transport(start, edges, control, order=2)
    assert single.density.dtype == moved.density.dtype == "float32"
    assert abs(single.defect) < 1e-5
    np.testing.assert_allclose(single.density, double, atol=1e-5)
    np.testing.assert_allclose(moved.density, upwind, atol=1e-4)


# ------------------------------------------------------------------------ bad input

EDGES, FLAT = np.linspace(-1, 1, 5), np.full(4, 0.5)
CONTROL = line_control(-1.0, 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.line_control([1.0, 2.0], [1.0, 2.0, 3.0]), "rows of one length"),
        (lambda m: m.line_control(np.nan, 1.0), "holds NaN"),
        (lambda m: m.Noise(0.0), "kappa must be positive and finite: got 0.0"),
        (lambda m: m.Noise(1.0, "cubic"), "unknown kind of noise 'cubic'"),
        (lambda m: m.growth_bounds(np.ones((2, 3))), "weight must be square"),
        (lambda m: m.flow(CLOUD, CONTROL), "acts in 1 dimensions, the state in 2"),
        (lambda m: m.flow(CLOUD[:, :0], PLANE), "x is empty"),
        (lambda m: m.flow(CLOUD, OneLayer(W)), r"weight \(pieces, d, d\)"),
        (lambda m: m.transport(FLAT, EDGES, PLANE), "acts in 2 dimensions"),
        (lambda m: m.transport(-FLAT, EDGES, CONTROL), "negative: its least .* -0.5"),
        (lambda m: m.transport(FLAT, -EDGES, CONTROL), "edges must increase"),
        (lambda m: m.transport(FLAT[:3], EDGES, CONTROL), r"density must have shape"),
        (lambda m: m.transport(FLAT, EDGES, CONTROL, order=3), "unknown order"),
        (lambda m: m.transport(FLAT, EDGES**3, CONTROL), "equal cells"),
        (lambda m: m.evolve(FLAT, EDGES, CONTROL, Noise(1.0, "root"), steps=1), "at 0"),
        (lambda m: m.evolve(FLAT, EDGES, CONTROL, Noise([1, 2]), steps=1), "1 entries"),
        (
            lambda m: m.evolve(FLAT, EDGES, CONTROL, Noise(1.0), steps=0),
            "steps must be",
        ),
        (
            lambda m: m.evolve(FLAT, EDGES, CONTROL, Noise(1.0), steps=1, scheme="x"),
            "unknown scheme",
        ),
        (
            lambda m: m.characteristic(1.0, 1.0, 1.0, 1.0, activation="gelu"),
            "known: id",
        ),
        (lambda m: m.policy_bias("energy", [1.0, 0.0, 1.0], 1.0), "mean 0"),
        (lambda m: m.linear_moments([1.0, 0.0], 1.0, 1.0, 1.0), "m_0 > 0, m_1, m_2"),
        (lambda m: m.steady_law(1.0, 0.0, Noise(1.0)), "variance grows for ever"),
        (
            lambda m: m.steady_law(-1.0, 0.0, Noise(1.0), activation="relu"),
            "only drifts to the right",
        ),
        (
            lambda m: m.steady_law(-1.0, 0.0, Noise(1.0, "root")),
            "no closed form is known",
        ),
        (
            lambda m: m.steady_law(
                -1.0, 0.0, Noise(1.0, "root"), activation="identity"
            ),
            "all mass goes to 0",
        ),
        (
            lambda m: m.steady_law(
                -1.0, -1.0, Noise(1.0, "linear"), activation="identity"
            ),
            "settles on x < 0",
        ),
        (
            lambda m: m.steady_law(
                -1.0, -1.0, Noise(1.0, "root"), activation="identity"
            ),
            "leaves the domain",
        ),
        (lambda m: m.relaxation(0.0, Noise(1.0)), "weight must be negative"),
    ],
)
def test_what_means_nothing_is_refused(call, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        call(meanfield)


def test_a_mass_that_is_not_one_is_mentioned():
    with pytest.warns(UserWarning, match="the density has mass 0.5, not 1"):
        meanfield.transport(FLAT / 2, EDGES, CONTROL)


def test_whole_numbers_do_not_wrap_around(as_in_use):
    left, right = jnp.array(100, jnp.uint8), jnp.array(200, jnp.uint8)
    assert float(steady.mean_activation(left, right, "identity")) == 150
    noise = meanfield.Noise(1.0)
    w, b = jnp.array(-1), jnp.array(0)
    found = steady.log_ratio(left, right, w, b, noise, "identity")
    assert float(found) == 100**2 - 200**2
    assert float(meanfield.Noise(1.0, "linear").diffusion(right)) == 200**2 / 2


def test_noise_and_steady_laws_know_where_they_are_defined(as_in_use):
    root = meanfield.Noise(1.0, "root")
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(root.diffusion(x), root.factor(x) ** 2 / 2)
    zero, one = jnp.zeros(()), jnp.ones(())
    with pytest.raises(ValueError, match="left must be positive: the noise is root"):
        steady.log_ratio(zero, one, -one, one, root, "identity")


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_what_stands_still_does_so_for_any_time(activation, as_in_use):
    x = jnp.array([-1.0, 0.0, 1.0])
    far = meanfield.characteristic(x, 800.0, 1.0, 0.0, activation=activation)
    assert far[1:].tolist() == [0, np.inf]
    assert far[0] == (-1 if activation == "relu" else -jnp.inf)
    for time, slope in ((1.0, np.e), (800.0, np.inf)):
        found = jax.grad(
            lambda z, t=time: meanfield.characteristic(
                z, t, 1.0, 0.0, activation="identity"
            )
        )(0.0)
        assert float(found) == pytest.approx(slope)
    with pytest.raises(ValueError, match="product is beyond 700"):
        meanfield.characteristic(x, 701.0, 1.0, 0.0)
