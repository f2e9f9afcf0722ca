r"""Networks drawn from known laws, each with the truth that chapters 10 and 11 give it.

A *kind* is a law of the weights at every depth. Its `Truth` is written in two numbers:
a *trend* of order $L^p$ in each layer, whose sum over layers is of order $L^{1 + p}$,
and a centred *noise* whose sum is of order $L^H$. All else follows from them. With the
factor $L^{-\beta}$ before the block the sums are of orders $L^{1 + p - \beta}$ and
$L^{H - \beta}$: one that grows explodes, and where both vanish so does the residual. Of
those that stay, the trend alone gives an ODE; noise alone an SDE if $H = \frac12$, and
a limit of its own otherwise; the two together an SDE with drift. Without a factor the
question is which of the two there are.

Samples of one path of depth-time are a trend with $p = 0$ and no noise, if it has jumps
as well: $\frac1L \sum_k$ is a Riemann sum. What leaves the function of a block as it is
(order, sign and scale of its hidden units) leaves its truth. Laws of finite variance
and short memory have $H = \frac12$, by the central limit theorem.

Some laws cannot be told from one depth, and `Truth.undecided` says why.
"""

import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.random as jr
import numpy as np
from scipy.signal import lfilter
from scipy.stats import poisson

from deeplimits import initialisation

Weights = dict[str, np.ndarray]
Draw = Callable[..., Weights]


class Answer(StrEnum):
    """What a verdict may say, in the words of chapters 10 and 11."""

    ODE = "ODE"  # a trend without noise; at a factor, a limit without noise
    SDE = "SDE"  # independent in the long run, no trend
    OWN = "limit of its own"  # noise of another exponent than one half
    BOTH = "trend and noise"  # at its factor, an SDE with drift
    IDENTITY = "identity"
    EXPLOSIVE = "explosive"
    ALTERNATES = "layers alternate"
    ABSTAIN = "no verdict"  # also: "one depth cannot tell"


class Truth(NamedTuple):
    """A trend of order $L^p$ in each layer, and noise whose sum is of order $L^H$."""

    trend: float | None = None
    noise: float | None = None
    alternates: bool = False
    undecided: str = ""  # why one depth cannot tell; then no verdict is right ...
    tolerated: tuple[Answer, ...] = ()  # ... but these

    def answer(self, beta: float | None) -> Answer:
        """The limit with the factor $L^{-beta}$; without one, what there is."""
        growth = {"trend": self.trend, "noise": self.noise}
        growth = {name: order for name, order in growth.items() if order is not None}
        if beta is not None:
            steps = {name: 1.0 if name == "trend" else 0.0 for name in growth}
            growth = {k: order + steps[k] - beta for k, order in growth.items()}
            largest = max(growth.values())
            if largest:
                return Answer.EXPLOSIVE if largest > 0 else Answer.IDENTITY
            growth = {name: order for name, order in growth.items() if order == 0}
        if len(growth) == 2:
            return Answer.BOTH
        if "trend" in growth:
            return Answer.ODE
        return Answer.SDE if self.noise == 0.5 else Answer.OWN

    def right(self, answer: Answer, beta: float | None = None) -> str:
        """Is it `right`, `wrong`, or has it `abstained`?"""
        if answer == Answer.ABSTAIN:
            return "abstained"
        if self.undecided:
            return "right" if answer in self.tolerated else "wrong"
        if answer == Answer.ALTERNATES:
            return "right" if self.alternates else "wrong"
        return "right" if answer == self.answer(beta) else "wrong"

    def __str__(self) -> str:
        trend = "none" if self.trend is None else f"L^{self.trend:g}"
        noise = "none" if self.noise is None else f"H = {self.noise:g}"
        more = "; layers alternate" if self.alternates else ""
        return f"trend {trend}, noise {noise}{more}" + "; undecided" * bool(
            self.undecided
        )


class Seeds(NamedTuple):
    """Of the paths, the same at every depth, and of the noise, new at each."""

    path: np.random.Generator
    noise: np.random.Generator


class Kind(NamedTuple):
    draw: Draw
    truth: Truth
    ratios: tuple[float, ...] = ()  # of trend to noise, in root mean square
    family: bool = False  # three depths together
    betas: tuple[float | None, ...] = (None,)


class Case(NamedTuple):
    """One network, or one family of three depths, and what to draw it from."""

    kind: str
    depths: tuple[int, ...]
    width: int
    ratio: float | None
    beta: float | None
    index: int

    @property
    def name(self) -> str:
        return self.kind if self.beta is None else f"{self.kind}, beta {self.beta:g}"


# Shallow or narrow, as networks often are; then those that the bars ask for.
CELLS = (
    *((12, 8), (12, 64), (12, 256), (24, 16), (24, 128), (48, 8), (48, 64)),
    *((64, 16), (512, 8), (1024, 16)),
    *((128, 64), (128, 128), (128, 256), (192, 64), (256, 64), (256, 128)),
    *((384, 64), (512, 64), (512, 128), (1024, 64)),
)
FAMILIES = (
    ((32, 64, 128), 16),
    ((64, 128, 256), 64),
    ((128, 256, 512), 64),
    ((64, 256, 1024), 64),
)
RATIOS = (0.1, 0.2, 0.5, 1.0, 2.0)
MOST_ENTRIES = 8192  # a layer: of wide matrices fewer columns, or hidden units
LENGTHS = (0.1, 1.0)  # of correlation, in depth-time
PIECES = (2, 6)
EXCEPTION = 10.0
RANK = 2
FRAME = 4


def shape(width: int) -> tuple[int, int]:
    """Of a square layer; from width 91 on, of as many of its columns as allowed."""
    return width, min(width, MOST_ENTRIES // width)


def _key(rng: np.random.Generator) -> jax.Array:
    return jr.key(int(rng.integers(2**32)))


def _white(seeds: Seeds, size: tuple[int, ...]) -> np.ndarray:
    return seeds.noise.standard_normal(size, np.float32)


def _fractional(seeds: Seeds, depth: int, width: int, *, hurst: float) -> np.ndarray:
    key = _key(seeds.noise)
    return np.asarray(
        initialisation.fractional_noise(depth, shape(width), hurst=hurst, key=key)
    )


def _path(seeds: Seeds, depth: int, size: tuple[int, ...]) -> np.ndarray:
    """Samples of a Gaussian process with covariance $e^{-(s - t)^2 / 2 l^2}$.

    The series of `initialisation.SmoothPath`, whose squared terms are Poisson's law,
    in NumPy: a draw of each length there would compile a program of its own.
    """
    length = seeds.path.uniform(*LENGTHS)
    u = (np.arange(depth)[:, None] / depth - 0.5) / length
    terms = np.arange(int((0.5 / length) ** 2 + 4.5 / length + 30))
    functions = np.sign(u) ** terms * np.sqrt(poisson.pmf(terms, u**2))
    coefficients = seeds.path.standard_normal((len(terms), math.prod(size)), np.float32)
    return (functions @ coefficients).astype(np.float32).reshape(depth, *size)


def _smooth(seeds: Seeds, depth: int, width: int) -> np.ndarray:
    return _path(seeds, depth, shape(width))


def _tied(seeds: Seeds, depth: int, width: int) -> np.ndarray:
    layer = seeds.path.standard_normal(shape(width), np.float32)
    return np.repeat(layer[None], depth, axis=0)


def _trend_and_noise(
    seeds: Seeds, depth: int, width: int, *, ratio: float, balanced: bool = False
) -> np.ndarray:
    """A constant or a smooth path, by turns, and white noise. Balanced, the ratio is
    that of the two sums: the trend is of order $L^{-1/2}$."""
    draw = _tied if seeds.path.random() < 0.5 else _smooth
    trend = draw(seeds, depth, width)
    size = ratio / depth**0.5 if balanced else ratio
    return size * trend + _white(seeds, trend.shape)


def _autoregressive(seeds: Seeds, depth: int, width: int, *, phi: float) -> np.ndarray:
    """Stationary, of variance one: $Z_{k+1} = phi Z_k + (1 - phi^2)^{1/2} xi_k$."""
    steps = _white(seeds, (depth, *shape(width)))
    steps[1:] *= (1 - phi**2) ** 0.5
    return lfilter([1.0], [1.0, -phi], steps, axis=0).astype(np.float32)


def _ornstein_uhlenbeck(seeds: Seeds, depth: int, width: int) -> np.ndarray:
    """Samples of a path of depth-time with correlation $e^{-theta |s - t|}$."""
    theta = seeds.path.uniform(2.0, 8.0)
    return _autoregressive(seeds, depth, width, phi=math.exp(-theta / depth))


def _piecewise(seeds: Seeds, depth: int, width: int) -> np.ndarray:
    """Constant between jumps at places of depth-time."""
    count = int(seeds.path.integers(*PIECES, endpoint=True))
    jumps = np.sort(seeds.path.random(count - 1))
    values = seeds.path.standard_normal((count, *shape(width)), np.float32)
    return values[np.searchsorted(jumps, np.arange(depth) / depth, side="right")]


def _exceptional(seeds: Seeds, depth: int, width: int, *, draw) -> np.ndarray:
    weights = np.array(draw(seeds, depth, width))
    weights[seeds.noise.integers(depth)] *= EXCEPTION
    return weights


def _student(seeds: Seeds, depth: int, width: int, *, df: float) -> np.ndarray:
    return seeds.noise.standard_t(df, (depth, *shape(width))).astype(np.float32)


def _low_rank(seeds: Seeds, depth: int, width: int, *, smooth: bool) -> np.ndarray:
    """Products of a tall and a flat matrix, both anew in each layer or both smooth."""
    (rows, columns), sizes = shape(width), []
    sizes = [(rows, RANK), (RANK, columns)]
    if smooth:
        tall, flat = (_path(seeds, depth, size) for size in sizes)
    else:
        tall, flat = (_white(seeds, (depth, *size)) for size in sizes)
    return tall @ flat


def _framed(seeds: Seeds, depth: int, width: int) -> np.ndarray:
    """White noise in a small matrix between two fixed frames: few entries in truth."""
    rows, columns = shape(width)
    left = seeds.path.standard_normal((rows, FRAME), np.float32)
    right = seeds.path.standard_normal((FRAME, columns), np.float32)
    return left @ _white(seeds, (depth, FRAME, FRAME)) @ right


def _alternating(seeds: Seeds, depth: int, width: int, *, smooth: bool) -> np.ndarray:
    """Two paths by turns, or white noise of two sizes."""
    if smooth:
        weights = np.array(_smooth(seeds, depth, width))
        weights[1::2] = _smooth(seeds, depth, width)[1::2]
    else:
        weights = _white(seeds, (depth, *shape(width)))
        weights[1::2] *= 4.0
    return weights


def _single(draw, seeds: Seeds, depth: int, width: int, **options) -> Weights:
    return {"weight": draw(seeds, depth, width, **options)}


def hidden(width: int) -> int:
    """Units of a two-layer block: twice the width, fewer from width 65 on."""
    return min(2 * width, MOST_ENTRIES // width)


def blocks(seeds: Seeds, depth: int, width: int, *, smooth: bool) -> Weights:
    """`outer` times an activation of `inner`: both smooth, or both white."""
    units = hidden(width)
    sizes = {"outer": (width, units), "inner": (units, width)}
    if smooth:
        return {name: _path(seeds, depth, size) for name, size in sizes.items()}
    return {name: _white(seeds, (depth, *size)) for name, size in sizes.items()}


def _permuted(seeds: Seeds, depth: int, width: int, *, smooth: bool) -> Weights:
    """Hidden units in another order in each layer: the same function."""
    weights = blocks(seeds, depth, width, smooth=smooth)
    order = seeds.noise.permuted(np.tile(np.arange(hidden(width)), (depth, 1)), axis=1)
    return {
        "outer": np.take_along_axis(weights["outer"], order[:, None, :], 2),
        "inner": np.take_along_axis(weights["inner"], order[:, :, None], 1),
    }


def _rescaled(
    seeds: Seeds, depth: int, width: int, *, smooth: bool, flipped: bool
) -> Weights:
    """Hidden units of another scale in each layer (the same function for ReLU), or of
    another sign (the same for odd activations)."""
    weights = blocks(seeds, depth, width, smooth=smooth)
    factors = np.exp(0.5 * _white(seeds, (depth, hidden(width))))
    if flipped:
        factors = np.copysign(np.float32(1), _white(seeds, factors.shape))
    return {
        "outer": weights["outer"] / factors[:, None, :],
        "inner": weights["inner"] * factors[:, :, None],
    }


_ODE = Truth(trend=0.0)
_SDE = Truth(noise=0.5)
_MEMORY = (
    "AR(1) with phi at one depth L has the law of an Ornstein-Uhlenbeck path of rate "
    "-L log phi sampled at L places. At all depths the first is noise with memory in "
    "layers, an SDE at 1/sqrt(L); the second a path of depth-time, an ODE at 1/L."
)
# The error of Euler's scheme on the path is of order 1 - phi, the inverse of the memory
# in layers; that of white noise is the root of the memory in depth-time, (1 + phi) /
# ((1 - phi) L). At phi = 0.9 and depth 1,024 these are 0.1 and 0.14, so that neither
# reading is the better. At phi = 0.5 the path is not resolved: noise is no error there.
_FAR = Truth(noise=0.5, undecided=_MEMORY)
_NEAR = Truth(noise=0.5, undecided=_MEMORY, tolerated=(Answer.SDE,))

KINDS: dict[str, Kind] = {
    **{
        f"noise, H = {h:g}": Kind(
            partial(_single, partial(_fractional, hurst=h)), Truth(noise=h)
        )
        for h in (0.2, 0.3, 0.5, 0.58, 0.7, 0.8)
    },
    "smooth": Kind(partial(_single, _smooth), _ODE),
    "tied": Kind(partial(_single, _tied), _ODE),
    **{
        f"trend and noise, {r:g}": Kind(
            partial(_single, _trend_and_noise), Truth(0.0, 0.5), ratios=(r,)
        )
        for r in RATIOS
    },
    "AR(1), 0.5": Kind(partial(_single, partial(_autoregressive, phi=0.5)), _NEAR),
    "AR(1), 0.9": Kind(partial(_single, partial(_autoregressive, phi=0.9)), _FAR),
    "piecewise constant": Kind(partial(_single, _piecewise), _ODE),
    "exceptional layer, smooth": Kind(
        partial(_single, partial(_exceptional, draw=_smooth)), _ODE
    ),
    "exceptional layer, noise": Kind(
        partial(_single, partial(_exceptional, draw=partial(_fractional, hurst=0.5))),
        _SDE,
    ),
    "permuted units, smooth": Kind(partial(_permuted, smooth=True), _ODE),
    "permuted units, noise": Kind(partial(_permuted, smooth=False), _SDE),
    "rescaled units, smooth": Kind(
        partial(_rescaled, smooth=True, flipped=False), _ODE
    ),
    "rescaled units, noise": Kind(
        partial(_rescaled, smooth=False, flipped=False), _SDE
    ),
    "flipped units, smooth": Kind(partial(_rescaled, smooth=True, flipped=True), _ODE),
    "Student, 2.5": Kind(partial(_single, partial(_student, df=2.5)), _SDE),
    "Student, 4": Kind(partial(_single, partial(_student, df=4.0)), _SDE),
    "low rank, smooth": Kind(partial(_single, partial(_low_rank, smooth=True)), _ODE),
    "low rank, noise": Kind(partial(_single, partial(_low_rank, smooth=False)), _SDE),
    "low rank, fixed frame": Kind(partial(_single, _framed), _SDE),
    "alternating, smooth": Kind(
        partial(_single, partial(_alternating, smooth=True)),
        _ODE._replace(alternates=True),
    ),
    "alternating, noise": Kind(
        partial(_single, partial(_alternating, smooth=False)),
        _SDE._replace(alternates=True),
    ),
    "trend of order 1 and noise": Kind(
        partial(_single, _trend_and_noise),
        Truth(0.0, 0.5),
        ratios=RATIOS,
        family=True,
        betas=(0.5, 0.75, 1.0),
    ),
    "trend of order 1/sqrt(L) and noise": Kind(
        partial(_single, partial(_trend_and_noise, balanced=True)),
        Truth(-0.5, 0.5),
        ratios=tuple(5 * r for r in RATIOS),
        family=True,
        betas=(0.5, 0.75, 1.0),
    ),
    "AR(1), 0.9, three depths": Kind(
        partial(_single, partial(_autoregressive, phi=0.9)), _SDE, family=True
    ),
    "Ornstein-Uhlenbeck, three depths": Kind(
        partial(_single, _ornstein_uhlenbeck), _ODE, family=True
    ),
}
REPEATS = {"AR(1), 0.9, three depths": 5, "Ornstein-Uhlenbeck, three depths": 5}


def cases() -> Iterator[Case]:
    """All of a half, in order; its key decides what is drawn for each."""
    index = 0
    for name, kind in KINDS.items():
        cells = FAMILIES if kind.family else [((d,), w) for d, w in CELLS]
        for beta in kind.betas:
            for ratio in kind.ratios or (None,) * REPEATS.get(name, 1):
                for depths, width in cells:
                    yield Case(name, depths, width, ratio, beta, index)
                    index += 1


def networks(case: Case, key: int) -> list[Weights]:
    """The weights of a case at each depth, times one size between 1/30 and 30."""
    kind = KINDS[case.kind]
    options = {} if case.ratio is None else {"ratio": case.ratio}
    noise = np.random.default_rng([key, case.index, 0])
    size = np.float32(30.0 ** noise.uniform(-1.0, 1.0))
    found = []
    for depth in case.depths:
        seeds = Seeds(np.random.default_rng([key, case.index, 1]), noise)
        weights = kind.draw(seeds, depth, case.width, **options)
        found.append({name: size * array for name, array in weights.items()})
    return found
