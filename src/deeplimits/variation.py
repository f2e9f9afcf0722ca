r"""How regular weights are along depth, from differences of their cumulative sum.

The *regularity* of $Z_1, \dots, Z_L$ is that of $S_k = Z_1 + \dots + Z_k$: the exponent
$H$ of the mean square, over layers and entries, of its second differences,

$$ V(m) = \bigl\langle (S_{k+2m} - 2 S_{k+m} + S_k)^2 \bigr\rangle \asymp m^{2H}. $$

A constant part of the weights drops out. Exactly,

- increments of fractional Brownian motion of index $H$ have
  $V(m) = (4 - 2^{2H})\, \sigma^2 m^{2H}$; independent layers have $H = \frac12$;
- $Z_k = \mathcal{Z}(k/L)$ has $H = 1 + \gamma$ for a path that is $\gamma$-Hölder and
  no better, and $H = 2$, the most that second differences see, for a smooth one.
  (A Brownian path has $V(m) \propto 2 m^3 + m$, which small lags read as $1.36$.)

Source: `istas1997`.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from .checks import (
    as_doubles,
    is_whole,
    require_level,
    require_shape,
    require_whole,
)
from .intervals import Interval, Kind

FINE = (1, 2, 4)
_GROUPS = 16


def second_differences(weights: np.ndarray, lag: int, *, order: int = 2) -> np.ndarray:
    """The differences of order two (or another) of the cumulative sum, squared.

    Raises `ValueError` for a lag that does not fit into the depth, and for weights that
    are no array of real numbers.
    """
    weights = _layers(weights)
    require_whole(order=order)
    if not is_whole(lag) or order * lag > len(weights):
        raise ValueError(
            f"differences of order {order} need a lag between 1 and "
            f"{len(weights) // order} in {len(weights)} layers: got {lag}."
        )
    rows = weights.reshape(len(weights), -1)
    rows = rows - rows[:1]  # changes nothing, but tied layers give zero exactly
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0)])
    for _ in range(order):
        sums = sums[lag:] - sums[:-lag]
    return sums**2


def _layers(weights: np.ndarray) -> np.ndarray:
    weights = as_doubles("weights", weights)
    if not weights.ndim:
        raise ValueError("weights need the depth as leading axis: got one number.")
    return weights


def variogram(
    weights: np.ndarray, lags: Sequence[int], *, order: int = 2
) -> np.ndarray:
    """$V(m)$ at every lag.

    ```pycon
    >>> variogram(np.arange(8.0), [1, 2]).tolist()  # of a smooth path: m⁴
    [1.0, 16.0]
    ```
    """
    require_shape("lags", lags, (None,))
    return np.array([second_differences(weights, m, order=order).mean() for m in lags])


def regularity(
    weights: np.ndarray,
    *,
    lags: Sequence[int] = FINE,
    order: int = 2,
    level: float = 0.95,
) -> Interval:
    r"""The exponent $H$ of $V(m) \asymp m^{2H}$ by least squares over `lags`.

    Student's interval by the jackknife, over stretches of depth and over groups of
    entries, whichever is wider: the first allows for entries that move together.
    Infinitely wide where $V$ vanishes without one of the groups, or where the weights
    hold NaN. Raises `ValueError` for lags that do not fit, and for fewer than two.

    ```pycon
    >>> noise = np.random.default_rng(0).standard_normal((200, 50))
    >>> found, walk = regularity(noise), regularity(np.cumsum(noise, axis=0))
    >>> 0.5 in found, walk.low > 1
    (True, True)
    ```
    """
    require_level(level)
    require_shape("lags", lags, (None,))
    if len(set(lags)) < 2:
        raise ValueError(f"lags must be two different ones at least: got {lags}.")
    weights = _layers(weights)
    # stretches of eight layers or more: shorter ones vary too little by chance
    stretches = min(max(len(weights) // 8, 2), 8)
    squares = [second_differences(weights, m, order=order) for m in lags]
    cells = np.stack([_cells(each, stretches) for each in squares])
    total = cells.sum((1, 2))
    value, half = _exponent(total, lags), 0.0
    for axis in (1, 2):
        count = cells.shape[axis]
        if count > 1:
            kept = total[:, None] - cells.sum(3 - axis)
            with np.errstate(invalid="ignore"):
                spread = (
                    np.std(_exponent(kept, lags), ddof=1) * (count - 1) / count**0.5
                )
            # `np.maximum` keeps a NaN where `max` may lose it
            half = np.maximum(half, stats.t.ppf((1 + level) / 2, count - 1) * spread)
    if not (np.isfinite(value) and np.isfinite(half)):
        return Interval(np.nan, -np.inf, np.inf, Kind.LAYERS)
    return Interval(float(value), float(value - half), float(value + half), Kind.LAYERS)


def _cells(squares: np.ndarray, count: int) -> np.ndarray:
    """Sums and counts in stretches of depth by groups of entries: `(count, _, 2)`."""
    stretches = np.array_split(squares, count, axis=0)
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
