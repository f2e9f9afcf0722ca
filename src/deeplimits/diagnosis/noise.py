r"""How rough the layers are once a trend is gone, pooled over the entries of a matrix.

Model: $Z_k = T(k/L) + \xi_k$ entry by entry, a smooth *trend* $T$ and *noise* $\xi$
whose sums have exponent $H$. Differences of order $p$ of $S_k = Z_1 + \dots + Z_k$ at
lag $m$ have, over layers and entries, the mean square

$$ \begin{gathered} V_p(m) = \sigma^2 c_p(H)\, m^{2H}
            + O\bigl(m^{2p} \|T^{(p-1)}\|^2 / L^{2p-2}\bigr), \\
   c_p(H) = -\tfrac12 \sum_{|j| \le p} (-1)^j \tbinom{2p}{p+j} |j|^{2H} :
   \end{gathered} $$

the first is exact for fractional noise of variance $\sigma^2$, and the second says what
is left of the trend: at $p = 4$ so little that the slope at the lags 1, 2, 4 is that of
the noise, even where the trend is ten times as large. It also grows as $m^{2p}$: a
trend that is too sharp for this shows as a slope that is steeper at the lags 2, 4 than
at 1, 2, and then bounds its own share at the lags 1, 2 (`contamination`).

**The interval.** Let entries be Gaussian and let $C$ be their correlations, the same in
all layers. A mean of squares over $E$ entries then varies like one over
$n = E^2 / \sum_{ef} C_{ef}^2$ independent ones. $n$ is read from pairs of layers that
are far enough apart to be independent: the inner products of two such, scaled to norm
one, have mean square $1/n$ (`independent_entries`). By the delta method the variance
of the slope is $w^\top M w / n$, with the weights $w$ of the regression on $\log m$ and

$$ M_{ij} = 2 \|A_i \Gamma A_j^\top\|_F^2 / (\operatorname{tr} A_i \Gamma A_i^\top
            \operatorname{tr} A_j \Gamma A_j^\top) , $$

$A_i$ being the differences at lag $m_i$ and $\Gamma$ the covariance of the noise along
depth. So 12 layers of 4,096 independent entries tell $H$ to $\pm 0.02$. Tails, sizes
that vary and correlated squares are not in this formula; two jackknifes allow for them,
over groups of entries and over stretches of depth. The interval is the widest of the
three. Sources: `istas1997`; the variances are ours.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.linalg import toeplitz

from ..intervals import Interval, Kind

GROUPS = 16
_CELLS = 256  # depth up to which the exact variances are computed; then they scale


class Scales(NamedTuple):
    """The order of the differences, and the lags, that a depth allows.

    ```pycon
    >>> fine_scales(16), coarse_scales(16, 2)
    (Scales(order=3, lags=(1, 2, 4)), Scales(order=2, lags=(4, 8)))
    ```
    """

    order: int
    lags: tuple[int, ...]


class Tally(NamedTuple):
    """Sums of squared differences: at every place, and in every group of entries.

    ```pycon
    >>> tally = Layers(np.outer(np.arange(4.0), [1.0, 2.0])).tally(2, 1)
    >>> tally.places.tolist(), tally.groups.tolist(), tally.mean
    ([5.0, 5.0, 5.0], [3.0, 12.0], 2.5)
    ```
    """

    places: np.ndarray
    groups: np.ndarray
    mean: float


class Layers:
    """The layers of one parameter, `(depth, entries)`, and their differences.

    Each kind of differences of the sums over layers is computed once, and only its
    tally is kept.

    ```pycon
    >>> layers = Layers(np.arange(8.0)[:, None])  # a trend that is linear
    >>> layers.mean(2, 1), layers.mean(2, 2), layers.mean(3, 1)
    (1.0, 16.0, 0.0)
    ```
    """

    def __init__(self, rows: np.ndarray):
        self.rows = rows
        self.depth, self.entries = rows.shape
        self.bounds = np.linspace(0, self.entries, min(GROUPS, self.entries) + 1)
        self.bounds = self.bounds.astype(int)
        self._tallies: dict[tuple[int, int], Tally] = {}

    @functools.cached_property
    def sums(self) -> np.ndarray:
        r"""$S_0, \dots, S_L$, less the first layer: tied ones give zero exactly."""
        return np.concatenate(
            [np.zeros((1, self.entries)), np.cumsum(self.rows - self.rows[:1], axis=0)]
        )

    def tally(self, order: int, lag: int) -> Tally:
        """Of the differences of one order of the sums, at one lag."""
        if (order, lag) not in self._tallies:
            found = self.sums
            for _ in range(order):
                found = found[lag:] - found[:-lag]
            if order == 1:  # the first layer, which a higher order takes off
                found = found + lag * self.rows[:1]
            np.square(found, out=found)
            by_entry = found.sum(0)
            groups = np.add.reduceat(by_entry, self.bounds[:-1])
            mean = float(by_entry.sum() / found.size)
            self._tallies[order, lag] = Tally(found.sum(1), groups, mean)
        return self._tallies[order, lag]

    def mean(self, order: int, lag: int) -> float:
        """$V_p(m)$."""
        return self.tally(order, lag).mean


def fine_scales(depth: int) -> Scales:
    """Order four and the lags 1, 2, 4 from 24 layers on, three from 12, else two."""
    return Scales(4 if depth >= 24 else 3 if depth >= 12 else 2, (1, 2, 4))


def coarse_scales(depth: int, order: int) -> Scales:
    """The two longest lags, an octave apart, at which a difference still fits."""
    longest = depth // order
    return Scales(order, (longest // 2, longest))


def constant(order: int, hurst: float) -> float:
    r"""$c_p(H)$, the variance of differences of order $p$ at lag 1 of a unit path.

    ```pycon
    >>> [round(constant(p, 0.5), 6) for p in (1, 2, 3, 4)]  # central binomials
    [1.0, 2.0, 6.0, 20.0]
    ```
    """
    j = np.arange(-order, order + 1)
    signs = [(-1) ** abs(k) * math.comb(2 * order, order + k) for k in j.tolist()]
    return float(-0.5 * np.sum(signs * np.abs(j) ** (2.0 * hurst)))


def covariance(depth: int, hurst: float) -> np.ndarray:
    """The first row of the covariance of fractional noise of variance one.

    ```pycon
    >>> covariance(3, 0.5).tolist(), covariance(3, 1.0).tolist()
    ([1.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    ```
    """
    n = np.arange(depth, dtype=float)
    powers = [np.abs(n + shift) ** (2 * hurst) for shift in (-1, 0, 1)]
    row = (powers[0] - 2 * powers[1] + powers[2]) / 2
    row[0] = 1.0
    return row


def independent_entries(rows: np.ndarray) -> float:
    """How many independent entries vary like those of `rows`, `(depth, entries)`.

    From second differences along depth of at most 64 layers, and pairs of these that
    are three layers apart or more. What is common to all pairs of one distance is
    taken off: it is memory along depth, and no likeness of entries.
    """
    entries = rows.shape[1]
    bends = np.diff(rows, n=2, axis=0)
    bends = bends[np.unique(np.linspace(0, len(bends) - 1, 64).astype(int))]
    sizes = np.linalg.norm(bends, axis=1, keepdims=True)
    bends = bends[sizes[:, 0] > 0] / sizes[sizes[:, 0] > 0]
    products = bends @ bends.T
    found, freedom = 0.0, 0.0
    for apart in range(3, len(products) - 1):
        diagonal = np.diagonal(products, apart)
        found += float(np.sum((diagonal - diagonal.mean()) ** 2))
        # neighbouring bends share layers: of white noise their squares correlate so
        count = len(diagonal)
        freedom += count - 1 - (8 / 9) * (1 - 1 / count) - (1 / 18) * (1 - 2 / count)
    if freedom < 1:
        return 1.0
    return float(np.clip(freedom / max(found, 1e-300), 1.0, entries))


def exponent(
    layers: Layers, scales: Scales, independent: float, *, level: float = 0.95
) -> Interval:
    """The slope $H$ of $V_p(m)$ over the lags, with the widest of three intervals.

    `independent` is what `independent_entries` found, or infinity to leave the
    Gaussian interval out. NaN between infinities where a $V$ or one of the parts
    vanishes.

    ```pycon
    >>> layers = Layers(np.random.default_rng(0).standard_normal((200, 50)))
    >>> found = exponent(layers, fine_scales(200), 50.0)
    >>> 0.5 in found, found.high - found.low < 0.1
    (True, True)
    ```
    """
    tallies = [layers.tally(scales.order, m) for m in scales.lags]
    x = np.log(np.asarray(scales.lags, float))
    fit = (x - x.mean()) / (2 * np.sum((x - x.mean()) ** 2))
    stretches = min(max(layers.depth // 4, 3), 8)
    sizes = np.diff(layers.bounds)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(fit @ np.log([each.mean for each in tallies]))
        half = max_nan(
            _jackknife([(t.groups, sizes) for t in tallies], fit, GROUPS, level),
            _jackknife(
                [(t.places, np.ones(len(t.places))) for t in tallies],
                fit,
                stretches,
                level,
            ),
            quantile(level, layers.depth)
            * _deviation(layers.depth, scales, _between(value))
            / independent**0.5,
        )
    if not (math.isfinite(value) and math.isfinite(half)):
        return Interval(np.nan, -np.inf, np.inf, Kind.LAYERS)
    return Interval(value, value - half, value + half, Kind.LAYERS)


def quantile(level: float, depth: int) -> float:
    """Student's: $n$ is read from about $(L - 4)(L - 5)/4$ independent products.

    ```pycon
    >>> round(quantile(0.95, 1000), 2), round(quantile(0.95, 5), 2)  # of 3 degrees
    (1.96, 3.18)
    ```
    """
    return float(stats.t.ppf((1 + level) / 2, max((depth - 4) * (depth - 5) / 4, 3)))


def max_nan(*numbers: float) -> float:
    """The largest, or NaN where there is one."""
    return float(np.max(numbers))


def contamination(layers: Layers, order: int) -> float:
    r"""By how much a trend can raise the slope at the lags 1 and 2.

    A share $\kappa$ of the trend in $V_p(1)$ is $2^{2p-2H} \kappa$ of $V_p(2)$ and
    $4^{2p-2H} \kappa$ of $V_p(4)$, all relative to the noise.
    """
    v = [layers.mean(order, m) for m in (1, 2, 4)]
    if min(v) <= 0:
        return 0.0
    near, far = (0.5 * math.log2(v[i + 1] / v[i]) for i in (0, 1))
    excess = max(4.0 ** min(far - near, 16) - 1, 0.0)
    growth = 4.0 ** (order - min(max(near, 0.0), 1.0))
    return 0.5 * math.log2(1 + excess / growth)


def _between(hurst: float) -> float:
    """An index at which the exact variances are computed: one of nine."""
    return round(float(np.clip(hurst if math.isfinite(hurst) else 0.5, 0.1, 0.9)), 1)


def _jackknife(
    sums: list[tuple[np.ndarray, np.ndarray]], fit: np.ndarray, count: int, level: float
) -> float:
    """Student's half width of the slope over `count` parts of sums with their sizes.

    Zero where there are fewer than three parts to leave out.
    """
    count = min(count, *(len(line) for line, _ in sums))
    if count < 3:
        return 0.0
    logs = []
    for line, sizes in sums:
        edges = np.linspace(0, len(line), count + 1).astype(int)[:-1]
        left = np.maximum(line.sum() - np.add.reduceat(line, edges), 0)
        logs.append(np.log(left / (sizes.sum() - np.add.reduceat(sizes, edges))))
    spread = np.std(fit @ np.array(logs), ddof=1) * (count - 1) / count**0.5
    return float(stats.t.ppf((1 + level) / 2, count - 1) * spread)


def _deviation(depth: int, scales: Scales, hurst: float) -> float:
    """The standard deviation of the slope of one Gaussian entry.

    Beyond 256 layers that of 256, scaled: short lags average over more layers, long
    ones are the same share of the depth.
    """
    times = depth / _CELLS
    if times <= 1:
        return _exact_deviation(depth, scales, hurst)
    if max(scales.lags) * scales.order <= _CELLS // 4:
        return _exact_deviation(_CELLS, scales, hurst) / times**0.5
    lags = tuple(max(int(m / times), 1) for m in scales.lags)
    lags = lags if len(set(lags)) > 1 else (1, 2)
    return _exact_deviation(_CELLS, Scales(scales.order, lags), hurst)


@functools.lru_cache(maxsize=256)
def _exact_deviation(depth: int, scales: Scales, hurst: float) -> float:
    gamma = toeplitz(covariance(depth, hurst))
    x = np.log(np.asarray(scales.lags, float))
    fit = (x - x.mean()) / (2 * np.sum((x - x.mean()) ** 2))
    maps = []
    for lag in scales.lags:
        taps = np.ones(1)
        for _ in range(scales.order - 1):
            taps = np.convolve(taps, np.r_[-1.0, np.zeros(lag - 1), 1.0])
        taps = np.convolve(taps, np.ones(lag))
        places = depth - len(taps) + 1
        maps.append(
            np.array(
                [
                    np.r_[np.zeros(k), taps, np.zeros(places - 1 - k)]
                    for k in range(places)
                ]
            )
        )
    sizes = [np.sum((a @ gamma) * a) for a in maps]
    variances = [
        [
            2 * np.sum((a @ gamma @ b.T) ** 2) / (s * t)
            for b, t in zip(maps, sizes, strict=True)
        ]
        for a, s in zip(maps, sizes, strict=True)
    ]
    return float(np.sqrt(fit @ np.array(variances) @ fit))
