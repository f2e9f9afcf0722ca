"""Tanh networks of all depths given the same number of steps: no stopping rule."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import (
    require_at_least,
    require_known,
    require_multiple,
    require_positive,
    require_room,
    require_within,
)
from ...losses import mean_square_entry
from ...residual import ResNet
from ...statistics import scaling_norms, trend_and_noise
from ...training import train
from ..registry import experiment
from ..runner import Point, Runner
from .runs import AbstractTraining, Seeds, require_training, shared_seeds
from .setting import matrices, network

__all__ = ["Budget", "first_below", "label", "norms_at_a_budget"]

Case = tuple[float, float]
AVERAGED = 8  # steps whose losses are averaged before they are compared with the rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget(AbstractTraining):
    """Cases are pairs: the learning rate of Adam at the first step, and the share of it
    that is left at the last, after a cosine; 1 for a constant rate.

    Every network takes `steps` steps, each on a batch drawn for it alone, and is
    recorded `every` so many. `loss` stops nothing; it says when a network is read a
    second time.
    """

    depths: tuple[int, ...] = tuple(2**n for n in range(4, 13))
    cases: tuple[Case, ...] = ((1e-2, 1.0), (3e-3, 1.0), (1e-3, 1.0), (1e-2, 1e-2))
    seeds: int = 3
    epochs: int = 1  # the batches of `Seeds` are not used
    steps: int = 1024
    every: int = 32

    def __post_init__(self):
        require_training(self)
        require_known("delta", self.delta, ("shared",))
        require_known("optimiser", self.optimiser, ("adam",))
        require_positive(self, "steps", "every")
        require_at_least(AVERAGED, self, "steps")
        require_multiple(self, "steps", "every")
        require_room(8 * self.seeds * self.steps)  # the losses
        if not self.cases:
            raise ValueError("choose at least one case.")
        for rate, left in self.cases:
            require_within("(0, inf)", rate=rate)
            require_within("(0, 1]", left=left)


def label(case: Case) -> str:
    """One case in words, as `0.01` or `0.01 to 0.0001`."""
    rate, left = case
    return f"{rate:g}" if left == 1 else f"{rate:g} to {rate * left:g}"


@experiment(
    "cohen2021/tanh-budget",
    "as tanh-depth, with the same number of steps for all depths, at four rates",
    Budget(),
    book={"depths": (16, 64, 256), "cases": ((1e-2, 1.0),), "steps": 256},
    smoke={
        "depths": (4, 8),
        "seeds": 2,
        "cases": ((1e-2, 1e-2),),
        "train": 64,
        "test": 32,
        "loss": 10.0,
        "steps": 16,
        "every": 8,
    },
)
def norms_at_a_budget(config: Budget, run: Runner) -> xr.Dataset:
    r"""Norms of the weights of every case, depth and seed, as training goes on.

    `max_A`, `increment_A`, `delta`, … have the axis `step`, and `loss` is the mean over
    the batches since the last record. `max_A_at_loss`, … are those after
    `step_at_loss`, the first step at which the mean loss of the last eight batches is
    below the rule's, NaN where it never is. A seed has its data, start and batches,
    which serve all depths and cases.
    """
    points = {"case": [label(case) for case in config.cases], "depth": config.depths}
    found = run.each("trained", points, _row, shared=shared_seeds)
    return found.assign_coords(
        seed=np.arange(config.seeds),
        step=np.arange(0, config.steps + 1, config.every),
    )


def _row(config: Budget, point: Point, key: PRNGKeyArray, seeds):
    cases = {label(case): case for case in config.cases}
    seeds = Seeds(**seeds)
    data = (jnp.asarray(seeds.x), jnp.asarray(seeds.y))
    run = train(
        _networks(config, seeds.draws[:, : point["depth"]]),
        data,
        _loss_of_a_batch(config.batch),
        _optimiser(*cases[point["case"]], config.steps),
        config.steps,
        record=_norms,
        ensemble=True,
        key=jr.split(jr.fold_in(key, 1), config.seeds),
        **point.resumable,
    ).finished()
    at = first_below(run.losses, config.loss)
    chosen = np.where(np.isnan(at), 0, at).astype(int)
    seed = np.arange(config.seeds)
    found: dict[str, Any] = {"step_at_loss": ("seed", at)}
    for name, values in run.records.items():
        read = np.where(np.isnan(at), np.nan, values[seed, chosen])
        found[f"{name}_at_loss"] = ("seed", read)
        found[name] = (("seed", "step"), values[:, :: config.every])
    means = run.losses.reshape(config.seeds, -1, config.every).mean(-1)
    losses = np.concatenate([run.losses[:, :1], means], axis=1)
    return found | {
        "loss": (("seed", "step"), losses),
        "train_loss": ("seed", _losses(run.model, data)),
    }


@functools.partial(jax.jit, static_argnums=0)
def _networks(config: Budget, draws: Float[Array, "seeds depth rows width"]) -> ResNet:
    options = {"activation": config.activation, "std": config.std}
    return jax.vmap(lambda draws: network(draws, **options))(draws)


def first_below(
    losses: Float[np.ndarray, "seeds steps"], rule: float
) -> Float[np.ndarray, " seeds"]:
    """The number of steps after which the mean of the last eight losses is below the
    rule for the first time, NaN where it never is."""
    sums = np.cumsum(np.pad(losses, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    below = (sums[:, AVERAGED:] - sums[:, :-AVERAGED]) / AVERAGED < rule
    return np.where(below.any(1), below.argmax(1) + AVERAGED, np.nan)


@functools.cache  # the same function again is compiled once
def _loss_of_a_batch(size: int):
    def loss(model: ResNet, data, key) -> Array:
        x, y = data
        chosen = jr.choice(key, x.shape[0], (size,), replace=False)
        return mean_square_entry(model, (x[chosen], y[chosen]))

    return loss


@functools.cache
def _optimiser(rate: float, left: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(rate, steps, left))


def _norms(model: ResNet) -> dict[str, Array]:
    layers = matrices(model)
    noise = trend_and_noise(layers)[1]
    found = {f"{name}_A": value for name, value in scaling_norms(layers).items()}
    share = jnp.sum(noise**2) / jnp.sum(layers**2)
    return found | {"delta": jnp.abs(model.steps).max(), "noise_share": share}


@jax.jit
def _losses(model: ResNet, data) -> Float[Array, " seeds"]:
    return eqx.filter_vmap(mean_square_entry)(model, data)
