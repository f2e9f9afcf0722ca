"""Figures 8 and 9: weights and accuracies after training on handwritten digits."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from ... import datasets, diagnosis, initialisation, losses, training
from ...checks import require_known
from ...files import checkpoint
from ...residual import Matrix, OuterLayer, ResNet
from ..marion2024.digits import accuracy
from . import setting


class Digits(NamedTuple):
    """Images as rows of pixels in $[0, 1]$, and their classes."""

    images: Float[Array, "n pixels"]
    labels: Int[Array, " n"]


@dataclasses.dataclass(frozen=True)
class Trained:
    """Figure 8: the pairs of `laws` and `betas`.

    `data` is `mnist`, or `digits` for the small ones that are always there. The result
    holds the first `kept` rows and columns of every layer.
    """

    data: str = "mnist"
    laws: tuple[str, ...] = ("smooth", "uniform", "uniform")
    betas: tuple[float, ...] = (1.0, 1.0, 0.5)
    depth: int = 1000
    width: int = 30
    length_scale: float = 0.1
    epochs: int = 10
    batch: int = 128
    rate: float = 1e-3
    kept: int = 3


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """Figure 9: `grid` Hurst indices and as many exponents, from 0.1 to 0.9."""

    data: str = "mnist"
    grid: int = 10
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    depth: int = 1000
    width: int = 30
    epochs: int = 10
    batch: int = 128


def trained_weights(
    config: Trained, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Weights of res-1 before and after training, what `diagnosis` reads from all of
    them, how far all of them `moved` (root mean square, over that of the start), the
    losses, and the accuracy on the test images."""
    if len(config.laws) != len(config.betas):
        raise ValueError(f"laws and betas must pair up: {config.laws}, {config.betas}.")
    train, test = handwritten(config.data)
    fit = trainer(config, train, config.rate)
    kept, cases = slice(config.kept), zip(config.laws, config.betas, strict=True)
    rows = []
    for i, (name, beta) in enumerate(cases):
        weight_key, batch_key = jr.split(jr.fold_in(key, i))
        law = setting.law(name, length_scale=config.length_scale)
        model = classifier(config, law, beta, train, key=weight_key)
        run = fit(model, checkpoint(scratch, f"case-{i}"), progress, key=batch_key)
        weights = [layers(model), layers(run.finished().model)]
        seen = [diagnosis.examine(each) for each in weights]
        row = {"weight": [each[:, kept, kept] for each in weights]}
        found = [each.regularity for each in seen]
        row |= {"regularity": [h.numbers if h else 3 * (np.nan,) for h in found]}
        row |= {"roughness": [each.roughness for each in seen]}
        start, end = weights
        row |= {"moved": np.sqrt(np.mean((end - start) ** 2) / np.mean(start**2))}
        row |= {"accuracy": [accuracy(m, test) for m in (model, run.model)]}
        rows.append(row | {"loss": run.losses})
    extra = {"weight": ("layer", "row", "column"), "regularity": ("bound",)}
    dims = {name: ("case", "time", *extra.get(name, ())) for name in rows[0]}
    dims |= {"loss": ("case", "step"), "moved": ("case",)}
    return xr.Dataset(
        {name: (dims[name], np.array([row[name] for row in rows])) for name in dims},
        {
            "law": ("case", list(config.laws)),
            "beta": ("case", list(config.betas)),
            "time": ["before", "after"],
            "bound": ["value", "low", "high"],
        },
    )


def accuracies(
    config: Accuracies, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Test accuracy by Hurst index, exponent and learning rate. A run whose loss stops
    being finite counts with the weights at which it did."""
    train, test = handwritten(config.data)
    axis = np.linspace(0.1, 0.9, config.grid)
    found = np.zeros((config.grid, config.grid, len(config.rates)))
    for k, rate in enumerate(config.rates):
        fit = trainer(config, train, rate)
        cells = tqdm(list(np.ndindex(found.shape[:2])), disable=not progress)
        for i, j in cells:
            weight_key, batch_key = jr.split(jr.fold_in(jr.fold_in(key, i), j))
            noise = initialisation.fractional_noise
            law = setting.normalised(noise, hurst=float(axis[i]))
            model = classifier(config, law, float(axis[j]), train, key=weight_key)
            run = fit(model, checkpoint(scratch, f"{k}-{i}-{j}"), key=batch_key)
            found[i, j, k] = accuracy(run.model, test)
    dims = ("hurst", "beta", "rate")
    coordinates = {"hurst": axis, "beta": axis, "rate": list(config.rates)}
    return xr.Dataset({"accuracy": (dims, found)}, coordinates)


def handwritten(name: str) -> tuple[Digits, Digits]:
    """Training and test set."""
    require_known("data", name, ("mnist", "digits"))
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


def classifier(config, law, beta: float, data: Digits, *, key: PRNGKeyArray) -> ResNet:
    """res-1 between a matrix in and a matrix out. The factor is an array, not a static
    field: one compilation serves all exponents."""
    weight_key, in_key, out_key = jr.split(key, 3)
    inputs = data.images.shape[1]
    A = initialisation.uniform(1, (config.width, inputs), key=in_key)[0]
    B = initialisation.uniform(1, (10, config.width), key=out_key)[0]
    block = setting.draw("res-1", law, config.depth, config.width, key=weight_key)
    scale = jnp.asarray(config.depth**-beta)
    return ResNet(block, Matrix(A), Matrix(B), beta=0.0, scale=scale)


def layers(model: ResNet) -> Float[np.ndarray, "depth q q"]:
    """The trained weights of all layers."""
    assert isinstance(model.block, OuterLayer)
    return np.asarray(model.block.outer)


def trainer(config, data: Digits, rate: float) -> Callable[..., training.Run]:
    """Adam on all matrices, not on the factor. The learning rate falls to a tenth
    half-way; a batch is drawn with replacement, where the public code goes through a
    permutation an epoch."""
    half = config.epochs * len(data.labels) // config.batch // 2
    rule = optax.adam(optax.piecewise_constant_schedule(rate, {half: 0.1}))

    def loss(model, data, key):
        chosen = jr.randint(key, (config.batch,), 0, len(data.labels))
        batch = (data.images[chosen], data.labels[chosen])
        return losses.cross_entropy(model, batch)

    def fit(model, save, progress=False, *, key):
        with jax.numpy_dtype_promotion("standard"):  # Adam's powers have integers
            return training.train(
                model,
                data,
                loss,
                rule,
                2 * half,
                every=half,
                trainable=_all_but_the_factor,
                progress=progress,
                checkpoint=save,
                key=key,
            )

    return fit


def _all_but_the_factor(model: ResNet) -> ResNet:
    arrays = jax.tree.map(eqx.is_inexact_array, model)
    return eqx.tree_at(lambda m: m.scale, arrays, False)
