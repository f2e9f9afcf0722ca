r"""Ways to an optimal control, each of which says how it ended.

`direct` minimises $J$; `sweep` (and `extended_msa`) solve the optimality system, by
turns: states forwards, costates backwards, then in each layer the control that makes
the Hamiltonian least.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ..checks import (
    as_floats,
    require_finite,
    require_whole,
    require_within,
)
from ..variational.descent import (
    NEAR,
    UNSOLVED,
    Landscape,
    descend,
    newton_steps,
    unsolved,
)
from .densities import DensityForm
from .problem import (
    Control,
    ControlProblem,
    Pontryagin,
    depth_of,
    hamiltonian_slopes,
    size_in_l2,
)

HALVINGS = 60  # of an interval: to the last digit


@dataclass(frozen=True)
class Solution:
    r"""A control, and how the solver ended.

    `residual` is the $L^2(0, T)$ norm of the gradient, $\partial_\theta H(\theta_k)$ in
    layer $k$; `values` are $J$ at the start and after each iteration (for `direct` at
    the end alone); `work` counts gradients of $J$, or what costs as much: a slope of
    the Hamiltonian in every layer as one, its value as a third. `flags` are
    words, none where all is well: "residual above tolerance", with "iterations
    exhausted", "no descent" or "float32"; "two-cycle" where a sweep goes to and fro;
    "at the edge of the grid" where it wants controls beyond; "off the grid" where a
    particle of a `DensityForm` leaves it; "not a minimum".

    ```pycon
    >>> x, y = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> problem = ControlProblem(x, y, decay=1.0, field=lambda x, theta: 0 * x + theta)
    >>> found = direct(problem, jnp.zeros(3), tolerance=1e-4)  # of (θ - 1)² + θ²
    >>> found.solved, round(found.value, 3), float(found.theta.max().round(2))
    (True, 0.5, 0.5)
    ```
    """

    theta: Control
    value: float
    residual: float
    iterations: int
    work: float
    values: Float[np.ndarray, " iterations"]
    flags: tuple[str, ...]

    @property
    def solved(self) -> bool:
        """Whether the optimality system holds to the tolerance."""
        return UNSOLVED not in self.flags


# --------------------------------------------------------------- the direct method


def direct(
    problem: ControlProblem,
    start: Control,
    *,
    tolerance: float = 1e-9,
    memory: int = 20,
    max_iterations: int = 1000,
) -> Solution:
    r"""A local minimum of $J$ by L-BFGS in the variables $u = \sqrt h\, \theta$.

    The Euclidean gradient in $u$ is that in $L^2(0, T)$, so that the number of
    iterations does not grow with that of layers. Where rounding hides the descent
    before the residual is under the `tolerance`, Newton's method finishes; no step of
    it raises $J$ by more than rounding. Each of its Hessian-vector products counts as
    `work` of 2.

    ```pycon
    >>> from deeplimits.control.problem import ControlProblem
    >>> problem = ControlProblem(jnp.array([[1.0]]), jnp.array([[2.0]]), decay=0.1)
    >>> found = direct(problem, jnp.zeros(4), tolerance=1e-4)
    >>> found.theta.shape, found.value < 1.0, found.flags
    ((4,), True, ())
    ```
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(memory=memory, max_iterations=max_iterations)
    start = started(problem, start)
    flat = np.asarray(_flat(problem, start))
    landscape = Landscape(
        lambda u: _value_and_gradient(problem, u, start),
        flat.dtype,
        lambda u, v: _product(problem, u, v, start),
    )
    found = descend(
        landscape,
        flat,
        tolerance=tolerance,
        memory=memory,
        max_iterations=max_iterations,
    )
    point, flags = found.point, ()
    if not found.exhausted and tolerance <= found.norm < NEAR:
        point, _, flags = newton_steps(
            landscape, point, tolerance=tolerance, max_steps=5
        )
    value, gradient = landscape(point)
    norm = float(np.linalg.norm(gradient))
    flags = unsolved(norm, tolerance, flat.dtype, found.exhausted) + flags
    theta = _unflat(problem, jnp.asarray(point, flat.dtype), start)
    work, values = float(landscape.calls), np.array([value])
    return Solution(theta, value, norm, found.iterations, work, values, flags)


def started(problem: Any, start: Control) -> Control:
    """The start, once it is checked, in the precision of the problem.

    ```pycon
    >>> problem = ControlProblem(jnp.zeros((1, 1)), jnp.ones((1, 1)), decay=1.0)
    >>> started(problem, np.zeros(2)).dtype == problem.decay.dtype
    True
    >>> started(problem, np.array([1.0, -1.0])).tolist()
    [1.0, -1.0]
    ```
    """
    depth_of(start)
    require_finite("start", start)
    return jax.tree.map(lambda z: jnp.asarray(z, problem.decay.dtype), start)


@jax.jit
def _flat(problem: ControlProblem, theta: Control) -> Array:
    return jnp.sqrt(problem.step(theta)) * ravel_pytree(theta)[0]


@jax.jit
def _unflat(problem: ControlProblem, u: Array, like: Control) -> Control:
    return ravel_pytree(like)[1](u / jnp.sqrt(problem.step(like)))


def _value(problem: ControlProblem, u: Array, like: Control) -> Array:
    return problem.value(_unflat(problem, u, like))


@jax.jit
def _value_and_gradient(problem: ControlProblem, u: Array, like: Control):
    return jax.value_and_grad(_value, argnums=1)(problem, u, like)


@jax.jit
def _product(problem: ControlProblem, u: Array, v: Array, like: Control) -> Array:
    def gradient(u):
        return jax.grad(_value, argnums=1)(problem, u, like)

    return jax.jvp(gradient, (u,), (v,))[1]


# ---------------------------------------------------------- forwards and backwards


def sweep(
    problem: ControlProblem | DensityForm,
    start: Float[Array, " steps"],
    *,
    damping: float = 0.5,
    tolerance: float = 1e-9,
    max_sweeps: int = 200,
    reach: float = 10.0,
    points: int = 401,
) -> Solution:
    r"""The forward–backward sweep for one number $\theta_k$ a layer,

    $$ \theta_k \leftarrow (1 - \omega)\, \theta_k
       + \omega \operatorname*{argmin}_{|\theta| \le R} H_k(\theta), $$

    with $\omega$ = `damping` ($\omega = 1$ is the plain method of successive
    approximations) and $R$ = `reach`. $H_k$ need not be convex: its least value on so
    many `points` of a grid is found first, then the root of $H_k'$ beside it. It ends
    where residual and change, $|\operatorname{argmin} H_k - \theta_k|$, are under the
    `tolerance`; the change tells more, as a point that is merely stationary does not
    pass.

    ```pycon
    >>> x, y = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> problem = ControlProblem(x, y, decay=1.0, field=lambda x, theta: 0 * x + theta)
    >>> ends = [
    ...     sweep(problem, jnp.zeros(3), damping=damping, tolerance=1e-4)
    ...     for damping in (0.5, 1.0)
    ... ]
    >>> [round(end.value, 3) for end in ends]  # of (θ - 1)² + θ²
    [0.5, 1.0]
    >>> "two-cycle" in ends[0].flags, "two-cycle" in ends[1].flags
    (False, True)
    ```
    """
    require_within("(0, 1]", damping=damping)
    require_within("(0, inf)", tolerance=tolerance, reach=reach)
    require_whole(max_sweeps=max_sweeps)
    require_whole(3, points=points)
    theta = as_floats("start", start, shape=(None,)).astype(problem.decay.dtype)
    require_finite("start", theta)
    grid = jnp.linspace(-reach, reach, points, dtype=theta.dtype)
    limits = jnp.asarray([damping, tolerance], theta.dtype)
    end = jax.device_get(_sweeps(problem, theta, grid, limits, max_sweeps))
    count, theta, residual, change, (step, twice), edge, values = end
    values = np.asarray(values)[: int(count) + 1]
    # what is left to do, whichever is larger: all, where there is no value
    left = max(float(residual), float(change)) if np.isfinite(values[-1]) else np.nan
    flags = unsolved(left, tolerance, theta.dtype, int(count) >= max_sweeps)
    if flags and float(twice) < 1e-2 * float(step):
        flags += ("two-cycle",)
    if edge:
        flags += ("at the edge of the grid",)
    if isinstance(problem, DensityForm) and np.isnan(values[-1]):
        flags += ("off the grid",)
    found = jnp.asarray(theta), float(values[-1]), float(residual), int(count)
    work = len(values) * (1 + HALVINGS + points / 3)
    return Solution(*found, work, values, flags)


@jax.jit(static_argnames="max_sweeps")
def _sweeps(problem, theta, grid, limits, max_sweeps):
    damping, tolerance = limits
    spacing = grid[1] - grid[0]

    def state(theta):
        at = problem.pontryagin(theta)
        slopes = hamiltonian_slopes(problem, at, theta)
        best = _least(problem, at, grid)
        return at.value, size_in_l2(problem, slopes, theta), best

    def unfinished(carry):
        count, _, _, residual, change, *_ = carry
        return (count < max_sweeps) & ~(jnp.maximum(residual, change) <= tolerance)

    def once(carry):
        count, theta, best, _, _, before, _, values = carry
        following = theta + damping * (best - theta)
        value, residual, best = state(following)
        change = _farthest(best, following)
        moved = _farthest(following, theta), _farthest(following, before)
        values = values.at[count + 1].set(value)
        return count + 1, following, best, residual, change, theta, moved, values

    value, residual, best = state(theta)
    values = jnp.zeros(max_sweeps + 1, theta.dtype).at[0].set(value)
    change = _farthest(best, theta)
    carry = (0, theta, best, residual, change, theta, (change, change), values)
    carry = jax.lax.while_loop(unfinished, once, carry)
    count, theta, best, residual, change, _, moved, values = carry
    edge = jnp.max(jnp.abs(best)) > grid[-1] - spacing / 2
    return count, theta, residual, change, moved, edge, values


def _farthest(a: Array, b: Array) -> Array:
    return jnp.max(jnp.abs(a - b))


def _least(problem: Any, at: Pontryagin, grid: Array) -> Float[Array, " steps"]:
    """The control of each layer that makes its Hamiltonian least, between the ends of
    the grid: the root of the slope next to the best point of it."""
    last = len(grid) - 1

    def layer(parts):
        def energy(theta):
            return problem.hamiltonian(*parts, theta)

        slope = jax.grad(energy)
        best = jnp.argmin(jax.vmap(energy)(grid))
        ends = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, last)]

        def halve(_, ends):
            low, high = ends
            middle = (low + high) / 2
            rising = slope(middle) > 0
            return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

        low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
        return (low + high) / 2

    return jax.lax.map(layer, at[1:])
