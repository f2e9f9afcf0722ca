r"""Local minima of $E_n$, by L-BFGS and by Newton's method."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..checks import require_whole, require_within
from .descent import NEAR, UNSOLVED, descend, newton_steps, unsolved
from .functional import Problem
from .parameters import Parameters
from .whitening import Layout, colour, layout_of, value_and_gradient, whiten

TRIVIAL = 1e-3  # no weight is larger at a trivial minimiser


@dataclass(frozen=True)
class Minimum:
    """What a solver found, and what is wrong with it.

    `gradient_norm` is Euclidean, in the variables that were used. `flags` are words,
    none where all is well: "residual above tolerance", with it "float32" where this
    precision is likely the reason, or "no descent", or "iterations exhausted";
    "trivial" where all weights vanish; "not coercive" without $\\tau$; "not a minimum"
    where Newton's method met a direction of negative curvature.
    """

    value: float
    parameters: Parameters
    gradient_norm: float
    iterations: int
    evaluations: int
    flags: tuple[str, ...]

    @property
    def solved(self) -> bool:
        """Whether the gradient is as small as was asked for."""
        return UNSOLVED not in self.flags


def minimise(
    problem: Problem,
    start: Parameters | Minimum,
    *,
    tolerance: float = 1e-7,
    variables: str = "whitened",
    memory: int = 20,
    max_iterations: int = 20_000,
    polish: bool = True,
) -> Minimum:
    r"""A local minimum of $E_n$ by L-BFGS from `start`, to $|g| <$ `tolerance`.

    `memory` is the number of pairs that L-BFGS keeps. Where it stops early, as rounding
    hides the decrease of $E_n$, `newton` takes over if `polish`; the iterations are
    those of L-BFGS. Raises `ValueError` for a start that is not finite or under depth
    2; what could not be done is a flag.
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(memory=memory, max_iterations=max_iterations)
    parameters = start.parameters if isinstance(start, Minimum) else start
    layout = layout_of(problem, parameters, variables)
    flat = whiten(problem, parameters, layout)
    found = descend(
        lambda point: value_and_gradient(problem, point, layout),
        np.asarray(flat),
        tolerance=tolerance,
        memory=memory,
        max_iterations=max_iterations,
    )
    counts, exhausted = (found.iterations, found.evaluations), found.exhausted
    flat, further = found.point, ()
    if polish and not exhausted and tolerance <= found.norm < NEAR:
        flat, steps, further = _newton(problem, flat, layout, tolerance, 5)
        counts = found.iterations, found.evaluations + steps
    return _report(problem, flat, layout, tolerance, counts, exhausted, *further)


def newton(
    problem: Problem,
    start: Parameters | Minimum,
    *,
    tolerance: float = 1e-10,
    max_steps: int = 20,
) -> Minimum:
    r"""The critical point near `start` by Newton's method, to $|g| <$ `tolerance`.

    Each step solves $H s = -g$, in whitened increments, by conjugate gradients with
    products $H v$ from central differences of the gradient; it never looks at $E_n$,
    whose rounding stops L-BFGS. Negative curvature is a flag. There is no line search:
    the start must be near.
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(max_steps=max_steps)
    parameters = start.parameters if isinstance(start, Minimum) else start
    layout = layout_of(problem, parameters, "whitened")
    flat = np.asarray(whiten(problem, parameters, layout), np.float64)
    flat, steps, further = _newton(problem, flat, layout, tolerance, max_steps)
    counts, exhausted = (steps, steps), steps >= max_steps
    return _report(problem, flat, layout, tolerance, counts, exhausted, *further)


def _gradient(problem: Problem, flat: np.ndarray, layout: Layout) -> np.ndarray:
    point = np.asarray(flat, problem.inputs.dtype)
    return np.asarray(value_and_gradient(problem, point, layout)[1], np.float64)


def _product(
    problem: Problem, flat: np.ndarray, layout: Layout, v: np.ndarray
) -> np.ndarray:
    """A Hessian-vector product, by differences of the compiled gradient."""
    epsilon = float(jnp.finfo(problem.inputs.dtype).eps)
    step = epsilon ** (1 / 3) * max(1.0, float(np.linalg.norm(flat)))
    step /= float(np.linalg.norm(v))
    ends = [_gradient(problem, flat + s * v, layout) for s in (step, -step)]
    return (ends[0] - ends[1]) / (2 * step)


def hessian(problem: Problem, parameters: Parameters) -> Float[np.ndarray, "size size"]:
    """The Hessian of the energy in whitened increments, by central differences of the
    compiled gradient: its eigenvalues say whether a critical point is a minimum."""
    layout = layout_of(problem, parameters, "whitened")
    flat = np.asarray(whiten(problem, parameters, layout), np.float64)
    rows = [_product(problem, flat, layout, v) for v in np.eye(flat.size)]
    return (np.stack(rows) + np.stack(rows).T) / 2


def _newton(
    problem: Problem,
    flat: np.ndarray,
    layout: Layout,
    tolerance: float,
    max_steps: int,
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    return newton_steps(
        lambda point: _gradient(problem, point, layout),
        lambda point, v: _product(problem, point, layout, v),
        flat,
        tolerance=tolerance,
        max_steps=max_steps,
    )


def _report(
    problem: Problem,
    flat: Any,
    layout: Layout,
    tolerance: float,
    counts: tuple[int, int],
    exhausted: bool,
    *further: str,
) -> Minimum:
    """The result with its flags, from the values at the point itself."""
    flat = np.asarray(flat, problem.inputs.dtype)
    value, gradient = value_and_gradient(problem, flat, layout)
    norm = float(np.linalg.norm(np.asarray(gradient, np.float64)))
    parameters = colour(problem, flat, layout, np)
    flags = [*unsolved(norm, tolerance, flat.dtype, exhausted)]
    if max(np.abs(z).max() for z in jax.tree.leaves(parameters)) < TRIVIAL:
        flags.append("trivial")
    if problem.penalty == "no tau":
        flags.append("not coercive")
    return Minimum(float(value), parameters, norm, *counts, (*flags, *further))
