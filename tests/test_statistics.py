"""Laws of the measurements."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from deeplimits import statistics, variation


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
        hits += slope.low <= -0.5 <= slope.high
    # 400 trials of probability 0.9: five standard errors are 0.075
    assert abs(hits / 400 - 0.9) < 0.075


def test_mean_interval_is_students():
    samples = np.array([1.0, 2.0, 4.0])
    mean, low, high = statistics.mean_interval(samples)
    expected = stats.t.interval(0.95, 2, mean, stats.sem(samples))
    np.testing.assert_allclose((low, high), expected)


def test_successive_distances_of_a_line(dtype):
    direction = jnp.asarray([[3.0, 0.0], [0.0, 4.0]], dtype)
    weights = jnp.arange(5, dtype=dtype)[:, None, None] / 5 * direction[None]
    distances = statistics.successive_distances(weights)
    np.testing.assert_allclose(distances, np.full(4, 1.0), rtol=1e-5)
    rss = statistics.root_sum_of_squares(distances)
    assert float(rss) == pytest.approx(2.0, rel=1e-5)


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
            "level must lie strictly between 0 and 1: got 95",
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
