"""Large data and optimal control: the optimality system of many samples."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import control
from ...checks import require_at_least, require_positive, require_room
from ...control.problem import hamiltonian_slopes
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["Training", "affine", "chord", "stationarity", "weights_of_samples"]

ENTRIES = ("w", "b")


@dataclasses.dataclass(frozen=True)
class Training:
    r"""Ours: two bumps on the line, $x_{k+1} = x_k + h \tanh(w_k x_k + b_k)$, $T = 1$.

    For each of the `decays` $\lambda$ and each number of `points` there are `groups` of
    `draws` samples. The population is a quadrature of so many `nodes` a bump.
    """

    decays: tuple[float, ...] = (1.0, 0.1, 0.001)
    points: tuple[int, ...] = (20, 80, 320, 1280)
    groups: int = 50
    draws: int = 200
    layers: int = 20
    nodes: int = 40
    iterations: int = 100
    tolerance: float = 1e-9

    def __post_init__(self):
        require_positive(self, "decays", "points", "groups", "layers", "nodes")
        require_positive(self, "iterations", "tolerance")
        require_at_least(2, self, "draws")
        most = max(*self.points, 2 * self.nodes, self.iterations)
        require_room(32 * self.layers**2 * (most + self.groups * self.draws))


def affine(x: Float[Array, " d"], theta: Float[Array, " 2"]) -> Float[Array, " d"]:
    r"""$\tanh(w x + b)$ on the line, with $\theta = (w, b)$."""
    return jnp.tanh(theta[0] * x + theta[1])


@experiment(
    "herty2022/training",
    "optimal weights of many samples against their laws, for four numbers of points",
    Training(),
    book={"groups": 10, "draws": 50},
    smoke={
        "decays": (0.1,),
        "points": (40, 80),
        "groups": 2,
        "draws": 8,
        "layers": 4,
        "nodes": 8,
    },
)
def weights_of_samples(config: Training, run: Runner) -> xr.Dataset:
    r"""Means over the samples of each group, and what the population predicts of them.

    With $\theta_M$ the weights of a sample and $\theta$ those of the population:
    `control` is the mean of $(\theta_M - \theta)^2$ in each layer, `value` of
    $(J_M(\theta_M) - J(\theta))^2$, `gained` of $J_M(\theta) - J_M(\theta_M)$ and
    `lost` of $J(\theta_M) - J(\theta)$, over the samples that are `solved`, of which
    it gives the share. `deviation`, `spread` and `bias` are the constants.
    """
    axes = {"decay": config.decays, "points": config.points}
    with jax.enable_x64(True):
        optima = run.each("population", {"decay": config.decays}, _population)
        found = run.each("samples", axes, _samples, shared=_weights)
    return xr.merge([optima, found]).assign_coords(
        entry=list(ENTRIES), group=np.arange(config.groups)
    )


def stationarity(problem: control.ControlProblem, theta: Array) -> Array:
    r"""$\partial_\theta H(\theta_k)$ in all layers: states forth, costates back."""
    return hamiltonian_slopes(problem, problem.pontryagin(theta), theta)


def chord(
    problem: control.ControlProblem,
    start: Float[Array, "layers entries"],
    inverse: Float[Array, "unknowns unknowns"],
    limits: tuple[int, float],
) -> tuple[Float[Array, "layers entries"], Float[Array, ""]]:
    r"""Weights that solve the optimality system, and the largest slope that is left.

    $\theta \leftarrow \theta - A\, \partial_\theta H(\theta)$ with the `inverse` $A$ of
    the derivative elsewhere, up to so many iterations or to a tolerance: `limits`.
    """

    def unfinished(carry):
        count, _, slopes = carry
        return (count < limits[0]) & ~(jnp.max(jnp.abs(slopes)) <= limits[1])

    def once(carry):
        count, theta, slopes = carry
        theta = theta - (inverse @ slopes.ravel()).reshape(theta.shape)
        return count + 1, theta, stationarity(problem, theta)

    carry = 0, start, stationarity(problem, start)
    _, theta, slopes = jax.lax.while_loop(unfinished, once, carry)
    return theta, jnp.max(jnp.abs(slopes))


def _problem(law: control.Law, decay: float | Array):
    return control.ControlProblem(*law, decay=decay, field=affine)


def _optimum(config: Training, decay: float):
    population = _problem(control.bumps(config.nodes), decay)
    start = jnp.stack([jnp.ones(config.layers), jnp.zeros(config.layers)], axis=1)
    found = control.direct(population, start)
    if not found.solved:
        raise ValueError(f"no optimum of the population at {decay=}: {found.flags}.")
    return population, found


def _population(config: Training, point: Point, key: PRNGKeyArray):
    population, found = _optimum(config, point["decay"])
    constants = control.sampling_constants(population, found.theta)
    rows = ("layer", "entry")
    return {
        "weights": (rows, found.theta),
        "deviation": (rows, constants.each),
        "optimum": found.value,
        "spread": constants.value,
        "bias": constants.bias,
    }


def _weights(config: Training, point: Point, key: PRNGKeyArray):
    """The optima of the population, and the inverse derivatives there."""
    optima, inverses = [], []
    for decay in config.decays:
        population, found = _optimum(config, decay)
        slopes = jax.jacfwd(partial(stationarity, population))(found.theta)
        optima.append(found.theta)
        inverses.append(np.linalg.inv(slopes.reshape(2 * (found.theta.size,))))
    return {"optima": np.stack(optima), "inverses": np.stack(inverses)}


def _samples(config: Training, point: Point, key: PRNGKeyArray, shared):
    decay, points = point["decay"], point["points"]
    row = config.decays.index(decay)
    optimum, inverse = (jnp.asarray(shared[n][row]) for n in ("optima", "inverses"))
    keys = jr.split(
        jr.fold_in(jr.fold_in(key, row), points), (config.groups, config.draws)
    )
    means = _groups(config, points, keys, jnp.asarray(decay), optimum, inverse)
    dims = {"control": ("group", "layer", "entry")}
    return {name: (dims.get(name, "group"), mean) for name, mean in means.items()}


@partial(jax.jit, static_argnums=(0, 1))
def _groups(config: Training, points: int, keys, decay, optimum, inverse):
    population = _problem(control.bumps(config.nodes), decay)
    least = population.value(optimum)
    limits = config.iterations, config.tolerance

    def sample(key):
        law = control.sample_bumps(points, key=key)
        problem = _problem(law, decay)
        theta, left = chord(problem, optimum, inverse, limits)
        value = problem.value(theta)
        return left <= config.tolerance, {
            "control": (theta - optimum) ** 2,
            "value": (value - least) ** 2,
            "gained": problem.value(optimum) - value,
            "lost": population.value(theta) - least,
        }

    def group(keys):
        solved, each = jax.lax.map(sample, keys)

        def mean(z):
            inside = solved.reshape(-1, *(1,) * (z.ndim - 1))
            return jnp.where(inside, z, 0).sum(0) / solved.sum(dtype=float)

        return jax.tree.map(mean, each) | {"solved": solved.mean(dtype=float)}

    return jax.lax.map(group, keys)
