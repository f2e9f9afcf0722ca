"""Which initialisation and which activation keep neighbouring layers close?"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets, losses, training
from ... import initialisation as laws
from ...checks import require_at_least, require_choices, require_positive
from ...residual import ACTIVATIONS, ResNet, TwoLayer
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = ["Initialisation", "compare_initialisations"]

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

    def __post_init__(self):
        require_choices("initialisation", self.initialisations, INITIALISATIONS)
        require_choices("activation", self.activations, ACTIVATIONS)
        require_positive(self, "seeds", "steps", "n", "d", "m", "rate")
        require_at_least(2, self, "depths")
        require_at_least(0.01, self, "length_scale")
        setting.require_room(max(self.depths), self, copies=self.seeds)


def _inner(
    config: Initialisation, law: str, depth: int, key: PRNGKeyArray
) -> Float[Array, "depth m d"]:
    shape = (config.m, config.d)
    if law == "tied":
        return laws.tied(depth, shape, key=key)
    if law == "independent":
        return laws.independent(depth, shape, key=key)
    return laws.smooth(depth, shape, length_scale=config.length_scale, key=key)


@experiment(
    "marion2024/initialisation",
    "tied, smooth and independent layers; GELU, tanh and ReLU",
    Initialisation(),
    book={
        "activations": ("tanh", "relu"),
        "depths": (16, 64),
        "seeds": 3,
        "steps": 100,
    },
    smoke={"activations": ("gelu", "relu"), "depths": (4,), "seeds": 2, "steps": 4},
)
def compare_initialisations(config: Initialisation, run: Runner) -> xr.Dataset:
    r"""Successive distances after training, for each initialisation and activation.

    $V_k = 0$ at the start; $W_k$ is tied, a smooth Gaussian process of depth, or
    independent. All three share the data; the first two share the draw at all depths.
    """
    grid = {"activation": config.activations, "depth": config.depths}
    found = run.each("trained", grid, _trained)
    laws, seeds = list(config.initialisations), np.arange(config.seeds)
    return found.assign_coords(initialisation=laws, seed=seeds)


def _trained(config: Initialisation, point: Point, key: PRNGKeyArray):
    """The last distances of all members: initialisations times seeds."""
    seeds = jr.split(key, config.seeds)
    members = [
        _member(config, law, point["activation"], point["depth"], seed)
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
        **point.resumable,
    ).finished()
    last = {name: values[:, -1] for name, values in run.records.items()}
    shape, dims = (-1, config.seeds), ("initialisation", "seed")
    return {name: (dims, values.reshape(shape)) for name, values in last.items()}


def _member(config, law, activation, depth, key) -> tuple[ResNet, tuple[Array, Array]]:
    weight_key, data_key = jr.split(key)
    inner = _inner(config, law, depth, weight_key)
    outer = jnp.zeros_like(inner).swapaxes(1, 2)
    data = datasets.gaussian_pairs(config.n, config.d, key=data_key)
    return ResNet(TwoLayer(outer, inner, activation=activation)), data
