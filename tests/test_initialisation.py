"""Laws of the weights as functions of depth."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import assert_mean

from deeplimits import initialisation as init
from deeplimits.checks import require_finite
from deeplimits.variation import regularity


def test_tied_layers_are_equal_and_independent_ones_are_not():
    tied = init.tied(5, (2, 3), std=2.0, key=jr.key(0))
    assert tied.shape == (5, 2, 3)
    assert float(jnp.ptp(tied, axis=0).max()) == 0
    samples = init.independent(2000, (2, 3), std=2.0, key=jr.key(1))
    assert_mean(samples.ravel() ** 2, 4.0)
    assert_mean((samples[1:] * samples[:-1]).ravel(), 0.0)


def test_numbers_are_those_of_jax():
    """They are drawn flat, for the compiler's sake."""
    key = jr.key(1)
    found, bound = init.independent(5, (2, 3), key=key), (3 / 3) ** 0.5
    np.testing.assert_array_equal(found, jr.normal(key, (5, 2, 3)))
    uniform = jr.uniform(key, (5, 2, 3), minval=-bound, maxval=bound)
    np.testing.assert_array_equal(init.uniform(5, (2, 3), key=key), uniform)


@pytest.mark.parametrize(
    "path",
    [
        init.SmoothPath((2, 3), 0.2, key=jr.key(2)),
        init.LacunaryPath(jnp.ones((2, 3)), 0.5),
    ],
    ids=["smooth", "lacunary"],
)
def test_paths_are_nested_in_depth(path):
    coarse, fine = init.along_path(path, 32), init.along_path(path, 64)
    np.testing.assert_allclose(coarse, fine[::2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("length_scale", [0.05, 0.3, 2.0])
def test_smooth_path_has_exactly_its_covariance(length_scale):
    """The series is linear in its coefficients: its covariance is a product."""
    path = init.SmoothPath((1,), length_scale, key=jr.key(0))
    terms = path.coefficients.shape[0]
    s = jnp.linspace(0, 1, 23)

    def values(coefficients):
        replaced = eqx.tree_at(lambda p: p.coefficients, path, coefficients)
        return jax.vmap(replaced)(s)[:, 0]

    unit = jax.vmap(values)(jnp.eye(terms)[..., None])
    expected = np.exp(-((s[:, None] - s[None]) ** 2) / (2 * length_scale**2))
    np.testing.assert_allclose(unit.T @ unit, expected, atol=1e-12)


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("s", [0.5, 0.3])  # the middle, where u = 0, is delicate
def test_smooth_path_has_its_derivative(s, derivative):
    path, step = init.SmoothPath((2, 3), 0.3, key=jr.key(6)), 1e-5
    ends = path(jnp.asarray(s + step)), path(jnp.asarray(s - step))
    expected = (ends[0] - ends[1]) / (2 * step)
    found = derivative(path)(jnp.asarray(s))
    # the error of a central difference: a third derivative times step squared
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_smooth_increments_are_of_order_one_over_depth():
    path = init.SmoothPath((4,), 0.25, key=jr.key(5))
    gaps = [
        float(jnp.linalg.norm(jnp.diff(init.along_path(path, L), axis=0), axis=1).max())
        for L in (256, 512)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.02)


def test_lacunary_path_is_its_series():
    s = 0.3
    expected = sum(2 ** (-0.5 * j) * np.cos(2 * np.pi * 2**j * s) for j in range(6))
    path = init.LacunaryPath(jnp.asarray([2.0]), 0.5, levels=6)
    np.testing.assert_allclose(path(jnp.asarray(s)), [2 * expected], rtol=1e-10)


def fractional_covariance(depth, hurst):
    n = np.abs(np.arange(depth)[:, None] - np.arange(depth)[None]).astype(float)
    powers = [np.abs(n + shift) ** (2 * hurst) for shift in (-1, 0, 1)]
    return (powers[0] - 2 * powers[1] + powers[2]) / 2


@pytest.mark.parametrize("depth", [1, 2, 37])
@pytest.mark.parametrize("hurst", [0.05, 0.3, 0.5, 0.8, 0.97])
def test_fractional_noise_has_exactly_its_covariance(depth, hurst):
    """The noise is a linear map of white noise, which `unit` takes apart."""
    root = init._circulant_root(depth, hurst)
    unit = np.fft.rfft(np.eye(2 * depth), axis=0) * root[:, None]
    unit = np.fft.irfft(unit, 2 * depth, axis=0)[:depth]
    expected = fractional_covariance(depth, hurst)
    np.testing.assert_allclose(unit @ unit.T, expected, atol=1e-10)
    white = jr.normal(jr.key(9), (2 * depth, 3, 2))
    found = init.fractional_noise(depth, (3, 2), hurst=hurst, key=jr.key(9))
    np.testing.assert_allclose(found, np.tensordot(unit, white, 1), atol=1e-10)


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_coarsened_noise_is_fractional_noise(hurst):
    fine = fractional_covariance(12, hurst)
    rows = jax.vmap(lambda x: init.coarsened(x, 3, hurst=hurst))(jnp.eye(12))
    expected = fractional_covariance(4, hurst)
    np.testing.assert_allclose(rows.T @ fine @ rows, expected, atol=1e-12)


def test_uniform_weights_have_variance_one_over_fan_in():
    samples = init.uniform(500, (4, 5), key=jr.key(10))
    assert float(jnp.abs(samples).max()) <= 0.6**0.5
    assert_mean(samples.ravel() ** 2, 1 / 5)
    assert_mean(samples.ravel(), 0.0)


def test_what_is_finite_is_seen_while_another_function_is_traced():
    still = jnp.asarray([1.0, jnp.nan])

    def traced(x):
        require_finite("argument", x)  # has no values here: nothing to check
        require_finite("constant", still)

    with pytest.raises(ValueError, match="the constant holds NaN"):
        jax.jit(traced)(still)


def test_smooth_increments_have_variance_one_and_share_their_path():
    make = partial(init.smooth_increments, length_scale=0.1, key=jr.key(11))
    assert_mean(make(8, (4000,))[3] ** 2, 1.0)
    coarse, fine = make(8, (3,)), make(16, (3,))
    stds = [np.sqrt(-2 * np.expm1(-50 / L**2)) for L in (8, 16)]
    sums = (fine[::2] + fine[1::2]) * stds[1]
    np.testing.assert_allclose(coarse * stds[0], sums, atol=1e-12)


def test_smooth_increments_stay_smooth_at_any_depth_in_float32():
    with jax.enable_x64(False):
        found = init.smooth_increments(10_321, (20,), length_scale=0.1, key=jr.key(12))
    assert found.dtype == "float32"
    assert regularity(np.asarray(found)).value == pytest.approx(2, abs=0.005)


@pytest.mark.parametrize("depth", [1, 3, 49, 1000])
@pytest.mark.parametrize("kind", [init.PiecewiseConstant, init.PiecewiseLinear])
def test_interpolations_give_the_layers_back(kind, depth, dtype):
    layers = jr.normal(jr.key(8), (depth, 2)).astype(dtype)
    path = kind(layers)
    s = (jnp.arange(depth) / depth).astype(dtype)
    back = jax.vmap(path)(s)
    if kind is init.PiecewiseConstant:
        np.testing.assert_array_equal(back, layers)
    else:  # s = k/L is rounded, so the point lies a rounding beside the node
        atol = 20 * depth * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(back, layers, atol=atol)


def test_interpolations_between_nodes():
    layers = {"w": jnp.asarray([0.0, 1.0, 3.0, 2.0])}
    at = jnp.asarray([0.125, 0.3, 0.5, 0.9, 1.0])
    constant = jax.vmap(init.PiecewiseConstant(layers))(at)["w"]
    linear = jax.vmap(init.PiecewiseLinear(layers))(at)["w"]
    np.testing.assert_allclose(constant, [0, 1, 3, 2, 2])
    np.testing.assert_allclose(linear, [0.5, 1.4, 3, 2, 2], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init.independent(0, (2,), key=jr.key(0)), "depth .* got 0"),
        (lambda: init.tied(2, (2, 0), key=jr.key(0)), r"positive .* got \(2, 0\)"),
        (lambda: init.uniform(2, (), key=jr.key(0)), "fan-in from shape"),
        (lambda: init.tied(2, (2,), std=np.nan, key=jr.key(0)), "std .* got nan"),
        (lambda: init.independent(2, (2,), std=-1.0, key=jr.key(0)), "got -1.0"),
        (lambda: init.SmoothPath((2,), 0.5, std=np.inf, key=jr.key(0)), "got inf"),
        (
            lambda: init.PiecewiseLinear({"a": jnp.ones((2, 1)), "b": jnp.ones(3)}),
            r"one common depth .*\(2,\), \(3,\)",
        ),
        (lambda: init.PiecewiseConstant(jnp.ones((0, 1))), "at least 1"),
        (lambda: init.SmoothPath((2,), 0.0, key=jr.key(0)), "got 0.0"),
        (lambda: init.LacunaryPath(jnp.ones(2), 1.5), "gamma .* got 1.5"),
        (lambda: init.LacunaryPath(jnp.ones(2), 0.5, 130), "at most 100: got 130"),
        (lambda: init.along_path(lambda s: s, -1), "depth .* got -1"),
        (
            lambda: init.fractional_noise(4, (2,), hurst=1.0, key=jr.key(0)),
            "got 1.0",
        ),
        (lambda: init.coarsened(jnp.ones((6, 2)), 4), "depth 6: got 4"),
        (lambda: init.coarsened(jnp.ones((6, 2)), 3, hurst=np.nan), "hurst .* nan"),
        (lambda: init.independent(2.5, (2,), key=jr.key(0)), "depth .* got 2.5"),
        (lambda: init.tied(2, 3, key=jr.key(0)), "sizes, .* got 3"),
        (lambda: init.SmoothPath((2,), 0.5, key=jr.key(0))(jnp.nan), r"s .*\[0, 1\]"),
        (lambda: init.PiecewiseConstant(jnp.ones((4, 1)))(1.5), "s must .* got 1.5"),
        (lambda: init.PiecewiseLinear(jnp.ones(())), r"leading axis: got \[\(\)\]"),
        (lambda: init.LacunaryPath(jnp.ones(2, complex), 0.5), "direction must hold"),
        (lambda: init.along_path(lambda s: 1 / s, 4), "path at depth 4 holds NaN"),
    ],
)
def test_errors(make, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        make()


def test_bytes_are_interpolated_as_the_numbers_they_are(as_in_use):
    path = init.PiecewiseLinear(jnp.array([200, 10, 250], jnp.uint8))
    assert float(path(1 / 6)) == pytest.approx(105)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_depth_time_has_more_digits_than_half_precision(dtype, as_in_use):
    """At 600 layers an eighth of a layer is less than the grid of bfloat16 near 1."""
    steps = init.PiecewiseLinear(jnp.arange(600.0))
    smooth = init.SmoothPath((2,), 0.3, key=jr.key(7))
    for path in (steps, smooth, init.LacunaryPath(jnp.ones(2), 0.5)):
        s = jnp.asarray(0.7031, dtype)
        with jax.numpy_dtype_promotion("standard"):
            found = path(s)
        assert jnp.finfo(found.dtype).bits >= 32
        np.testing.assert_allclose(found, path(float(s)), rtol=1e-4, atol=1e-3)


def test_slack_is_less_than_a_layer():
    path = init.PiecewiseConstant(jnp.arange(10_000_000.0))
    assert abs(float(path(jnp.float32(0.5))) - 5_000_000) <= 1
