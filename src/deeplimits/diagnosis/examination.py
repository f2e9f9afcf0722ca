r"""One parameter of one network: its regularity, its norms, and what they say.

The regularity $H$ along depth comes with its interval (`variation.regularity`), from
the lags 1, 2, 4. $H > 1$ means weights that converge to a continuous function
(*smooth: neural ODE*), $H = \frac12$ noise (*rough: SDE*), any other $H < 1$ *neither,
in between*. An interval within one of these bands gives a verdict; one that straddles
two gives none. Nor is there one where, from depth 256, the longest lags contradict the
smallest (correlation over a few layers). Noise about a larger trend is *neither*, too.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np

from ..intervals import Interval
from ..statistics import scaling_norms
from ..variation import regularity, second_differences
from .weights import check_array

SMOOTH = "smooth: neural ODE"
ROUGH = "rough: SDE"
BETWEEN = "neither, in between"
IDENTITY = "identity"
EXPLOSIVE = "explosive"
ABSTAIN = "not enough depth to say"
VERDICTS = (SMOOTH, ROUGH, BETWEEN, IDENTITY, EXPLOSIVE, ABSTAIN)

FEWEST_LAYERS = 16
_BANDS = ((-np.inf, 0.4, BETWEEN), (0.4, 0.6, ROUGH), (0.6, 1.0, BETWEEN))
_BANDS = (*_BANDS, (1.0, np.inf, SMOOTH))
_ENTRIES = 4096
_NORMS = {
    "max": "largest norm",
    "increment": "largest increment",
    "sum": "norm of the sum",
    "root_squares": "root sum of squares",
}


class Network(NamedTuple):
    r"""What one parameter shows at one depth.

    `roughness` is the root mean square of $Z_{k+1} - Z_k$ over that of the weights:
    $\sqrt2$ for independent layers, of order $1/L$ for smooth ones. `trend` is the
    share of $\langle Z^2 \rangle$ that is not noise of exponent $H$. `norms` has the
    norms of the largest layer, the largest increment and the sum, and the root sum of
    squares.
    """

    depth: int
    entries: int
    regularity: Interval | None
    coarse: Interval | None
    roughness: float
    trend: float
    norms: dict[str, float]
    accumulated: float
    verdict: str
    reason: str


def examine(array: np.ndarray) -> Network:
    """One parameter of one network: regularity, norms, and what they say together.

    The regularity is that of 4,096 entries where there are more, drawn at random but
    always the same. Raises `ValueError` for an array that `weights.check` refuses.
    """
    check_array(array, "the array")
    rounding = 4 * _rounding(array) ** 2
    weights = np.asarray(array, float).reshape(len(array), -1)
    # the largest entry becomes one, so that no square can overflow or vanish
    size = float(np.abs(weights).max())
    weights = weights / (size or 1.0)
    depth, entries = weights.shape
    square = np.mean(weights**2)
    sample = weights[:, _chosen(entries)]
    enough = depth >= FEWEST_LAYERS
    still = enough and np.mean(second_differences(sample, 1)) <= rounding * square
    fine = regularity(sample) if enough and not still else None
    steps = [2**j for j in range(3, depth.bit_length()) if 2**j <= depth // 16]
    far = len(steps) > 1 and fine is not None
    coarse = regularity(sample, lags=steps[-2:], order=3) if far else None
    trend = 1.0 if still else _trend(sample, fine)
    if square == 0:
        verdict, reason = IDENTITY, "every weight is zero"
    elif still:
        verdict, reason = SMOOTH, "constant in depth, to rounding"
    else:
        verdict, reason = _judge(fine, coarse, trend)
    norms = scaling_norms(weights)
    increments = np.sqrt(np.mean(np.diff(weights, axis=0) ** 2))
    return Network(
        depth=depth,
        entries=entries,
        regularity=fine,
        coarse=coarse,
        roughness=float(increments / square**0.5) if square else 0.0,
        trend=trend,
        norms={_NORMS[name]: size * float(norm) for name, norm in norms.items()},
        accumulated=size * _accumulated(weights),
        verdict=verdict,
        reason=reason,
    )


def _chosen(entries: int) -> np.ndarray | slice:
    """The entries that are looked at, in order."""
    if entries <= _ENTRIES:
        return slice(None)
    # At random: every n-th one would be the same place of each kernel, say, for most
    # shapes. The seed makes the diagnosis a function of the weights.
    generator = np.random.default_rng(0)
    return np.sort(generator.choice(entries, _ENTRIES, replace=False, shuffle=False))


def _rounding(array: np.ndarray) -> float:
    """The relative spacing of the numbers of a type; zero for integers."""
    if array.dtype.kind in "iu":
        return 0.0
    return float(ml_dtypes.finfo(array.dtype).eps)


def _accumulated(weights: np.ndarray) -> float:
    partial = np.sqrt(np.mean(np.cumsum(weights, axis=0) ** 2, axis=1)).max()
    return float(max(partial, np.sqrt(np.mean(np.sum(weights**2, axis=0)))))


def _trend(weights: np.ndarray, fine: Interval | None) -> float:
    """The share of the mean square that noise of the measured exponent leaves over."""
    if fine is None or not np.isfinite(fine.value):
        return 0.0
    if fine.value >= 1:
        return 1.0
    noise = np.mean(second_differences(weights, 1)) / (4 - 2 ** (2 * fine.value))
    return float(np.clip(1 - noise / np.mean(weights**2), 0, 1))


def _judge(
    fine: Interval | None, coarse: Interval | None, trend: float
) -> tuple[str, str]:
    if fine is None:
        return ABSTAIN, f"fewer than {FEWEST_LAYERS} layers"
    inside = [b for b in _BANDS if b[0] <= fine.low and fine.high <= b[1]]
    if not inside:
        return ABSTAIN, f"H lies in [{fine.low:.2f}, {fine.high:.2f}]: too wide"
    [(_, _, verdict)] = inside
    if coarse is not None and not _scales(verdict, fine, coarse):
        return ABSTAIN, f"another exponent over many layers: {coarse.value:.2f}"
    if verdict == ROUGH and trend > 0.5:
        return BETWEEN, f"noise about a larger trend ({trend:.0%} of the mean square)"
    return verdict, f"H = {fine:.2f}"


def _scales(verdict: str, fine: Interval, coarse: Interval) -> bool:
    """Does the exponent of the smallest lags hold over many layers?

    Smooth paths bend, so that there the longer lags must only stay above noise.
    """
    if verdict == SMOOTH:
        return coarse.low >= 1
    return coarse.high >= fine.low - 0.1 and coarse.low <= fine.high + 0.1
