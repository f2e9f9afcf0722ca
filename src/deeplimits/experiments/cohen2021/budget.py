"""Tanh networks of all depths given the same number of steps: no stopping rule."""

import dataclasses
import functools
import itertools
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
from ...intervals import Interval
from ...losses import mean_square_entry
from ...residual import ResNet
from ...statistics import (
    loglog_slope,
    mean_interval,
    scaling_norms,
    trend_and_noise,
)
from ...training import train
from ..registry import experiment
from ..runner import Point, Runner
from .runs import AbstractTraining, Seeds, require_training, shared_seeds
from .setting import matrices, network

__all__ = [
    "Budget",
    "apart",
    "change_of_slope",
    "first_below",
    "in_units",
    "label",
    "norms_at_a_budget",
    "ratio",
    "turn",
]

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


def change_of_slope(values: xr.DataArray) -> Interval:
    """The slope over the upper half of the depths less that over the lower one, seed by
    seed: zero for a power law.

    `values` has the axes `depth` and `seed`. The halves are those of `loglog_slope`,
    and the interval is Student's, over seeds. Raises `ValueError` for fewer than five
    depths.
    """
    depth = values["depth"].values
    rows = values.transpose("seed", "depth").values
    halves = [loglog_slope(depth, row).halves for row in rows]
    if () in halves:
        raise ValueError(f"a change of slope needs five depths: got {depth.tolist()}.")
    return mean_interval([upper.value - lower.value for lower, upper in halves])


def ratio(values: xr.DataArray, case: str, other: str) -> Interval:
    r"""The geometric mean over the seeds $i$ of $x_i / y_i$, for `values` $x$ in `case`
    and $y$ in `other`, with Student's interval of the logarithms.

    `values` has the axes `case` and `seed`.
    """
    for name in (case, other):
        require_known("case", name, values["case"].values.tolist())
    x, y = (values.sel(case=name).values.astype(float) for name in (case, other))
    logs = mean_interval(np.log(x / y))
    mean, low, high = np.exp(logs.numbers)
    return Interval(mean, low, high, logs.kind)


def _constant(values: xr.DataArray) -> list[str]:
    """The cases of a constant rate, the smallest rate first."""
    names = [str(name) for name in values["case"].values if " to " not in str(name)]
    return sorted(names, key=float)


def in_units(
    values: xr.DataArray, case: str, power: float = 2.0
) -> tuple[Float[np.ndarray, " depths"], Float[np.ndarray, "seeds depths"]]:
    r"""The curve of one constant rate $\eta$ against $L \eta^p$, where $p$ is `power`:
    $L \eta^p$ for all depths, and the values there.

    `values` has the axes `case`, `depth` and `seed`; `case` is the rate in words.
    Depths at which a seed has no number are left out: it never got to the loss. Raises
    `ValueError` where none is left, and for a case that is no constant rate.
    """
    require_known("constant rate", case, _constant(values))
    rows = values.sel(case=case).transpose("seed", "depth").astype(float)
    rows = rows[:, np.isfinite(rows.values).all(0)]
    if not rows.size:
        raise ValueError(f"at rate {case} no depth has a number for every seed.")
    return rows["depth"].values * float(case) ** power, rows.values


def _mean_curve(values: xr.DataArray, case: str, power: float):
    x, rows = in_units(values, case, power)
    return x, np.exp(np.log(rows).mean(0))


def turn(values: xr.DataArray, case: str) -> int:
    """The depth at which the geometric mean over seeds is least, at one constant rate.

    `values` has the axes `case`, `depth` and `seed`.
    """
    depth, means = _mean_curve(values, case, 0.0)
    return int(depth[means.argmin()])


def apart(values: xr.DataArray, power: float = 2.0) -> Float[np.ndarray, " pairs"]:
    r"""The curves of different rates over one another, against $L \eta^p$.

    With $y_\eta(x)$ the geometric mean over seeds at $x = L \eta^p$, these are the
    $y_\eta(x) / y_{\eta'}(x)$ for each constant rate $\eta$ and the next larger one
    $\eta'$, at the $x$ of $\eta$ that lie within those of $\eta'$, whose logarithm is
    interpolated linearly in $\log x$. All are one where depth and rate enter through
    $L \eta^p$ alone.

    `values` has the axes `case`, `depth` and `seed`. Raises `ValueError` where no two
    curves overlap.
    """
    curves = [_mean_curve(values, case, power) for case in _constant(values)]
    found = []
    for (x, y), (there, larger) in itertools.pairwise(curves):
        inside = (x >= there.min()) & (x <= there.max())
        logs = np.interp(np.log(x[inside]), np.log(there), np.log(larger))
        found.append(y[inside] / np.exp(logs))
    if not sum(ratios.size for ratios in found):
        raise ValueError(f"no two rates overlap in L times the rate to the {power:g}.")
    return np.concatenate(found)
