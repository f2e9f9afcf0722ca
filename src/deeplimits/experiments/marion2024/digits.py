"""Handwritten digits: the small sister of Table 1 and Figure 4."""

import dataclasses
import functools

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets, initialisation, losses, training
from ...checks import require_at_least, require_choices, require_positive, require_room
from ...residual import ACTIVATIONS, Convolution, ResNet, convolve
from ...statistics import successive_distances
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["Digits", "Head", "Stem", "network", "train_on_digits"]

LAWS = {"tied": initialisation.tied, "independent": initialisation.independent}


IMAGES = 1437  # for training, of the 1,797


@dataclasses.dataclass(frozen=True)
class Digits:
    """Ours: 1,437 images of 8 by 8 pixels for training, 360 to test."""

    initialisations: tuple[str, ...] = ("tied", "independent")
    activations: tuple[str, ...] = ("gelu", "relu")
    depth: int = 64
    seeds: int = 3
    channels: int = 8
    steps: int = 150
    batch: int = 32
    rate: float = 0.02
    momentum: float = 0.9

    def __post_init__(self):
        require_choices("initialisation", self.initialisations, LAWS)
        require_choices("activation", self.activations, ACTIVATIONS)
        require_positive(self, "seeds", "channels", "steps", "batch", "rate")
        require_at_least(2, self, "depth")
        require_at_least(0, self, "momentum")
        if self.batch > IMAGES:
            raise ValueError(f"batch is at most {IMAGES}: got {self.batch}.")
        kernels = 18 * self.depth * self.channels**2
        hidden = 16 * self.depth * self.channels * self.batch
        require_room(8 * (kernels * self.seeds + hidden + self.steps))


class Stem(eqx.Module):
    """A convolution of stride 2: one channel of 8 by 8 pixels to many of 4 by 4."""

    kernel: Float[Array, "channels 1 3 3"]

    def __call__(self, image: Float[Array, "1 8 8"]) -> Float[Array, "channels 4 4"]:
        return convolve(image, self.kernel, stride=2)


class Head(eqx.Module):
    """A linear map from all entries of the hidden state to the ten classes."""

    weight: Float[Array, "10 entries"]
    bias: Float[Array, " 10"]

    def __call__(self, h: Float[Array, "channels 4 4"]) -> Float[Array, " 10"]:
        return self.weight @ h.ravel() + self.bias


def network(config: Digits, law: str, activation: str, *, key: PRNGKeyArray) -> ResNet:
    """The first convolution of each block by `law`, the second zero."""
    stem_key, layer_key, head_key = jr.split(key, 3)
    c = config.channels
    std = (2 / (9 * c)) ** 0.5
    first = LAWS[law](config.depth, (c, c, 3, 3), std=std, key=layer_key)
    kernels = jnp.stack([first, jnp.zeros_like(first)], axis=1)
    return ResNet(
        Convolution(kernels, activation=activation),
        Stem(jr.normal(stem_key, (c, 1, 3, 3)) * (2 / 9) ** 0.5),
        Head(jr.normal(head_key, (10, 16 * c)) / (16 * c) ** 0.5, jnp.zeros(10)),
    )


@experiment(
    "marion2024/digits",
    "convolutional networks on digits: smoothness along depth, and accuracy",
    Digits(),
    book={"activations": ("gelu",), "depth": 16, "seeds": 1, "steps": 60},
    smoke={"activations": ("gelu",), "depth": 2, "seeds": 1, "steps": 2, "batch": 16},
)
def train_on_digits(config: Digits, run: Runner) -> xr.Dataset:
    """Smoothness along depth, and accuracy, of networks trained on digits."""
    grid = {
        "initialisation": config.initialisations,
        "activation": config.activations,
        "seed": range(config.seeds),
    }
    found = run.each("trained", grid, _trained)
    return found.assign_coords(convolution=[1, 2], layer=np.arange(config.depth))


@functools.cache  # one loss and one optimiser: what they are part of compiles once
def _rule(config: Digits) -> tuple[losses.Loss, optax.GradientTransformation]:
    descent = optax.sgd(config.rate, config.momentum)
    loss = losses.on_batches(losses.cross_entropy, config.batch)
    return loss, optax.chain(training.depth_factor(), descent)


def _trained(config: Digits, point: Point, key: PRNGKeyArray):
    loss, optimiser = _rule(config)
    law, activation = point["initialisation"], point["activation"]
    split_key, weight_key, batch_key = jr.split(jr.fold_in(key, point["seed"]), 3)
    train, test = datasets.digits(key=split_key)
    start = network(config, law, activation, key=weight_key)
    run = training.train(
        start,
        train,
        loss,
        optimiser,
        config.steps,
        every=config.steps,
        key=batch_key,
        **point.resumable,
    ).finished()
    found = _summary(run.model, start, train, test)
    each, layered = ("convolution",), ("convolution", "layer")
    dims = {"distance": each, "moved": each, "entries": layered}
    return {name: (dims.get(name, ()), value) for name, value in found.items()}


def _kernels(model: ResNet) -> Float[Array, "convolutions depth out in 3 3"]:
    assert isinstance(model.block, Convolution)
    return jnp.moveaxis(model.block.kernels, 1, 0)


@eqx.filter_jit
def _summary(model: ResNet, start: ResNet, train, test) -> dict[str, Array]:
    """Mean distance of neighbours, and of each layer from where it began; one entry of
    each convolution; accuracies."""
    kernels, before = _kernels(model), _kernels(start)
    return {
        "moved": jnp.sqrt(jnp.sum((kernels - before) ** 2, (2, 3, 4, 5))).mean(1),
        "distance": jnp.stack([successive_distances(k).mean() for k in kernels]),
        "entries": kernels[:, :, 0, 0, 1, 1],
        "train_accuracy": losses.accuracy(model, train),
        "test_accuracy": losses.accuracy(model, test),
    }
