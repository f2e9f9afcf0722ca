r"""How regular weights are along depth, from differences of their cumulative sum.

The *regularity* of $Z_1, \dots, Z_L$ is that of $S_k = Z_1 + \dots + Z_k$: the exponent
$H$ of the mean square, over layers and entries, of its second differences,

$$ V(m) = \bigl\langle (S_{k+2m} - 2 S_{k+m} + S_k)^2 \bigr\rangle \asymp m^{2H}. $$

A constant part of the weights drops out. Exactly,

- increments of fractional Brownian motion of index $H$ have
  $V(m) = (4 - 2^{2H})\, \sigma^2 m^{2H}$; independent layers have $H = \frac12$;
- $Z_k = \mathcal{Z}(k/L)$ has $H = 1 + \gamma$ for a path that is $\gamma$-Hölder and
  no better, and $H = 2$, the most that second differences see, for a smooth one.

Source: `istas1997`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FINE = (1, 2, 4)
_SEGMENTS, _GROUPS = 8, 16


class Regularity(NamedTuple):
    """The exponent $H$ of the cumulative sum, with its confidence interval."""

    value: float
    low: float
    high: float


def second_differences(weights: np.ndarray, lag: int, *, order: int = 2) -> np.ndarray:
    """The differences of order two (or another) of the cumulative sum, squared."""
    rows = np.asarray(weights, float).reshape(len(weights), -1)
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    for _ in range(order):
        sums = sums[lag:] - sums[:-lag]
    return sums**2


def variogram(
    weights: np.ndarray, lags: Sequence[int], *, order: int = 2
) -> np.ndarray:
    """$V(m)$ at every lag."""
    return np.array([second_differences(weights, m, order=order).mean() for m in lags])


def regularity(
    weights: np.ndarray,
    *,
    lags: Sequence[int] = FINE,
    order: int = 2,
    level: float = 0.95,
) -> Regularity:
    r"""The exponent $H$ of $V(m) \asymp m^{2H}$ by least squares over `lags`.

    Student's interval by the jackknife, over stretches of depth and over groups of
    entries, whichever is wider: the first allows for entries that move together.
    Infinitely wide where $V$ vanishes without one of the groups.
    """
    cells = np.stack(
        [_cells(second_differences(weights, m, order=order)) for m in lags]
    )
    total = cells.sum((1, 2))
    value, half = _exponent(total, lags), 0.0
    for axis in (1, 2):
        count = cells.shape[axis]
        if count > 1:
            kept = total[:, None] - cells.sum(3 - axis)
            spread = (count - 1) ** 2 / count * np.var(_exponent(kept, lags), ddof=1)
            half = max(half, stats.t.ppf((1 + level) / 2, count - 1) * spread**0.5)
    if not np.isfinite([value, half]).all():
        return Regularity(np.nan, -np.inf, np.inf)
    return Regularity(float(value), float(value - half), float(value + half))


def _cells(squares: np.ndarray) -> np.ndarray:
    """Sums and counts in stretches of depth by groups of entries: `(8, <=16, 2)`."""
    stretches = np.array_split(squares, _SEGMENTS, axis=0)
    groups = min(_GROUPS, squares.shape[1])
    split = [np.array_split(part, groups, axis=1) for part in stretches]
    return np.array([[(cell.sum(), cell.size) for cell in row] for row in split])


def _exponent(cells: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Half the log-log slope of sum over count, along the first axis."""
    x = np.log(np.asarray(lags, float))
    fit = (x - x.mean()) / (2 * np.sum((x - x.mean()) ** 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        # a difference of sums may leave rounding where there is nothing
        means = np.maximum(cells[..., 0], 0) / cells[..., 1]
        return np.tensordot(fit, np.log(means), axes=1)
