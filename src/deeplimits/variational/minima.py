r"""Local minima of $E_n$, by L-BFGS and by Newton's method.

L-BFGS is SciPy's, on a compiled value and gradient. Those of optax and optimistix,
compiled as a whole, take about as many iterations to the same minimum of the rings at
$n = 64$ (240 against 269 and 333) and a half to a third of the time once compiled; but
SciPy's needs 1.7 seconds of compilation at every new depth, against 6 and 4, and depths
are many here while runs are few. Rounding of $E_n$ stops the line search of each of the
three somewhere between $10^{-8}$ and $3 \cdot 10^{-7}$: Newton's method, which goes by
gradients where energies are equal to rounding, takes over there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import optimize

from ..checks import require_whole, require_within
from .functional import Problem
from .parameters import Parameters
from .whitening import colour, layout_of, value_and_gradient, whiten

NEAR = 1e-4  # where Newton's method is trusted to finish what L-BFGS began
ENDLESS = {"ftol": 0.0, "gtol": 0.0, "maxls": 40, "maxfun": 10**9}
TRIVIAL = 1e-3  # no weight of the reading is larger at a trivial minimiser
HALVINGS = 0.5 ** np.arange(11)
ROUNDING = 64  # units of rounding in which two energies may differ, and be one
UNSOLVED = "residual above tolerance"


@dataclass(frozen=True)
class Minimum:
    """What a solver found, and what is wrong with it.

    `gradient_norm` is Euclidean, in the variables that were used; `evaluations` counts
    all values and gradients, those of Newton's method among them. `flags` are words,
    none where all is well: "residual above tolerance", with it "float32" where this
    precision is likely the reason, or "no descent", or "iterations exhausted";
    "trivial" where the reading vanishes, $W = 0$, so that all outputs are one; "not
    coercive" without $\\tau$; "not a minimum" where Newton's method met a direction of
    negative curvature.
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


class _Landscape:
    """The energy and its gradient at flat vectors of float64; it counts its calls."""

    def __init__(self, problem: Problem, start: Parameters | Minimum, variables: str):
        parameters = start.parameters if isinstance(start, Minimum) else start
        self.problem, self.calls = problem, 0
        self.layout = layout_of(problem, parameters, variables)
        self.start = np.asarray(whiten(problem, parameters, self.layout), np.float64)

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        point = np.asarray(flat, self.problem.inputs.dtype)
        value, gradient = value_and_gradient(self.problem, point, self.layout)
        return float(value), np.asarray(gradient, np.float64)

    @property
    def epsilon(self) -> float:
        return float(jnp.finfo(self.problem.inputs.dtype).eps)

    def product(self, flat: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Hessian times a vector, by central differences of the gradient."""
        step = self.epsilon ** (1 / 3) * max(1.0, float(np.linalg.norm(flat)))
        step /= float(np.linalg.norm(v))
        ends = [self(flat + s * v)[1] for s in (step, -step)]
        return (ends[0] - ends[1]) / (2 * step)


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
    hides the decrease of $E_n$, five steps of `newton` follow if `polish`; the
    iterations are those of L-BFGS. Raises `ValueError` for a start that is not finite
    or under depth 2; what could not be done is a flag.
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(memory=memory, max_iterations=max_iterations)
    landscape, last = _Landscape(problem, start, variables), {"norm": math.inf}

    def objective(x):
        value, gradient = landscape(x)
        last["norm"] = float(np.linalg.norm(gradient))
        return value, gradient

    def stop(intermediate_result):
        # the point that was accepted is the last that was tried
        if last["norm"] < tolerance:
            raise StopIteration

    found = optimize.minimize(
        objective,
        landscape.start,
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options=ENDLESS | {"maxcor": memory, "maxiter": max_iterations},
    )
    exhausted = found.nit >= max_iterations
    flat, further = found.x, ()
    if polish and not exhausted and tolerance <= np.linalg.norm(found.jac) < NEAR:
        flat, _, further = _newton(landscape, flat, tolerance, 5)
    return _report(landscape, flat, tolerance, found.nit, exhausted, *further)


def newton(
    problem: Problem,
    start: Parameters | Minimum,
    *,
    tolerance: float = 1e-10,
    max_steps: int = 20,
) -> Minimum:
    r"""The minimum near `start` by Newton's method, to $|g| <$ `tolerance`.

    Each step solves $H s = -g$, in whitened increments, by conjugate gradients with
    products $H v$ from central differences of the gradient. It is halved until $E_n$
    falls, or $|g|$ falls and $E_n$ does not rise by more than its rounding, which stops
    L-BFGS; where ten halvings do not help ("no descent"), as at the kinks of a ReLU,
    the last point stands. Negative curvature is a flag.
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(max_steps=max_steps)
    landscape = _Landscape(problem, start, "whitened")
    flat, steps, further = _newton(landscape, landscape.start, tolerance, max_steps)
    return _report(landscape, flat, tolerance, steps, steps >= max_steps, *further)


def hessian(problem: Problem, parameters: Parameters) -> Float[np.ndarray, "size size"]:
    """The Hessian of the energy in whitened increments, by central differences of the
    compiled gradient: its eigenvalues say whether a critical point is a minimum."""
    landscape = _Landscape(problem, parameters, "whitened")
    flat = landscape.start
    rows = np.stack([landscape.product(flat, v) for v in np.eye(flat.size)])
    return (rows + rows.T) / 2


def _newton(
    landscape: _Landscape, flat: np.ndarray, tolerance: float, max_steps: int
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """The last point, the number of steps, and a flag where curvature is negative."""
    at = landscape(flat)
    for step in range(max_steps):
        if not np.linalg.norm(at[1]) >= tolerance:
            return flat, step, ()
        direction, convex = _conjugate_gradients(
            lambda v, flat=flat: landscape.product(flat, v), -at[1]
        )
        if not convex:
            return flat, step, ("not a minimum",)
        for share in HALVINGS:
            following = landscape(flat + share * direction)
            if _is_descent(at, following, landscape.epsilon):
                flat, at = flat + share * direction, following
                break
        else:
            return flat, step, ()
    return flat, max_steps, ()


def _is_descent(
    before: tuple[float, np.ndarray], after: tuple[float, np.ndarray], epsilon: float
) -> bool:
    """Whether the energy falls, or the gradient does and the energy stays as it is."""
    slack = ROUNDING * epsilon * abs(before[0])
    if after[0] < before[0] - slack:
        return True
    flatter = np.linalg.norm(after[1]) < np.linalg.norm(before[1])
    return bool(after[0] <= before[0] + slack and flatter)


def _conjugate_gradients(
    product: Callable[[np.ndarray], np.ndarray], rhs: np.ndarray, share: float = 1e-6
) -> tuple[np.ndarray, bool]:
    """The solution to a residual of that share, and whether no direction was met along
    which the form is not positive."""
    solution, residual = np.zeros_like(rhs), rhs
    direction, square = rhs, float(rhs @ rhs)
    goal = share**2 * square
    for _ in range(min(rhs.size, 500)):
        image = product(direction)
        curvature = float(direction @ image)
        if not curvature > 0:
            return solution, False
        step = square / curvature
        solution, residual = solution + step * direction, residual - step * image
        before, square = square, float(residual @ residual)
        if square <= goal:
            break
        direction = residual + square / before * direction
    return solution, True


def _report(
    landscape: _Landscape,
    flat: np.ndarray,
    tolerance: float,
    iterations: int,
    exhausted: bool,
    *further: str,
) -> Minimum:
    """The result with its flags, from the values at the point itself."""
    problem = landscape.problem
    value, gradient = landscape(flat)
    norm = float(np.linalg.norm(gradient))
    point = np.asarray(flat, problem.inputs.dtype)
    parameters = colour(problem, point, landscape.layout, np)
    flags = []
    if not norm <= tolerance:  # NaN among them
        single = point.dtype == np.float32
        reason = "float32" if single else "no descent"
        flags += [UNSOLVED, "iterations exhausted" if exhausted else reason]
    if np.abs(parameters.readout.weight).max() < TRIVIAL:
        flags.append("trivial")
    if problem.penalty == "no tau":
        flags.append("not coercive")
    flags += further
    return Minimum(value, parameters, norm, iterations, landscape.calls, tuple(flags))
