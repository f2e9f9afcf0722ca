"""Handwritten digits: the small sister of Table 1 and Figure 4."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets, files, initialisation, losses, training
from ...checks import require_known
from ...residual import Convolution, ResNet, convolve
from ...statistics import successive_distances


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
    laws = {"tied": initialisation.tied, "independent": initialisation.independent}
    require_known("initialisation", law, laws)
    c = config.channels
    std = (2 / (9 * c)) ** 0.5
    first = laws[law](config.depth, (c, c, 3, 3), std=std, key=layer_key)
    kernels = jnp.stack([first, jnp.zeros_like(first)], axis=1)
    return ResNet(
        Convolution(kernels, activation=activation),
        Stem(jr.normal(stem_key, (c, 1, 3, 3)) * (2 / 9) ** 0.5),
        Head(jr.normal(head_key, (10, 16 * c)) / (16 * c) ** 0.5, jnp.zeros(10)),
    )


def accuracy(model: ResNet, data) -> Float[Array, ""]:
    """The share of images whose class has the largest output."""
    images, labels = data
    return jnp.mean(jnp.argmax(jax.vmap(model)(images), axis=1) == labels)


def digits(
    config: Digits, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Smoothness along depth, and accuracy, of networks trained on digits."""
    loss = losses.on_batches(losses.cross_entropy, config.batch)
    optimiser = optax.chain(
        training.depth_factor(), optax.sgd(config.rate, config.momentum)
    )

    def one(law, activation, seed):
        split_key, weight_key, batch_key = jr.split(jr.fold_in(key, seed), 3)
        train, test = datasets.digits(key=split_key)
        run = training.train(
            network(config, law, activation, key=weight_key),
            train,
            loss,
            optimiser,
            config.steps,
            every=config.steps,
            progress=progress,
            checkpoint=files.checkpoint(scratch, f"{law}-{activation}-{seed}"),
            key=batch_key,
        ).finished()
        return _summary(run.model, train, test)

    rows = [
        [
            [one(law, name, seed) for seed in range(config.seeds)]
            for name in config.activations
        ]
        for law in config.initialisations
    ]
    dims = ("initialisation", "activation", "seed")
    extra = {
        "distance": (*dims, "convolution"),
        "entries": (*dims, "convolution", "layer"),
    }
    names = rows[0][0][0].keys()
    return xr.Dataset(
        {
            name: (
                extra.get(name, dims),
                np.array([[[r[name] for r in b] for b in row] for row in rows]),
            )
            for name in names
        },
        {
            "initialisation": list(config.initialisations),
            "activation": list(config.activations),
            "seed": np.arange(config.seeds),
            "convolution": [1, 2],
            "layer": np.arange(config.depth),
        },
    )


@eqx.filter_jit
def _summary(model: ResNet, train, test) -> dict[str, Array]:
    """Mean distance of neighbours, one entry of each convolution, accuracies."""
    assert isinstance(model.block, Convolution)
    kernels = jnp.moveaxis(model.block.kernels, 1, 0)
    return {
        "distance": jnp.stack([successive_distances(k).mean() for k in kernels]),
        "entries": kernels[:, :, 0, 0, 1, 1],
        "train_accuracy": accuracy(model, train),
        "test_accuracy": accuracy(model, test),
    }
