r"""How a smooth function is made small: L-BFGS, and Newton's method to finish.

L-BFGS is SciPy's, on a compiled value and gradient. Those of optax and optimistix,
compiled as a whole, take about as many iterations to the same minimum of the rings at
$n = 64$ (240 against 269 and 333) and a half to a third of the time once compiled; but
SciPy's needs 1.7 seconds of compilation at every new depth, against 6 and 4, and depths
are many here while runs are few. Rounding of the value stops the line search of each of
the three somewhere between $10^{-8}$ and $3 \cdot 10^{-7}$: Newton's method, which
looks at gradients alone, takes over there.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

ENDLESS = {"ftol": 0.0, "gtol": 0.0, "maxls": 40, "maxfun": 10**9}
NEAR = 1e-4  # where Newton's method is trusted to finish what L-BFGS began
UNSOLVED = "residual above tolerance"

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Descent(NamedTuple):
    """Where L-BFGS ended, the norm of the gradient there, and what it took."""

    point: np.ndarray
    norm: float
    iterations: int
    evaluations: int
    exhausted: bool


def descend(
    value_and_gradient: Callable[[np.ndarray], tuple[Any, Any]],
    start: np.ndarray,
    *,
    tolerance: float,
    memory: int = 20,
    max_iterations: int = 20_000,
) -> Descent:
    r"""L-BFGS from `start`, until $|g| <$ `tolerance` or rounding hides the descent.

    `memory` is the number of pairs that it keeps. It works in float64; the function is
    called with the type of `start`.
    """
    last: dict[str, float] = {"norm": math.inf}

    def objective(x):
        value, gradient = value_and_gradient(x.astype(start.dtype))
        gradient = np.asarray(gradient, np.float64)
        last["norm"] = float(np.linalg.norm(gradient))
        return float(value), gradient

    def stop(intermediate_result):
        # the point that was accepted is the last that was tried
        if last["norm"] < tolerance:
            raise StopIteration

    found = optimize.minimize(
        objective,
        np.asarray(start, np.float64),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options=ENDLESS | {"maxcor": memory, "maxiter": max_iterations},
    )
    exhausted = found.nit >= max_iterations
    return Descent(found.x, last["norm"], found.nit, found.nfev, exhausted)


def newton_steps(
    gradient: Callable[[np.ndarray], np.ndarray],
    product: Product,
    start: np.ndarray,
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """The last point, the number of steps, and a flag where curvature is negative.

    `product` takes a point and a vector to the Hessian there times the vector.
    """
    point = start
    for step in range(max_steps):
        slope = gradient(point)
        if not np.linalg.norm(slope) >= tolerance:
            return point, step, ()
        direction, convex = _conjugate_gradients(
            lambda v, at=point: product(at, v), -slope
        )
        if not convex:
            return point, step, ("not a minimum",)
        point = point + direction
    return point, max_steps, ()


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


def unsolved(
    norm: float, tolerance: float, dtype: Any, exhausted: bool
) -> tuple[str, ...]:
    """No flag, or what keeps the gradient above the tolerance; of NaN, too."""
    if norm <= tolerance:
        return ()
    reason = "float32" if np.dtype(dtype) == np.float32 else "no descent"
    return UNSOLVED, "iterations exhausted" if exhausted else reason
