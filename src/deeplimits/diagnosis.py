r"""Which limit in depth do the weights of a network point to?

Everything is read from the weights $Z_1, \dots, Z_L$ of one parameter, layer by layer:
first their regularity $H$ with its interval (`regularity`), from the lags 1, 2, 4.

There $H > 1$ means weights that converge to a continuous function (*smooth: neural
ODE*), $H = \frac12$ noise (*rough: SDE*), any other $H < 1$ *neither, in between*. An
interval within one of these bands gives a verdict; one that straddles two gives none.
Nor is there one where, from depth 256, the longest lags contradict the smallest
(correlation over a few layers), or where different depths disagree: the increments
relative to the weights must shrink faster than $L^{-1/2}$ if these are smooth, and must
not shrink if they are noise. Noise about a larger trend is *neither*, too.

The size decides between *identity* and *explosive*, but only with the exponent $\beta$
of the factor $L^{-\beta}$ before the block and three or more depths: from the growth in
$L$ of $L^{-\beta} \max(\max_k |S_k|, (\sum_k |Z_k|^2)^{1/2})$, entries in root mean
square. Sources: `cohen2021`, `marion2025`.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from .exports import Weights, check
from .regularity import Regularity, regularity, second_differences
from .statistics import Slope, loglog_slope

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
# growth exponents of the accumulated size within this of 0 count as a finite limit
_STEADY = 0.2


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
    regularity: Regularity | None
    coarse: Regularity | None
    roughness: float
    trend: float
    norms: dict[str, float]
    accumulated: float
    verdict: str
    reason: str


class Parameter(NamedTuple):
    """One parameter over all networks: exponents in depth, a verdict and its reason."""

    name: str
    networks: list[Network]
    exponents: dict[str, Slope]
    verdict: str
    reason: str


def examine(array: np.ndarray) -> Network:
    """One parameter of one network: regularity, norms, and what they say together."""
    rounding = 4 * _rounding(array) ** 2
    weights = np.asarray(array, float).reshape(len(array), -1)
    # the largest entry becomes one, so that no square can overflow or vanish
    size = float(np.abs(weights).max())
    weights = weights / (size or 1.0)
    depth, entries = weights.shape
    square = np.mean(weights**2)
    sample = weights[:, :: -(-entries // _ENTRIES)]
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
    increments = np.sqrt(np.mean(np.diff(weights, axis=0) ** 2))
    return Network(
        depth=depth,
        entries=entries,
        regularity=fine,
        coarse=coarse,
        roughness=float(increments / square**0.5) if square else 0.0,
        trend=trend,
        norms={name: size * norm for name, norm in _norms(weights).items()},
        accumulated=size * _accumulated(weights),
        verdict=verdict,
        reason=reason,
    )


def _rounding(array: np.ndarray) -> float:
    """The relative spacing of the numbers of a type; zero for integers."""
    if array.dtype.kind in "iu":
        return 0.0
    return float(ml_dtypes.finfo(array.dtype).eps)


def _norms(weights: np.ndarray) -> dict[str, float]:
    """The norms whose exponents in depth `cohen2021` reads together."""
    sizes = np.linalg.norm(weights, axis=1)
    found = {
        "largest norm": sizes.max(),
        "largest increment": np.linalg.norm(np.diff(weights, axis=0), axis=1).max(),
        "norm of the sum": np.linalg.norm(weights.sum(0)),
        "root sum of squares": np.linalg.norm(weights),
    }
    return {name: float(value) for name, value in found.items()}


def _accumulated(weights: np.ndarray) -> float:
    partial = np.sqrt(np.mean(np.cumsum(weights, axis=0) ** 2, axis=1)).max()
    return float(max(partial, np.sqrt(np.mean(np.sum(weights**2, axis=0)))))


def _trend(weights: np.ndarray, fine: Regularity | None) -> float:
    """The share of the mean square that noise of the measured exponent leaves over."""
    if fine is None or not np.isfinite(fine.value):
        return 0.0
    if fine.value >= 1:
        return 1.0
    noise = np.mean(second_differences(weights, 1)) / (4 - 2 ** (2 * fine.value))
    return float(np.clip(1 - noise / np.mean(weights**2), 0, 1))


def _judge(
    fine: Regularity | None, coarse: Regularity | None, trend: float
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
    return verdict, f"H = {fine.value:.2f} [{fine.low:.2f}, {fine.high:.2f}]"


def _scales(verdict: str, fine: Regularity, coarse: Regularity) -> bool:
    """Does the exponent of the smallest lags hold over many layers?

    Smooth paths bend, so that there the longer lags must only stay above noise.
    """
    if verdict == SMOOTH:
        return coarse.low >= 1
    return coarse.high >= fine.low - 0.1 and coarse.low <= fine.high + 0.1


def diagnose(
    networks: Sequence[Weights], *, beta: float | None = None
) -> list[Parameter]:
    """Every parameter of one or several networks, in the order of the first.

    `beta` is the exponent of the factor before the block, where it is known. Raises
    `ValueError` for arrays that `exports.check` refuses, for networks with other
    parameters or other shapes of a layer, and for a `beta` that is not finite.
    """
    if isinstance(networks, Mapping):
        raise ValueError("diagnose takes a list of networks: write [weights] for one.")
    if not networks:
        raise ValueError("there is no network to diagnose.")
    if beta is not None and not np.isfinite(beta):
        raise ValueError(f"beta must be a finite number: got {beta}.")
    for position, weights in enumerate(networks, 1):
        check(weights, f"network {position}")
    layers = [{k: v.shape[1:] for k, v in weights.items()} for weights in networks]
    for other in layers[1:]:
        if other != layers[0]:
            raise ValueError(f"the networks differ in layers: {layers[0]}, {other}.")
    ordered = sorted(networks, key=lambda weights: len(next(iter(weights.values()))))
    return [
        _conclude(name, [examine(weights[name]) for weights in ordered], beta)
        for name in layers[0]
    ]


def _conclude(name: str, networks: list[Network], beta: float | None) -> Parameter:
    exponents = _exponents(networks)
    verdict, reason = _together(networks, exponents)
    if beta is not None and verdict != IDENTITY:
        verdict, reason = _sized(verdict, reason, exponents, beta)
    return Parameter(name, networks, exponents, verdict, reason)


def _exponents(networks: list[Network]) -> dict[str, Slope]:
    """Log-log slopes in depth, where there are three depths, nothing that vanishes and
    nothing beyond the largest number."""
    depths = [network.depth for network in networks]
    series = {k: [n.norms[k] for n in networks] for k in networks[0].norms}
    series["increment over weight"] = [n.roughness for n in networks]
    series["accumulated size"] = [n.accumulated for n in networks]
    if len(set(depths)) < 3:
        return {}
    sound = {k: y for k, y in series.items() if min(y) > 0 and max(y) < np.inf}
    return {k: loglog_slope(depths, y) for k, y in sound.items()}


def _together(networks: list[Network], exponents: dict[str, Slope]) -> tuple[str, str]:
    """The deepest network decides, unless another one or the increments object."""
    deepest = networks[-1]
    verdicts = {n.verdict for n in networks} - {ABSTAIN}
    if deepest.verdict != ABSTAIN and len(verdicts) > 1:
        return ABSTAIN, f"the depths disagree: {', '.join(sorted(verdicts))}"
    slope = exponents.get("increment over weight")
    if slope is not None:
        shrinking = f"increments over weights go like L^{slope.value:.2f}"
        if deepest.verdict == SMOOTH and slope.low > -0.5:
            return ABSTAIN, f"{shrinking}: too slow for a smooth limit"
        if deepest.verdict in (ROUGH, BETWEEN) and slope.high < -0.25:
            return ABSTAIN, f"{shrinking}: too fast for noise"
    return deepest.verdict, deepest.reason


def _sized(
    verdict: str, reason: str, exponents: dict[str, Slope], beta: float
) -> tuple[str, str]:
    slope = exponents.get("accumulated size")
    if slope is None:
        return ABSTAIN, "the size needs three depths"
    low, high = slope.low - beta, slope.high - beta
    reason = f"{reason}; the sum over layers goes like L^{slope.value - beta:.2f}"
    if low > _STEADY:
        return EXPLOSIVE, reason
    if high < -_STEADY:
        return IDENTITY, reason
    inside = -_STEADY <= low and high <= _STEADY
    return (verdict, reason) if inside else (ABSTAIN, f"{reason}, too uncertain")


def overall(parameters: Sequence[Parameter]) -> str:
    """The first of these verdicts that any parameter has: explosive, not enough depth
    to say, neither, SDE, ODE, identity. One short bias can silence a network."""
    verdicts = {parameter.verdict for parameter in parameters}
    for verdict in (EXPLOSIVE, ABSTAIN, BETWEEN, ROUGH, SMOOTH):
        if verdict in verdicts:
            return verdict
    return IDENTITY
