r"""How a smooth function is made small: L-BFGS, and Newton's method to finish.

L-BFGS is SciPy's, on a compiled value and gradient. Those of optax and optimistix,
compiled as a whole, take about as many iterations to the same minimum of the rings at
$n = 64$ (240 against 269 and 333) and a half to a third of the time once compiled; but
SciPy's needs 1.7 seconds of compilation at every new depth, against 6 and 4, and depths
are many here while runs are few. Rounding of the value stops the line search of each of
the three somewhere between $10^{-8}$ and $3 \cdot 10^{-7}$: Newton's method, which
goes by gradients where values are equal to rounding, takes over there.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

ENDLESS = {"ftol": 0.0, "gtol": 0.0, "maxls": 40, "maxfun": 10**9}
NEAR = 1e-4  # where Newton's method is trusted to finish what L-BFGS began
HALVINGS = 0.5 ** np.arange(11)
ROUNDING = 64  # units of rounding in which two values may differ, and be one
UNSOLVED = "residual above tolerance"


class Landscape:
    """A function and its gradient at flat vectors of float64; it counts its `calls`.

    `value_and_gradient` is called with NumPy vectors of `dtype` alone, so that one
    compiled program serves. `product`, if given, takes a point and a vector to the
    Hessian there times the vector.

    ```pycon
    >>> bowl = Landscape(lambda x: (x @ x / 2, x), np.float64)
    >>> value, gradient = bowl(np.array([3.0, 4.0]))
    >>> float(value), gradient.tolist(), bowl.calls
    (12.5, [3.0, 4.0], 1)
    ```
    """

    def __init__(
        self,
        value_and_gradient: Callable[[np.ndarray], tuple[Any, Any]],
        dtype: Any,
        product: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    ):
        self.dtype, self.calls = np.dtype(dtype), 0
        self._value_and_gradient, self._product = value_and_gradient, product

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        self.calls += 1
        value, gradient = self._value_and_gradient(np.asarray(point, self.dtype))
        return float(value), np.asarray(gradient, np.float64)

    @property
    def epsilon(self) -> float:
        return float(np.finfo(self.dtype).eps)

    def product(self, point: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The Hessian times a vector: as given, or by central differences of the
        gradient. Either counts as two calls."""
        if self._product is not None:
            self.calls += 2
            pair = np.asarray(point, self.dtype), np.asarray(v, self.dtype)
            return np.asarray(self._product(*pair), np.float64)
        step = self.epsilon ** (1 / 3) * max(1.0, float(np.linalg.norm(point)))
        step /= float(np.linalg.norm(v))
        ends = [self(point + s * v)[1] for s in (step, -step)]
        return (ends[0] - ends[1]) / (2 * step)


class Descent(NamedTuple):
    """Where L-BFGS ended, the norm of the gradient there, and what it took.

    ```pycon
    >>> bowl = Landscape(lambda x: (x @ x, 2 * x), np.float64)
    >>> found = descend(bowl, np.ones(3), tolerance=1e-8)
    >>> found.point.shape, found.exhausted
    ((3,), False)
    ```
    """

    point: np.ndarray
    norm: float
    iterations: int
    exhausted: bool


def descend(
    landscape: Landscape,
    start: np.ndarray,
    *,
    tolerance: float,
    memory: int = 20,
    max_iterations: int = 20_000,
) -> Descent:
    r"""L-BFGS from `start`, until $|g| <$ `tolerance` or rounding hides the descent.

    `memory` is the number of pairs that it keeps. It works in float64.

    ```pycon
    >>> bowl = Landscape(lambda x: (x @ x / 2, x), np.float64)
    >>> found = descend(bowl, np.array([3.0, 4.0]), tolerance=1e-8)
    >>> bool(found.norm < 1e-8), abs(found.point).max().round(6).item()
    (True, 0.0)
    ```
    """
    last = {"norm": math.inf}

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
        np.asarray(start, np.float64),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options=ENDLESS | {"maxcor": memory, "maxiter": max_iterations},
    )
    norm = float(np.linalg.norm(found.jac))
    return Descent(found.x, norm, found.nit, found.nit >= max_iterations)


def newton_steps(
    landscape: Landscape, start: np.ndarray, *, tolerance: float, max_steps: int
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """The last point, the number of steps, and a flag where curvature is negative.

    Each step is halved until the value falls, or the gradient falls and the value does
    not rise by more than its rounding; where ten halvings do not help, the last point
    stands.
    """
    point, at = start, landscape(start)
    for step in range(max_steps):
        if not np.linalg.norm(at[1]) >= tolerance:
            return point, step, ()
        direction, convex = _conjugate_gradients(
            lambda v, point=point: landscape.product(point, v), -at[1]
        )
        if not convex:
            return point, step, ("not a minimum",)
        for share in HALVINGS:
            following = landscape(point + share * direction)
            if _is_descent(at, following, landscape.epsilon):
                point, at = point + share * direction, following
                break
        else:
            return point, step, ()
    return point, max_steps, ()


def _is_descent(
    before: tuple[float, np.ndarray], after: tuple[float, np.ndarray], epsilon: float
) -> bool:
    """Whether the value falls, or the gradient does and the value stays as it is."""
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


def unsolved(
    norm: float, tolerance: float, dtype: Any, exhausted: bool
) -> tuple[str, ...]:
    """No flag, or what keeps the gradient above the tolerance; of NaN, too.

    ```pycon
    >>> unsolved(1e-9, 1e-8, np.float64, exhausted=False)
    ()
    >>> unsolved(float("nan"), 1e-8, np.float32, exhausted=False)
    ('residual above tolerance', 'float32')
    ```
    """
    if norm <= tolerance:
        return ()
    reason = "float32" if np.dtype(dtype) == np.float32 else "no descent"
    return UNSOLVED, "iterations exhausted" if exhausted else reason
