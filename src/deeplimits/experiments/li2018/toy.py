"""The sine toy: sweeps that distrust their costates, against SGD and Adam."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import control
from ...checks import (
    require_at_least,
    require_multiple,
    require_positive,
    require_room,
)
from ..registry import experiment
from ..runner import Point, Runner

__all__ = [
    "OPTIMISERS",
    "WORK",
    "Toy",
    "layer",
    "sine",
    "square_of_sum",
    "sweeps_and_steps",
]

# Of a layer, matrix products: three in a gradient of J, five in one with penalties.
WORK = 5 / 3
OPTIMISERS = {
    "SGD 0.1": optax.sgd(0.1),
    "SGD 0.01": optax.sgd(0.01),
    "Adam 0.005": optax.adam(0.005),
}


@dataclasses.dataclass(frozen=True)
class Toy:
    r"""As in the public code of `li2018`, but for the draws and the start: $\sin x$ on
    $[-\pi, \pi]$ by tanh layers of step 0.25.

    `points` are uniform and independent, and each is copied to the `width` entries of
    a state; the output is their sum. `rhos` are $\rho$ in the scale of that code, where
    penalties are summed over the batch; for each of `costates` the states are held as
    at $\rho = 1$, and the costates by this $\rho_p$. Weights begin uniform in $\pm$
    `scale`; there they begin at zero, and each search for a layer so far from it.
    """

    rhos: tuple[float, ...] = (0.0, 1.0, 10.0)
    costates: tuple[float, ...] = (1.0,)
    seeds: int = 3
    sweeps: int = 240
    steps: int = 6000
    every: int = 20
    points: int = 100
    layers: int = 20
    width: int = 5
    decay: float = 0.002
    scale: float = 0.005
    inner: int = 10

    def __post_init__(self):
        require_at_least(0, self, "rhos", "costates")
        require_positive(self, "seeds", "sweeps", "steps", "every")
        require_positive(self, "points", "layers", "width", "decay", "scale")
        require_at_least(1, self, "inner")
        require_multiple(self, "steps", "every")
        memory = max(self.inner, self.steps, self.sweeps, self.points) * self.width**2
        require_room(8 * self.seeds * self.layers * memory)


def layer(x: Float[Array, " d"], theta: dict[str, Array]) -> Float[Array, " d"]:
    r"""$\tanh(W x + b)$."""
    return jnp.tanh(theta["W"] @ x + theta["b"])


def square_of_sum(x: Float[Array, " d"], y: Float[Array, " 1"]) -> Float[Array, ""]:
    """The square loss of the sum of the entries."""
    return jnp.sum((jnp.sum(x) - y) ** 2)


def sine(config: Toy, key: PRNGKeyArray) -> tuple[control.ControlProblem, dict]:
    """The problem, with the draws of a key, and the weights at the start."""
    x_key, w_key, b_key = jr.split(key, 3)
    shape, s = (config.layers, config.width), config.scale
    x = jr.uniform(x_key, (config.points, 1), minval=-jnp.pi, maxval=jnp.pi)
    start = {
        "W": jr.uniform(w_key, (*shape, config.width), minval=-s, maxval=s),
        "b": jr.uniform(b_key, shape, minval=-s, maxval=s),
    }
    problem = control.ControlProblem(
        jnp.tile(x, (1, config.width)),
        jnp.sin(x),
        decay=config.decay,
        duration=config.layers / 4,
        field=layer,
        loss=square_of_sum,
    )
    return problem, start


@experiment(
    "li2018/toy",
    "extended MSA on the sine toy for three penalties, against SGD and Adam",
    Toy(),
    book={"seeds": 1, "sweeps": 60, "steps": 2000},
    smoke={
        "rhos": (1.0,),
        "seeds": 2,
        "sweeps": 4,
        "steps": 8,
        "every": 4,
        "points": 10,
        "layers": 3,
        "width": 2,
        "inner": 3,
    },
)
def sweeps_and_steps(config: Toy, run: Runner) -> xr.Dataset:
    r"""Loss and cost $J$ after each sweep with its work, and of the optimisers.

    `work` counts gradients of $J$ by their matrix products: one for the states and
    costates of a sweep, and 5/3 for each evaluation of all layers with penalties.
    `held_loss`, `held_cost` and `held_work` are those of two numbers.
    `descended` and `descended_cost` are of SGD and Adam at the steps `step`.
    """
    seeds = {"seed": range(config.seeds)}
    with jax.enable_x64(True):
        swept = run.each("swept", seeds | {"rho": config.rhos}, _swept)
        held = run.each("held", seeds | {"costate": config.costates}, _held)
        steps = run.each("steps", seeds | {"optimiser": list(OPTIMISERS)}, _descended)
    at = config.every * np.arange(config.steps // config.every + 1)
    sweeps = np.arange(config.sweeps + 1)
    return xr.merge([swept, held, steps]).assign_coords(sweep=sweeps, at=at)


def _swept(config: Toy, point: Point, key: PRNGKeyArray):
    rho = control.summed_rho(point["rho"], config.points, 0.25)
    return _sweeps(config, jr.fold_in(key, point["seed"]), rho)


def _held(config: Toy, point: Point, key: PRNGKeyArray):
    states, _ = control.summed_rho(1.0, config.points, 0.25)
    rows = _sweeps(config, jr.fold_in(key, point["seed"]), (states, point["costate"]))
    return {f"held_{name}": row for name, row in rows.items()}


def _sweeps(config: Toy, key: PRNGKeyArray, rho: tuple[float, float]):
    """Loss, cost and work after each sweep."""
    problem, theta = sine(config, key)
    rows, works = [_costs(problem, theta)], [0.0]
    for _ in range(config.sweeps):
        once = control.extended_msa(
            problem, theta, rho=rho, max_sweeps=1, inner=config.inner
        )
        theta = once.theta
        # once for the states and costates, and the evaluations of layers
        works.append(works[-1] + 1 + WORK * (once.work - len(once.values)))
        rows.append(_costs(problem, theta))
    loss, cost = np.array(jax.device_get(rows)).T
    named = {"loss": loss, "cost": cost, "work": works}
    return {name: ("sweep", row) for name, row in named.items()}


@jax.jit
def _costs(problem: control.ControlProblem, theta) -> tuple[Array, Array]:
    loss = problem.weights @ problem.losses(theta)
    return loss, loss + problem.effort(theta)


def _descended(config: Toy, point: Point, key: PRNGKeyArray):
    problem, start = sine(config, jr.fold_in(key, point["seed"]))
    loss, cost = _descent(config, point["optimiser"], problem, start)
    return {"descended": ("at", loss), "descended_cost": ("at", cost)}


@partial(jax.jit, static_argnums=(0, 1))
def _descent(config: Toy, name: str, problem, start):
    optimiser = OPTIMISERS[name]

    def step(_, carry):
        theta, state = carry
        slopes = jax.grad(problem.value)(theta)
        change, state = optimiser.update(slopes, state)
        return optax.apply_updates(theta, change), state

    def several(carry, _):
        return jax.lax.fori_loop(0, config.every, step, carry), _costs(
            problem, carry[0]
        )

    carry = start, optimiser.init(start)
    times = config.steps // config.every
    (theta, _), kept = jax.lax.scan(several, carry, length=times)
    return jax.tree.map(
        lambda z, last: jnp.append(z, last), kept, _costs(problem, theta)
    )
