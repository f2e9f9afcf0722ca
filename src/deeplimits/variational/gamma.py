r"""Small functionals whose $\Gamma$-limits are known, with their exact constants.

A string of springs (homogenisation), the penalties of weights along depth, a scalar
network that is trained with one of them, and interfaces on a lattice. All in float64.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy import linalg, optimize

from ..checks import (
    as_doubles,
    require_finite,
    require_known,
    require_whole,
    require_within,
)

INTERFACE = 8 / 3  # of width one on the line: the integral of 2 (1 - u^2) over [-1, 1]
PENALTIES = ("squares", "no factor", "variation")
CENTRES = ("bond", "site")
_ITERATIONS = 100  # of Newton's method, which needs about six
_FAR = 20.0  # widths: there the interface is 1 in double precision


def _finite(name: str, values, shape: tuple[int | None, ...] = (None,)) -> np.ndarray:
    array = as_doubles(name, values, shape=shape)
    require_finite(name, array)
    return array


# ------------------------------------------------------------------ strings


def layered(periods: int, pieces: int) -> Float[np.ndarray, " N"]:
    r"""The stiffness $2 + \sin 2\pi n s$ in the middle of $N = n\,m$ pieces of
    $[0, 1]$: $m$ `pieces` in each of $n$ `periods`.

    Its harmonic mean is $\sqrt3$, whatever $n$, up to an error exponentially small in
    $m$. Raises `ValueError` for counts that are no positive whole numbers.

    ```pycon
    >>> stiffness = layered(periods=3, pieces=20)
    >>> round(1 / np.mean(1 / stiffness).item(), 6), round(stiffness.mean().item(), 6)
    (1.732051, 2.0)
    ```
    """
    require_whole(periods=periods, pieces=pieces)
    middle = (np.arange(periods * pieces) + 0.5) / pieces
    return 2 + np.sin(2 * np.pi * middle)


def string_energy(
    u: Float[np.ndarray, " points"], stiffness: Float[np.ndarray, " N"]
) -> float:
    r"""$\int_0^1 a\, \dot u^2 = N \sum_{i=1}^N a_i (u_i - u_{i-1})^2$ of a string of
    $N$ straight pieces, with the `stiffness` $a_i$ on piece $i$.

    Raises `ValueError` for a stiffness that is not positive, and for another number of
    values than $N + 1$.

    ```pycon
    >>> string_energy([0.0, 0.5, 1.0], [1.0, 3.0])  # straight: the mean of both
    2.0
    >>> string_energy([0.0, 0.75, 1.0], [1.0, 3.0])  # at rest: their harmonic mean
    1.5
    ```
    """
    a = _stiffness(stiffness)
    steps = np.diff(_finite("u", u, (len(a) + 1,)))
    return float(len(a) * np.sum(a * steps**2))


def string_at_rest(
    stiffness: Float[np.ndarray, " N"], *, end: float = 1.0, load: float = 0.0
) -> Float[np.ndarray, " points"]:
    r"""The minimiser, with $u_0 = 0$ and $u_N = $ `end`, of

    $$ N \sum_{i=1}^N a_i (u_i - u_{i-1})^2 - 2 f\, \frac1N \sum_{i=1}^{N-1} u_i $$

    for the `load` $f$: springs in series. Without a load its energy is the harmonic
    mean of the $a_i$ times the square of `end`. Raises `ValueError` for a stiffness
    that is not positive, and for numbers that are not finite.

    ```pycon
    >>> string_at_rest([1.0, 3.0]).tolist()  # the soft one stretches more
    [0.0, 0.75, 1.0]
    ```
    """
    a = _stiffness(stiffness)
    require_within("(-inf, inf)", end=end, load=load)
    pull = -load * (np.arange(len(a)) + 0.5) / len(a)  # up to a constant tension
    tension = pull + (end - np.mean(pull / a)) / np.mean(1 / a)
    return np.concatenate([[0.0], np.cumsum(tension / (len(a) * a))])


def _stiffness(values) -> np.ndarray:
    a = _finite("stiffness", values)
    if a.min() <= 0:
        raise ValueError(f"stiffness must be positive: got {a.min():g}.")
    return a


# ---------------------------------------------------------------- penalties


def depth_penalty(
    weights: Float[np.ndarray, " n"], *, tau: float = 1.0, kind: str = "squares"
) -> float:
    r"""The penalty of scalar weights $g_0, \dots, g_{n-1}$ along depth, by its `kind`:

    - squares: $n \sum_{k=1}^{n-1} (g_k - g_{k-1})^2 + \tau g_0^2$, with the
      $\Gamma$-limit $\int_0^1 \dot g^2 + \tau g(0)^2$;
    - no factor: the same without the factor $n$, with the $\Gamma$-limit $0$;
    - variation: $\sum_k \lvert g_k - g_{k-1} \rvert + \tau g_0^2$, with the
      $\Gamma$-limit $\lvert \mathrm{D}g \rvert(0, 1)$ plus `relaxed_start` of $g(0+)$.

    Raises `ValueError` for weights that are not finite, for $\tau < 0$ and for an
    unknown kind. Source: `thorpe2023`, for the squares.

    ```pycon
    >>> ramp = np.arange(100) / 100
    >>> kinds = ("squares", "no factor", "variation")
    >>> [round(depth_penalty(ramp, kind=kind), 4) for kind in kinds]  # to 1, 0, 1
    [0.99, 0.0099, 0.99]
    ```
    """
    require_known("kind", kind, PENALTIES)
    require_within("[0, inf)", tau=tau)
    g = _finite("weights", weights)
    steps = np.diff(g)
    sizes = {
        "squares": len(g) * np.sum(steps**2),
        "no factor": np.sum(steps**2),
        "variation": np.sum(np.abs(steps)),
    }
    return float(sizes[kind] + tau * g[0] ** 2)


def relaxed_start(value: float, tau: float) -> float:
    r"""$\min_a \lvert g - a \rvert + \tau a^2$: what it costs to start at $g$ when the
    first layer may differ from the second. $\tau g^2$ as long as
    $\lvert g \rvert \le 1/(2\tau)$, and $\lvert g \rvert - 1/(4\tau)$ beyond.

    Raises `ValueError` for a `value` that is not finite, and unless $\tau > 0$.

    ```pycon
    >>> relaxed_start(0.5, tau=1.0), relaxed_start(2.0, tau=1.0)  # not 4
    (0.25, 1.75)
    ```
    """
    require_within("(-inf, inf)", value=value)
    require_within("(0, inf)", tau=tau)
    size = abs(value)
    return tau * size**2 if 2 * tau * size <= 1 else size - 1 / (4 * tau)


# ------------------------------------------------------- a scalar network


def scalar_network(weights: Float[np.ndarray, " n"]) -> float:
    r"""$h_n = \prod_k (1 + g_k/n)$: the scalar linear network
    $h_{k+1} = h_k + g_k h_k/n$ from $h_0 = 1$, whose limit is $\exp \int_0^1 g$.

    Raises `ValueError` for weights that are not finite.

    ```pycon
    >>> round(scalar_network(np.ones(2)), 4), round(scalar_network(np.ones(10**4)), 3)
    (2.25, 2.718)
    ```
    """
    g = _finite("weights", weights)
    return float(np.prod(1 + g / len(g)))


def scalar_energy(
    weights: Float[np.ndarray, " n"],
    *,
    target: float = 2.0,
    alpha: float = 0.1,
    tau: float = 1.0,
) -> float:
    r"""$E_n(g) = (h_n - y)^2 + \alpha \bigl( n \sum_k (g_k - g_{k-1})^2
    + \tau g_0^2 \bigr)$, what training the scalar network to the `target` $y$ costs.

    Raises `ValueError` for weights that are not finite, unless $0 < y \le 2$ (where
    the minimiser of the limit is unique), and unless $\alpha$ and $\tau$ are positive.

    ```pycon
    >>> scalar_energy(np.zeros(4)), scalar_energy(np.ones(2), target=2.0, alpha=0.1)
    (1.0, 0.1625)
    ```
    """
    _require_training(target, alpha, tau)
    loss = (scalar_network(weights) - target) ** 2
    return loss + alpha * depth_penalty(weights, tau=tau)


def _require_training(target: float, alpha: float, tau: float) -> None:
    require_within("(0, 2]", target=target)
    require_within("(0, inf)", alpha=alpha, tau=tau)


def scalar_minimiser(
    depth: int, *, target: float = 2.0, alpha: float = 0.1, tau: float = 1.0
) -> Float[np.ndarray, " n"]:
    r"""Weights at which `scalar_energy` is least, by Newton's method from the limit.

    Raises `ValueError` for a `depth` under 2 and as `scalar_energy`, and
    `RuntimeError` where Newton's method has not settled.

    ```pycon
    >>> best = scalar_minimiser(20)
    >>> _, limit = scalar_limit()
    >>> 0 < scalar_energy(best) - limit < 1 / 20 < scalar_energy(1.1 * best)
    True
    ```
    """
    require_whole(2, depth=depth)
    _require_training(target, alpha, tau)
    n = depth
    mean, _ = scalar_limit(target=target, alpha=alpha, tau=tau)
    g = scalar_profile(np.arange(n) / n, mean=mean, tau=tau)
    laplacian = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    laplacian[0, 0] = laplacian[-1, -1] = 1.0
    quadratic = 2 * alpha * n * laplacian
    quadratic[0, 0] += 2 * alpha * tau
    for _ in range(_ITERATIONS):
        h, slope = np.prod(1 + g / n), 1 / (n + g)  # of log h
        gradient = 2 * (h - target) * h * slope + quadratic @ g
        curvature = 2 * (2 * h - target) * h * np.outer(slope, slope)
        curvature -= 2 * (h - target) * h * np.diag(slope**2)
        step = np.linalg.solve(quadratic + curvature, gradient)
        g = g - step
        if np.abs(step).max() < 1e-12 * (1 + np.abs(g).max()):
            return g
    raise RuntimeError(
        f"Newton's method has not settled at {depth=}, {alpha=}, {tau=}."
    )


def scalar_limit(
    *, target: float = 2.0, alpha: float = 0.1, tau: float = 1.0
) -> tuple[float, float]:
    r"""The limit of training in one number: the mean $m$ of the best weights, and the
    least value,

    $$ \min_m\; (\mathrm{e}^m - y)^2 + \alpha \frac{m^2}{\kappa}, \qquad
       \kappa = \frac1\tau + \frac13. $$

    Raises `ValueError` as `scalar_energy`.

    ```pycon
    >>> mean, value = scalar_limit(alpha=1e-6)
    >>> round(np.exp(mean).item(), 4), round(value / 1e-6, 4)  # (3/4) log² 2
    (2.0, 0.3603)
    ```
    """
    _require_training(target, alpha, tau)
    weight = alpha / (1 / tau + 1 / 3)

    def slope(m):
        return (math.exp(m) - target) * math.exp(m) + weight * m

    low, high = sorted((0.0, math.log(target)))
    if low == high:
        return 0.0, 0.0
    mean = optimize.root_scalar(slope, bracket=(low, high), xtol=1e-15).root
    return mean, (math.exp(mean) - target) ** 2 + weight * mean**2


def scalar_profile(
    s: Float[np.ndarray, " points"], *, mean: float, tau: float = 1.0
) -> Float[np.ndarray, " points"]:
    r"""The least penalised weights of mean $m$ at depth-times $s$,

    $$ g(s) = \frac{m}{\kappa} \Bigl( \frac1\tau + s - \frac{s^2}2 \Bigr), \qquad
       \int_0^1 \dot g^2 + \tau g(0)^2 = \frac{m^2}\kappa. $$

    Raises `ValueError` for numbers that are not finite, and unless $\tau > 0$.

    ```pycon
    >>> profile = scalar_profile(np.array([0.0, 0.5, 1.0]), mean=4.0)
    >>> profile.tolist(), float(profile @ [1, 4, 1] / 6)  # Simpson's rule is exact
    ([3.0, 4.125, 4.5], 4.0)
    ```
    """
    require_within("(-inf, inf)", mean=mean)
    require_within("(0, inf)", tau=tau)
    s = _finite("s", s)
    return mean / (1 / tau + 1 / 3) * (1 / tau + s - s**2 / 2)


# -------------------------------------------------------------- interfaces


def lattice_energy(u: Float[np.ndarray, " sites"], *, spacing: float) -> float:
    r"""$\sum_i (u_{i+1} - u_i)^2/r + r \sum_i (1 - u_i^2)^2$: the energy of
    Modica and Mortola on a lattice whose `spacing` is $r$ widths of the interface.

    Raises `ValueError` for values that are not finite, and unless $r > 0$.

    ```pycon
    >>> u = np.tanh(0.1 * np.arange(-200, 201))
    >>> round(lattice_energy(u, spacing=0.1), 2)  # 8/3 on the line
    2.67
    ```
    """
    require_within("(0, inf)", spacing=spacing)
    u = _finite("u", u)
    wells = np.sum((1 - u**2) ** 2)
    return float(np.sum(np.diff(u) ** 2) / spacing + spacing * wells)


def lattice_force(
    u: Float[np.ndarray, " sites"], *, spacing: float
) -> Float[np.ndarray, " sites"]:
    r"""Minus the gradient of `lattice_energy`, with the same errors.

    ```pycon
    >>> lattice_force(np.array([-1.0, 1.0, 1.0]), spacing=0.5).tolist()
    [8.0, -8.0, 0.0]
    ```
    """
    require_within("(0, inf)", spacing=spacing)
    u = _finite("u", u)
    steps = np.diff(u)
    pull = np.append(steps, 0.0) - np.insert(steps, 0, 0.0)
    return 2 * pull / spacing + 4 * spacing * u * (1 - u**2)


def lattice_interface(
    spacing: float, *, centre: str = "bond"
) -> Float[np.ndarray, " sites"]:
    r"""The odd interface from $-1$ to $1$ at which `lattice_energy` is stationary.

    Its `centre` is in the middle of a "bond" of the lattice, where the energy is least,
    or on a "site". Newton's method on one half. Raises `ValueError` unless
    $0.01 \le r \le 10$ and for another centre, and `RuntimeError` where Newton's method
    has not settled.

    ```pycon
    >>> u = lattice_interface(0.5)
    >>> bool(np.all(np.diff(u) >= 0)), float(abs(u + u[::-1]).max())
    (True, 0.0)
    >>> float(abs(lattice_force(u, spacing=0.5)).max()) < 1e-6
    True
    ```
    """
    require_within("[0.01, 10]", spacing=spacing)
    require_known("centre", centre, CENTRES)
    r, shift = spacing, 0.5 if centre == "bond" else 1.0
    # far away it tends to 1 by the factor exp(-2 asinh r) a site
    x = r * (np.arange(math.ceil(_FAR / math.asinh(r)) + 1) + shift)
    u, inner = np.tanh(x), 6 / r if centre == "bond" else 4 / r
    bands = np.full((3, len(u)), -2 / r)
    for _ in range(_ITERATIONS):
        whole = np.concatenate([-u[::-1], [0.0] * (centre == "site"), u, [1.0]])
        force = lattice_force(whole, spacing=r)[-len(u) - 1 : -1]
        bands[1] = 4 / r - 4 * r * (1 - 3 * u**2)
        bands[1, 0] += inner - 4 / r
        step = linalg.solve_banded((1, 1), bands, force)
        u = u + step
        if np.abs(step).max() < 1e-13:
            return np.concatenate([-u[::-1], [0.0] * (centre == "site"), u])
    raise RuntimeError(f"Newton's method has not settled: {spacing=}, {centre=}.")
