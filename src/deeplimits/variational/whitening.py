r"""Whitened increments: the variables in which $E_n$ is minimised.

They are not the weights but their scaled increments,

$$ u_0 = \sqrt{\tau}\, \theta_0, \qquad
   u_i = \sqrt n\, (\theta_i - \theta_{i-1}), \qquad R_n(\theta) = |u|^2, $$

inverted exactly by a cumulative sum. The Euclidean gradient in $u$ is the gradient in
$H^1$, and the number of iterations does not grow with $n$; in the weights themselves
("raw") it does.
"""

import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import (
    as_floats,
    require_finite,
    require_known,
    require_whole,
    require_within,
)
from .functional import Problem, require_alike, spread
from .parameters import Parameters

VARIABLES = ("whitened", "raw")


@dataclass(frozen=True)
class Layout:
    """How a flat vector makes parameters: hashable, so that programs are kept.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.ones((1, 1)), jnp.ones(1), alpha=0.1)
    >>> layout = layout_of(problem, one_layer(4, 1), "whitened")
    >>> layout.shapes, layout.block_parts  # weights and biases, and the reading's
    (((4, 1, 1), (4, 1), (1, 1), (1,)), 2)
    ```
    """

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    variables: str

    @property
    def block_parts(self) -> int:
        return len(self.shapes) - 2  # the last two are the reading's


def layout_of(problem: Problem, parameters: Parameters, variables: str) -> Layout:
    require_known("variables", variables, VARIABLES)
    require_finite("parameters", parameters)
    problem.steps(parameters)
    require_alike(problem, parameters)
    leaves, tree = jax.tree.flatten(parameters)
    return Layout(tree, tuple(leaf.shape for leaf in leaves), variables)


def _scales(problem: Problem, layout: Layout) -> list[tuple[Any, float]]:
    r"""$\sqrt{\tau_j}$ and $\sqrt n$ of each part of the block."""
    tau = spread("tau", problem.tau, layout.block_parts)
    steps = layout.shapes[0][0] - (problem.scheme != "euler")
    return [(tau[j] ** 0.5, steps**0.5) for j in range(layout.block_parts)]


def whiten(problem: Problem, parameters: Parameters, layout: Layout) -> np.ndarray:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(parameters)]
    if layout.variables == "whitened":
        for j, (root, factor) in enumerate(_scales(problem, layout)):
            z = leaves[j]
            rises = factor * np.diff(z, axis=0)
            leaves[j] = np.concatenate([np.asarray(root) * z[:1], rises])
    return np.concatenate([leaf.ravel() for leaf in leaves])


def colour(
    problem: Problem, flat: Any, layout: Layout, numpy: ModuleType = jnp
) -> Parameters:
    """The parameters: by JAX, or by NumPy, which need not compile for each shape.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.ones((1, 1)), jnp.ones(1), alpha=0.1)
    >>> layout = layout_of(problem, one_layer(4, 1), "whitened")
    >>> flat = jnp.zeros(10).at[:3].set(jnp.array([1.0, 2.0, 0.0]))
    >>> colour(problem, flat, layout).block.weight.ravel().tolist()  # 1, then 2/√4 more
    [1.0, 2.0, 2.0, 2.0]
    ```
    """
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
    r"""The whitened increments of all parts, and the reading as it is: one vector.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.ones((1, 1)), jnp.ones(1), alpha=0.1)
    >>> ones = jax.tree.map(jnp.ones_like, one_layer(4, 1))
    >>> flat = whitened(problem, ones)  # a constant has no increments but its first
    >>> float(flat @ flat), float(problem.roughness(ones).sum())
    (4.0, 4.0)
    ```
    """
    flat = whiten(problem, parameters, layout_of(problem, parameters, "whitened"))
    return jnp.asarray(flat)


def coloured(
    problem: Problem, flat: Float[Array, " size"], like: Parameters
) -> Parameters:
    """The parameters, shaped `like` those, whose `whitened` vector this is.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.ones((1, 1)), jnp.ones(1), alpha=0.1)
    >>> like = one_layer(4, 1)
    >>> flat = jnp.arange(10.0)
    >>> float(abs(whitened(problem, coloured(problem, flat, like)) - flat).max()) < 1e-5
    True
    ```
    """
    layout = layout_of(problem, like, "whitened")
    size = sum(math.prod(shape) for shape in layout.shapes)
    flat = as_floats("flat", flat, shape=(size,))
    require_finite("flat", flat)
    return colour(problem, flat, layout)


@functools.partial(jax.jit, static_argnums=2)
def value_and_gradient(
    problem: Problem, flat: Array, layout: Layout
) -> tuple[Array, Array]:
    return jax.value_and_grad(_energy, argnums=1)(problem, flat, layout)


def _energy(problem: Problem, flat: Array, layout: Layout) -> Array:
    """The energy; of whitened variables the penalty is a sum of squares, which loses
    fewer digits than differences of weights."""
    parameters = colour(problem, flat, layout)
    if layout.variables == "raw" or problem.penalty != "sobolev":
        return problem.energy(parameters)
    counts = np.array([math.prod(shape) for shape in layout.shapes])
    alpha = jnp.repeat(
        problem.alphas(parameters), counts, total_repeat_length=int(counts.sum())
    )
    return problem.data_loss(parameters) + jnp.sum(alpha * flat**2)


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
        layout = layout_of(problem, like, "whitened")
        size = sum(math.prod(shape) for shape in layout.shapes)
        draws = scale * np.asarray(_normals(key, (size,), like))
        return colour(problem, draws, layout, np)
    require_whole(modes=modes)
    leaves, tree = jax.tree.flatten(like)
    times = np.arange(like.nodes) / problem.steps(like)
    keys = jr.split(key, len(leaves))
    drawn = [
        _smooth_part(k, z, times, modes)
        if j < len(leaves) - 2
        else _normals(k, z.shape, like)
        for j, (k, z) in enumerate(zip(keys, leaves, strict=True))
    ]
    return jax.tree.unflatten(tree, [scale * z for z in drawn])


def _normals(key: PRNGKeyArray, shape: tuple[int, ...], like: Parameters) -> Array:
    return jr.normal(key, shape, jax.tree.leaves(like)[0].dtype)


def _smooth_part(key: PRNGKeyArray, z: Array, times: np.ndarray, modes: int) -> Array:
    waves = np.cos(np.pi * np.outer(times, np.arange(modes)))
    size = modes * math.prod(z.shape[1:])
    coefficients = np.asarray(jr.normal(key, (size,), z.dtype)).reshape(modes, -1)
    return jnp.asarray((waves.astype(z.dtype) @ coefficients).reshape(z.shape))
