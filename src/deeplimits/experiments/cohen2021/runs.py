"""What a run starts from, how it is trained, and what is measured of it."""

import abc
import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ...checks import require_at_least, require_known, require_positive, require_room
from ...devices import over_devices
from ...epochs import Fit, Stopping, fit
from ...losses import mean_square_entry
from ...residual import ACTIVATIONS, ResNet
from ...statistics import scaling_norms, trend_and_noise
from ..runner import Arrays, Point
from . import setting
from .shuffling import SHUFFLES, shuffled_orders

__all__ = [
    "POINTS",
    "TINY",
    "AbstractTraining",
    "Seeds",
    "measured",
    "require_training",
    "seeded",
    "shared_seeds",
    "trained",
]

POINTS = 129  # depth-times at which one entry of the weights is kept
MNIST = (60_000, 10_000)  # images to train and to test with
TINY = {"depths": (4, 8, 16), "seeds": 2, "train": 64, "test": 32}
_INNER = {"losses": ("epoch",)}
_INNER |= {name: ("s",) for name in ("entry", "sum_entry", "delta_entry", "hidden")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractTraining(abc.ABC):
    """What a training is made of: the defaults are those of the public example, for
    tanh with one delta on the synthetic set."""

    depths: tuple[int, ...]
    activation: str = "tanh"
    delta: str = "shared"
    data: str = "flow"
    seeds: int = 5
    optimiser: str = "adam"
    rate: float = 1e-2
    loss: float = 1e-3
    epochs: int = 10
    patience: int = 5
    batch: int = 32
    train: int = 1024
    test: int = 256
    std: float = 0.01
    shuffle: str = "examples"

    @abc.abstractmethod
    def __post_init__(self):
        """`require_training`, and what the final class needs beside it."""


def require_training(config: AbstractTraining) -> None:
    """`ValueError` for what cannot be trained, or fits into no memory."""
    require_known("activation", config.activation, ACTIVATIONS)
    require_known("delta", config.delta, setting.DELTAS)
    require_known("data", config.data, setting.WIDTHS)
    require_known("optimiser", config.optimiser, setting.OPTIMISERS)
    require_known("shuffling", config.shuffle, SHUFFLES)
    require_at_least(2, config, "depths")
    require_positive(config, "seeds", "epochs", "batch", "train", "test", "rate", "std")
    width = setting.WIDTHS[config.data]
    # weights, gradients and the two moments of Adam; the hidden states of a batch
    layers = max(config.depths) * width * (4 * (width + 2) + config.batch)
    examples = (config.train + config.test) * 2 * width
    orders = config.epochs * config.train
    require_room(8 * config.seeds * (layers + examples + orders))
    _rule(config)  # which refuses what is none
    if config.batch > config.train:
        raise ValueError(
            f"a batch holds between 1 and {config.train} examples: got {config.batch}."
        )
    if config.data == "mnist" and (config.train > MNIST[0] or config.test > MNIST[1]):
        raise ValueError(
            f"MNIST has {MNIST[0]} images to train and {MNIST[1]} to test with: got "
            f"{config.train} and {config.test}."
        )


def _rule(config: AbstractTraining) -> Stopping:
    return Stopping(config.loss, config.epochs, config.patience)


class Seeds(NamedTuple):
    """What the runs of all seeds start from, stacked."""

    x: Float[Array, "seeds train width"]
    y: Float[Array, "seeds train width"]
    test_x: Float[Array, "seeds test width"]
    test_y: Float[Array, "seeds test width"]
    draws: Float[Array, "seeds depth rows width"]
    batches: Int[Array, "seeds epochs batches size"]


def seeded(config: AbstractTraining, *, key: PRNGKeyArray) -> Seeds:
    """Data, normal numbers for the layers, and the batches of each epoch.

    They serve all depths: a shallow network starts from the first layers' draws of a
    deep one, scaled by its own depth.
    """
    keys = jr.split(key, (3, config.seeds))
    data_keys, draw_keys, order_keys = keys[0], keys[1], keys[2]
    sizes = (config.data, config.train, config.test)
    if config.data == "mnist":  # read from its file: nothing to compile
        sets = [setting.pairs(*sizes, key=k) for k in data_keys]
        (x, y), (test_x, test_y) = jax.tree.map(lambda *rows: jnp.stack(rows), *sets)
    else:
        (x, y), (test_x, test_y) = _each(setting.pairs, sizes, data_keys)
    width = x.shape[-1]
    draws = _each(_normals, (max(config.depths), width + 2, width), draw_keys)
    sizes = (config.train, config.batch, config.epochs, config.shuffle)
    batches = _each(shuffled_orders, sizes, order_keys)
    return Seeds(x, y, test_x, test_y, draws, batches)


def shared_seeds(config: AbstractTraining, point: Point, key: PRNGKeyArray) -> Arrays:
    """`seeded` for the runner: arrays by name, of which `Seeds` is made again."""
    return seeded(config, key=key)._asdict()


@partial(jax.jit, static_argnums=(0, 1))
def _each(draw, sizes, keys):
    """One draw for every key; compiled once for the same sizes."""
    return jax.vmap(lambda key: draw(*sizes, key=key))(keys)


def _normals(*shape: int, key: PRNGKeyArray) -> Float[Array, "..."]:
    return jr.normal(key, shape)


def trained(config: AbstractTraining, seed: Seeds) -> tuple[ResNet, Fit]:
    """The network of one seed at its start, with a layer for each of its draws, and
    what training makes of it."""
    kind = {"activation": config.activation, "delta": config.delta}
    start = setting.network(seed.draws, **kind, std=config.std)
    data, rule = (seed.x, seed.y), _rule(config)
    optimiser = setting.OPTIMISERS[config.optimiser](config.rate)
    return start, fit(start, data, seed.batches, mean_square_entry, optimiser, rule)


def measured(config: AbstractTraining, depth: int, seeds: Seeds) -> dict[str, Any]:
    """Everything that is kept of the runs at one depth, with its dimensions."""
    found = _measured(config, seeds._replace(draws=seeds.draws[:, :depth]))
    return {name: (("seed", *_INNER.get(name, ())), a) for name, a in found.items()}


@partial(jax.jit, static_argnums=0)
def _measured(config: AbstractTraining, seeds: Seeds) -> dict[str, Array]:
    return over_devices(lambda seed: _measures(*trained(config, seed), seed))(seeds)


def _measures(start: ResNet, run: Fit, seed: Seeds) -> dict[str, Array]:
    model, train = run.model, (seed.x, seed.y)
    matrices, biases = setting.matrices(model), setting.layers(model).bias
    noise = trend_and_noise(matrices)[1]
    states = model.trajectory(seed.test_x[0])
    found = {
        "delta": jnp.abs(model.steps).max(),
        "losses": run.losses,
        "epochs": run.epochs,
        "reached": run.reached,
        "train_loss": mean_square_entry(model, train),
        "test_loss": mean_square_entry(model, (seed.test_x, seed.test_y)),
        "trend_loss": mean_square_entry(setting.smoothed(model), train),
        "noise_share": jnp.sum(noise**2) / jnp.sum(matrices**2),
        "hidden_increment": jnp.linalg.norm(jnp.diff(states, axis=0), axis=1).max(),
        "hidden_max": jnp.linalg.norm(states, axis=1).max(),
        "entry": _sampled(matrices[:, -1, -2]),
        "sum_entry": _sampled(jnp.cumsum(matrices[:, -1, -2])),
        "delta_entry": _sampled(model.steps),
        "hidden": _sampled(states[:, 0]),
    }
    found |= {f"{name}_A": value for name, value in scaling_norms(matrices).items()}
    found |= {f"{name}_b": value for name, value in scaling_norms(biases).items()}
    before = scaling_norms(setting.matrices(start))
    return found | {"start_max_A": before["max"]}


def _sampled(values: Float[Array, " depth"]) -> Float[Array, " points"]:
    index = np.rint(np.linspace(0, values.shape[0] - 1, POINTS)).astype(int)
    return values[index]
