r"""Which limit in depth do the weights of a network point to?

Everything is read from the weights $Z_1, \dots, Z_L$ of one parameter, layer by layer:
first what each network shows by itself (`examination`). With three depths or more, the
powers of depth decide what one depth cannot:

- *Memory.* Increments relative to the weights go like $L^{-1}$ for smooth paths of
  depth-time, like $L^{-1/2}$ for Brownian ones, and like $L^0$ if memory is one of
  layers. The upper end of the slope must lie below $-\frac14$ for a limit in
  depth-time, and the lower end above it for layers.
- *Size.* A trend of size $L^{-a}$ in each layer sums to $L^{1-a}$, noise of size
  $L^{-b}$ to $L^{H-b}$. With the factor $L^{-\beta}$ each of these vanishes, stays or
  explodes: the trend that stays alone is an ODE (noise averages out), noise that stays
  alone an SDE if $H = \frac12$, both together an SDE with drift. Of a drift that may
  hide in noise the sums at all depths tell together.

Without $\beta$, `limits` says what two factors would make of the weights, $1/L$ and
$1/\sqrt L$. With $\beta$ and fewer than three depths there is a verdict only where the
factor is the one that fits weights of one size at all depths.

The network's verdict is that of its matrices, each by what it moves: the mean over
layers of $\|A\|_F^2 / \text{fan-in}$, the mean of $\|A h\|^2 / \|h\|^2$ over directions
of $h$. Pairs vote by their products (`gauge`); vectors, gains and biases do not vote.
Sources: `cohen2021`, `marion2025`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from ..checks import require_within
from ..intervals import Interval, Kind
from ..residual import ResNet
from ..statistics import Slope, loglog_slope
from . import gauge
from .examination import (
    ABSTAIN,
    AVERAGED,
    BETWEEN,
    DRIFT,
    EXPLOSIVE,
    IDENTITY,
    MIXED,
    PARTS,
    ROUGH,
    SMOOTH,
    Network,
    examine,
)
from .frameworks import of
from .weights import Weights

# growth exponents of a size within this of 0 count as a finite limit
_STEADY = 0.125
_MEMORY = -0.25  # between L^0 and L^-1/2
_DRIFT = 1 / 2  # of the noise, summed: less is not told from none
_AGREE = 2 / 3  # of what the matrices move
TREND, NOISE = "trend of a layer", "noise of a layer"
INCREMENT, SIZE = "increment over weight", "accumulated size"


class Parameter(NamedTuple):
    """One parameter over all networks: exponents in depth, a verdict and its reason.

    `limits` has what the factors 1/L and 1/sqrt(L) would lead to, `votes` whether the
    network's verdict asks it; the square of `moves` is its weight there.

    ```pycon
    >>> rows = np.random.default_rng(0).standard_normal((128, 10, 10))
    >>> (found,) = diagnose([{"weight": rows}])
    >>> found.verdict, found.limits["1/sqrt(L)"], found.votes
    ('rough: SDE', 'rough: SDE', True)
    >>> round(found.moves**2)  # ten rows, of entries with mean square 1
    10
    ```
    """

    name: str
    networks: list[Network]
    exponents: dict[str, Slope]
    verdict: str
    reason: str
    limits: dict[str, str]
    votes: bool
    moves: float


def diagnose(networks: Sequence[Any], *, beta: float | None = None) -> list[Parameter]:
    """Every parameter of one or several networks, in the order of the first, after them
    the products of pairs.

    A network is what `read` gives, or anything that `of` understands: a `ResNet`, a
    dictionary of arrays with depth leading, a live model. `beta` is the exponent of the
    factor before the block; where it is given, the size is judged too. A parameter
    whose layers alternate is given as two. Raises `ValueError` for what `of` refuses,
    for NaN and infinity, in a mean square of a matrix, too, for networks with other
    parameters or other shapes of a layer, and for a `beta` that is not finite.

    ```pycon
    >>> s = np.arange(64).reshape(-1, 1, 1) / 64
    >>> (found,) = diagnose([{"weight": np.cos(s * np.arange(25.0).reshape(5, 5) / 4)}])
    >>> found.verdict
    'smooth: neural ODE'
    ```
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
    return list(_parameters(ordered, ordered[0].shapes, beta))


def _parameters(
    ordered: Sequence[Weights],
    shapes: gauge.Shapes,
    beta: float | None,
) -> Iterator[Parameter]:
    pairs = gauge.pairs(shapes)
    paired = {factor.name for pair in pairs for factor in pair}
    stacks = [{name: each.stack(name) for name in each} for each in ordered]
    raw: dict[str, str] = {}
    for name, shape in shapes.items():
        matrix = gauge.is_matrix(shape)
        votes = matrix and name not in paired
        coarsest = max(weights.epsilon(name) for weights in ordered)
        for part in _kinds(name, [each[name] for each in stacks], coarsest):
            found = _conclude(*part, beta, votes)
            if votes and found.networks[-1].verdict in (ROUGH, BETWEEN, MIXED):
                found = _out_of_order(found, part[2][-1], coarsest)
            raw[name] = found.verdict
            yield found
    for pair in pairs:
        products = [gauge.product(each, pair) for each in stacks]
        coarsest = max(z.epsilon(f.name) for z in ordered for f in pair)
        for part in _kinds(pair.name, products, coarsest):
            found = _conclude(*part, beta, True)
            factors = {raw[factor.name] for factor in pair}
            yield _compared(found, factors)


def _kinds(
    name: str, arrays: Sequence[gauge.Layers], coarsest: float
) -> Iterator[tuple[str, list, list]]:
    """The parameter, or each of the two kinds of its layers where these alternate."""
    look = partial(examine, coarsest=coarsest)
    found = [look(array) for array in arrays]
    if not any(network.alternates for network in found) or min(map(len, arrays)) < 4:
        yield name, found, arrays  # pyright: ignore[reportReturnType]
        return
    for start, which in ((0, "layers 1, 3, 5, ..."), (1, "layers 2, 4, 6, ...")):
        parts = [array[start::2] for array in arrays]
        yield f"{name} ({which})", [look(part) for part in parts], parts


def _conclude(
    name: str,
    networks: list[Network],
    arrays: Sequence[gauge.Layers],
    beta: float | None,
    votes: bool,
) -> Parameter:
    exponents = _exponents(networks)
    verdict, reason = _together(networks, exponents)
    limits = _limits(verdict, networks, exponents)
    if beta is not None:
        verdict, reason = _sized(verdict, reason, networks, exponents, beta)
    moves = _moves(arrays[-1]) if votes else 0.0
    if not math.isfinite(moves):
        raise ValueError(f"{name} is too large: its mean square is beyond all numbers.")
    return Parameter(name, networks, exponents, verdict, reason, limits, votes, moves)


def _limits(
    verdict: str, networks: list[Network], exponents: dict[str, Slope]
) -> dict[str, str]:
    """What two factors make of the weights; of one or two depths, if these have the
    same size at all depths."""
    if verdict in (ABSTAIN, IDENTITY):
        return {}
    if SIZE in exponents:
        return {
            name: _sized(verdict, "", networks, exponents, beta)[0]
            for name, beta in (("1/L", 1.0), ("1/sqrt(L)", 0.5))
        }
    hurst = networks[-1].regularity
    strong = hurst is not None and hurst.value > 0.5
    root = {
        SMOOTH: EXPLOSIVE,
        MIXED: f"{EXPLOSIVE} (a trend of order L^-1/2: SDE with drift)",
        ROUGH: ROUGH,
        BETWEEN: EXPLOSIVE if strong else "no SDE (chapter 10)",
    }
    line = {SMOOTH: SMOOTH, MIXED: AVERAGED}
    return {"1/L": line.get(verdict, IDENTITY), "1/sqrt(L)": root[verdict]}


def _moves(array: gauge.Layers) -> float:
    """The root of the mean over layers of the squared Frobenius norm by the fan-in."""
    fan_in = math.prod(array.shape[1:]) / array.shape[1]
    norms, root = [], (len(array) * fan_in) ** 0.5
    for layer in array:
        size = max(float(layer.max()), -float(layer.min())) or 1.0
        norm = float(np.linalg.norm(np.asarray(layer, float) / size))
        norms.append(size * (norm / root))
    return math.hypot(*norms)


def _exponents(networks: list[Network]) -> dict[str, Slope]:
    """Log-log slopes in depth, where there are three depths, nothing that vanishes and
    nothing beyond the largest number. Over groups of entries where there are any: these
    were drawn apart, so that three depths are enough for an interval."""
    depths = [network.depth for network in networks]
    if len(set(depths)) < 3:
        return {}
    series: dict[str, Any] = {
        name: [n.norms[name] for n in networks] for name in networks[0].norms
    }
    series[INCREMENT] = [n.roughness for n in networks]
    series[SIZE] = [n.accumulated for n in networks]
    for name in (INCREMENT, SIZE, TREND, NOISE):
        parts = [n.parts.get(name, []) for n in networks]
        if all(len(each) == PARTS for each in parts):
            series[name] = np.array(parts).T
    found = {}
    for name, y in series.items():
        y = np.asarray(y)
        if y.min() > 0 and y.max() < np.inf:
            found[name] = loglog_slope(depths, y)
    return found


def _together(networks: list[Network], exponents: dict[str, Slope]) -> tuple[str, str]:
    """The deepest network decides, unless another one or the increments object."""
    deepest = networks[-1]
    slope = exponents.get(INCREMENT)
    if slope is not None and any(n.memory for n in networks):
        return _remembered(networks, slope)
    verdicts = {n.verdict for n in networks} - {ABSTAIN, deepest.verdict}
    # a small trend, or small noise, is seen only from some depth on
    if deepest.verdict == MIXED:
        verdicts -= {ROUGH, SMOOTH}
    if deepest.verdict != ABSTAIN and verdicts:
        listed = ", ".join(sorted(verdicts | {deepest.verdict}))
        return ABSTAIN, f"the depths disagree: {listed}"
    if slope is not None:
        shrinking = f"increments over weights go like L^{slope:.2f}"
        if deepest.verdict == SMOOTH and slope.high > _MEMORY:
            return ABSTAIN, f"{shrinking}: the memory lies in layers, not in depth-time"
        if deepest.verdict in (ROUGH, BETWEEN) and slope.high < _MEMORY:
            return ABSTAIN, f"{shrinking}: too fast for noise"
    return deepest.verdict, deepest.reason


def _remembered(networks: list[Network], slope: Slope) -> tuple[str, str]:
    """Memory in layers or in depth-time, from the increments of several depths."""
    shrinking = f"increments over weights go like L^{slope:.2f}"
    deepest = networks[-1]
    fine, far = deepest.regularity, deepest.far
    if slope.high < _MEMORY:
        if fine is None or fine.low > 1:
            return SMOOTH, f"{shrinking}: memory lies in depth-time"
        return ABSTAIN, f"{shrinking}: noise that depends on depth"
    if slope.low <= _MEMORY or far is None:
        return ABSTAIN, f"{shrinking}: memory in layers or in depth-time"
    where = f"{shrinking}: memory lies in layers"
    if 0.35 < far.low and far.high < 0.8:
        return ROUGH, f"{where}, and beyond it noise, H = {far:.2f} at the longest lags"
    return ABSTAIN, f"{where}, and no network is deep enough to see beyond it"


def _sized(
    verdict: str,
    reason: str,
    networks: list[Network],
    exponents: dict[str, Slope],
    beta: float,
) -> tuple[str, str]:
    """The limit with the factor, from the growth of the sums over layers."""
    if verdict in (ABSTAIN, IDENTITY, EXPLOSIVE):
        return verdict, reason
    if verdict == ROUGH and beta == 0.5:
        verdict, reason = _driven(reason, networks)
    if verdict == ABSTAIN:
        return verdict, reason
    if SIZE not in exponents:
        return _fitting(verdict, reason, networks[-1], beta)
    if verdict == MIXED and TREND in exponents and NOISE in exponents:
        return _two_sizes(reason, networks[-1], exponents, beta)
    growth = exponents[SIZE] - beta
    reason = f"{reason}; the sum over layers goes like L^{growth:.2f}"
    if growth.low > _STEADY:
        return EXPLOSIVE, reason
    if verdict == MIXED:
        return ABSTAIN, f"{reason}; the trend by itself is not seen at every depth"
    if growth.high < -_STEADY:
        return IDENTITY, reason
    inside = -_STEADY <= growth.low and growth.high <= _STEADY
    return (verdict, reason) if inside else (ABSTAIN, f"{reason}, too uncertain")


def _driven(reason: str, networks: list[Network]) -> tuple[str, str]:
    """Noise that the factor keeps, unless a drift may hide in it: a trend of order
    L^-1/2 has the same relative sum R at every depth, so that all of them tell."""
    sums = [z for n in networks if (z := n.sums) is not None]
    if not sums:  # noise seen at the longest lags alone
        return ROUGH, reason
    logs = np.log([z.numbers for z in sums])
    precision = (2 / (logs[:, 2] - logs[:, 1])) ** 2
    centre = float(precision @ logs[:, 0] / precision.sum())
    half = float(precision.sum() ** -0.5)
    hidden = max(math.exp(2 * (centre + half)) - 1, 0.0) ** 0.5
    if hidden > _DRIFT:
        return ABSTAIN, f"{reason}; but a drift of {hidden:.2f} of it may hide"
    return ROUGH, reason


def _two_sizes(
    reason: str, deepest: Network, exponents: dict[str, Slope], beta: float
) -> tuple[str, str]:
    assert deepest.regularity is not None
    hurst = float(np.clip(deepest.regularity.value, 0.0, 1.0))
    if abs(hurst - 0.5) < 0.05:
        hurst = 0.5
    trend = exponents[TREND] + (1 - beta)
    noise = exponents[NOISE] + (hurst - beta)
    reason = f"{reason}; summed, the trend goes like L^{trend:.2f}"
    reason = f"{reason}, the noise like L^{noise:.2f}"
    if trend.low > _STEADY or noise.low > _STEADY:
        return EXPLOSIVE, reason
    stays = [-_STEADY <= z.low and z.high <= _STEADY for z in (trend, noise)]
    goes = [z.high < -_STEADY for z in (trend, noise)]
    if all(goes):
        return IDENTITY, reason
    if stays[0] and goes[1]:
        return AVERAGED, reason
    if goes[0] and stays[1]:
        return (ROUGH if hurst == 0.5 else BETWEEN), reason
    if all(stays):
        return (DRIFT if hurst == 0.5 else BETWEEN), reason
    return ABSTAIN, f"{reason}, too uncertain"


def _fitting(
    verdict: str, reason: str, network: Network, beta: float
) -> tuple[str, str]:
    """With one or two depths: the limit where the factor fits weights of one size."""
    reason = f"{reason}; for weights of one size at all depths"
    if verdict in (SMOOTH, MIXED) and beta == 1:
        return (SMOOTH if verdict == SMOOTH else AVERAGED), reason
    if verdict == ROUGH and beta == 0.5:
        return ROUGH, reason
    hurst = network.regularity
    if verdict == BETWEEN and hurst is not None and beta in hurst and beta >= 0.5:
        return BETWEEN, reason
    if verdict == MIXED and beta == 0.5:
        reason = (
            f"{reason}: explosive, but a trend of order L^-1/2 is the drift of an SDE"
        )
    return ABSTAIN, f"{reason}. Whether the sum vanishes or explodes takes three depths"


def _out_of_order(found: Parameter, array: gauge.Layers, coarsest: float) -> Parameter:
    """No verdict where a lone matrix has noise and its Gram matrices have none."""
    for gram in gauge.grams(array):
        if gram.shape[1] < 8 or not np.abs(gram).max():
            continue
        seen = examine(gram, coarsest=coarsest)
        if seen.verdict == SMOOTH and np.isfinite(seen.roughness):
            reason = (
                f"raw, {found.verdict}; its Gram matrices, {seen.verdict}: units in "
                "another order, layer by layer, if they are hidden ones"
            )
            return found._replace(verdict=ABSTAIN, reason=reason, limits={})
    return found


def _compared(found: Parameter, raw: set[str]) -> Parameter:
    """The verdict of a product, and whether its factors by themselves say the same."""
    if raw <= {found.verdict} or found.verdict == ABSTAIN:
        return found
    listed = ", ".join(sorted(raw))
    says = f"{found.reason}; raw matrices say {listed}"
    if found.verdict == SMOOTH or (found.verdict == MIXED and not raw <= {SMOOTH}):
        says += ": their units are in another order, sign or scale, layer by layer"
    return found._replace(reason=says)


def voters(parameters: Sequence[Parameter]) -> dict[str, float]:
    """Who decides, and with which share of what moves the stream.

    The matrices; where there are none, or none that is not zero, all parameters alike.
    """
    found = {p.name: p.moves for p in parameters if p.votes and p.moves > 0}
    if not found:
        found = {p.name: 1.0 for p in parameters}
    largest = max(found.values())
    found = {name: (moves / largest) ** 2 for name, moves in found.items()}
    total = sum(found.values())
    return {name: share / total for name, share in found.items()}


def pooled(parameters: Sequence[Parameter]) -> Interval | None:
    """$H$ of the noise of all matrices and stages together, at the deepest network.

    Each by one over its variance; the interval is the wider of that of one common $H$
    and of Student's over the matrices. None where fewer than two have noise.
    """
    shares = voters(parameters)
    found = [
        p.networks[-1].regularity
        for p in parameters
        if p.name in shares and p.networks[-1].sums is not None
    ]
    found = [h for h in found if h is not None and np.isfinite(h.low)]
    if len(found) < 2:
        return None
    values = np.array([h.value for h in found])
    precision = np.array([(2 / (h.high - h.low)) ** 2 for h in found])
    parts = precision / precision.sum()
    value = float(parts @ values)
    spread = np.sum(parts**2 * (values - value) ** 2) * len(found) / (len(found) - 1)
    half = max(
        precision.sum() ** -0.5,
        float(stats.t.ppf(0.975, len(found) - 1) * spread**0.5),
    )
    return Interval(value, value - half, value + half, Kind.LAYERS)


def overall(parameters: Sequence[Parameter]) -> str:
    """The network's verdict: what two thirds of its matrices say, by what they move.

    Smooth ones and rough ones together are trend and noise. One that explodes makes
    the network explode; abstentions do not count unless they are more than a half.
    """
    return decision(parameters)[0]


def decision(parameters: Sequence[Parameter]) -> tuple[str, str]:
    """`overall`, and a sentence of reason."""
    shares = voters(parameters)
    by_verdict: dict[str, float] = {}
    for parameter in parameters:
        share = shares.get(parameter.name, 0.0)
        if share:
            verdict = parameter.verdict
            by_verdict[verdict] = by_verdict.get(verdict, 0.0) + share
    listed = ", ".join(
        f"{share:.0%} {verdict}"
        for verdict, share in sorted(by_verdict.items(), key=lambda item: -item[1])
    )
    reason = f"of what {len(shares)} matrices or parameters move: {listed}"
    if EXPLOSIVE in by_verdict:
        return EXPLOSIVE, reason
    silent = by_verdict.pop(ABSTAIN, 0.0)
    if silent > 0.5 or not by_verdict:
        return ABSTAIN, reason
    vanishing = by_verdict.pop(IDENTITY, 0.0)
    if not by_verdict:
        return IDENTITY, reason
    definite = sum(by_verdict.values())
    if definite < 0.01 * vanishing:
        return IDENTITY, reason
    for verdict, share in by_verdict.items():
        if share >= _AGREE * definite:
            return verdict, reason
    if set(by_verdict) <= {SMOOTH, ROUGH, MIXED}:
        return MIXED, reason
    if set(by_verdict) <= {SMOOTH, AVERAGED}:
        return AVERAGED, reason
    if set(by_verdict) <= {SMOOTH, ROUGH, DRIFT}:
        return DRIFT, reason
    return ABSTAIN, f"the matrices disagree: {reason}"
