"""Measured exponents with intervals, and how weights vary along depth."""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy import stats

from .checks import (
    as_doubles,
    as_singles,
    require_finite,
    require_level,
    require_within,
)
from .intervals import Interval, Kind

HALVED_FROM = 5  # depths: each half of the window then has three of its own


@dataclass(frozen=True, kw_only=True)
class Slope(Interval):
    """A fitted exponent: an `Interval` that knows its line, and where it was fitted.

    `window` is the smallest and the largest $x$ of the fit. Arithmetic makes a plain
    `Interval` of it: minus an exponent has no line.

    ```pycon
    >>> slope = loglog_slope([4, 8, 16, 32, 64], [16, 64, 256, 1024, 4096])
    >>> round(slope.value, 6), len(slope.halves), slope.window
    (2.0, 2, (4.0, 64.0))
    ```
    """

    intercept: float
    window: tuple[float, float]
    halves: "tuple[Slope, ...]" = ()

    def line(self, x: ArrayLike) -> np.ndarray:
        """The fitted power law at positive `x`."""
        x = as_doubles("x", x)
        if not (x > 0).all():
            raise ValueError(f"x must be positive: got {x.tolist()}.")
        return np.exp(self.intercept) * x**self.value


def loglog_slope(
    x: ArrayLike,
    y: ArrayLike,
    *,
    window: tuple[float, float] | None = None,
    level: float = 0.95,
) -> Slope:
    r"""The least-squares exponent $p$ of $y \approx c\,x^p$, with an interval.

    For one series `y` the interval is that of the regression, from its residuals; for
    repeats, `y` of shape `(repeats, points)`, it is Student's interval of the repeats'
    own slopes, over seeds. Only the points with `window[0] <= x <= window[1]` are used.

    A slope alone does not say whether there is a line. From five different x on,
    `halves` are the slopes of the lower and of the upper half of them. These share the
    middle one; of an even number, the lower of the two in the middle, so that the upper
    half, nearer to the limit, has one more.

    Raises `ValueError` for values that are not positive and finite, and for fewer than
    three different x.

    ```pycon
    >>> depths = [4, 8, 16, 32, 64]
    >>> f"{loglog_slope(depths, [3 / L for L in depths]):.2f}"
    '-1.00 [-1.00, -1.00]'
    ```
    """
    require_level(level)
    x, y = as_doubles("x", x), as_doubles("y", y)
    if x.ndim != 1 or y.shape[-1:] != x.shape or y.ndim > 2:
        raise ValueError(f"x must be (n,) and y (n,) or (m, n): {x.shape}, {y.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("a log-log slope needs positive, finite values: x is not.")
    window = (-np.inf, np.inf) if window is None else window
    low, high = as_doubles("window", window, shape=(2,))
    inside = (x >= low) & (x <= high)
    x, y = x[inside], y[..., inside]
    if (different := np.unique(x).size) < 3:
        raise ValueError(
            f"a slope needs three different x: {different} lie in {window=}."
        )
    for name, values in (("x", x), ("y", y)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(
                f"a log-log slope needs positive, finite values: {name} is not."
            )
    slope = _fit(x, y, level)
    if different < HALVED_FROM:
        return slope
    middle = np.unique(x)[(different - 1) // 2]
    lower, upper = (
        _fit(x[part], y[..., part], level) for part in (x <= middle, x >= middle)
    )
    return replace(slope, halves=(lower, upper))


def _fit(x: np.ndarray, y: np.ndarray, level: float) -> Slope:
    window = float(x.min()), float(x.max())
    x, y = np.log(x), np.log(y)
    fits = np.array([np.polyfit(x, row, 1) for row in np.atleast_2d(y)])
    value, intercept = fits.mean(0)
    if y.ndim == 2:
        if len(fits) < 2:
            raise ValueError("repeats need at least two rows.")
        error = stats.sem(fits[:, 0])
        freedom, kind = len(fits) - 1, Kind.SEEDS
    else:
        # from the residuals: by way of the correlation it would be NaN on a level curve
        freedom, kind = len(x) - 2, Kind.RESIDUALS
        variance = np.sum((y - np.polyval(fits[0], x)) ** 2) / freedom
        error = np.sqrt(variance / np.sum((x - x.mean()) ** 2))
    numbers = _student(value, error, freedom, level)
    return Slope(*numbers, kind, intercept=float(intercept), window=window)


def _student(
    value: float, error: float, freedom: int, level: float
) -> tuple[float, float, float]:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return value, value - half, value + half


def mean_interval(samples: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of independent samples and Student's interval, over seeds.

    ```pycon
    >>> f"{mean_interval([1.0, 2.0, 3.0]):.3f}"
    '2.000 [-0.484, 4.484]'
    ```
    """
    require_level(level)
    samples = as_doubles("samples", samples)
    if samples.ndim != 1 or samples.size < 2 or not np.isfinite(samples).all():
        raise ValueError(
            f"samples must be two or more finite numbers in a row: {samples.shape}."
        )
    error = stats.sem(samples)
    return Interval(
        *_student(samples.mean(), error, samples.size - 1, level), Kind.SEEDS
    )


def _flat(
    weights: Float[Array | np.ndarray, "depth ..."],
) -> Float[Array | np.ndarray, "depth entries"]:
    own = isinstance(weights, np.ndarray) and weights.dtype.kind == "f"
    if own and not np.ma.is_masked(weights):
        coarse = weights.dtype.itemsize < 4
        weights = weights.astype(np.float32) if coarse else np.asarray(weights)
    else:
        weights = as_singles("weights", weights)
    if weights.ndim < 1 or weights.shape[0] < 2:
        raise ValueError(
            f"weights need two or more layers on the first axis: {weights.shape}."
        )
    require_finite("weights", weights)
    return weights.reshape(weights.shape[0], -1)


def successive_distances(weights: Float[Array, "depth ..."]) -> Float[Array, " gaps"]:
    r"""$\|Z_{k+1} - Z_k\|_F$ for the neighbouring layers $k = 1, \dots, L - 1$.

    ```pycon
    >>> successive_distances(jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])).tolist()
    [5.0, 0.0]
    ```
    """
    return _gaps(_flat(weights))


def _gaps(rows: Float[Array | np.ndarray, "depth entries"]) -> Float[Array, " gaps"]:
    return jnp.linalg.norm(jnp.diff(rows, axis=0), axis=1)


def scaling_norms(weights: Float[Array | np.ndarray, "depth ..."]) -> dict[str, Any]:
    r"""The four norms whose exponents in depth `cohen2021` reads together:

    $$ \max_k \|Z_k\|_F, \quad \max_k \|Z_{k+1} - Z_k\|_F, \quad
       \Bigl\|\sum_k Z_k\Bigr\|_F, \quad \Bigl(\sum_k \|Z_k\|_F^2\Bigr)^{1/2}. $$

    Of an array of NumPy in its own precision, whatever JAX computes in.

    ```pycon
    >>> norms = scaling_norms(jnp.ones((10, 3)))
    >>> sorted(norms)
    ['increment', 'max', 'root_squares', 'sum']
    ```
    """
    rows = _flat(weights)
    xp = rows.__array_namespace__()
    sizes = xp.linalg.norm(rows, axis=1)
    return {
        "max": sizes.max(),
        "increment": xp.linalg.norm(xp.diff(rows, axis=0), axis=1).max(),
        "sum": xp.linalg.norm(rows.sum(0)),
        "root_squares": xp.sqrt(xp.sum(sizes**2)),
    }


def trend_and_noise(
    weights: Float[Array, "depth ..."], window: float = 0.1
) -> tuple[Float[Array, "depth ..."], Float[Array, "depth ..."]]:
    r"""The moving average of the weights along depth, and what it leaves over.

    Layer $k$ is averaged over the layers $j$ with $|j - k| \le r_k$, where $r_k$ is
    half of `window` times the depth, at least 1, and no more than reaches the nearer
    end: a straight line is all trend. Raises `ValueError` for a window outside
    $(0, 1]$.

    ```pycon
    >>> trend, noise = trend_and_noise(jnp.array([0.0, 1.0, 2.0, 6.0, 1.0]))
    >>> trend.tolist(), noise.tolist()
    ([0.0, 1.0, 3.0, 3.0, 1.0], [0.0, 0.0, -1.0, 3.0, 0.0])
    ```
    """
    require_within("(0, 1]", window=window)
    rows = jnp.asarray(_flat(weights))
    depth = rows.shape[0]
    k = np.arange(depth)
    reach = np.minimum(max(1, int(window * depth / 2)), np.minimum(k, depth - 1 - k))
    # Sums lose the digits of what all layers share: first the first layer goes, so that
    # of equal layers nothing is left, and then the mean, which it may be far from.
    apart = rows - rows[:1]
    apart, middle = apart - (mean := apart.mean(0, keepdims=True)), rows[:1] + mean
    sums = jnp.cumsum(jnp.pad(apart, ((1, 0), (0, 0))), axis=0)
    counts = jnp.asarray(2 * reach + 1, rows.dtype)[:, None]
    trend = (sums[k + reach + 1] - sums[k - reach]) / counts
    shape = np.shape(weights)
    return (middle + trend).reshape(shape), (apart - trend).reshape(shape)
