"""Measured exponents with intervals, and how weights vary along depth."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy import stats

from .checks import require_finite, require_level


class Slope(NamedTuple):
    """A fitted exponent, its confidence interval, and the intercept of the fit."""

    value: float
    low: float
    high: float
    intercept: float

    def line(self, x: ArrayLike) -> np.ndarray:
        """The fitted power law at `x`."""
        return np.exp(self.intercept) * np.asarray(x, float) ** self.value


def loglog_slope(
    x: ArrayLike,
    y: ArrayLike,
    *,
    window: tuple[float, float] | None = None,
    level: float = 0.95,
) -> Slope:
    r"""The least-squares exponent $p$ of $y \approx c\,x^p$, with an interval.

    For one series `y` the interval is that of the regression; for repeats, `y` of
    shape `(repeats, points)`, it is Student's interval of the repeats' own slopes.
    Only the points with `window[0] <= x <= window[1]` are used. Raises `ValueError`
    for values that are not positive and finite, and for fewer than three different x.
    """
    require_level(level)
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or y.shape[-1:] != x.shape or y.ndim > 2:
        raise ValueError(f"x must be (n,) and y (n,) or (m, n): {x.shape}, {y.shape}.")
    if not np.isfinite(x).all():
        raise ValueError("a log-log slope needs positive, finite values: x is not.")
    low, high = (-np.inf, np.inf) if window is None else window
    inside = (x >= low) & (x <= high)
    x, y = x[inside], y[..., inside]
    if (different := np.unique(x).size) < 3:
        raise ValueError(
            f"a slope needs three different x: {different} lie in {window=}."
        )
    if not (np.isfinite(y).all() and (y > 0).all() and (x > 0).all()):
        raise ValueError("a log-log slope needs positive, finite values.")
    return _fit(np.log(x), np.log(y), level)


def _fit(x: np.ndarray, y: np.ndarray, level: float) -> Slope:
    if y.ndim == 2:
        fits = np.array([np.polyfit(x, row, 1) for row in y])
        if len(fits) < 2:
            raise ValueError("repeats need at least two rows.")
        (value, intercept), error = fits.mean(0), stats.sem(fits[:, 0])
        freedom = len(fits) - 1
    else:
        # in this order: slope, intercept, correlation, p-value, standard error
        value, intercept, _, _, error = np.array(stats.linregress(x, y), float)
        freedom = len(x) - 2
    half = stats.t.ppf((1 + level) / 2, freedom) * error
    return Slope(
        float(value), float(value - half), float(value + half), float(intercept)
    )


def mean_interval(
    samples: ArrayLike, *, level: float = 0.95
) -> tuple[float, float, float]:
    """The mean of independent samples and Student's interval: `(mean, low, high)`."""
    require_level(level)
    samples = np.asarray(samples, float)
    if samples.ndim != 1 or samples.size < 2 or not np.isfinite(samples).all():
        raise ValueError(
            f"an interval needs two or more finite samples in a row: {samples.shape}."
        )
    half = stats.t.ppf((1 + level) / 2, samples.size - 1) * stats.sem(samples)
    return samples.mean(), samples.mean() - half, samples.mean() + half


def _flat(weights: Float[Array, "depth ..."]) -> Float[Array, "depth entries"]:
    if weights.ndim < 1 or weights.shape[0] < 2:
        raise ValueError(f"need two or more layers on the first axis: {weights.shape}.")
    require_finite("weights", weights)
    return weights.reshape(weights.shape[0], -1)


def successive_distances(weights: Float[Array, "depth ..."]) -> Float[Array, " gaps"]:
    r"""$\|Z_{k+1} - Z_k\|_F$ for the neighbouring layers $k = 1, \dots, L - 1$."""
    return jnp.linalg.norm(jnp.diff(_flat(weights), axis=0), axis=1)


def root_sum_of_squares(distances: Float[Array, " gaps"]) -> Float[Array, ""]:
    r"""$(\sum_k d_k^2)^{1/2}$: of order $L^{-1/2}$ where every $d_k \sim 1/L$."""
    return jnp.sqrt(jnp.sum(distances**2))


def scaling_norms(weights: Float[Array, "depth ..."]) -> dict[str, Float[Array, ""]]:
    r"""The four norms whose exponents in depth `cohen2021` reads together:

    $$ \max_k \|Z_k\|_F, \quad \max_k \|Z_{k+1} - Z_k\|_F, \quad
       \Bigl\|\sum_k Z_k\Bigr\|_F, \quad \Bigl(\sum_k \|Z_k\|_F^2\Bigr)^{1/2}. $$
    """
    rows = _flat(weights)
    sizes = jnp.linalg.norm(rows, axis=1)
    return {
        "max": sizes.max(),
        "increment": successive_distances(weights).max(),
        "sum": jnp.linalg.norm(rows.sum(0)),
        "root_squares": root_sum_of_squares(sizes),
    }


def trend_and_noise(
    weights: Float[Array, "depth ..."], window: float = 0.1
) -> tuple[Float[Array, "depth ..."], Float[Array, "depth ..."]]:
    r"""The moving average of the weights along depth, and what it leaves over.

    Layer $k$ is averaged over the layers $j$ with $|j - k| \le r_k$, where $r_k$ is
    half of `window` times the depth, at least 1, and no more than reaches the nearer
    end: a straight line is all trend. Raises `ValueError` for a window outside
    $(0, 1]$.
    """
    if not 0 < window <= 1:
        raise ValueError(f"window must lie in (0, 1]: got {window}.")
    rows = _flat(weights)
    depth = rows.shape[0]
    k = np.arange(depth)
    reach = np.minimum(max(1, int(window * depth / 2)), np.minimum(k, depth - 1 - k))
    sums = jnp.cumsum(jnp.pad(rows, ((1, 0), (0, 0))), axis=0)
    counts = jnp.asarray(2 * reach + 1, rows.dtype)[:, None]
    trend = ((sums[k + reach + 1] - sums[k - reach]) / counts).reshape(weights.shape)
    return trend, weights - trend
