r"""One parameter of one network: its noise, its trend, and what they say together.

Three things are measured, each by a module of its own: the exponent $H$ of the *noise*
(`noise`), how far the *sums* over layers go beside it (`trend`), and whether memory
along depth reaches as far as the network, from the longest lags. What follows:

- $H > 1$, and $H > 1$ still at lags of a quarter and a half of the depth: there is no
  noise, and memory is one of depth-time. *Smooth: neural ODE*. (Where neighbours are
  no more alike than those of a Brownian path, at lags 1 to 4 a slope below 1.75, the
  long lags must show 1.3: layers that forget over ten others look like that.)
- $H = \frac12$ and sums of the size that noise has: *rough: SDE*.
- another $H < 1$ and such sums: *neither*.
- $H < 1$ and larger sums: *trend and noise*.
- noise whose slope falls at longer lags, or $H > 1$ that does not last: memory over a
  few layers. At one depth this is the same as a path that forgets within a short
  depth-time: *not enough depth to say*, which several depths may decide (`verdict`).

An interval that straddles two of these gives no verdict. A layer that differs from both
neighbours as no other does is left out, and named; layers that alternate between two
kinds are to be given apart.
"""

import math
from typing import NamedTuple

import numpy as np

from ..intervals import Interval, Kind
from ..statistics import scaling_norms
from . import noise, trend
from .weights import Stack, check_array, epsilon

SMOOTH = "smooth: neural ODE"
ROUGH = "rough: SDE"
MIXED = "trend and noise"
AVERAGED = "trend and noise: neural ODE"
DRIFT = "trend and noise: SDE with drift"
BETWEEN = "neither, in between"
IDENTITY = "identity"
EXPLOSIVE = "explosive"
ABSTAIN = "not enough depth to say"
VERDICTS = (
    *(SMOOTH, ROUGH, MIXED, AVERAGED, DRIFT, BETWEEN),
    *(IDENTITY, EXPLOSIVE, ABSTAIN),
)

FEWEST_LAYERS = 8
MOST_NUMBERS = 2**20  # of all layers together
PARTS = 8
_ALIKE = 0.02  # an index this near to one half is not told from it
_WIDEST = 0.1  # of an interval that says "one half"
_LEAST_DRIFT = 1.05  # of R squared: less is no drift worth the name
_HIDDEN = 1 / 8  # of the noise: a larger constant trend would have been seen
# In few layers less must be seen: there the sums of 4,096 entries hardly show a trend
# of a tenth, least of all one that waves faster than the three polynomials of `trend`.
_HIDDEN_IN_FEW = 0.07
_WIDE = 0.5  # of an interval of H: beside such noise no trend can be measured
_SURELY = 1.4  # of the interval's half: beyond it a trend is there in 999 of 1,000
_MOST_DRIFT = 2.0  # of R squared, beside fractional noise
_LEAST_SUM = 0.97  # of R: less, and the noise does not add up as its exponent says
_MOST_PIECES = 8
_LONG = 48  # layers: in fewer, memory over some of them looks like a law of its own
_RELATIVE_NOISE = 1e-5  # smaller noise is not told from rounding, in any type
_NORMS = {
    "max": "largest norm",
    "increment": "largest increment",
    "sum": "norm of the sum",
    "root_squares": "root sum of squares",
}


class Network(NamedTuple):
    r"""What one parameter shows at one depth.

    `regularity` is $H$ of the noise, above 1 where there is none; `far` the slope at
    the longest lags; `sums` the relative sum $R$ of `trend`. `trend` and `noise` are
    the sizes of the two in one layer, `independent` the number of independent entries,
    `exceptional` the layers left out, from 1. `roughness` is the root mean square of
    $Z_{k+1} - Z_k$ over that of the weights, `accumulated` the larger of the sums on
    their way and the root sum of squares, entries in root mean square. `norms` are
    those of the largest layer, the largest increment and the sum, and the root sum of
    squares. `parts` has these for `PARTS` groups of entries, for intervals in depth.

    ```pycon
    >>> found = examine(np.random.default_rng(0).standard_normal((128, 100)))
    >>> found.verdict, 0.5 in found.regularity, 1.0 in found.sums
    ('rough: SDE', True, True)
    ```
    """

    depth: int
    entries: int
    independent: float
    regularity: Interval | None
    far: Interval | None
    sums: Interval | None
    trend: float
    noise: float
    roughness: float
    norms: dict[str, float]
    accumulated: float
    exceptional: list[int]
    alternates: bool
    memory: bool
    parts: dict[str, list[float]]
    verdict: str
    reason: str


class _Seen(NamedTuple):
    """What the judgement is made of."""

    independent: float = 1.0
    fine: Interval | None = None
    near: Interval | None = None
    far: Interval | None = None
    sums: trend.Sums | None = None
    still: bool = False
    pieces: int = 0
    hidden: bool = False
    alternates: bool = False


def examine(array: np.ndarray | Stack, *, coarsest: float = 0.0) -> Network:
    """One parameter of one network: noise, trend, and what they say together.

    `coarsest` is the epsilon of the type that the weights were saved in, where the
    array was computed in a finer one. Of more than a million numbers 4,096 entries in
    256 layers are looked at: random, but always the same. Raises as `check_array` does.
    """
    check_array(array, "the array")
    rounding = _rounding(array, coarsest)
    depth, entries = len(array), math.prod(array.shape[1:])
    size, rows = _gathered(array, chosen(depth, entries))
    kept, exceptional = _without_exceptions(rows)
    seen = _look(kept, rounding)
    memory = _forgets(seen)
    verdict, reason = (
        _judge(seen, len(kept), memory)
        if size
        else (
            IDENTITY,
            "every weight is zero",
        )
    )
    if exceptional:
        listed = ", ".join(map(str, exceptional))
        reason += f"; left out, unlike all others: layer {listed}"
    found = seen.sums
    norms = scaling_norms(rows)
    scale = size * (entries / rows.shape[1]) ** 0.5
    square = float(np.mean(rows**2)) ** 0.5
    return Network(
        depth=depth,
        entries=entries,
        independent=seen.independent,
        regularity=seen.fine,
        far=seen.far,
        sums=found.relative if found else None,
        trend=size * (found.trend if found else square),
        noise=size * (found.noise if found else 0.0),
        roughness=_roughness(rows),
        norms={_NORMS[name]: scale * float(norm) for name, norm in norms.items()},
        accumulated=size * _accumulated(rows),
        exceptional=exceptional,
        alternates=seen.alternates,
        memory=memory,
        parts=_parts(rows, size, seen),
        verdict=verdict,
        reason=reason,
    )


def chosen(depth: int, entries: int) -> np.ndarray | slice:
    """The entries that are looked at, in order.

    ```pycon
    >>> chosen(64, 100)
    slice(None, None, None)
    >>> chosen(256, 10_000).size
    4096
    ```
    """
    most = max(MOST_NUMBERS // depth, 64)
    if entries <= most:
        return slice(None)
    # At random: every n-th one would be the same place of each kernel, say, for most
    # shapes. The seed makes the diagnosis a function of the weights.
    generator = np.random.default_rng(0)
    return np.sort(generator.choice(entries, most, replace=False, shuffle=False))


def _gathered(
    array: np.ndarray | Stack, places: np.ndarray | slice
) -> tuple[float, np.ndarray]:
    """The size of the largest entry, and those at some places, in units of it: so no
    square can overflow or vanish. One layer at a time."""
    size, found = 0.0, []
    for layer in array:
        entries = np.reshape(layer, -1)
        size = max(size, abs(float(entries.max())), abs(float(entries.min())))
        found.append(entries[places].astype(float))
    rows = np.empty((len(found), found[0].size))
    for k, row in enumerate(found):
        np.divide(row, size or 1.0, out=rows[k])
        found[k] = rows[k]
    return size, rows


def _rounding(array: np.ndarray | Stack, coarsest: float) -> float:
    """The relative size of noise that may be rounding; none for integers."""
    if array.dtype.kind in "iu":
        return 0.0
    return max(epsilon(array.dtype), coarsest, _RELATIVE_NOISE)


def _without_exceptions(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The layers without those that differ from both neighbours as no other does.

    At most one in 32, and one at least; if more would have to go, none does: then such
    layers are the rule. A layer is one if the mean square of its second difference
    exceeds 30 times the median. The cubic through two neighbours on each side takes its
    place, which keeps smooth layers smooth and noise noise; near an end the layers from
    there on are cut off.
    """
    depth = len(rows)
    if depth < FEWEST_LAYERS + 4:
        return rows, []
    kept, gone = rows.copy(), set()
    first, last = 0, depth
    for _ in range(max(1, depth // 32) + 1):
        place = _exception(kept[first:last])
        if place is None:
            return kept[first:last], sorted(k + 1 for k in gone)
        place += first
        gone.add(place)
        if place - first < 2:
            first = place + 1
        elif last - place < 3:
            last = place
        else:
            near, far = kept[[place - 1, place + 1]], kept[[place - 2, place + 2]]
            kept[place] = (4 * near.sum(0) - far.sum(0)) / 6
    return rows, []


def _exception(rows: np.ndarray) -> int | None:
    """The layer that differs most from its neighbours, if as no other does."""
    steps = np.mean(np.diff(rows, axis=0) ** 2, axis=1)
    # a layer at an end has one neighbour, and no second difference about it
    for end, place in ((steps, 0), (steps[::-1], len(rows) - 1)):
        if end[0] > 30 * np.median(steps) and end[0] > 10 * end[1]:
            return place
    bends = np.mean(np.diff(rows, n=2, axis=0) ** 2, axis=1)
    # that of a layer at an end is only seen from beside it, at a quarter of the size
    worst = int(np.argmax(bends)) + 1
    if not bends[worst - 1] > 30 * np.median(bends):
        return None
    if worst == 1 and steps[0] > 10 * steps[1]:
        return 0
    if worst == len(rows) - 2 and steps[-1] > 10 * steps[-2]:
        return len(rows) - 1
    return worst


def _look(rows: np.ndarray, rounding: float) -> _Seen:
    depth = len(rows)
    square = float(np.mean(rows**2))
    if depth < FEWEST_LAYERS or not square:
        return _Seen()
    layers = noise.Layers(rows)
    scales = noise.fine_scales(depth)
    floor = noise.constant(scales.order, 0.5) * rounding**2 * square
    far = noise.exponent(layers, noise.coarse_scales(depth, 2), np.inf)
    if layers.mean(scales.order, 1) <= floor:
        steps = float(np.mean(np.diff(rows, axis=0) ** 2))
        constant = steps <= 4 * rounding**2 * square
        return _Seen(far=None if constant else far, still=True)
    pieces = _pieces(rows, rounding)
    if pieces:
        return _Seen(far=far, pieces=pieces)
    independent = noise.independent_entries(rows)
    fine = _hull(layers, scales, independent)
    excess = noise.contamination(layers, scales.order)
    fine = Interval(fine.value, fine.low - excess, fine.high, Kind.LAYERS)
    if fine.low > 1:
        hidden = _hides_noise(layers, scales.order, floor)
        return _Seen(independent, fine, None, far, hidden=hidden)
    near = noise.coarse_scales(depth, scales.order)
    near = noise.exponent(layers, near, independent)
    found = None
    if np.isfinite(fine.value) and fine.high > 0:
        found = trend.sums(layers, fine, scales.order, independent)
    return _Seen(independent, fine, near, far, found, alternates=_alternates(rows))


def _pieces(rows: np.ndarray, rounding: float) -> int:
    """The number of pieces of weights that are constant on pieces, else zero."""
    steps = np.mean(np.diff(rows, axis=0) ** 2, axis=1)
    jumps = int(np.sum(steps > 4 * rounding**2 * np.mean(rows**2)))
    return jumps + 1 if 2 * jumps < len(steps) else 0


def _hides_noise(layers: noise.Layers, order: int, floor: float) -> bool:
    """Is there noise under a trend that is too steep for the slope to show it?

    Of smooth weights each further difference is smaller, of noise it is larger, and so
    it is of Brownian paths; but the slope of these is as steep at lag 2 as at lag 1.
    """
    v = [layers.mean(order, m) for m in (1, 2, 4)]
    further = layers.mean(order + 1, 1)
    bends = 0.5 * np.log2(v[2] / v[1]) - 0.5 * np.log2(v[1] / v[0]) > 0.4
    return bool(bends and further > 1.5 * v[0] and further > 4 * floor)


def _hull(layers: noise.Layers, scales: noise.Scales, independent: float) -> Interval:
    """The interval, and in few layers one that holds that of layers of equal size, too.

    Differences at long lags see a few layers only: where these differ in size, the
    slope is that of the sizes.
    """
    found = noise.exponent(layers, scales, independent)
    if layers.depth >= 48 or layers.entries < 32 or not np.isfinite(found.value):
        return found
    sizes = np.linalg.norm(layers.rows, axis=1, keepdims=True)
    if not sizes.all():
        return found
    equal = noise.Layers(layers.rows / sizes)
    other = noise.exponent(equal, scales, independent)
    return Interval(
        found.value,
        float(np.fmin(found.low, other.low)),
        float(np.fmax(found.high, other.high)),
        Kind.LAYERS,
    )


def _alternates(rows: np.ndarray) -> bool:
    """Is there more of the period 2 than of its neighbours among the frequencies?"""
    power = np.abs(np.fft.rfft(rows[: len(rows) // 2 * 2], axis=0)) ** 2
    power = power.mean(1)
    others = power[len(power) // 2 : max(-len(power) // 8, -len(power) + 1)]
    allowed = 1 + 4 * (2 / rows.shape[1]) ** 0.5
    return bool(power[-1] / 2 > max(3.0, allowed) * np.median(others))


def _forgets(seen: _Seen) -> bool:
    """Memory over some layers that does not reach across the network."""
    fine, near, far = seen.fine, seen.near, seen.far
    if seen.alternates or seen.pieces or (fine is None and far is None):
        return False
    if fine is None or fine.low > 1:
        steep = fine is None or fine.low > 1.75
        return far is not None and not far.low > (1.0 if steep else 1.3)
    if seen.sums is not None and seen.sums.relative.high < _LEAST_SUM:
        return True
    return near is not None and near.high < fine.low - 0.03


def _judge(seen: _Seen, depth: int, memory: bool) -> tuple[str, str]:
    fine = seen.fine
    if seen.still:
        if memory:
            return ABSTAIN, "smooth between neighbours, but not across the network"
        return SMOOTH, "constant in depth, or nothing but rounding about a smooth path"
    if seen.pieces:
        pieces = f"constant in depth on {seen.pieces} pieces"
        if seen.pieces > _MOST_PIECES:
            return ABSTAIN, f"{pieces}: of layers or of depth-time"
        return SMOOTH, pieces
    if fine is None or not np.isfinite(fine.low):
        few = f"fewer than {FEWEST_LAYERS} layers"
        return ABSTAIN, few if depth < FEWEST_LAYERS else "too little varies to measure"
    if seen.alternates or fine.high < 0:
        return ABSTAIN, "the layers alternate: give each kind apart"
    if memory:
        return ABSTAIN, _forgetting(seen)
    if 1 < fine.low < 1.75 and depth < _LONG and not seen.hidden:
        return ABSTAIN, f"H = {fine:.2f}: in {depth} layers a path, or memory over some"
    if fine.low > 1 and seen.hidden:
        return MIXED, "a trend, and under it noise that is too small to measure"
    if fine.low > 1:
        return SMOOTH, f"no noise: H = {fine:.2f} is above 1, and across the network"
    if fine.high >= 1:
        return ABSTAIN, f"H lies in [{fine.low:.2f}, {fine.high:.2f}]: noise or not"
    return _with_noise(fine, seen.sums, depth)


def _forgetting(seen: _Seen) -> str:
    far = seen.near if seen.fine is not None and seen.fine.low <= 1 else seen.far
    assert far is not None
    return (
        f"memory over some layers: H = {far.value:.2f} at the longest lags. One depth "
        "cannot tell memory in layers from memory in depth-time"
    )


def _with_noise(fine: Interval, sums: trend.Sums | None, depth: int) -> tuple[str, str]:
    """White or not, and beside a trend or not.

    A trend of $t$ times the noise in each layer adds $t^2 L$ to $R^2$.
    """
    assert sums is not None
    relative = sums.relative
    half = 0.5 - _WIDEST <= fine.low <= 0.5 + _ALIKE
    half = half and 0.5 - _ALIKE <= fine.high <= 0.5 + _WIDEST
    other = fine.low > 0.5 + _ALIKE or fine.high < 0.5 - _ALIKE
    what = f"noise, H = {fine:.2f}; sums over layers {figures(relative)} times as large"
    if fine.high - fine.low > _WIDE:
        return ABSTAIN, f"H lies in [{fine.low:.2f}, {fine.high:.2f}]: too wide"
    surely = relative.value * (relative.low / relative.value) ** _SURELY
    if surely**2 > _LEAST_DRIFT:
        return MIXED, f"{what} as it makes them: a trend"
    if not (half or other):
        return ABSTAIN, f"H lies in [{fine.low:.2f}, {fine.high:.2f}]: one half or not"
    hidden = (max(relative.high**2 - 1, 0.0) / depth) ** 0.5
    most = _HIDDEN if depth >= 2 * _LONG else _HIDDEN_IN_FEW
    unseen = hidden > most if half else relative.high**2 > _MOST_DRIFT
    if relative.low > 1 or unseen:
        little = f"no trend for sure, but one of {hidden:.2f} of the noise may hide"
        return ABSTAIN, f"{what} as it makes them: {little}"
    if fine.low > 0.5 + _ALIKE and depth < _LONG:
        return (
            ABSTAIN,
            f"{what} as it makes them: in {depth} layers, or memory over some",
        )
    return ROUGH if half else BETWEEN, f"{what} as it makes them: no trend"


def figures(interval: Interval) -> str:
    """An interval of positive numbers with as many digits as one reads."""
    digits = 2 if interval.value < 10 else 0
    value, low, high = (
        f"{x:.{digits}f}" if x < 1e4 else f"{x:.0e}" for x in interval.numbers
    )
    return f"{value} [{low}, {high}]"


def _roughness(rows: np.ndarray) -> float:
    square = np.mean(rows**2)
    steps = np.mean(np.diff(rows, axis=0) ** 2)
    return float((steps / square) ** 0.5) if square else 0.0


def _accumulated(rows: np.ndarray) -> float:
    partial = np.sqrt(np.mean(np.cumsum(rows, axis=0) ** 2, axis=1)).max()
    return float(max(partial, np.sqrt(np.mean(np.sum(rows**2, axis=0)))))


def _parts(rows: np.ndarray, size: float, seen: _Seen) -> dict[str, list[float]]:
    groups = np.array_split(rows, min(PARTS, rows.shape[1]), axis=1)
    found = {
        "increment over weight": [_roughness(part) for part in groups],
        "accumulated size": [size * _accumulated(part) for part in groups],
    }
    if seen.sums is not None and seen.fine is not None:
        order = noise.fine_scales(len(rows)).order
        each = trend.sizes(noise.Layers(rows), seen.fine.value, order, PARTS)
        names = "trend of a layer", "noise of a layer"
        for name, values in zip(names, each, strict=True):
            found[name] = [size * value for value in values]
    return found
