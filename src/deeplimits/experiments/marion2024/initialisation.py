"""Which initialisation and which activation keep neighbouring layers close?"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from scipy import stats

from ... import datasets, losses, training
from ... import initialisation as laws
from ...checks import (
    require_at_least,
    require_choices,
    require_known,
    require_positive,
    require_room,
)
from ...intervals import Interval, Kind
from ...residual import ACTIVATIONS, ResNet, TwoLayer
from ...statistics import successive_distances
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "Initialisation",
    "compare_initialisations",
    "jump",
    "moved",
    "profile",
    "relu_jump",
    "share",
    "trained_layers",
]

INITIALISATIONS = ("tied", "smooth", "independent")


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Sizes are ours: small, so that three by three by several seeds fit.

    `bins` is the number of intervals of depth-time in `profile`.
    """

    initialisations: tuple[str, ...] = INITIALISATIONS
    activations: tuple[str, ...] = ("gelu", "tanh", "relu")
    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 10
    steps: int = 300
    n: int = 20
    d: int = 8
    m: int = 16
    rate: float = 0.05
    length_scale: float = 0.5
    bins: int = 64

    def __post_init__(self):
        require_choices("initialisation", self.initialisations, INITIALISATIONS)
        require_choices("activation", self.activations, ACTIVATIONS)
        require_positive(self, "seeds", "steps", "n", "d", "m", "rate", "bins")
        require_at_least(2, self, "depths")
        require_at_least(0.01, self, "length_scale")
        setting.require_room(max(self.depths), self, copies=self.seeds)
        require_room(8 * self.bins * self.seeds)


def _inner(
    config: Initialisation, law: str, depth: int, key: PRNGKeyArray
) -> Float[Array, "depth m d"]:
    shape = (config.m, config.d)
    if law == "tied":
        return laws.tied(depth, shape, key=key)
    if law == "independent":
        return laws.independent(depth, shape, key=key)
    return laws.smooth(depth, shape, length_scale=config.length_scale, key=key)


def trained_layers(config: Initialisation, run: Runner) -> xr.Dataset:
    r"""Successive distances after training, for each initialisation and activation.

    $V_k = 0$ at the start; $W_k$ is tied, a smooth Gaussian process of depth, or
    independent. All three share the data; the first two share the draw at all depths.
    Of the trained layers also where the $W_k$ jump: see `jump` and `profile`.
    """
    grid = {"activation": config.activations, "depth": config.depths}
    found = run.each("trained", grid, _trained)
    laws, seeds = list(config.initialisations), np.arange(config.seeds)
    middles = (np.arange(config.bins) + 0.5) / config.bins
    return found.assign_coords(initialisation=laws, seed=seeds, s=middles)


compare_initialisations = experiment(
    "marion2024/initialisation",
    "tied, smooth and independent layers; GELU, tanh and ReLU",
    Initialisation(),
    book={
        "activations": ("tanh", "relu"),
        "depths": (16, 64),
        "seeds": 3,
        "steps": 100,
    },
    smoke={
        "activations": ("gelu", "relu"),
        "depths": (4,),
        "seeds": 2,
        "steps": 4,
        "bins": 2,
    },
)(trained_layers)

relu_jump = experiment(
    "marion2024/relu-jump",
    "as initialisation, tied and deeper: where ReLU layers jump, and tanh does not",
    Initialisation(
        initialisations=("tied",),
        activations=("relu", "tanh"),
        depths=(16, 32, 64, 128, 256, 512, 1024, 2048),
    ),
    book={"depths": (16, 64), "seeds": 3, "steps": 100},
    smoke={"depths": (4,), "seeds": 2, "steps": 4, "bins": 2},
)(trained_layers)


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
    found = last | _jumps(run.model, data[0], config.bins)
    dims, sizes = ("initialisation", "seed", "s"), (-1, config.seeds)
    return {
        name: (dims[: 1 + values.ndim], values.reshape(sizes + values.shape[1:]))
        for name, values in found.items()
    }


@eqx.filter_jit
def _jumps(
    models: ResNet, x: Float[Array, "members n d"], bins: int
) -> dict[str, Array]:
    def one(model, x):
        return jump(model, x) | {"profile": profile(model, bins)}

    return eqx.filter_vmap(one)(models, x)


def jump(model: ResNet, x: Float[Array, "n d"]) -> dict[str, Array]:
    r"""Where neighbouring $W_k$ differ most, and whether a datum crosses zero there.

    `place` is $k/L$ of the pair $W_k$, $W_{k+1}$; of its rows, unit $j$ differs most.
    `crossing` is the number of the data whose pre-activation
    $(W_k h_{k-1})_j$ has another sign at $k + 1$ than at $k$; `chance` is the share of
    all pairs of layers and units at which that number is not zero.
    """
    layers = setting.layers(model)
    before = jax.vmap(model.trajectory)(x)[:, :-1]
    active = jnp.einsum("kmd,nkd->nkm", layers.inner, before) > 0
    crossings = jnp.sum(active[:, 1:] != active[:, :-1], axis=0)
    pair = successive_distances(layers.inner).argmax()
    rows = layers.inner[pair + 1] - layers.inner[pair]
    unit = jnp.linalg.norm(rows, axis=1).argmax()
    return {
        "place": (pair + 1) / model.depth,
        "crossing": crossings[pair, unit],
        "chance": jnp.mean(crossings > 0),
    }


def profile(model: ResNet, bins: int) -> Float[Array, " bins"]:
    r"""The largest $\|W_{k+1} - W_k\|$ of the pairs with $k/L$ in each of `bins`
    intervals; 0 where there is none."""
    gaps = successive_distances(setting.layers(model).inner)
    place = jnp.arange(1, model.depth) * bins // model.depth
    largest = jax.ops.segment_max(gaps, place, num_segments=bins)
    return jnp.maximum(largest, 0)


def moved(dataset: xr.Dataset, depth: int, other: int) -> xr.DataArray:
    r"""$|s - s'|$ of the depth-times $s$ and $s'$ at which the layers jump most, at two
    depths: near zero where the jump keeps its place. See `jump`."""
    for L in (depth, other):
        require_known("depth", str(L), map(str, dataset["depth"].values))
    return abs(dataset["place"].sel(depth=depth) - dataset["place"].sel(depth=other))


def share(hits: Bool[np.ndarray, " seeds"]) -> Interval:
    """The share of the seeds that are hits, and its exact binomial interval at 95 %."""
    if hits.ndim != 1 or not hits.size or hits.dtype != bool:
        raise ValueError(f"hits must be a row of booleans: {hits.dtype}, {hits.shape}.")
    found = stats.binomtest(int(hits.sum()), hits.size)
    ends = found.proportion_ci()
    return Interval(found.statistic, ends.low, ends.high, Kind.SEEDS)


def _member(config, law, activation, depth, key) -> tuple[ResNet, tuple[Array, Array]]:
    weight_key, data_key = jr.split(key)
    inner = _inner(config, law, depth, weight_key)
    outer = jnp.zeros_like(inner).swapaxes(1, 2)
    data = datasets.gaussian_pairs(config.n, config.d, key=data_key)
    return ResNet(TwoLayer(outer, inner, activation=activation)), data
