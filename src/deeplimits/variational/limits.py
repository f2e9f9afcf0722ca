r"""What links $E_n$ to its limit: interpolants, recovery sequences, and the rate.

$I_n$ makes of the weights of a network the path that is linear between the nodes
$i/n$ and constant after the last: it has the penalty $R_n$ exactly. $\Pi_n$ samples a
path, $\theta_i = \theta(i/n)$, and $R_n(\Pi_n \theta) \le \int |\dot\theta|^2 + \tau
|\theta(0)|^2$: the recovery sequence. At a critical point $\theta$ of class $C^1$,

$$ n \bigl(E_n(\Pi_n \theta) - E_\infty(\theta)\bigr) \to C(\theta)
   = -\tfrac12 \sum_s \int_0^1 P_s \cdot \ddot X_s \,\mathrm{d}t, $$

with the costate $\dot P = -\partial_x f^\top P$, $P(1) = \nabla \ell$.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..checks import as_doubles, require_finite, require_known, require_whole
from ..initialisation import Path, along_path
from ..residual import AbstractBlock
from .functional import (
    Affine,
    Parameters,
    Problem,
    _field,
    adjoint,
)


def closed(parameters: Parameters) -> Parameters:
    """$I_n$ of a network's weights on $n + 1$ nodes: the last one is repeated.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> closed(one_layer(8, 2)).block.weight.shape
    (9, 2, 2)
    ```
    """
    block = jax.tree.map(lambda z: jnp.concatenate([z, z[-1:]]), parameters.block)
    return Parameters(block, parameters.readout)


def recovered(path: Path, readout: Affine, depth: int) -> Parameters:
    r"""The recovery sequence $\Pi_n \theta$: a path of blocks at the nodes $i/n$."""
    require_whole(2, depth=depth)
    return Parameters(along_path(path, depth), readout)


def limit_energy(problem: Problem, parameters: Parameters) -> Float[Array, ""]:
    r"""$E_\infty(I_n \theta)$ of a network's weights.

    The penalty is exact; the flow is solved by four steps of the fourth order between
    two nodes. Raises `ValueError` for another scheme than "euler" and for a penalty
    whose limit is not that of $R_n$.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> float(limit_energy(problem, one_layer(8, 2)))  # nothing moves there either
    2.0
    ```
    """
    _need_network(problem)
    _need_slopes(problem)
    return _limit_energy(problem, parameters)


@jax.jit
def _limit_energy(problem: Problem, parameters: Parameters) -> Float[Array, ""]:
    return problem.but(scheme="ode").energy(closed(parameters))


def _need_network(problem: Problem) -> None:
    require_known("scheme", problem.scheme, ("euler",))


def _need_slopes(problem: Problem) -> None:
    r"""The penalty has to be one whose limit is $\int |\dot\theta|^2$."""
    require_known("penalty", problem.penalty, ("sobolev", "no tau"))


# ---------------------------------------------------------------------- distances


def distances(first: Parameters, second: Parameters) -> tuple[float, float]:
    r"""How far apart two networks' weights are: $L^2(0, 1)$ and largest distance of
    their interpolants $I_n$, exactly: weights on the nodes $i/n$, $i < n$, not those of
    another scheme. The reading is left out.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> distances(one_layer(8, 2), one_layer(16, 2))
    (0.0, 0.0)
    ```
    """
    grid, (a, b) = _common(first, second)
    difference = a - b
    return _l2(grid, difference), float(np.linalg.norm(difference, axis=1).max())


def tl2_distance(network: Parameters, path: Parameters) -> float:
    r"""The distance of a function on the nodes $i/n$ to a path, $I_m$ of `path`:

    $$ \Bigl(\int_0^1 |T(t) - t|^2 + |\theta_n(T(t)) - \theta(t)|^2 \,\mathrm{d}t
       \Bigr)^{1/2}, \qquad T(t) = \lfloor n t \rfloor / n, $$

    in $TL^2$ along the monotone map $T$ (the infimum over all maps may be smaller; its
    topology is the same). Source: `garciatrillos2016`.
    """
    n = network.nodes
    grid, (_, values) = _common(network, path)
    place = np.minimum(((grid[1:] + grid[:-1]) / 2 * n).astype(int), n - 1)
    held = _rows(network)[place]
    left, right = values[:-1] - held, values[1:] - held
    total = _simpson(np.diff(grid), left, right)
    return float(np.sqrt(1 / (3 * n**2) + total))


def _rows(parameters: Parameters) -> np.ndarray:
    leaves = jax.tree.leaves(parameters.block)
    return np.concatenate(
        [np.asarray(z, np.float64).reshape(len(z), -1) for z in leaves], axis=1
    )


def _at(parameters: Parameters, times: np.ndarray) -> np.ndarray:
    rows, n = _rows(parameters), parameters.nodes
    nodes = np.arange(n) / n
    return np.stack([np.interp(times, nodes, row) for row in rows.T], axis=1)


def _common(*each: Parameters) -> tuple[np.ndarray, list[np.ndarray]]:
    widths = {_rows(p).shape[1] for p in each}
    if len(widths) != 1:
        raise ValueError(f"weights of one width are needed: got {sorted(widths)}.")
    grids = [np.append(np.arange(p.nodes) / p.nodes, 1.0) for p in each]
    grid = np.unique(np.concatenate(grids))
    return grid, [_at(p, grid) for p in each]


def _l2(grid: np.ndarray, values: np.ndarray) -> float:
    return float(np.sqrt(_simpson(np.diff(grid), values[:-1], values[1:])))


def _simpson(steps: np.ndarray, left: np.ndarray, right: np.ndarray) -> float:
    """The integral of the square of what is linear on each piece, exactly."""
    squares = (left**2 + left * right + right**2).sum(1) / 3
    return float(steps @ squares)


# -------------------------------------------------------- the Euler-Lagrange system


@dataclass(frozen=True)
class EulerLagrange:
    r"""The discrete Euler–Lagrange system of each part of the block.

    `interior` is the largest entry of
    $2 \alpha n^2 (\theta_{i+1} - 2\theta_i + \theta_{i-1}) - G_i$, where
    $G_i = n\, \partial_{\theta_i} \sum_s \ell_s$; `start` that of
    $n(\theta_1 - \theta_0) - \tau \theta_0 - G_0/(2 \alpha n)$ and `end` that of
    $n(\theta_{n-1} - \theta_{n-2}) + G_{n-1}/(2 \alpha n)$; `reading` that of
    $2 \alpha \omega + \partial_\omega \sum_s \ell_s$. All vanish at a minimiser.
    `natural_start` and `natural_end` leave the terms with $G$ out: these natural
    conditions hold up to $O(1/n)$.

    ```pycon
    >>> from deeplimits.variational import minima, parameters
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=10.0)
    >>> start = parameters.one_layer(4, 2)
    >>> least = minima.minimise(problem, start, tolerance=1e-3).parameters
    >>> [round(euler_lagrange(problem, each).reading, 1) for each in (start, least)]
    [2.0, 0.0]
    ```
    """

    interior: float
    start: float
    end: float
    reading: float
    natural_start: float
    natural_end: float

    @property
    def residual(self) -> float:
        """The largest of what vanishes at a minimiser."""
        return float(np.max([self.interior, self.start, self.end, self.reading]))


def euler_lagrange(problem: Problem, parameters: Parameters) -> EulerLagrange:
    """The Euler–Lagrange residual of a network, with the exact boundary terms.

    Raises `ValueError` for weights that are not finite, for another scheme than "euler"
    and another penalty than "sobolev".
    """
    _need_network(problem)
    require_finite("parameters", parameters)
    require_known("penalty", problem.penalty, ("sobolev",))
    gradient = adjoint(problem, parameters).gradient
    n = problem.steps(parameters)
    alpha = np.asarray(problem.alphas(parameters))
    blocks = jax.tree.leaves(parameters.block)
    tau = np.asarray(problem.taus(parameters))
    rows = {name: [0.0] for name in EulerLagrange.__dataclass_fields__}
    for z, g, a, t in zip(
        map(np.asarray, blocks),
        map(np.asarray, jax.tree.leaves(gradient.block)),
        alpha,
        tau,
        strict=False,
    ):
        slope, forced = n * np.diff(z, axis=0), g / (2 * a)
        rows["interior"].append(_most(2 * a * n * np.diff(slope, axis=0) - n * g[1:-1]))
        rows["natural_start"].append(_most(slope[0] - t * z[0]))
        rows["natural_end"].append(_most(slope[-1]))
        rows["start"].append(_most(slope[0] - t * z[0] - forced[0]))
        rows["end"].append(_most(slope[-1] + forced[-1]))
    reading = zip(
        jax.tree.leaves(parameters.readout),
        jax.tree.leaves(gradient.readout),
        alpha[-2:],
        strict=True,
    )
    rows["reading"] = [
        _most(2 * a * np.asarray(z) + np.asarray(g)) for z, g, a in reading
    ]
    # not Python's `max`, which overlooks NaN
    return EulerLagrange(**{name: float(np.max(r)) for name, r in rows.items()})


def _most(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


# --------------------------------------------------- what is conserved, and the rate


def hamiltonian(
    problem: Problem, parameters: Parameters
) -> tuple[Float[Array, " middles"], Float[Array, " middles"]]:
    r"""What is conserved along depth at a critical point, and its first term alone:

    $$ H_{k+\frac12} = \tfrac12 \sum_s P_{k+1} \cdot
       \bigl(f(X_k, \theta_k) + f(X_{k+1}, \theta_{k+1})\bigr)
       - \sum_j \alpha_j n^2 |\theta_{j,k+1} - \theta_{j,k}|^2, $$

    $k = 0, \dots, n - 2$. Its spread is $O(n^{-2})$, its mean converges at first order.
    Raises `ValueError` for another scheme than "euler" and for a penalty without the
    second term.

    ```pycon
    >>> from deeplimits.residual import OneLayer
    >>> one, zero = jnp.ones((1, 1)), jnp.zeros(1)
    >>> problem = Problem(one, zero, alpha=0.1, loss=lambda z, y: z @ z)
    >>> block = OneLayer(jnp.ones((4, 1, 1)), activation="identity")
    >>> H, _ = hamiltonian(problem, Parameters(block, Affine(one, zero)))
    >>> [round(value, 2) for value in H.tolist()]
    [10.73, 10.73, 10.73]
    ```
    """
    _need_network(problem)
    _need_slopes(problem)
    return _hamiltonian(problem, parameters)


@jax.jit
def _hamiltonian(problem: Problem, parameters: Parameters) -> tuple[Array, Array]:
    found, n = adjoint(problem, parameters), problem.steps(parameters)
    slopes = jax.vmap(_field)(parameters.block, found.states[:-1])
    work = _inner(found.costates[1:-1], slopes[1:] + slopes[:-1]) / 2
    alpha = problem.alphas(parameters)
    return work - n**2 * _kinetic(parameters.block, alpha), work


def _inner(first: Array, second: Array) -> Array:
    """Inner products at each depth."""
    return jnp.sum(first * second, axis=tuple(range(1, first.ndim)))


def _kinetic(block: AbstractBlock, alpha: Array) -> Array:
    r"""$\sum_j \alpha_j |\theta_{j,k+1} - \theta_{j,k}|^2$ at each $k$."""
    rises = [jnp.diff(z, axis=0) for z in jax.tree.leaves(block)]
    return sum(a * _inner(d, d) for a, d in zip(alpha, rises, strict=False))  # pyright: ignore


@dataclass(frozen=True)
class RateConstant:
    r"""$C = -\frac12 \sum_s \int P_s \cdot \ddot X_s$, of any path, as `general`; and

    $$ C = -\tfrac12 \sum_s \int_0^1 P_s^\top \partial_x f\, f \,\mathrm{d}t
       + \tfrac12 \sum_j \alpha_j \tau_j^2 |\theta_j(0)|^2, $$

    which is the same at a critical point only, as `critical`.

    ```pycon
    >>> from deeplimits.residual import OneLayer
    >>> one, zero = jnp.ones((1, 1)), jnp.zeros(1)
    >>> problem = Problem(one, zero, alpha=0.1, loss=lambda z, y: z @ z)
    >>> block = OneLayer(jnp.ones((4, 1, 1)), activation="identity")
    >>> found = rate_constant(problem, Parameters(block, Affine(one, zero)))
    >>> round(found.critical - found.general, 3)  # α/2: the point is not critical
    0.05
    ```
    """

    general: float
    critical: float


def rate_constant(problem: Problem, parameters: Parameters) -> RateConstant:
    r"""The constant $C$ of $n (\min E_n - \min E_\infty) \to C$, in both forms.

    Of the interpolant of the weights (of a network; with another scheme, of those on
    its nodes), with the flow and its costate of $E_\infty$ and the trapezoidal rule.
    At a minimiser of `problem.but(scheme="heun")` both forms are good to second order
    in $1/n$, at one of the network to first order.

    ```pycon
    >>> from deeplimits.residual import OneLayer
    >>> one, zero = jnp.ones((1, 1)), jnp.zeros(1)
    >>> problem = Problem(one, zero, alpha=0.1, loss=lambda z, y: z @ z)
    >>> block = OneLayer(jnp.ones((4, 1, 1)), activation="identity")
    >>> found = rate_constant(problem, Parameters(block, Affine(one, zero)))
    >>> round(found.general, 2)  # n((1 + 1/n)²ⁿ - e²) → -e²
    -7.39
    ```
    """
    require_known("penalty", problem.penalty, ("sobolev",))
    if problem.scheme == "euler":
        parameters = closed(parameters)
    general, critical = _rate_constant(problem.but(scheme="ode"), parameters)
    return RateConstant(float(general), float(critical))


@jax.jit
def _rate_constant(problem: Problem, parameters: Parameters) -> tuple[Array, Array]:
    found, n = adjoint(problem, parameters), problem.steps(parameters)
    block = parameters.block
    left, right = (jax.tree.map(lambda z, s=s: z[s], block) for s in _ENDS)
    rise = jax.tree.map(lambda a, b: n * (b - a), left, right)

    def accelerations(block, x, rise):
        _, turned = jax.jvp(lambda x: _field(block, x), (x,), (_field(block, x),))
        _, driven = jax.jvp(lambda z: _field(z, x), (block,), (rise,))
        return turned, driven

    def work(ends, nodes):
        parts = jax.vmap(accelerations)(nodes, found.states[ends], rise)
        return [_inner(found.costates[ends], part) for part in parts]

    terms = [work(s, z) for s, z in zip(_ENDS, (left, right), strict=True)]
    turned, driven = jnp.asarray(terms).mean(axis=(0, 2))
    tau = problem.taus(parameters)
    first = jnp.stack([jnp.sum(z[0] ** 2) for z in jax.tree.leaves(block)])
    held = jnp.sum(problem.alphas(parameters)[:-2] * tau**2 * first)
    return -(turned + driven) / 2, -turned / 2 + held / 2


_ENDS = (slice(None, -1), slice(1, None))


def extrapolated(depths: ArrayLike, values: ArrayLike) -> float:
    r"""The limit of values $a + b/n + c/n^2$ from the last three depths.

    Raises `ValueError` for fewer than three depths.

    ```pycon
    >>> depths = np.array([8.0, 16.0, 32.0])
    >>> round(extrapolated(depths, 3 + 2 / depths - 5 / depths**2), 6)
    3.0
    ```
    """
    n = as_doubles("depths", depths, shape=(None,))
    limits = as_doubles("values", values, shape=n.shape)
    require_finite("depths", n)
    require_finite("values", limits)
    if len(set(n[-3:])) < 3 or not (n > 0).all():
        raise ValueError(f"three positive depths are needed: got {n.tolist()}.")
    basis = np.vander(1 / n[-3:], 3, increasing=True)
    return float(np.linalg.solve(basis, limits[-3:])[0])
