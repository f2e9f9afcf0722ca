r"""Exact and sliced distances of Wasserstein, and how far samples are from their law:

$$ W_p(\mu, \nu) = \Bigl(\min_{\pi} \int |x - y|^p\, \mathrm{d}\pi(x, y)
   \Bigr)^{1/p} $$

over the couplings $\pi$ of $\mu$ and $\nu$, with the Euclidean norm: in double
precision of NumPy, outside JAX's transformations. Source: `peyre2019`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, SupportsFloat

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import optimize, sparse, spatial, stats

from ..checks import as_doubles, require_level, require_whole
from ..intervals import Interval, Kind
from ..statistics import mean_interval
from .laws import Empirical, Histogram

MOST_MATCHED = 8192  # points: their costs are half a gigabyte
MOST_PAIRS = 2**18  # of weighted points: linear programming takes ten seconds


def wasserstein(
    mu: Empirical | Histogram, nu: Empirical | Histogram, *, p: int = 1
) -> float:
    r"""$W_p(\mu, \nu)$ for $p = 1$ or $2$, exactly, in double precision of NumPy.

    On the line by quantiles, $\int_0^1 |F_\mu^{-1} - F_\nu^{-1}|^p\, \mathrm{d}u$,
    which are linear between the cuts of both; for as many points of equal weight by
    SciPy's assignment (1,000 in a second); else by its linear programming. Raises
    `ValueError` for measures in different dimensions, for another $p$, and for more
    points than fit: 8,192 in an assignment, 262,144 pairs in a programme.
    Source: `peyre2019`, `bobkov2019` on the line.

    ```pycon
    >>> from deeplimits.measures import laws
    >>> left, right = (laws.Empirical(jnp.arange(2.0) + x) for x in (0, 3))
    >>> wasserstein(left, right), wasserstein(left, right, p=2)
    (3.0, 3.0)
    ```
    """
    require_pair(mu, nu, p, kinds=(Empirical, Histogram))
    if isinstance(mu, Histogram) or isinstance(nu, Histogram) or _dimension(mu) == 1:
        return _line_cost(_quantiles(mu), _quantiles(nu), p) ** (1 / p)
    if len(mu.points) == len(nu.points) and mu.weights is None and nu.weights is None:
        return _assigned(mu, nu, p) ** (1 / p)
    return _programmed(mu, nu, p) ** (1 / p)


def require_pair(mu: Any, nu: Any, p: Any, kinds: tuple = (Empirical,)) -> None:
    """Raise `ValueError` for other than measures of these kinds in one space, and for
    another $p$ than 1 or 2."""
    for name, measure in (("mu", mu), ("nu", nu)):
        if not isinstance(measure, kinds):
            known = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{name} must be {known}: got {type(measure).__name__}.")
    if _dimension(mu) != _dimension(nu):
        raise ValueError(
            "mu and nu must lie in one space: got dimensions "
            f"{_dimension(mu)} and {_dimension(nu)}."
        )
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2: got {p}.")


def _dimension(measure: Empirical | Histogram) -> int:
    return 1 if isinstance(measure, Histogram) else measure.points.shape[1]


class _Quantiles(NamedTuple):
    """A quantile function, linear from `left` to `right` between two `cuts`."""

    cuts: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def at(self, cells: np.ndarray, heights: np.ndarray) -> np.ndarray:
        rise = self.right[cells] - self.left[cells]
        widths = self.cuts[cells + 1] - self.cuts[cells]
        widths = np.where(widths > 0, widths, 1.0)  # of less than a rounding error
        return self.left[cells] + rise * (heights - self.cuts[cells]) / widths


def _weights(measure: Empirical | Histogram) -> np.ndarray:
    """In double precision, and with the sum 1."""
    if isinstance(measure, Empirical) and measure.weights is None:
        return np.full(len(measure.points), 1 / len(measure.points))
    masses = as_doubles("masses", measure.masses)
    return masses / masses.sum()


def _quantiles(measure: Empirical | Histogram) -> _Quantiles:
    if isinstance(measure, Histogram):
        edges, masses = as_doubles("edges", measure.edges), _weights(measure)
        return _piecewise(masses, edges[:-1], edges[1:])
    return _steps(_weights(measure), as_doubles("points", measure.points)[:, 0])


def _steps(masses: np.ndarray, points: np.ndarray) -> _Quantiles:
    order = np.argsort(points)
    return _piecewise(masses[order], points[order], points[order])


def _piecewise(masses: np.ndarray, left: np.ndarray, right: np.ndarray) -> _Quantiles:
    held = masses > 0
    cuts = np.append(0.0, np.cumsum(masses[held]))
    cuts[-1] = 1.0
    return _Quantiles(cuts, left[held], right[held])


def _line_cost(mu: _Quantiles, nu: _Quantiles, p: int) -> float:
    """The integral of a power of a function that is linear in pieces."""
    cuts = np.sort(np.concatenate([mu.cuts, nu.cuts[1:-1]]))
    low, high = cuts[:-1], cuts[1:]
    first, last = np.zeros_like(low), np.zeros_like(low)
    for sign, law in ((1, mu), (-1, nu)):
        cells = np.searchsorted(law.cuts, (low + high) / 2, side="right") - 1
        cells = np.clip(cells, 0, len(law.left) - 1)
        first += sign * law.at(cells, low)
        last += sign * law.at(cells, high)
    if p == 2:
        means = (first**2 + first * last + last**2) / 3
    else:
        sizes = np.abs(first) + np.abs(last)
        crossing = (first**2 + last**2) / np.where(sizes > 0, sizes, 1.0)
        means = np.where(first * last < 0, crossing, sizes) / 2
    return float(np.sum((high - low) * means))


def _costs(mu: Empirical, nu: Empirical, p: int) -> np.ndarray:
    x, y = (as_doubles("points", each.points) for each in (mu, nu))
    return spatial.distance.cdist(x, y, "euclidean" if p == 1 else "sqeuclidean")


def _assigned(mu: Empirical, nu: Empirical, p: int) -> float:
    if (count := len(mu.points)) > MOST_MATCHED:
        raise ValueError(
            f"mu and nu have {count} points each: assignment takes {MOST_MATCHED} at "
            "most; take `sliced` or `sinkhorn`."
        )
    costs = _costs(mu, nu, p)
    return float(costs[optimize.linear_sum_assignment(costs)].mean())


def _programmed(mu: Empirical, nu: Empirical, p: int) -> float:
    """The least cost over couplings, whose rows and columns sum to the weights."""
    n, m = len(mu.points), len(nu.points)
    if n * m > MOST_PAIRS:
        raise ValueError(
            f"mu and nu have {n} and {m} points: weighted ones, or clouds of unequal "
            f"size, are matched up to {MOST_PAIRS} pairs; take `sliced` or `sinkhorn`."
        )
    costs = _costs(mu, nu, p)
    rows = sparse.kron(sparse.eye(n), np.ones((1, m)))
    columns = sparse.kron(np.ones((1, n)), sparse.eye(m))
    tolerances = ("primal_feasibility_tolerance", "dual_feasibility_tolerance")
    # The last column follows from the others. Tolerances are absolute: hence masses
    # about 1, which are given back at the end.
    found = optimize.linprog(
        costs.ravel(),
        A_eq=sparse.vstack([rows, columns.tocsr()[:-1]]).tocsr(),
        b_eq=max(n, m) * np.concatenate([_weights(mu), _weights(nu)[:-1]]),
        method="highs",
        options=dict.fromkeys(tolerances, 1e-10),
    )
    if not found.success:
        raise RuntimeError(f"the linear programme was not solved: {found.message}")
    return max(float(found.fun), 0.0) / max(n, m)


def sliced(
    mu: Empirical,
    nu: Empirical,
    *,
    p: int = 1,
    directions: int = 64,
    level: float = 0.95,
    key: PRNGKeyArray,
) -> Interval:
    r"""The sliced distance $\bigl(\mathbb{E}_\theta\, W_p^p(\theta_\# \mu,
    \theta_\# \nu)\bigr)^{1/p}$ over directions $\theta$, uniform on the sphere.

    The interval is Student's over the random `directions`. Raises `ValueError` for
    measures in different dimensions, for another $p$ than 1 or 2, and for fewer than
    two directions. Source: `bonneel2015`.

    ```pycon
    >>> left, right = (Empirical(jnp.eye(2) + x) for x in (0.0, 3.0))
    >>> found = sliced(left, right, p=2, directions=400, key=jr.key(0))
    >>> abs(found.value - 3) < 0.3  # the mean of 18 cos² is 9
    True
    ```
    """
    require_whole(2, directions=directions)
    require_level(level)
    require_pair(mu, nu, p)
    drawn = as_doubles("directions", jr.normal(key, (directions, _dimension(mu))))
    drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    a, b = _weights(mu), _weights(nu)
    x, y = (as_doubles("points", each.points) @ drawn.T for each in (mu, nu))

    costs = [
        _line_cost(_steps(a, u), _steps(b, v), p) for u, v in zip(x.T, y.T, strict=True)
    ]
    mean = mean_interval(costs, level=level)
    value, low, high = (max(number, 0.0) ** (1 / p) for number in mean.numbers)
    return Interval(value, low, high, mean.kind)


def between_laws(
    mu: Empirical,
    nu: Empirical,
    *,
    groups: int = 16,
    level: float = 0.95,
    distance: Callable[[Empirical, Empirical], SupportsFloat] = wasserstein,
) -> Interval:
    r"""An interval for the distance between the laws of two samples, in any dimension.

    Each sample, of independent draws of equal weight, is cut into `groups`. With $D$
    the mean distance of a group of $\mu$ to one of $\nu$, and $S_\mu$, $S_\nu$ those
    between two groups of one sample,

    $$ D - S_\mu - S_\nu \le W_1(\mu, \nu) \le D $$

    by the triangle inequality and convexity; each of the three is measured with
    Student's interval, at a level that makes up for their number. The value in between,
    $(D^2 - S^2)^{1/2}$ with $S = (S_\mu + S_\nu) / 2$, or 0, is what is left of $D$
    where chance is taken off as a variance is. `distance` may be another metric that
    is convex in both measures together, as the sliced $W_1$ is and $W_2$ is not. Raises
    `ValueError` for an odd number of groups and fewer than four, for weighted points,
    and for fewer points than groups.
    """
    require_whole(4, groups=groups)
    require_level(level)
    if groups % 2:
        raise ValueError(f"groups must be even: got {groups}.")
    x, y = _groups("mu", mu, groups), _groups("nu", nu, groups)
    pairs = (
        zip(x, y, strict=True),
        zip(x[::2], x[1::2], strict=True),
        zip(y[::2], y[1::2], strict=True),
    )
    third = 1 - (1 - level) / 3
    across, within_mu, within_nu = (
        mean_interval([float(distance(*pair)) for pair in each], level=third)
        for each in pairs
    )
    within = (within_mu.value + within_nu.value) / 2
    value = max(across.value**2 - within**2, 0.0) ** 0.5
    low = max((across - within_mu - within_nu).low, 0.0)
    return Interval(max(value, low), low, across.high, Kind.SEEDS)


def _groups(name: str, measure: Any, groups: int) -> list[Empirical]:
    if not isinstance(measure, Empirical) or measure.weights is not None:
        raise ValueError(f"{name} must be Empirical, with points of equal weight.")
    if (size := len(measure.points) // groups) == 0:
        raise ValueError(f"{name} has {len(measure.points)} points: fewer than groups.")
    points = np.asarray(measure.points)
    cuts = np.arange(groups) * size
    return [Empirical(jnp.asarray(points[i : i + size])) for i in cuts]


def binomial_deviation(
    u: Float[Array | np.ndarray, "..."] | float, count: int
) -> Float[np.ndarray, "..."]:
    r"""De Moivre's mean deviation of the relative frequency in $N$ trials,

    $$ \mathbb{E}\, \Bigl|\tfrac1N \mathrm{Bin}(N, u) - u\Bigr|
       = 2 u (1 - u)\, \mathbb{P}\bigl(\mathrm{Bin}(N - 1, u)
       = \lfloor N u \rfloor\bigr). $$

    Raises `ValueError` for a `count` $N$ under 1, and for $u$ outside $[0, 1]$.
    Source: `diaconis1991`.
    """
    require_whole(count=count)
    u = as_doubles("u", u)
    if not ((u >= 0) & (u <= 1)).all():
        raise ValueError(f"u must lie in [0, 1]: got {u.min():.3g} to {u.max():.3g}.")
    likely = stats.binom.pmf(np.floor(count * u), count - 1, u)
    return 2 * u * (1 - u) * likely


def expected_w1(law: Histogram, count: int) -> float:
    r"""$\mathbb{E}\, W_1(\mu^N, \mu)$ of the empirical measure of $N$ independent
    draws of $\mu$ on the line, exactly:

    $$ \int \mathbb{E}\, \Bigl|\tfrac1N \mathrm{Bin}(N, F(x)) - F(x)\Bigr|\,
       \mathrm{d}x, $$

    a polynomial in $F$ by `binomial_deviation` between two multiples of $1/N$, hence by
    Gauss's rule there. Raises `ValueError` for a `count` $N$ under 1.
    Source: `bobkov2019`.

    ```pycon
    >>> uniform = Histogram(jnp.array([0.0, 1.0]), jnp.array([1.0]))
    >>> round(expected_w1(uniform, 1), 4)  # the mean of |X - Y|
    0.3333
    ```
    """
    require_whole(count=count)
    if not isinstance(law, Histogram):
        raise ValueError(f"law must be a Histogram: got {type(law).__name__}.")
    edges, heights = as_doubles("edges", law.edges), np.cumsum(_weights(law))
    heights = np.append(0.0, heights)
    kinks = np.interp(np.arange(1, count) / count, heights, edges)
    cuts = np.union1d(edges, kinks)
    low, width = cuts[:-1], np.diff(cuts)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    points = low[:, None] + width[:, None] * (nodes + 1) / 2
    u = np.clip(np.interp(points, edges, heights), 0, 1)
    return float(width @ binomial_deviation(u, count) @ weights / 2)
