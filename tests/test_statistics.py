"""Laws of the measurements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deeplimits import statistics, variation
from deeplimits.intervals import Interval, Kind


def test_slope_of_an_exact_power_law():
    x = np.array([2.0, 5.0, 9.0, 30.0])
    slope = statistics.loglog_slope(x, 3 * x**-1.5)
    assert slope.value == pytest.approx(-1.5, abs=1e-12)
    assert slope.high - slope.low < 1e-6
    np.testing.assert_allclose(slope.line(x), 3 * x**-1.5)


def test_window_keeps_what_lies_inside():
    x = np.array([1.0, 10.0, 20.0, 40.0, 80.0])
    y = np.where(x > 5, x**-1.0, 100.0)
    assert statistics.loglog_slope(x, y, window=(5.0, 80.0)).value == pytest.approx(-1)


@pytest.mark.parametrize("repeats", [1, 6])
def test_interval_covers_the_truth_as_often_as_it_says(repeats):
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(6)
    hits = 0
    for _ in range(400):
        y = x**-0.5 * np.exp(0.1 * rng.normal(size=(repeats, 6)))
        slope = statistics.loglog_slope(x, y[0] if repeats == 1 else y, level=0.9)
        hits += -0.5 in slope
    # 400 trials of probability 0.9: five standard errors are 0.075
    assert abs(hits / 400 - 0.9) < 0.075


def test_intervals_of_slopes_are_those_of_scipy():
    rng = np.random.default_rng(3)
    x = 2.0 ** np.arange(4)
    y = x**-0.5 * np.exp(rng.normal(size=(5, 4)))
    fit = stats.linregress(np.log(x), np.log(y[0]))
    half = stats.t.ppf(0.975, 2) * fit.stderr
    expected = fit.slope, fit.slope - half, fit.slope + half
    np.testing.assert_allclose(statistics.loglog_slope(x, y[0]).numbers, expected)
    slopes = [stats.linregress(np.log(x), np.log(row)).slope for row in y]
    expected = stats.t.interval(0.95, 4, np.mean(slopes), stats.sem(slopes))
    found = statistics.loglog_slope(x, y)
    np.testing.assert_allclose((found.low, found.high), expected)


def test_mean_interval_is_students():
    samples = np.array([1.0, 2.0, 4.0])
    mean = statistics.mean_interval(samples)
    expected = stats.t.interval(0.95, 2, np.mean(samples), stats.sem(samples))
    np.testing.assert_allclose(mean.numbers, (np.mean(samples), *expected))
    assert mean.kind == Kind.SEEDS


def test_a_slope_says_what_its_interval_is():
    x = np.array([2.0, 5.0, 9.0, 30.0])
    assert statistics.loglog_slope(x, 1 / x).kind == Kind.RESIDUALS
    repeats = np.stack([1 / x, 2 / x**1.1])
    assert statistics.loglog_slope(x, repeats).kind == Kind.SEEDS


def test_the_interval_of_one_curve_is_that_of_the_regression():
    x, y = np.random.default_rng(0).uniform(1, 9, (2, 4))
    fit = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, 2) * fit.stderr
    expected = (fit.slope, fit.slope - half, fit.slope + half)
    found = statistics.loglog_slope(x, y)
    np.testing.assert_allclose(found.numbers, expected, rtol=1e-10)
    np.testing.assert_allclose(found.intercept, fit.intercept, rtol=1e-10)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_halves_of_a_power_law_have_its_slope(repeats):
    x = np.geomspace(3.0, 700.0, 9)
    sizes = np.arange(1.0, 1.0 + repeats)[:, None]
    y = sizes * x**-0.7
    slope = statistics.loglog_slope(x, y[0] if repeats == 1 else y)
    for half in slope.halves:
        assert half.value == pytest.approx(-0.7, abs=1e-12)
        assert half.kind == slope.kind
        np.testing.assert_allclose(half.line(x), np.exp(np.log(y).mean(0)))


@pytest.mark.parametrize(
    ("count", "lower", "upper"), [(5, 3, 3), (6, 3, 4), (7, 4, 4), (8, 4, 5)]
)
def test_the_halves_share_the_middle_depth(count, lower, upper):
    """Of an even number the lower of the two in the middle. The curve is a zigzag, so
    that a point more or less changes each slope; given in another order, and beside
    points that the window leaves out, it has the same ones."""
    x = 2.0 ** np.arange(count + 2)
    y = 1 / x * np.where(np.arange(count + 2) % 2, 1.3, 1.0)
    order = np.random.default_rng(0).permutation(count + 2)
    window = (x[1], x[-2])
    found = statistics.loglog_slope(x[order], y[order], window=window).halves
    for half, part in zip(
        found, (slice(1, 1 + lower), slice(-1 - upper, -1)), strict=True
    ):
        alone = statistics.loglog_slope(x[part], y[part])
        np.testing.assert_allclose(half.numbers, alone.numbers)
        assert half.window == (x[part][0], x[part][-1])
    assert found[0].window[1] == found[1].window[0]


def test_the_halves_of_a_kinked_curve_are_its_two_slopes():
    """y = 1/x to x = 16, then level at 1/16. By hand, in powers of two from 1 to 256:
    the values fall by 4 to the middle of the nine and stay there; the whole has slope
    -(sum of k y_k)/60 = -30/60 with k = -4, ..., 4 and y_k = min(0, k)."""
    x = 2.0 ** np.arange(9)
    slope = statistics.loglog_slope(x, np.maximum(1 / x, 1 / 16))
    assert slope.value == pytest.approx(-0.5, abs=1e-12)
    for half, expected in zip(slope.halves, (-1, 0), strict=True):
        np.testing.assert_allclose(half.numbers, expected, atol=1e-12)


@pytest.mark.parametrize("window", [None, (2.0, 16.0)])
def test_fewer_than_five_depths_have_no_halves(window):
    """Points at the same depth count as one."""
    x = np.array([2.0, 2.0, 4.0, 8.0, 16.0])
    x = x if window is None else np.append(x, 32.0)
    assert statistics.loglog_slope(x, 1 / x, window=window).halves == ()


def test_minus_a_slope_is_an_interval_of_the_opposite_exponent():
    x = 2.0 ** np.arange(7)
    y = x**-0.5 * np.exp(0.1 * np.random.default_rng(1).normal(size=(4, 7)))
    slope, opposite = (statistics.loglog_slope(x, z) for z in (y, 1 / y))
    for found, expected in zip(
        (-slope, *(-slope).halves), (opposite, *opposite.halves), strict=True
    ):
        assert type(found) is Interval
        np.testing.assert_allclose(found.numbers, expected.numbers, rtol=1e-9)


def test_successive_distances_of_a_line(dtype):
    direction = jnp.asarray([[3.0, 0.0], [0.0, 4.0]], dtype)
    weights = jnp.arange(5, dtype=dtype)[:, None, None] / 5 * direction[None]
    distances = statistics.successive_distances(weights)
    np.testing.assert_allclose(distances, np.full(4, 1.0), rtol=1e-5)


def test_whole_weights_have_the_norms_of_floats(as_in_use):
    """An int8 squared overflows at twelve."""
    whole = np.random.default_rng(2).integers(-128, 128, (9, 30)).astype("int8")
    exact = jnp.asarray(whole, float)
    for function in (statistics.scaling_norms, statistics.trend_and_noise):
        found, expected = function(whole), function(exact)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    distances = statistics.successive_distances
    np.testing.assert_array_equal(distances(whole), distances(exact))
    found, expected = (variation.regularity(np.asarray(z)) for z in (whole, exact))
    assert found == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.loglog_slope([1, 2, 4], [1, 0, 2]), "positive, finite"),
        (
            lambda: statistics.loglog_slope([1, 2, 4], [1, np.nan, 2]),
            "positive, finite",
        ),
        (lambda: statistics.loglog_slope([1, 2], [1, 2]), "three different x: 2"),
        (
            lambda: statistics.loglog_slope([1, 1, 1, 2, 2], np.ones(5)),
            "three different x: 2 lie",
        ),
        (lambda: statistics.loglog_slope([1, 2, np.nan, 4], np.ones(4)), "x is not"),
        (
            lambda: statistics.loglog_slope([1, 2, 4], [1, 2, 3], level=95),
            r"level must lie in \(0, 1\): got 95",
        ),
        (lambda: statistics.mean_interval([1.0, 2.0], level=1.0), "level must lie"),
        (
            lambda: variation.regularity(np.ones((16, 2)), level=0.0),
            "level must lie",
        ),
        (
            lambda: variation.variogram(np.ones((8, 2)), [1, 5]),
            "a lag between 1 and 4 in 8 layers: got 5",
        ),
        (
            lambda: variation.regularity(np.ones((16, 2)), order=0),
            "order must be a whole number of at least 1: got 0",
        ),
        (lambda: variation.regularity(np.ones((16, 2)), lags=[2]), "lags must be two"),
        (
            lambda: variation.regularity(np.ones((16, 2)) * 1j),
            "weights must hold real numbers: got complex128",
        ),
        (
            lambda: statistics.loglog_slope([1, 2, 4], [1j, 2, 3]),
            "y must hold real numbers: got complex128",
        ),
        (lambda: statistics.mean_interval(["1", "2"]), "samples must hold real"),
        (
            lambda: statistics.loglog_slope([1, 2, 4], [1, 2, 3], window=2),
            "window must",
        ),
        (lambda: statistics.loglog_slope([1, 2, 4], [1, 2]), r"\(3,\), \(2,\)"),
        (lambda: statistics.loglog_slope([1, 2, 4], np.ones((1, 3))), "two rows"),
        (lambda: statistics.mean_interval([1.0]), "two or more"),
        (lambda: statistics.successive_distances(jnp.ones((1, 2))), r"\(1, 2\)"),
        (
            lambda: statistics.successive_distances(jnp.asarray([1.0, jnp.nan])),
            "weights holds NaN",
        ),
    ],
)
def test_errors(call, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_trend_of_thousands_of_equal_layers_is_the_layer(dtype):
    """Sums along depth need more digits than half precision has."""
    trend, noise = statistics.trend_and_noise(jnp.ones((4000, 1), dtype))
    np.testing.assert_allclose(np.asarray(trend, float), 1, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(noise, float), 0, atol=1e-5)


@pytest.mark.parametrize("first", [0.75, 100.0, 1e4])
def test_a_trend_has_the_digits_of_its_precision(first, as_in_use):
    """A first layer far from the others, or a common part, takes none of them away."""
    noise = np.random.default_rng(5).standard_normal((4000, 1))
    layers = np.where(np.arange(4000)[:, None] > 0, noise + 5, first)
    exact = np.asarray(statistics.trend_and_noise(jnp.asarray(layers))[0])
    single = statistics.trend_and_noise(jnp.asarray(layers, jnp.float32))[0]
    assert abs(np.asarray(single, float) - exact)[1500:].max() < 1e-6 * max(5, first)


def test_a_mask_is_not_dropped(as_in_use):
    masked = np.ma.masked_array([1.0, 2.0, 1e9], [False, False, True])
    with pytest.raises(ValueError, match="samples must not be masked"):
        statistics.mean_interval(masked)
    for measure in (statistics.scaling_norms, statistics.trend_and_noise):
        with pytest.raises(ValueError, match="weights must not be masked"):
            measure(masked[:, None])
    whole = statistics.mean_interval(np.ma.masked_array([1.0, 2.0, 3.0]))
    assert whole.value == 2


def test_equal_layers_leave_no_noise(as_in_use):
    trend, noise = statistics.trend_and_noise(jnp.full((4000, 2), 0.1))
    np.testing.assert_array_equal(trend, jnp.full((4000, 2), 0.1))
    assert float(jnp.abs(noise).max()) == 0


@pytest.mark.parametrize("convert", [jnp.asarray, np.asarray])
def test_norms_of_half_precision_do_not_overflow(convert, as_in_use):
    """The squares of 300 are beyond float16; their root is not."""
    weights = convert(np.full((4, 9), 300, np.float16))
    norms = statistics.scaling_norms(weights)
    assert {name: float(norm) for name, norm in norms.items()} == {
        "max": 900.0,
        "increment": 0.0,
        "sum": 3600.0,
        "root_squares": 1800.0,
    }
    assert statistics.successive_distances(weights).tolist() == [0, 0, 0]
