"""The convolutional case, on handwritten digits of 8 by 8 pixels: one stage."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from ... import datasets, files
from ...losses import cross_entropy
from ...residual import AbstractBlock, Convolution, ResNet, convolve
from ...statistics import scaling_norms
from .fitting import Stopping, fit, orders

KERNELS = ("first", "second")


@dataclasses.dataclass(frozen=True)
class Convolutional:
    """Blocks, start and optimiser as for CIFAR-10 in the public code; sizes are ours.

    No normalisation, no bias, no factor before the block.
    """

    depths: tuple[int, ...] = (4, 8, 16, 32)
    seeds: int = 3
    channels: int = 8
    epochs: int = 20
    batch: int = 32
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 5e-4


class AfterAddition(AbstractBlock):
    r"""$f(h) = \mathrm{ReLU}(h + K_2 * \mathrm{ReLU}(K_1 * h)) - h$: the activation
    follows the addition. Source: `cohen2021`, public code."""

    convolution: Convolution

    def __call__(
        self, h: Float[Array, "channels height width"]
    ) -> Float[Array, "channels height width"]:
        return jax.nn.relu(h + self.convolution(h)) - h


class Stem(eqx.Module):
    """A convolution of stride 2 and a ReLU: one channel to many, half the size."""

    kernel: Float[Array, "channels 1 3 3"]

    def __call__(
        self, image: Float[Array, "1 rows columns"]
    ) -> Float[Array, "channels height width"]:
        return jax.nn.relu(convolve(image, self.kernel, stride=2))


class Head(eqx.Module):
    """The mean over all pixels, and a linear map to ten classes."""

    weight: Float[Array, "10 channels"]
    bias: Float[Array, " 10"]

    def __call__(self, h: Float[Array, "channels height width"]) -> Float[Array, " 10"]:
        return self.weight @ h.mean((1, 2)) + self.bias


def convolutional_network(
    config: Convolutional, depth: int, *, key: PRNGKeyArray
) -> ResNet:
    r"""All kernels uniform on $\pm\text{fan-in}^{-1/2}$: PyTorch's default."""
    c, keys = config.channels, jr.split(key, 3)
    bound = (9 * c) ** -0.5
    kernels = jr.uniform(keys[0], (depth, 2, c, c, 3, 3), minval=-bound, maxval=bound)
    stem = jr.uniform(keys[1], (c, 1, 3, 3), minval=-1 / 3, maxval=1 / 3)
    head = jr.uniform(keys[2], (10, c), minval=-(c**-0.5), maxval=c**-0.5)
    block = AfterAddition(Convolution(kernels, activation="relu"))
    return ResNet(block, Stem(stem), Head(head, jnp.zeros(10)), beta=0.0)


def spectral_norms(
    kernels: Float[Array, "depth outputs inputs rows columns"], size: int
) -> Float[Array, " depth"]:
    """The largest singular value of every periodic convolution of `size` by `size`.

    A Fourier transform of the padded kernel turns the map into one matrix a frequency.
    """
    symbols = jnp.fft.fft2(kernels, (size, size))
    matrices = jnp.moveaxis(symbols, (1, 2), (3, 4))
    return jnp.linalg.norm(matrices, 2, (3, 4)).max((1, 2))


def convolutional(
    config: Convolutional, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Norms of the trained kernels against depth, accuracy, and largest increments."""

    def compute(depth):
        rows = [_one(config, depth, jr.fold_in(key, i)) for i in range(config.seeds)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    found = [
        files.kept(scratch, f"depth-{depth}", lambda depth=depth: compute(depth))
        for depth in tqdm(config.depths, disable=not progress)
    ]
    dims = {n: ("depth", "seed", "kernel")[: found[0][n].ndim + 1] for n in found[0]}
    return xr.Dataset(
        {name: (dims[name], np.stack([row[name] for row in found])) for name in dims},
        {
            "depth": list(config.depths),
            "seed": np.arange(config.seeds),
            "kernel": list(KERNELS),
        },
    )


def _one(config: Convolutional, depth: int, key: PRNGKeyArray) -> dict[str, np.ndarray]:
    split_key, model_key, order_key = jr.split(key, 3)
    train, test = datasets.digits(key=split_key)
    model = convolutional_network(config, depth, key=model_key)
    sizes = (len(train[0]), config.batch, config.epochs, "examples")
    found = _trained(config, model, train, test, orders(*sizes, key=order_key))
    return {name: np.asarray(value) for name, value in found.items()}


@eqx.filter_jit
def _trained(config, model: ResNet, train, test, batches) -> dict[str, Array]:
    steps = config.epochs * batches.shape[1]
    optimiser = optax.chain(
        optax.add_decayed_weights(config.decay),
        optax.sgd(optax.cosine_decay_schedule(config.rate, steps), config.momentum),
    )
    rule = Stopping(loss=0.0, epochs=config.epochs, patience=config.epochs)
    run = fit(model, train, batches, cross_entropy, optimiser, rule)
    assert isinstance(run.model.block, AfterAddition)
    kernels = run.model.block.convolution.kernels
    parts = [kernels[:, i] for i in range(2)]
    norms = [scaling_norms(part) for part in parts]
    found = {name: jnp.stack([n[name] for n in norms]) for name in norms[0]}
    found["spectral"] = jnp.stack([spectral_norms(p, 4).max() for p in parts])
    right = jnp.argmax(jax.vmap(run.model)(test[0]), axis=1) == test[1]
    return found | {"accuracy": right.mean(), "loss": run.losses[-1]}
