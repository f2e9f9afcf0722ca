"""The exponents of trained networks: norms of the weights against depth."""

import dataclasses
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from tqdm import tqdm

from ... import files
from ...devices import over_devices
from ...losses import mean_square_entry
from ...residual import ResNet
from ...statistics import scaling_norms, trend_and_noise
from . import setting
from .fitting import Fit, Stopping, fit, orders

POINTS = 129  # depth-times at which one entry of the weights is kept
_INNER = {"losses": ("epoch",)}
_INNER |= {name: ("s",) for name in ("entry", "sum_entry", "delta_entry", "hidden")}


def grid(base: float, least: int, most: int) -> tuple[int, ...]:
    r"""The depths $\lfloor b^n \rfloor$ from `least` to `most`, as in `cohen2021`."""
    if base <= 1 or least < 1:
        raise ValueError(f"base must exceed 1 and least be positive: {base}, {least}.")
    powers = np.arange(int(np.log(most) / np.log(base)) + 2)
    # the slack keeps powers that are integers from falling just below themselves
    depths = np.unique(np.floor(base**powers + 1e-9).astype(int))
    return tuple(int(L) for L in depths if least <= L <= most)


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Tanh with one delta, on the synthetic set, trained as the public example is."""

    activation: str = "tanh"
    delta: str = "shared"
    data: str = "flow"
    depths: tuple[int, ...] = grid(2 ** (1 / 3), 3, 10_321)
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

    @property
    def rule(self) -> Stopping:
        return Stopping(self.loss, self.epochs, self.patience)


def scaling(
    config: Scaling, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""Norms of the trained weights for every depth and seed, before training as well.

    A seed has its own data, start and batches. They serve all depths: a shallow network
    starts from the first layers' draws of a deep one, scaled by its own depth.
    """
    setting.require("optimiser", config.optimiser, setting.OPTIMISERS)
    seeds = seeded(config, max(config.depths), key=key)
    rows = [
        files.kept(
            scratch, f"depth-{depth}", partial(measured_row, config, depth, seeds)
        )
        for depth in tqdm(config.depths, disable=not progress)
    ]
    dims = {name: ("depth", "seed", *_INNER.get(name, ())) for name in rows[0]}
    return xr.Dataset(
        {name: (dims[name], np.stack([row[name] for row in rows])) for name in dims},
        {
            "depth": list(config.depths),
            "seed": np.arange(config.seeds),
            "s": np.linspace(0, 1, POINTS),
        },
    )


class Seeds(NamedTuple):
    """What the runs of all seeds start from, stacked."""

    train: setting.Pairs
    test: setting.Pairs
    draws: Float[Array, "seeds depth rows width"]
    batches: Int[Array, "seeds epochs batches size"]


def seeded(config, depth: int, *, key: PRNGKeyArray) -> Seeds:
    """Data, normal numbers for `depth` layers, and the batches of each epoch."""
    keys = jr.split(key, (3, config.seeds))
    data_keys, draw_keys, order_keys = keys[0], keys[1], keys[2]
    sizes = (config.data, config.train, config.test)
    if config.data == "mnist":
        sets = [setting.pairs(*sizes, key=k) for k in data_keys]
        train, test = jax.tree.map(lambda *parts: jnp.stack(parts), *sets)
    else:
        train, test = _each(setting.pairs, sizes, data_keys)
    width = train[0].shape[-1]
    draws = _each(_normals, (depth, width + 2, width), draw_keys)
    sizes = (config.train, config.batch, config.epochs, config.shuffle)
    return Seeds(train, test, draws, _each(orders, sizes, order_keys))


@partial(jax.jit, static_argnums=(0, 1))
def _each(draw, sizes, keys):
    """One draw for every key; compiled once for the same sizes."""
    return jax.vmap(lambda key: draw(*sizes, key=key))(keys)


def _normals(*shape: int, key: PRNGKeyArray) -> Float[Array, "..."]:
    return jr.normal(key, shape)


def trained(config, depth: int, seeds: Seeds) -> tuple[ResNet, Fit]:
    """The network of one seed at its start, and what training makes of it."""
    start = setting.network(
        seeds.draws[:depth],
        activation=config.activation,
        delta=config.delta,
        std=config.std,
    )
    optimiser = setting.OPTIMISERS[config.optimiser](config.rate)
    run = fit(
        start, seeds.train, seeds.batches, mean_square_entry, optimiser, config.rule
    )
    return start, run


def measured_row(config: Scaling, depth: int, seeds: Seeds) -> dict[str, np.ndarray]:
    cut = seeds._replace(draws=seeds.draws[:, :depth])
    return {name: np.asarray(values) for name, values in _measured(config, cut).items()}


@partial(jax.jit, static_argnums=0)
def _measured(config: Scaling, seeds: Seeds) -> dict[str, Array]:
    def one(seeds: Seeds):
        start, run = trained(config, seeds.draws.shape[0], seeds)
        return measures(start, run, seeds.train, seeds.test)

    return over_devices(one)(seeds)


def measures(start: ResNet, run: Fit, train, test) -> dict[str, Array]:
    """Everything that is kept of one run."""
    model = run.model
    matrices, biases = setting.matrices(model), setting.layers(model).bias
    noise = trend_and_noise(matrices)[1]
    states = model.trajectory(test[0][0])
    found = {
        "delta": jnp.abs(model.steps).max(),
        "losses": run.losses,
        "epochs": run.epochs,
        "reached": run.reached,
        "train_loss": mean_square_entry(model, train),
        "test_loss": mean_square_entry(model, test),
        "trend_loss": mean_square_entry(smoothed(model), train),
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


def sized(model: ResNet) -> ResNet:
    r"""With a $\delta_k$ for each layer, its inner factor (`setting.split_factor`) in
    $A_k$ and $b_k$, the outer one before the layer."""
    if model.absolute:
        return model
    block = setting.layers(model)
    inner, outer = setting.split_factor(model)
    inside = (inner[:, None, None] * block.weight, inner[:, None] * block.bias)
    block = eqx.tree_at(lambda b: (b.weight, b.bias), block, inside)
    return eqx.tree_at(lambda m: (m.block, m.scale), model, (block, outer))


def smoothed(model: ResNet, window: float = 0.1, *, by_sign: bool = False) -> ResNet:
    r"""The network `sized`, its matrices and biases replaced by their trend.

    With `by_sign` a layer of positive $\delta_k$ is averaged over the positive ones
    among its neighbours, and one of negative $\delta_k$ over the negative ones.
    """
    model = sized(model)
    positive = model.steps > 0 if by_sign else jnp.ones(model.depth, bool)

    def average(layers: Float[Array, "depth ..."]) -> Float[Array, "depth ..."]:
        own = positive.reshape(-1, *(1,) * (layers.ndim - 1))
        means = []
        for mask in (own.astype(layers.dtype), (~own).astype(layers.dtype)):
            total, share = (
                trend_and_noise(a, window)[0] for a in (mask * layers, mask)
            )
            means.append(total / jnp.where(mask > 0, share, 1))
        return jnp.where(own, *means)

    return eqx.tree_at(lambda m: m.block, model, jax.tree.map(average, model.block))


def _sampled(values: Float[Array, " depth"]) -> Float[Array, " points"]:
    index = np.rint(np.linspace(0, values.shape[0] - 1, POINTS)).astype(int)
    return values[index]
