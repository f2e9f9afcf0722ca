"""Which initialisation and which activation keep neighbouring layers close?"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets, files, losses, training
from ... import initialisation as laws
from ...checks import require_known
from ...residual import ResNet, TwoLayer
from . import setting

INITIALISATIONS = ("tied", "smooth", "independent")


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Sizes are ours: small, so that three by three by several seeds fit."""

    initialisations: tuple[str, ...] = INITIALISATIONS
    activations: tuple[str, ...] = ("gelu", "tanh", "relu")
    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 5
    steps: int = 300
    n: int = 20
    d: int = 8
    m: int = 16
    rate: float = 0.05
    length_scale: float = 0.5


def _inner(
    config: Initialisation, law: str, depth: int, key: PRNGKeyArray
) -> Float[Array, "depth m d"]:
    require_known("initialisation", law, INITIALISATIONS)
    shape = (config.m, config.d)
    if law == "tied":
        return laws.tied(depth, shape, key=key)
    if law == "independent":
        return laws.independent(depth, shape, key=key)
    return laws.smooth(depth, shape, length_scale=config.length_scale, key=key)


def initialisation(
    config: Initialisation, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""Successive distances after training, for each initialisation and activation.

    $V_k = 0$ at the start; $W_k$ is tied, a smooth Gaussian process of depth, or
    independent. All three share the data; the first two share the draw at all depths.
    """
    blocks = [
        [
            _trained(config, name, depth, key, scratch, progress)
            for depth in config.depths
        ]
        for name in config.activations
    ]
    dims = ("activation", "depth", "initialisation", "seed")
    shape = (len(config.initialisations), config.seeds)
    names = blocks[0][0].keys()
    values = {
        name: np.array([[b[name].reshape(shape) for b in row] for row in blocks])
        for name in names
    }
    return xr.Dataset(
        {name: (dims, value) for name, value in values.items()},
        {
            "activation": list(config.activations),
            "depth": list(config.depths),
            "initialisation": list(config.initialisations),
            "seed": np.arange(config.seeds),
        },
    )


def _trained(
    config, activation, depth, key, scratch, progress
) -> dict[str, np.ndarray]:
    """The last distances of all members: initialisations times seeds."""
    seeds = jr.split(key, config.seeds)
    members = [
        _member(config, law, activation, depth, seed)
        for law in config.initialisations
        for seed in seeds
    ]
    models, data = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    run = training.train(
        models,
        data,
        losses.mean_square,
        setting.descent(config.rate),
        config.steps,
        record=setting.distances,
        every=config.steps,
        trainable=eqx.filter_vmap(training.only_layers),
        ensemble=True,
        progress=progress,
        checkpoint=files.checkpoint(scratch, f"{activation}-{depth}"),
    ).finished()
    return {name: values[:, -1] for name, values in run.records.items()}


def _member(config, law, activation, depth, key) -> tuple[ResNet, tuple[Array, Array]]:
    weight_key, data_key = jr.split(key)
    inner = _inner(config, law, depth, weight_key)
    outer = jnp.zeros_like(inner).swapaxes(1, 2)
    data = datasets.gaussian_pairs(config.n, config.d, key=data_key)
    return ResNet(TwoLayer(outer, inner, activation=activation)), data
