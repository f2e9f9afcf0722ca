r"""Functions of depth-time by their values at Chebyshev nodes, and equations in depth.

The polynomial through the values at $s_j = \frac12(1 - \cos \frac{\pi j}{N})$ follows
an analytic function to an error that falls exponentially in $N$. Source: `berrut2004`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from .checks import as_doubles, require_whole

__all__ = ["Grid", "interpolate", "runge_kutta_step"]


@dataclasses.dataclass(frozen=True)
class Grid:
    r"""Chebyshev nodes $s_j = \frac12(1 - \cos \frac{\pi j}{N})$ in depth-time.

    Functions of depth are known at the nodes and interpolated by the polynomial through
    them. Between two nodes the fourth-order Runge–Kutta scheme takes `substeps` steps,
    each of which needs the weights at its two ends and its middle. Raises `ValueError`
    for fewer than two nodes, and for no step between them.

    ```pycon
    >>> grid = Grid(4, substeps=2)
    >>> grid.nodes.shape, [round(float(s), 4) for s in grid.nodes]
    ((4,), [0.0, 0.25, 0.75, 1.0])
    ```
    """

    count: int
    substeps: int

    def __post_init__(self):
        require_whole(2, count=self.count)
        require_whole(substeps=self.substeps)

    @functools.cached_property
    def nodes(self) -> Float[np.ndarray, " nodes"]:
        return (1 - np.cos(np.pi * np.arange(self.count) / (self.count - 1))) / 2

    @functools.cached_property
    def starts(self) -> Float[np.ndarray, " steps"]:
        part = np.arange(self.substeps) / self.substeps
        return (self.nodes[:-1, None] + np.diff(self.nodes)[:, None] * part).ravel()

    @functools.cached_property
    def sizes(self) -> Float[np.ndarray, " steps"]:
        return np.diff(np.append(self.starts, 1.0))

    @functools.cached_property
    def stages(self) -> Float[np.ndarray, "steps 3 nodes"]:
        points = self.starts[:, None] + self.sizes[:, None] * np.array([0.0, 0.5, 1.0])
        return self.at(points.ravel()).reshape(*points.shape, self.count)

    def at(
        self, points: Float[np.ndarray, " points"]
    ) -> Float[np.ndarray, "points nodes"]:
        """The matrix that takes values at the nodes to values at `points`."""
        points = as_doubles("points", points, shape=(None,))
        signs = (-1.0) ** np.arange(self.count)
        signs[[0, -1]] /= 2
        gaps = points[:, None] - self.nodes
        hit = np.abs(gaps) < 1e-14
        terms = np.where(
            hit.any(1, keepdims=True), hit, signs / np.where(hit, 1.0, gaps)
        )
        return terms / terms.sum(1, keepdims=True)


def interpolate(matrix: Float[np.ndarray, "... nodes"], values: PyTree) -> PyTree:
    """The values at other points, from a matrix of `Grid`: nodes lead every array.

    ```pycon
    >>> grid = Grid(4, substeps=1)
    >>> matrix = grid.at(np.array([0.3, 0.6]))
    >>> cubes = interpolate(matrix, grid.nodes**3)  # exactly
    >>> [round(z, 4) for z in cubes.tolist()]
    [0.027, 0.216]
    ```
    """
    return jax.tree.map(lambda z: jnp.tensordot(matrix, z, axes=1), values)


def runge_kutta_step(
    field: Callable[[Any, Any], Any], state: PyTree, size: Any, blocks: PyTree
) -> PyTree:
    r"""One step of the classical scheme of order four for $\dot y =$ `field(y, block)`;
    `blocks` are stacked: those of the step's start, middle and end.

    ```pycon
    >>> y = runge_kutta_step(lambda y, a: a * y, jnp.ones(()), 1.0, jnp.ones(3))
    >>> round(float(y), 4)  # 1 + 1 + 1/2 + 1/6 + 1/24
    2.7083
    ```
    """
    start, middle, end = (jax.tree.map(lambda z, i=i: z[i], blocks) for i in range(3))

    def moved(slope, length):
        return jax.tree.map(lambda y, k: y + length * k, state, slope)

    first = field(state, start)
    second = field(moved(first, size / 2), middle)
    third = field(moved(second, size / 2), middle)
    fourth = field(moved(third, size), end)
    slope = jax.tree.map(
        lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth
    )
    return moved(slope, size)
