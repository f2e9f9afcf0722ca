r"""Minimisation of $E_n$ in whitened increments, by L-BFGS and by Newton's method.

The variables are not the weights but their scaled increments,

$$ u_0 = \sqrt{\tau}\, \theta_0, \qquad
   u_i = \sqrt n\, (\theta_i - \theta_{i-1}), \qquad R_n(\theta) = |u|^2, $$

inverted exactly by a cumulative sum. The Euclidean gradient in $u$ is the gradient in
$H^1$, and the number of iterations does not grow with $n$; in the weights themselves
("raw") it does.

L-BFGS is SciPy's, on a compiled value and gradient: its line search is good to the last
digits, and it takes some 0.1 ms a step of its own. That of optax (0.2.8) takes the same
steps within a compiled loop, but compiles for seconds at every new shape, and its line
search gives up where rounding hides the decrease; optimistix (0.1) likewise.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import optimize

from ..checks import (
    as_floats,
    require_finite,
    require_known,
    require_whole,
    require_within,
)
from .functional import Parameters, Problem, _spread

VARIABLES = ("whitened", "raw")
NEAR = 1e-4  # where Newton's method is trusted to finish what L-BFGS began
TRIVIAL = 1e-3  # no weight is larger at a trivial minimiser
UNSOLVED = "residual above tolerance"


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


# ------------------------------------------------------------------ the variables


@dataclass(frozen=True)
class _Layout:
    """How a flat vector makes parameters: hashable, so that programs are kept."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    variables: str

    @property
    def block_parts(self) -> int:
        return len(self.shapes) - 2  # the last two are the reading's


def _layout(problem: Problem, parameters: Parameters, variables: str) -> _Layout:
    require_known("variables", variables, VARIABLES)
    require_finite("parameters", parameters)
    problem.steps(parameters)
    leaves, tree = jax.tree.flatten(parameters)
    return _Layout(tree, tuple(leaf.shape for leaf in leaves), variables)


def _scales(problem: Problem, layout: _Layout) -> list[tuple[Any, float]]:
    r"""$\sqrt{\tau_j}$ and $\sqrt n$ of each part of the block."""
    tau = _spread("tau", problem.tau, layout.block_parts)
    steps = layout.shapes[0][0] - (problem.scheme != "euler")
    return [(tau[j] ** 0.5, steps**0.5) for j in range(layout.block_parts)]


def _whiten(problem: Problem, parameters: Parameters, layout: _Layout) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(parameters)]
    if layout.variables == "whitened":
        for j, (root, factor) in enumerate(_scales(problem, layout)):
            z = leaves[j]
            rises = factor * np.diff(z, axis=0)
            leaves[j] = np.concatenate([np.asarray(root) * z[:1], rises])
    return np.concatenate([leaf.ravel() for leaf in leaves])


def _colour(
    problem: Problem, flat: Any, layout: _Layout, numpy: ModuleType = jnp
) -> Parameters:
    """The parameters: by JAX, or by NumPy, which need not compile for each shape."""
    ends = np.cumsum([math.prod(shape) for shape in layout.shapes])
    pieces = numpy.split(flat, ends[:-1])
    leaves = [z.reshape(s) for z, s in zip(pieces, layout.shapes, strict=True)]
    if layout.variables == "whitened":
        for j, (root, factor) in enumerate(_scales(problem, layout)):
            u, root = leaves[j], numpy.asarray(root)
            rises = numpy.concatenate([u[:1] / root, u[1:] / factor])
            leaves[j] = numpy.cumsum(rises, 0)
    leaves = [jnp.asarray(z, flat.dtype) for z in leaves]
    return jax.tree.unflatten(layout.tree, leaves)


def whitened(problem: Problem, parameters: Parameters) -> Float[Array, " size"]:
    r"""The whitened increments of all parts, and the reading as it is: one vector."""
    flat = _whiten(problem, parameters, _layout(problem, parameters, "whitened"))
    return jnp.asarray(flat)


def coloured(
    problem: Problem, flat: Float[Array, " size"], like: Parameters
) -> Parameters:
    """The parameters, shaped `like` those, whose `whitened` vector this is."""
    layout = _layout(problem, like, "whitened")
    size = sum(math.prod(shape) for shape in layout.shapes)
    flat = as_floats("flat", flat, shape=(size,))
    require_finite("flat", flat)
    return _colour(problem, flat, layout)


@functools.partial(jax.jit, static_argnums=2)
def _value_and_gradient(
    problem: Problem, flat: Array, layout: _Layout
) -> tuple[Array, Array]:
    return jax.value_and_grad(_energy, argnums=1)(problem, flat, layout)


def _energy(problem: Problem, flat: Array, layout: _Layout) -> Array:
    """The energy; of whitened variables the penalty is a sum of squares, which loses
    fewer digits than differences of weights."""
    parameters = _colour(problem, flat, layout)
    if layout.variables == "raw" or problem.penalty != "sobolev":
        return problem.energy(parameters)
    counts = np.array([math.prod(shape) for shape in layout.shapes])
    alpha = jnp.repeat(
        problem.alphas(parameters), counts, total_repeat_length=int(counts.sum())
    )
    return problem.data_loss(parameters) + jnp.sum(alpha * flat**2)


# -------------------------------------------------------------------- the solvers


def minimise(
    problem: Problem,
    start: Parameters,
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
    layout = _layout(problem, start, variables)
    flat = _whiten(problem, start, layout)
    last: dict[str, float] = {"norm": math.inf}

    def objective(x):
        value, gradient = _value_and_gradient(problem, x.astype(flat.dtype), layout)
        gradient = np.asarray(gradient, np.float64)
        last["norm"] = float(np.linalg.norm(gradient))
        return float(value), gradient

    def stop(intermediate_result):
        # the point that was accepted is the last that was tried
        if last["norm"] < tolerance:
            raise StopIteration

    found = optimize.minimize(
        objective,
        np.asarray(flat, np.float64),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={
            "maxcor": memory,
            "maxiter": max_iterations,
            "maxfun": 10 * max_iterations,
            "ftol": 0.0,
            "gtol": 0.0,
            "maxls": 40,
        },
    )
    counts = found.nit, found.nfev
    exhausted = found.nit >= max_iterations
    flat, further = found.x, ()
    if polish and not exhausted and tolerance <= last["norm"] < NEAR:
        flat, steps, further = _newton(problem, flat, layout, tolerance, 5)
        counts = found.nit, found.nfev + steps
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
    layout = _layout(problem, parameters, "whitened")
    flat = np.asarray(_whiten(problem, parameters, layout), np.float64)
    flat, steps, further = _newton(problem, flat, layout, tolerance, max_steps)
    counts, exhausted = (steps, steps), steps >= max_steps
    return _report(problem, flat, layout, tolerance, counts, exhausted, *further)


def _gradient(problem: Problem, flat: np.ndarray, layout: _Layout) -> np.ndarray:
    point = np.asarray(flat, problem.inputs.dtype)
    return np.asarray(_value_and_gradient(problem, point, layout)[1], np.float64)


def _product(
    problem: Problem, flat: np.ndarray, layout: _Layout, v: np.ndarray
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
    layout = _layout(problem, parameters, "whitened")
    flat = np.asarray(_whiten(problem, parameters, layout), np.float64)
    rows = [_product(problem, flat, layout, v) for v in np.eye(flat.size)]
    return (np.stack(rows) + np.stack(rows).T) / 2


def _newton(
    problem: Problem,
    flat: np.ndarray,
    layout: _Layout,
    tolerance: float,
    max_steps: int,
) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """The last point, the number of steps, and a flag where curvature is negative."""
    for step in range(max_steps):
        gradient = _gradient(problem, flat, layout)
        if not np.linalg.norm(gradient) >= tolerance:
            return flat, step, ()
        direction, convex = _conjugate_gradients(
            lambda v, at=flat: _product(problem, at, layout, v), -gradient
        )
        if not convex:
            return flat, step, ("not a minimum",)
        flat = flat + direction
    return flat, max_steps, ()


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
    problem: Problem,
    flat: Any,
    layout: _Layout,
    tolerance: float,
    counts: tuple[int, int],
    exhausted: bool,
    *further: str,
) -> Minimum:
    """The result with its flags, from the values at the point itself."""
    flat = np.asarray(flat, problem.inputs.dtype)
    value, gradient = _value_and_gradient(problem, flat, layout)
    norm = float(np.linalg.norm(np.asarray(gradient, np.float64)))
    parameters = _colour(problem, flat, layout, np)
    flags = []
    if not norm <= tolerance:  # NaN among them
        single = flat.dtype == np.float32
        reason = "float32" if single else "no descent"
        flags += [UNSOLVED, "iterations exhausted" if exhausted else reason]
    if max(np.abs(z).max() for z in jax.tree.leaves(parameters)) < TRIVIAL:
        flags.append("trivial")
    if problem.penalty == "no tau":
        flags.append("not coercive")
    return Minimum(float(value), parameters, norm, *counts, (*flags, *further))


def refined(problem: Problem, parameters: Parameters, depth: int) -> Parameters:
    r"""The interpolant of weights at the nodes of another depth $m$: a start there.

    The interpolant is linear between the nodes $i/n$ and, for a network, constant after
    the last. Its values at $i/m$ are taken: $i < m$ for a network, $i \le m$ else.
    """
    require_whole(2, depth=depth)
    last, steps = parameters.nodes - 1, problem.steps(parameters)
    times = np.arange(depth + (problem.scheme != "euler")) / depth
    left = np.minimum((times * steps).astype(int), last - 1)
    part = np.minimum(times * steps, last) - left

    def interpolate(z):
        z = np.asarray(z)
        share = part.reshape(-1, *[1] * (z.ndim - 1)).astype(z.dtype)
        return jnp.asarray(z[left] + share * (z[left + 1] - z[left]))

    return Parameters(jax.tree.map(interpolate, parameters.block), parameters.readout)


def continue_in_depth(
    problem: Problem,
    start: Parameters | Minimum,
    depths: Sequence[int],
    **options: Any,
) -> list[Minimum]:
    """One branch of minima along `depths`, each started at the last one's interpolant.

    `options` are those of `minimise`.
    """
    parameters = start.parameters if isinstance(start, Minimum) else start
    branch = []
    for depth in depths:
        found = minimise(problem, refined(problem, parameters, depth), **options)
        parameters = found.parameters
        branch.append(found)
    return branch


# --------------------------------------------------------------------- many starts


def random_start(
    problem: Problem,
    like: Parameters,
    *,
    scale: float = 1.0,
    modes: int | None = None,
    key: PRNGKeyArray,
) -> Parameters:
    r"""Parameters shaped `like` those, at random.

    Their whitened increments are independent normals of standard deviation `scale`, so
    that the weights are a random walk along depth of size `scale`; or, with `modes`,
    the weights are smooth, $\sum_{m < \text{modes}} \xi_m \cos(\pi m t)$ with
    $\xi_m$ of standard deviation `scale`.
    """
    require_within("[0, inf)", scale=scale)
    if modes is None:
        layout = _layout(problem, like, "whitened")
        size = sum(math.prod(shape) for shape in layout.shapes)
        draws = scale * np.asarray(_normals(key, (size,), like))
        return _colour(problem, draws, layout, np)
    require_whole(modes=modes)
    leaves, tree = jax.tree.flatten(like)
    keys = jr.split(key, len(leaves))
    drawn = [
        _smooth_part(k, z, modes) if j < len(leaves) - 2 else _normals(k, z.shape, like)
        for j, (k, z) in enumerate(zip(keys, leaves, strict=True))
    ]
    return jax.tree.unflatten(tree, [scale * z for z in drawn])


def _normals(key: PRNGKeyArray, shape: tuple[int, ...], like: Parameters) -> Array:
    return jr.normal(key, shape, jax.tree.leaves(like)[0].dtype)


def _smooth_part(key: PRNGKeyArray, z: Array, modes: int) -> Array:
    times = np.arange(len(z)) / len(z)
    waves = np.cos(np.pi * np.outer(times, np.arange(modes)))
    size = modes * math.prod(z.shape[1:])
    coefficients = np.asarray(jr.normal(key, (size,), z.dtype)).reshape(modes, -1)
    return jnp.asarray((waves.astype(z.dtype) @ coefficients).reshape(z.shape))


@dataclass(frozen=True)
class Search:
    """The distinct minima that many starts led to, the lowest first.

    `counts` says how many starts led to each, `starts` how many there were, and
    `unsolved` how many ended with a residual above the tolerance: these are left out.
    Minima with one energy are one, as are copies by symmetry.
    """

    minima: tuple[Minimum, ...]
    counts: tuple[int, ...]
    starts: int
    unsolved: int

    @property
    def lowest(self) -> Minimum:
        """The lowest minimum found; `ValueError` where no start led to one."""
        if not self.minima:
            raise ValueError(f"none of {self.starts} starts led to a minimum.")
        return self.minima[0]


def multi_start(
    problem: Problem,
    like: Parameters,
    *,
    starts: int = 60,
    scale: float = 1.0,
    modes: int | None = None,
    same: float = 1e-6,
    key: PRNGKeyArray,
    **options: Any,
) -> Search:
    """`minimise` from so many keyed `random_start`s, and the distinct minima.

    Two minima are the same where their energies differ by less than the share `same`.
    `options` are those of `minimise`.
    """
    require_whole(starts=starts)
    require_within("(0, inf)", same=same)
    found = []
    for each in jr.split(key, starts):
        start = random_start(problem, like, scale=scale, modes=modes, key=each)
        found.append(minimise(problem, start, **options))
    solved = sorted((m for m in found if m.solved), key=lambda m: m.value)
    groups: list[list[Minimum]] = []
    for minimum in solved:
        if groups and minimum.value - groups[-1][0].value <= same * abs(minimum.value):
            groups[-1].append(minimum)
        else:
            groups.append([minimum])
    minima = tuple(group[0] for group in groups)
    counts = tuple(len(group) for group in groups)
    return Search(minima, counts, starts, starts - len(solved))
