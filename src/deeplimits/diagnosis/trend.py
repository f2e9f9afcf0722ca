r"""How far the sums over layers go, beside what noise of exponent $H$ would do.

Take the three orthonormal polynomials $P_0, P_1, P_2$ of degree 0, 1, 2 in the number
of the layer. $\sum_k P_j(k) Z_k$ is the sum over layers, $\sqrt L$ times their mean,
and its first two moments in depth-time. For noise of covariance $\Gamma_H$ along depth,
its mean square is $\lambda_j \sigma^2$ exactly, $\lambda_j = P_j^\top \Gamma_H P_j$,
which is 1 for independent layers and of order $L^{2H - 1}$ for others; a trend $T$ adds
$(\sum_k P_j(k) T(k/L))^2 \approx L \langle p_j, T \rangle^2$, with Legendre's
polynomials $p_j$. So the *relative sum*

$$ R^2 = \max_j \frac{\langle (\sum_k P_j(k) Z_k)^2 \rangle}{\sigma^2 \lambda_j} , $$

with the mean over entries, is 1 for noise alone. $R^2 - 1$ is the mean square of what
the trend adds to the sums over that of the noise: for a trend of size $L^{-1/2}$ beside
noise of size one, the drift of an SDE, it is the same at every depth; for one of order
one it grows like $L$. Neither is a matter of how small the trend is in each layer.

The interval: that of the numerator over independent entries (`noise`), at a level that
allows for the choice among three, and what the interval of $H$ does to the denominator,
added as squares on the scale of the logarithm.
Of chapter 10's `relative_sum` ($P_0$ alone, $H = \frac12$) this is the extension to
trends whose sum over all layers vanishes. Ours.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..intervals import Interval, Kind
from .noise import GROUPS, Layers, constant, covariance, quantile

_POLYNOMIALS = 3


class Sums(NamedTuple):
    """`relative` is $R$; `trend` and `noise` the size of each in one layer, root mean
    square over entries (and, of the trend, over depth).

    ```pycon
    >>> rows = np.random.default_rng(0).standard_normal((200, 50))
    >>> half = Interval(0.5, 0.45, 0.55, Kind.LAYERS)
    >>> found = sums(Layers(1 + rows), half, order=4, independent=50.0)
    >>> round(found.trend, 1), round(found.noise, 1), 201**0.5 in found.relative
    (1.0, 1.0, True)
    ```
    """

    relative: Interval
    trend: float
    noise: float


def sums(
    layers: Layers,
    hurst: Interval,
    order: int,
    independent: float,
    *,
    level: float = 0.95,
) -> Sums:
    """Sums over the layers beside noise of the measured exponent, whose size is that
    of the differences of this order.

    The exponent is taken to lie between 0.02 and 0.98, where noise is defined.

    ```pycon
    >>> rows = np.random.default_rng(0).standard_normal((200, 50))
    >>> half = Interval(0.5, 0.45, 0.55, Kind.LAYERS)
    >>> found = sums(Layers(rows), half, order=4, independent=50.0)
    >>> 1.0 in found.relative, found.relative.high < 2
    (True, True)
    ```
    """
    basis = polynomials(layers.depth)
    energy = (basis.T @ layers.rows) ** 2
    h, low, high = (float(np.clip(x, 0.02, 0.98)) for x in hurst.numbers)
    variance, noise = _predicted(layers, basis, h, order)
    largest = int(np.argmax(energy.mean(1) / noise))
    around = [
        math.log(_predicted(layers, basis, x, order)[1][largest] / noise[largest])
        for x in (low, high)
    ]
    error = (2 / independent) ** 0.5
    if layers.entries > 2:
        error = max(error, _spread(energy[largest]))
    times = quantile(1 - (1 - level) / _POLYNOMIALS, layers.depth)
    centre = math.log(max(energy[largest].mean(), 1e-300) / noise[largest])
    down, up = (
        math.hypot(times * error, max(0.0, *(sign * a for a in around)))
        for sign in (1, -1)
    )
    value, least, most = (math.exp(x / 2) for x in (centre, centre - down, centre + up))
    trend = energy.mean(1).sum() - noise.sum()
    trend = math.sqrt(max(trend, 0.0) / layers.depth)
    return Sums(Interval(value, least, most, Kind.LAYERS), trend, math.sqrt(variance))


def sizes(
    layers: Layers, hurst: float, order: int, parts: int
) -> tuple[list[float], list[float]]:
    """Trend and noise of a layer, as in `Sums`, in each of some groups of entries.

    ```pycon
    >>> rows = np.random.default_rng(0).standard_normal((200, 50))
    >>> rows[:, 25:] = 2 * rows[:, 25:] + 3
    >>> trends, noises = sizes(Layers(rows), 0.5, order=4, parts=2)
    >>> round(trends[1], 1), [round(noise, 1) for noise in noises]
    (3.0, [1.0, 2.0])
    ```
    """
    basis, h = polynomials(layers.depth), float(np.clip(hurst, 0.02, 0.98))
    trends, noises = [], []
    for rows in np.array_split(layers.rows, min(parts, layers.entries), axis=1):
        part = Layers(rows)
        variance, noise = _predicted(part, basis, h, order)
        energy = float(((basis.T @ rows) ** 2).mean(1).sum())
        trends.append(math.sqrt(max(energy - noise.sum(), 0.0) / layers.depth))
        noises.append(math.sqrt(variance))
    return trends, noises


def _predicted(
    layers: Layers, basis: np.ndarray, hurst: float, order: int
) -> tuple[float, np.ndarray]:
    """The variance of a layer's noise, and the mean squares that it gives the sums."""
    ratios = [
        layers.mean(order, m) / (constant(order, hurst) * m ** (2 * hurst))
        for m in (1, 2)
    ]
    variance = math.exp(np.mean(np.log(np.maximum(ratios, 1e-300))))
    return variance, variance * spectrum(basis, hurst)


def polynomials(depth: int) -> np.ndarray:
    """The first three orthonormal polynomials on `depth` points, as columns."""
    s = np.linspace(-1, 1, depth)
    basis, upper = np.linalg.qr(np.vander(s, _POLYNOMIALS, increasing=True))
    return basis * np.sign(np.diagonal(upper))


def spectrum(basis: np.ndarray, hurst: float) -> np.ndarray:
    r"""$P_j^\top \Gamma_H P_j$ for every $j$, by the polynomials' own correlations.

    ```pycon
    >>> basis = polynomials(10)
    >>> abs(spectrum(basis, 0.5).round(6)).tolist()  # independent layers
    [1.0, 1.0, 1.0]
    >>> abs(spectrum(basis, 1.0).round(6)).tolist()  # layers that are all alike
    [10.0, 0.0, 0.0]
    ```
    """
    depth, length = len(basis), 2 * len(basis)
    power = np.abs(np.fft.rfft(basis, length, axis=0)) ** 2
    own = np.fft.irfft(power, length, axis=0)[:depth]
    row = covariance(depth, hurst)
    return own[0] * row[0] + 2 * row[1:] @ own[1:]


def _spread(energy: np.ndarray) -> float:
    """The standard error of the logarithm of the mean, over groups of entries."""
    groups = np.array_split(energy, min(GROUPS, len(energy)))
    means = np.array([group.mean() for group in groups])
    return float(stats.sem(means) / max(means.mean(), 1e-300))
