"""From the idealised minimum to networks of few units: what training finds of it."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_positive, require_room
from ...variational.descent import Landscape, descend
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["Width", "excess", "excess_by_width", "quadrature"]

LEVELS, NODES = 24, 8  # of the quadrature, which is finer towards the jump
KINETIC = 0.5
MOST = 10**6  # iterations


@dataclasses.dataclass(frozen=True)
class Width:
    r"""One tanh layer of each of the `widths`, from so many random `starts`.

    $x$ is uniform on $[-1, 1]$, the label $\operatorname{sign} x$, and the kinetic term
    has the weight $\lambda = \frac12$. L-BFGS is stopped after each of `budgets`.
    """

    widths: tuple[int, ...] = (1, 2, 3, 4, 8, 16)
    starts: int = 16
    budgets: tuple[int, ...] = (300, 1200, 2400)
    tolerance: float = 1e-9

    def __post_init__(self):
        require_positive(self, "widths", "starts", "budgets", "tolerance")
        points = 2 * (LEVELS + 1) * NODES
        require_room(
            8 * points * max(self.widths) + 16 * self.starts * len(self.budgets)
        )
        if max(self.budgets) > MOST:
            raise ValueError(f"budgets must be at most {MOST}: got {self.budgets}.")
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets must increase: got {self.budgets}.")


@experiment(
    "isobe2024/width",
    "what L-BFGS finds of the idealised minimum, at each width and number of steps",
    Width(),
    book={"widths": (1, 2, 4, 8), "starts": 4, "budgets": (300,)},
    smoke={"widths": (1, 2), "starts": 2, "budgets": (5, 10)},
)
def excess_by_width(config: Width, run: Runner) -> xr.Dataset:
    """The relative `excess` over the minimum of each start, at the end of each budget,
    and the largest `weight` of the network then."""
    with jax.enable_x64(True):
        found = run.each("width", {"width": config.widths}, _width)
    return found.assign_coords(
        budget=list(config.budgets), start=range(config.starts)
    ).assign_attrs(dtype="float64")


@cache
def quadrature() -> tuple[np.ndarray, np.ndarray]:
    r"""Points of $[-1, 1]$ and weights of the uniform law, dense near $0$."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    ends = np.append(0, 2.0 ** np.arange(-LEVELS, 1))
    half = np.diff(ends)[:, None] / 2
    x = (ends[:-1, None] + half * (1 + nodes)).ravel()
    w = (half * weights).ravel()
    return np.append(-x, x), np.append(w, w) / 2


def excess(units: Float[Array, "3 m"]) -> Float[Array, ""]:
    r"""$E/E^* - 1$ of the layer $v(x) = \sum_j a_j \tanh(w_j x + b_j)$.

    The rows are outer weights, inner weights and biases. $E^* = \frac1{18}$.
    """
    x, weights = quadrature()
    v = units[0] @ jnp.tanh(units[1][:, None] * x[None] + units[2][:, None])
    energy = weights @ ((x + v - np.sign(x)) ** 2 + KINETIC * v**2) / 2
    return jnp.asarray(18 * energy - 1)


_value_and_gradient = jax.jit(jax.value_and_grad(excess))


def _width(config: Width, point: Point, key: PRNGKeyArray):
    """All starts at one width, for each budget anew: L-BFGS that is stopped forgets its
    pairs, and what goes on from there is another, slower run."""
    m = point["width"]
    scale = np.array([[m**-0.5], [1.0], [1.0]])

    def both(z):
        value, gradient = _value_and_gradient(z.reshape(3, m))
        return value, np.asarray(gradient).ravel()

    landscape = Landscape(both, np.float64)
    found = np.zeros((2, config.starts, len(config.budgets)))
    for start in range(config.starts):
        at = (scale * np.asarray(jr.normal(jr.fold_in(key, start), (3, m)))).ravel()
        for i, budget in enumerate(config.budgets):
            end = descend(
                landscape, at, tolerance=config.tolerance, max_iterations=budget
            )
            found[:, start, i] = landscape(end.point)[0], np.abs(end.point).max()
    return {
        name: (("start", "budget"), part)
        for name, part in zip(("excess", "weight"), found, strict=True)
    }
