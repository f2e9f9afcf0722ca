r"""Turning an interval round: networks that do better than every flow.

Data $x$, uniform on $[-1, 1]$, have the labels $-x$. Linear layers make $c_k x$ of $x$,

$$ c_{k+1} = (1 - a_k/n)\, c_k, \quad c_0 = 1, $$

and with the weight $\lambda$ of the kinetic term and the price $\eta$ of slopes a
network of $n$ layers costs

$$ E_n = \tfrac16 (c_n + 1)^2
   + \tfrac{n}{2} \sum_{k<n} \Bigl( \tfrac\lambda3 (c_{k+1} - c_k)^2
   + \eta \bigl(c_{k+1}/c_k - 1\bigr)^2 \Bigr) . $$

A flow keeps $c$ positive; a layer may change its sign. Everything is in float64.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import optimize

from ..checks import as_doubles, require_finite, require_whole, require_within
from ..variational.descent import Landscape, descend

SECOND_MOMENT = 1 / 3  # of the data
LEAST_FACTOR, GRID = 1e-4, 200  # of the search; descent goes on without a grid


@dataclass(frozen=True)
class Reversal:
    """The factors $c_0, \\dots, c_n$ of a network, what it costs, the layer that
    changes their sign (or None), and the norm of the gradient there."""

    factors: Float[np.ndarray, " factors"]
    value: float
    turns: int | None
    norm: float


def straight_slopes(depth: int, *, kinetic: float = 0.2) -> np.ndarray:
    r"""The slopes $a_k$ by which every datum moves straight, at constant speed, to
    $x (\lambda - 1)/(\lambda + 1)$.

    Raises `ValueError` where all data meet in one point after a whole number of layers:
    where $n (1 + \lambda)/2$ is one.
    """
    require_whole(depth=depth)
    require_within("(0, 1)", kinetic=kinetic)
    step = 2 / (depth * (1 + kinetic))
    factors = 1 - step * np.arange(depth)
    if np.abs(factors).min() < 1e-9:
        raise ValueError(f"all data meet between two layers: got {depth=}, {kinetic=}.")
    return depth * step / factors


def reversal_energy(
    slopes: ArrayLike, *, kinetic: float = 0.2, price: float = 0.0
) -> float:
    """$E_n$ of the network with these slopes $a_k$, in a loop."""
    slopes = as_doubles("slopes", slopes)
    if slopes.ndim != 1 or not slopes.size:
        raise ValueError(f"slopes must be one number a layer: got {slopes.shape}.")
    require_finite("slopes", slopes)
    require_within("(0, inf)", kinetic=kinetic)
    require_within("[0, inf)", price=price)
    c, running, n = 1.0, 0.0, len(slopes)
    for a in slopes:
        running += (kinetic * SECOND_MOMENT * (a * c) ** 2 + price * a**2) / (2 * n)
        c -= a * c / n
    return float(SECOND_MOMENT * (c + 1) ** 2 / 2 + running)


def least_reversal(depth: int, *, kinetic: float = 0.2, price: float) -> Reversal:
    r"""The network of that depth that costs least, by dynamic programming over the
    factors, with and without a change of sign, and descent from both.

    `price` must be positive: without one there may be no such network.
    """
    require_whole(depth=depth)
    require_within("(0, 1)", kinetic=kinetic)
    require_within("(0, inf)", price=price)
    one = np.geomspace(LEAST_FACTOR, 1, GRID)
    grids = one, np.concatenate([-one[::-1], one])
    ends = [
        _descended(_best_path(g, depth, kinetic, price), kinetic, price) for g in grids
    ]
    return min(ends, key=lambda end: end.value)


def reversal_limit(*, kinetic: float = 0.2, price: float) -> tuple[float, float]:
    r"""The least cost of the continuum, and the factor $c(1)$ there:

    $$ \min_{0 < c \le 1}\ \tfrac16 (c + 1)^2 + \tfrac12
       \Bigl( \int_c^1 \sqrt{\lambda/3 + \eta/s^2}\,\mathrm{d}s \Bigr)^2 . $$

    In $q = \log c$ the running cost is $\frac12 (\lambda e^{2q}/3 + \eta)\, \dot q^2$:
    of all ways to one end the cheapest goes at constant speed.
    """
    require_within("(0, 1)", kinetic=kinetic)
    require_within("(0, inf)", price=price)

    def length(c):  # a primitive of the root
        root = np.sqrt(kinetic * SECOND_MOMENT * c**2 + price)
        ratio = np.sqrt(price / (kinetic * SECOND_MOMENT)) / c
        return root - np.sqrt(price) * np.arcsinh(ratio)

    def cost(q):
        c = np.exp(q)
        return SECOND_MOMENT * (c + 1) ** 2 / 2 + (length(1.0) - length(c)) ** 2 / 2

    found = optimize.minimize_scalar(
        cost, bounds=(-20, 0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.fun), float(np.exp(found.x))


def _best_path(grid: np.ndarray, depth: int, kinetic: float, price: float):
    """The factors on a grid that cost least: the cost to go, layer by layer."""
    step = grid[None, :] - grid[:, None]
    ratio = step / grid[:, None]
    costs = kinetic * SECOND_MOMENT * step**2 + price * ratio**2
    costs *= depth / 2
    to_go, choices = SECOND_MOMENT * (grid + 1) ** 2 / 2, []
    for _ in range(depth):
        total = costs + to_go
        choices.append(total.argmin(axis=1))
        to_go = total[np.arange(grid.size), choices[-1]]
    at, factors = grid.size - 1, [1.0]
    for choice in reversed(choices):
        at = choice[at]
        factors.append(grid[at])
    return np.array(factors)


def _descended(factors: np.ndarray, kinetic: float, price: float) -> Reversal:
    """From there down, by L-BFGS in the factors."""

    def cost(inner):
        return _cost(np.concatenate([[1.0], inner]), kinetic, price)

    end = descend(Landscape(cost, np.float64), factors[1:], tolerance=1e-9)
    c = np.concatenate([[1.0], end.point])
    turned = np.flatnonzero(c[1:] * c[:-1] < 0)
    turns = int(turned[0]) if turned.size else None
    return Reversal(c, cost(end.point)[0], turns, end.norm)


def _cost(c: np.ndarray, kinetic: float, price: float) -> tuple[float, np.ndarray]:
    """$E_n$ and its gradient in $c_1, \\dots, c_n$."""
    n, step = len(c) - 1, np.diff(c)
    ratio, weight = step / c[:-1], kinetic * SECOND_MOMENT
    value = n / 2 * np.sum(weight * step**2 + price * ratio**2)
    value += SECOND_MOMENT * (c[-1] + 1) ** 2 / 2
    ahead = n * (weight * step + price * ratio / c[:-1])  # by the later factor
    behind = -ahead - n * price * ratio**2 / c[:-1]
    ahead[-1] += SECOND_MOMENT * (c[-1] + 1)
    ahead[:-1] += behind[1:]
    return value, ahead
