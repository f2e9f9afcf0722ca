"""What Figures 8 and 9 share: handwritten digits, a classifier, and its training."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ... import datasets, initialisation, losses, training
from ...checks import require_known, require_positive, require_room
from ...residual import Matrix, ResNet
from . import setting

__all__ = [
    "Digits",
    "accuracy_of",
    "classifier",
    "fit",
    "handwritten",
    "read",
    "require_trainable",
]

SIZES = {"mnist": (60_000, 784), "digits": (1437, 64)}  # images to train on, pixels


class Digits(NamedTuple):
    """Images as rows of pixels in $[0, 1]$, and their classes."""

    images: Float[Array, "n pixels"]
    labels: Int[Array, " n"]


def require_trainable(config: Any) -> None:
    """Raise `ValueError` for unknown data, sizes that are not positive, a batch that
    leaves fewer than two steps, and arrays that no machine has room for."""
    require_known("data", config.data, SIZES)
    require_positive(config, "depth", "width", "epochs", "batch")
    (images, pixels), half = SIZES[config.data], _half(config)
    if half < 1:
        raise ValueError(
            f"{config.epochs} epochs of {images} images are less than two steps: a "
            f"batch is at most {config.epochs * images // 2}, got {config.batch}."
        )
    layer = config.width * (6 * config.width + 2 * config.batch)
    data = (images + config.batch) * pixels + config.width * pixels
    require_room(8 * (config.depth * layer + data + 2 * half))


def _half(config: Any) -> int:
    """The steps before the learning rate falls, and after."""
    return config.epochs * SIZES[config.data][0] // config.batch // 2


def handwritten(name: str) -> tuple[Digits, Digits]:
    """Training and test set."""
    require_known("data", name, SIZES)
    if name == "mnist":
        found = datasets.mnist()
        parts = (found.train, found.train_labels), (found.test, found.test_labels)
        scale = 255.0
    else:
        parts, scale = datasets.digits(key=jr.key(0)), 1.0
    train, test = (
        Digits(jnp.asarray(x.reshape(len(x), -1), float) / scale, jnp.asarray(y))
        for x, y in parts
    )
    return train, test


def read(config: Any) -> tuple[Digits, Digits]:
    """`handwritten`, read once for all points."""
    return _read(config.data, jnp.result_type(float))


@functools.lru_cache(maxsize=1)
def _read(name: str, dtype: jnp.dtype) -> tuple[Digits, Digits]:
    return handwritten(name)  # made in the default precision, which `dtype` names


def classifier(
    config: Any, law: setting.Law, beta: float, data: Digits, *, key: PRNGKeyArray
) -> ResNet:
    """res-1 between a matrix in and a matrix out. The factor is an array, not a static
    field: one compilation serves all exponents."""
    weight_key, in_key, out_key = jr.split(key, 3)
    inputs = data.images.shape[1]
    A = initialisation.uniform(1, (config.width, inputs), key=in_key)[0]
    B = initialisation.uniform(1, (10, config.width), key=out_key)[0]
    block = setting.draw("res-1", law, config.depth, config.width, key=weight_key)
    scale = jnp.asarray(config.depth**-beta, float)
    return ResNet(block, Matrix(A), Matrix(B), beta=0.0, scale=scale)


def fit(
    config: Any,
    model: ResNet,
    data: Digits,
    rate: float,
    *,
    key: PRNGKeyArray,
    **options: Any,
) -> training.Run:
    """Adam on all matrices, not on the factor. The learning rate falls to a tenth
    half-way; a batch is drawn with replacement, where the public code goes through a
    permutation an epoch. `options` are those of `training.train`."""
    half = _half(config)
    loss, optimiser = _rule(config.batch, half, rate)
    with jax.numpy_dtype_promotion("standard"):  # Adam's powers have integers
        return training.train(
            model,
            data,
            loss,
            optimiser,
            2 * half,
            every=half,
            trainable=_all_but_the_factor,
            key=key,
            **options,
        )


@functools.cache  # one loss and one optimiser: what they are part of compiles once
def _rule(
    size: int, half: int, rate: float
) -> tuple[losses.Loss, optax.GradientTransformation]:
    def loss(model, data, key):
        chosen = jr.randint(key, (size,), 0, len(data.labels))
        batch = (data.images[chosen], data.labels[chosen])
        return losses.cross_entropy(model, batch)

    return loss, optax.adam(optax.piecewise_constant_schedule(rate, {half: 0.1}))


def _all_but_the_factor(model: ResNet) -> ResNet:
    arrays = jax.tree.map(eqx.is_inexact_array, model)
    return eqx.tree_at(lambda m: m.scale, arrays, False)


accuracy_of = eqx.filter_jit(losses.accuracy)  # else it compiles anew at each call
