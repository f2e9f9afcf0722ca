r"""Extended MSA: the maximum principle by sweeps that distrust their own costates."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ..checks import require_whole, require_within
from ..variational.descent import Landscape, descend, unsolved
from .problem import (
    Control,
    ControlProblem,
    Pontryagin,
    depth_of,
    hamiltonian_slopes,
    size_in_l2,
)
from .solvers import Solution, started


def extended_msa(
    problem: ControlProblem,
    start: Control,
    *,
    rho: float | tuple[float, float],
    tolerance: float = 1e-9,
    max_sweeps: int = 100,
    inner: int = 10,
) -> Solution:
    r"""Extended MSA: sweeps with penalties that keep the old states and costates true,

    $$ \begin{gathered} \tilde H_k(\theta) = H_k(\theta) + \sum_s w_s \Bigl[
       \tfrac{\rho_x}2 |f(x_s, \theta) - f(x_s, \theta_k)|^2 \\
       + \tfrac{\rho_p}2 \bigl|\bigl(\partial_x f(x_s, \theta)
       - \partial_x f(x_s, \theta_k)\bigr)^{\!\top} p_s\bigr|^2 \Bigr],
       \end{gathered} $$

    made smaller in each layer by `inner` steps of L-BFGS from $\theta_k$. `rho` is both
    $\rho$, or $(\rho_x, \rho_p)$: with weights that sum to 1 they do not depend on how
    many points there are (`summed_rho` converts). Each sweep decreases $J$ where both
    are large enough; with $\rho = 0$ it is the plain method, for controls of any
    shape. An evaluation of one layer counts as work of $1/n$, although its penalties
    cost more. Source: `li2018`.

    ```pycon
    >>> x, y = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> problem = ControlProblem(x, y, decay=0.5, field=lambda x, theta: 0 * x + theta)
    >>> ends = [
    ...     extended_msa(problem, jnp.zeros(2), rho=rho, tolerance=1e-2, max_sweeps=12)
    ...     for rho in (0.0, 3.0)
    ... ]
    >>> [end.solved for end in ends], round(ends[1].value, 3)  # least: λ/(1 + λ)
    ([False, True], 0.333)
    ```
    """
    pair = rho if isinstance(rho, tuple) else (rho, rho)
    if len(pair) != 2:
        raise ValueError(f"rho must be one number or two: got {rho}.")
    for each in pair:
        require_within("[0, inf)", rho=each)
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(max_sweeps=max_sweeps, inner=inner)
    theta, dtype = started(problem, start), problem.decay.dtype
    steps = depth_of(theta)
    penalties = np.asarray(pair, dtype)
    values, evaluations = [], 0
    for count in range(max_sweeps + 1):
        at, residual = jax.device_get(_stationarity(problem, theta))
        values.append(float(at.value))
        if residual <= tolerance or count == max_sweeps:
            break
        theta, more = _layers(problem, at, theta, penalties, inner, tolerance / 10)
        evaluations += more
    flags = unsolved(float(residual), tolerance, dtype, count >= max_sweeps)
    work, values = len(values) + evaluations / steps, np.array(values)
    theta = jax.tree.map(jnp.asarray, theta)
    return Solution(
        theta, values[-1].item(), float(residual), count, work, values, flags
    )


def _layers(
    problem: ControlProblem,
    at: Pontryagin,
    theta: Control,
    penalties: np.ndarray,
    inner: int,
    tolerance: float,
) -> tuple[Control, int]:
    """The control of every layer from the same states and costates, and how often a
    layer was evaluated."""
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, theta))
    rows, evaluations = [], 0
    for k in range(len(at.states)):
        old = tree.unflatten([leaf[k] for leaf in leaves])
        parts = [part[k] for part in at[1:]]
        start = np.concatenate([leaf[k].ravel() for leaf in leaves])
        landscape = Landscape(
            lambda z, old=old, parts=parts: _augmented(
                problem, parts, old, z, penalties
            ),
            start.dtype,
        )
        found = descend(landscape, start, tolerance=tolerance, max_iterations=inner)
        rows.append(found.point)
        evaluations += landscape.calls
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = np.split(np.stack(rows), ends, axis=1)
    shaped = [
        part.reshape(leaf.shape).astype(leaf.dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return tree.unflatten(shaped), evaluations


@jax.jit
def _stationarity(problem: ControlProblem, theta: Control):
    at = problem.pontryagin(theta)
    slopes = hamiltonian_slopes(problem, at, theta)
    return at, size_in_l2(problem, slopes, theta)


@jax.jit
def _augmented(problem, parts, old, flat, penalties):
    x, weights, p = parts
    field = jax.vmap(problem.field, (0, None))
    unravel = ravel_pytree(old)[1]

    def both(theta):
        moves, pull = jax.vjp(lambda x: field(x, theta), x)
        return moves, pull(p)[0]

    moves, pulled = both(old)

    def energy(flat):
        theta = unravel(flat)
        new_moves, new_pulled = both(theta)
        energy = problem.hamiltonian(x, weights, p, theta)
        gaps = (new_moves - moves) ** 2, (new_pulled - pulled) ** 2
        far = [weights @ jnp.sum(gap, axis=1) for gap in gaps]
        return energy + penalties @ jnp.stack(far) / 2

    return jax.value_and_grad(energy)(flat)


def summed_rho(rho: float, points: int, step: float) -> tuple[float, float]:
    r"""The $(\rho_x, \rho_p)$ of a method that sums over the points of a batch.

    The public code of `li2018` penalises, with one $\rho$, the sums over the batch of
    $|h\,\Delta f|^2$ and of $|h\,\Delta \partial_x f^\top p/N|^2$ in a whole step, with
    the costates $p/N$ of the mean loss. Per point and per unit of time these are
    $\rho_x = \rho N h$ and $\rho_p = \rho h / N$: a larger batch holds the states
    more, and the costates less.

    ```pycon
    >>> summed_rho(1.0, points=100, step=0.25)
    (25.0, 0.0025)
    ```
    """
    require_within("[0, inf)", rho=rho)
    require_within("(0, inf)", step=step)
    require_whole(points=points)
    return rho * points * step, rho * step / points
