r"""Which limit in depth do the weights of a network point to?

Everything is read from the weights $Z_1, \dots, Z_L$ of one parameter, layer by layer:
first what each network shows by itself (`examination`). Then different depths must
agree: the increments relative to the weights must shrink faster than $L^{-1/2}$ if
these are smooth, and must not shrink if they are noise.

The size decides between *identity* and *explosive*, but only with the exponent $\beta$
of the factor $L^{-\beta}$ before the block and three or more depths: from the growth in
$L$ of $L^{-\beta} \max(\max_k |S_k|, (\sum_k |Z_k|^2)^{1/2})$, entries in root mean
square. Sources: `cohen2021`, `marion2025`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..checks import require_within
from ..residual import ResNet
from ..statistics import Slope, loglog_slope
from .examination import (
    ABSTAIN,
    BETWEEN,
    EXPLOSIVE,
    IDENTITY,
    ROUGH,
    SMOOTH,
    Network,
    examine,
)
from .frameworks import of

# growth exponents of the accumulated size within this of 0 count as a finite limit
_STEADY = 0.2


class Parameter(NamedTuple):
    """One parameter over all networks: exponents in depth, a verdict and its reason."""

    name: str
    networks: list[Network]
    exponents: dict[str, Slope]
    verdict: str
    reason: str


def diagnose(networks: Sequence[Any], *, beta: float | None = None) -> list[Parameter]:
    """Every parameter of one or several networks, in the order of the first.

    A network is what `read` gives, or anything that `of` understands: a `ResNet`, a
    dictionary of arrays with depth leading, a live model. `beta` is the exponent of the
    factor before the block; where it is given, the size is judged too. Raises
    `ValueError` for what `of` refuses, for NaN and infinity, for networks with other
    parameters or other shapes of a layer, and for a `beta` that is not finite.
    """
    if isinstance(networks, Mapping | ResNet):
        raise ValueError("diagnose takes a list of networks: write [weights] for one.")
    if not networks:
        raise ValueError("there is no network to diagnose.")
    if beta is not None:
        require_within("(-inf, inf)", beta=beta)
    arrays = [of(z, source=f"network {n}") for n, z in enumerate(networks, 1)]
    layers = [{k: v[1:] for k, v in weights.shapes.items()} for weights in arrays]
    for other in layers[1:]:
        if other != layers[0]:
            raise ValueError(f"the networks differ in layers: {layers[0]}, {other}.")
    ordered = sorted(arrays, key=lambda weights: next(iter(weights.shapes.values()))[0])
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
    growth = slope - beta
    reason = f"{reason}; the sum over layers goes like L^{growth.value:.2f}"
    if growth.low > _STEADY:
        return EXPLOSIVE, reason
    if growth.high < -_STEADY:
        return IDENTITY, reason
    inside = -_STEADY <= growth.low and growth.high <= _STEADY
    return (verdict, reason) if inside else (ABSTAIN, f"{reason}, too uncertain")


def overall(parameters: Sequence[Parameter]) -> str:
    """The first of these verdicts that any parameter has: explosive, not enough depth
    to say, neither, SDE, ODE, identity. One short bias can silence a network."""
    verdicts = {parameter.verdict for parameter in parameters}
    for verdict in (EXPLOSIVE, ABSTAIN, BETWEEN, ROUGH, SMOOTH):
        if verdict in verdicts:
            return verdict
    return IDENTITY
