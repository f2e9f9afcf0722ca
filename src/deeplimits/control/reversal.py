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
from scipy import linalg, optimize

from ..checks import as_doubles, require_finite, require_whole, require_within

SECOND_MOMENT = 1 / 3  # of the data
LEAST_FACTOR, GRID = 1e-4, 200  # of the search; descent goes on without a grid
CELLS = 5  # of the layers that may change the sign: those that look best
NEWTON_STEPS, FLAT = 200, 1e-10


@dataclass(frozen=True)
class Reversal:
    """The factors $c_0, \\dots, c_n$ of a network, what it costs, the layer that
    changes their sign (or None), and the norm of the gradient there.

    ```pycon
    >>> found = least_reversal(4, price=0.001)
    >>> before, after = found.factors[found.turns : found.turns + 2]
    >>> bool(before > 0 > after), found.norm < 1e-6
    (True, True)
    ```
    """

    factors: Float[np.ndarray, " nodes"]
    value: float
    turns: int | None
    norm: float


def straight_slopes(depth: int, *, kinetic: float = 0.2) -> np.ndarray:
    r"""The slopes $a_k$ by which every datum moves straight, at constant speed, to
    $x (\lambda - 1)/(\lambda + 1)$.

    Raises `ValueError` where all data meet in one point after a whole number of layers:
    where $n (1 + \lambda)/2$ is one.

    ```pycon
    >>> factors = np.cumprod(np.append(1.0, 1 - straight_slopes(4) / 4))
    >>> factors.round(4).tolist()  # equal steps from 1 to -2/3
    [1.0, 0.5833, 0.1667, -0.25, -0.6667]
    ```
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
    """$E_n$ of the network with these slopes $a_k$, in a loop.

    ```pycon
    >>> round(reversal_energy(straight_slopes(4)), 4)  # (2/3) λ/(1 + λ) for λ = 0.2
    0.1111
    ```
    """
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

    ```pycon
    >>> found = least_reversal(8, price=0.001)
    >>> limit, _ = reversal_limit(price=0.001)
    >>> found.value < limit, reversal_energy(straight_slopes(8)) < found.value
    (True, True)
    ```
    """
    require_whole(depth=depth)
    require_within("(0, 1)", kinetic=kinetic)
    require_within("(0, inf)", price=price)
    paths = _paths(depth, kinetic, price)
    ends = [_descended(path, kinetic, price) for path in paths]
    return min(ends, key=lambda end: end.value)


def reversal_limit(*, kinetic: float = 0.2, price: float) -> tuple[float, float]:
    r"""The least cost of the continuum, and the factor $c(1)$ there:

    $$ \min_{0 < c \le 1}\ \tfrac16 (c + 1)^2 + \tfrac12
       \Bigl( \int_c^1 \sqrt{\lambda/3 + \eta/s^2}\,\mathrm{d}s \Bigr)^2 . $$

    In $q = \log c$ the running cost is $\frac12 (\lambda e^{2q}/3 + \eta)\, \dot q^2$:
    of all ways to one end the cheapest goes at constant speed.

    ```pycon
    >>> value, end = reversal_limit(price=1e-10)
    >>> round(value, 3), round(end, 3)  # (1 + λ)/6 and 0 without a price, for λ = 0.2
    (0.2, 0.0)
    ```
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


def _paths(depth: int, kinetic: float, price: float) -> list[np.ndarray]:
    """The best factors on a grid that keep their sign, and those that change it in one
    layer, for the `CELLS` best layers: costs so far meet costs to go."""
    grid = np.geomspace(LEAST_FACTOR, 1, GRID)
    weight = kinetic * SECOND_MOMENT

    def layer(to):
        step = to[None, :] - grid[:, None]
        ratio = step / grid[:, None]
        return depth / 2 * (weight * step**2 + price * ratio**2)

    start = np.where(np.arange(GRID) == GRID - 1, 0.0, np.inf)
    so_far, came = _sweep(start, layer(grid).T, depth)
    to_go, goes = _sweep(SECOND_MOMENT * (grid - 1) ** 2 / 2, layer(grid), depth)
    kept = int(np.argmin(so_far[-1] + SECOND_MOMENT * (grid + 1) ** 2 / 2))
    paths = [grid[_followed(came, depth, kept)[::-1]]]
    turn, cells = layer(-grid), []
    for k in range(depth):
        total = so_far[k][:, None] + turn + to_go[depth - 1 - k]
        cells.append((total.min(), k, np.unravel_index(total.argmin(), total.shape)))
    for _, k, (before, after) in sorted(cells)[:CELLS]:
        ahead = grid[_followed(goes, depth - 1 - k, int(after))]
        paths.append(np.append(grid[_followed(came, k, int(before))[::-1]], -ahead))
    return paths


def _sweep(values: np.ndarray, costs: np.ndarray, layers: int):
    """The least costs after 0, ..., `layers` layers, and from where each comes."""
    found, choices = [values], []
    for _ in range(layers):
        total = costs + found[-1]
        choices.append(total.argmin(axis=1))
        found.append(total[np.arange(len(values)), choices[-1]])
    return found, choices


def _followed(choices: list, layers: int, at: int) -> list[int]:
    """The places on the grid, from the last layer of a sweep to its start."""
    places = [at]
    for k in reversed(range(layers)):
        places.append(int(choices[k][places[-1]]))
    return places


def _descended(c: np.ndarray, kinetic: float, price: float) -> Reversal:
    """From there down, by Newton's method in the factors, which keep their signs."""
    value, gradient = _cost(c, kinetic, price)
    for _ in range(NEWTON_STEPS):
        if np.linalg.norm(gradient) < FLAT:
            break
        move = np.append(0.0, _newton_move(c, gradient, kinetic, price))
        for share in 0.5 ** np.arange(40):
            other = c + share * move
            following = _cost(other, kinetic, price)
            if (other * c > 0).all() and following[0] < value:
                break
        else:
            break
        c, (value, gradient) = other, following
    turned = np.flatnonzero(c[1:] * c[:-1] < 0)
    turns = int(turned[0]) if turned.size else None
    return Reversal(c, float(value), turns, float(np.linalg.norm(gradient)))


def _newton_move(c, gradient, kinetic: float, price: float) -> np.ndarray:
    """Minus the inverse of the Hessian, which is tridiagonal, times the gradient; of
    the Hessian plus a multiple of the identity where it is not positive definite."""
    n, (a, b) = len(c) - 1, (c[:-1], c[1:])
    weight = kinetic * SECOND_MOMENT
    bands = np.zeros((2, n))
    bands[1] = n * (weight + price / a**2)
    bands[1, :-1] += n * (weight + price * (3 * b**2 - 2 * a * b) / a**4)[1:]
    bands[1, -1] += SECOND_MOMENT
    bands[0, 1:] = -n * (weight + price * (2 * b - a) / a**3)[1:]
    shift, unit = 0.0, np.array([[0], [1]])[-n:]
    while True:
        try:
            return -linalg.solveh_banded(bands[-n:] + shift * unit, gradient)
        except np.linalg.LinAlgError:
            shift = max(4 * shift, 1e-3 * np.abs(bands[1]).min())


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
