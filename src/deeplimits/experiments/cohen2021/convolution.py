"""The convolutional case, on handwritten digits of 8 by 8 pixels: one stage."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets
from ...checks import require_at_least, require_positive, require_room
from ...epochs import Stopping, fit, orders
from ...losses import accuracy, cross_entropy
from ...residual import AbstractBlock, Convolution, ResNet, convolve
from ...statistics import scaling_norms
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["Convolutional", "convolutional", "convolutional_network", "spectral_norms"]

IMAGES = 1437  # for training, of the 1,797
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

    def __post_init__(self):
        require_at_least(2, self, "depths")
        require_positive(self, "seeds", "channels", "epochs", "batch", "rate")
        require_at_least(0, self, "momentum", "decay")
        # kernels, gradients and momentum; two hidden states a layer, of 4 by 4 pixels
        layer = 3 * 18 * self.channels**2 + 32 * self.channels * self.batch
        require_room(8 * (max(self.depths) * layer + IMAGES * self.epochs + self.seeds))
        if self.batch > IMAGES:
            raise ValueError(f"batch is at most {IMAGES}: got {self.batch}.")


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


@experiment(
    "cohen2021/convolution",
    "convolutional networks on handwritten digits: norms against depth",
    Convolutional(seeds=9),
    book={"depths": (4, 8, 16), "seeds": 2, "epochs": 10},
    smoke={"depths": (2, 4, 8), "seeds": 2, "channels": 2, "epochs": 1, "batch": 512},
)
def convolutional(config: Convolutional, run: Runner) -> xr.Dataset:
    """Norms of the trained kernels against depth, accuracy, and largest increments."""
    grid = {"depth": config.depths, "seed": range(config.seeds)}
    return run.each("trained", grid, _one).assign_coords(kernel=list(KERNELS))


def _one(config: Convolutional, point: Point, key: PRNGKeyArray):
    split_key, model_key, order_key = jr.split(jr.fold_in(key, point["seed"]), 3)
    train, test = datasets.digits(key=split_key)
    model = convolutional_network(config, point["depth"], key=model_key)
    sizes = (len(train[0]), config.batch, config.epochs)
    found = _trained(config, model, train, test, orders(*sizes, key=order_key))
    return {name: (("kernel",)[: a.ndim], a) for name, a in found.items()}


@eqx.filter_jit
def _trained(config, model: ResNet, train, test, batches) -> dict[str, Array]:
    steps = config.epochs * batches.shape[1]
    optimiser = optax.chain(
        optax.add_decayed_weights(config.decay),
        optax.sgd(optax.cosine_decay_schedule(config.rate, steps), config.momentum),
    )
    # no loss and no patience stops it before the last epoch
    rule = Stopping(loss=0.0, epochs=config.epochs, patience=config.epochs)
    run = fit(model, train, batches, cross_entropy, optimiser, rule)
    assert isinstance(run.model.block, AfterAddition)
    kernels = run.model.block.convolution.kernels
    parts = [kernels[:, i] for i in range(2)]
    norms = [scaling_norms(part) for part in parts]
    found = {name: jnp.stack([n[name] for n in norms]) for name in norms[0]}
    found["spectral"] = jnp.stack([spectral_norms(p, 4).max() for p in parts])
    return found | {"accuracy": accuracy(run.model, test), "loss": run.losses[-1]}
