r"""Branches of minima: one continued in depth, and those that many starts lead to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from ..checks import require_whole, require_within
from .functional import Problem
from .minima import Minimum, minimise
from .parameters import Parameters
from .whitening import random_start


def refined(problem: Problem, parameters: Parameters, depth: int) -> Parameters:
    r"""The interpolant of weights at the nodes of another depth $m$: a start there.

    The interpolant is linear between the nodes $i/n$ and, for a network, constant after
    the last. Its values at $i/m$ are taken: $i < m$ for a network, $i \le m$ else.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.ones((1, 1)), jnp.ones(1), alpha=0.1)
    >>> from deeplimits.residual import OneLayer
    >>> block = OneLayer(jnp.zeros((2, 1, 1)), jnp.array([[0.0], [1.0]]))
    >>> ramp = Parameters(block, one_layer(2, 1).readout)
    >>> refined(problem, ramp, 4).block.bias.ravel().tolist()  # constant after the last
    [0.0, 0.5, 1.0, 1.0]
    ```
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

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=10.0)
    >>> branch = continue_in_depth(problem, one_layer(4, 2), [4, 8], tolerance=1e-3)
    >>> [(found.parameters.nodes, round(found.value, 2)) for found in branch]
    [(4, 1.82), (8, 1.82)]
    ```
    """
    parameters = start.parameters if isinstance(start, Minimum) else start
    branch = []
    for depth in depths:
        found = minimise(problem, refined(problem, parameters, depth), **options)
        parameters = found.parameters
        branch.append(found)
    return branch


@dataclass(frozen=True)
class Search:
    """The distinct minima that many starts led to, the lowest first.

    `counts` says how many starts led to each, `starts` how many there were, and
    `unsolved` how many ended with a residual above the tolerance: these are left out.
    Minima with one energy are one, as are copies by symmetry.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=10.0)
    >>> options = {"starts": 3, "tolerance": 1e-2, "same": 1e-3}
    >>> found = multi_start(problem, one_layer(4, 2), **options, key=jr.key(0))
    >>> found.counts, found.unsolved, round(found.lowest.value, 2)  # all lead to one
    ((3,), 0, 1.82)
    ```
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

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> x, y = jnp.array([[-1.0], [0.0], [1.0]]), jnp.array([1.0, -1.0, 1.0])
    >>> problem, like = Problem(x, y, alpha=0.01), one_layer(4, 1)
    >>> options = {"starts": 6, "tolerance": 1e-3, "same": 1e-3}
    >>> found = multi_start(problem, like, **options, key=jr.key(0))
    >>> [round(m.value, 1) for m in found.minima]  # each with its mirror image
    [2.2, 2.6]
    ```
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
