r"""Local minima of $E_n$, by L-BFGS and by Newton's method."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..checks import require_whole, require_within
from .descent import NEAR, UNSOLVED, Landscape, descend, newton_steps, unsolved
from .functional import Problem
from .parameters import Parameters
from .whitening import colour, layout_of, value_and_gradient, whiten

TRIVIAL = 1e-3  # no weight of the reading is larger at a trivial minimiser


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

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=10.0)
    >>> found = minimise(problem, one_layer(4, 2), tolerance=1e-3)
    >>> found.solved, round(found.value, 2)  # of 2(1 - w)² + 20 w², nearly: 20/11
    (True, 1.82)
    ```
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


class _Landscape(Landscape):
    """The energy of a problem at flat vectors, and the one to start from."""

    def __init__(self, problem: Problem, start: Parameters | Minimum, variables: str):
        parameters = start.parameters if isinstance(start, Minimum) else start
        self.problem = problem
        self.layout = layout_of(problem, parameters, variables)
        self.start = np.asarray(whiten(problem, parameters, self.layout), np.float64)
        super().__init__(
            lambda flat: value_and_gradient(problem, flat, self.layout),
            problem.inputs.dtype,
        )


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

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> minimise(problem, one_layer(4, 2), tolerance=1e-3).value < 2.0
    True
    ```
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(memory=memory, max_iterations=max_iterations)
    landscape = _Landscape(problem, start, variables)
    found = descend(
        landscape,
        landscape.start,
        tolerance=tolerance,
        memory=memory,
        max_iterations=max_iterations,
    )
    flat, further = found.point, ()
    if polish and not found.exhausted and tolerance <= found.norm < NEAR:
        flat, _, further = newton_steps(
            landscape, flat, tolerance=tolerance, max_steps=5
        )
    counts = found.iterations, found.exhausted
    return _report(landscape, flat, tolerance, *counts, *further)


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

    ```pycon
    >>> from deeplimits.variational.functional import square
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.zeros((1, 1)), jnp.ones(1), alpha=1.0, loss=square)
    >>> found = newton(problem, one_layer(2, 1), tolerance=1e-3)
    >>> found.solved, found.iterations, round(found.value, 3)
    (True, 1, 0.5)
    ```
    """
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(max_steps=max_steps)
    landscape = _Landscape(problem, start, "whitened")
    flat, steps, further = newton_steps(
        landscape, landscape.start, tolerance=tolerance, max_steps=max_steps
    )
    return _report(landscape, flat, tolerance, steps, steps >= max_steps, *further)


def hessian(problem: Problem, parameters: Parameters) -> Float[np.ndarray, "size size"]:
    """The Hessian of the energy in whitened increments, by central differences of the
    compiled gradient: its eigenvalues say whether a critical point is a minimum.

    ```pycon
    >>> from deeplimits.variational.functional import square
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.zeros((1, 1)), jnp.zeros(1), alpha=0.5, loss=square)
    >>> np.linalg.eigvalsh(hessian(problem, one_layer(2, 1))).round(1).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 3.0]
    ```
    """
    landscape = _Landscape(problem, parameters, "whitened")
    flat = landscape.start
    rows = np.stack([landscape.product(flat, v) for v in np.eye(flat.size)])
    return (rows + rows.T) / 2


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
    point = np.asarray(flat, landscape.dtype)
    parameters = colour(problem, point, landscape.layout, np)
    flags = [*unsolved(norm, tolerance, landscape.dtype, exhausted)]
    if np.abs(parameters.readout.weight).max() < TRIVIAL:
        flags.append("trivial")
    if problem.penalty == "no tau":
        flags.append("not coercive")
    flags += further
    return Minimum(value, parameters, norm, iterations, landscape.calls, tuple(flags))
