"""One trend for the networks of all depths: the decomposition of the paper."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.interpolate import make_interp_spline
from tqdm import tqdm

from ... import files
from ...devices import over_devices
from ...losses import mean_square_entry
from ...residual import OneLayer, ResNet
from . import setting
from .scaling import Scaling, Seeds, seeded, sized, smoothed, trained

_PARTS = ("weight", "bias")
_KEPT = (
    "train_loss",
    "moving_loss",
    "sign_loss",
    "shared_loss",
    "gap",
    "positive",
    "epochs",
)


@dataclasses.dataclass(frozen=True)
class Trend(Scaling):
    r"""The trend is the mean over the networks of the depths in a window of
    $L^{\beta - 1}$ times the cumulative sum, on `bins` intervals of depth-time. The
    last window is that of the public code; the first is ours."""

    depths: tuple[int, ...] = (128, 256, 322, 406, 512, 1024, 2048, 2580, 3250, 4096)
    windows: tuple[tuple[int, ...], ...] = (
        (256, 322, 406, 512),
        (2048, 2580, 3250, 4096),
    )
    beta: float = 0.2
    bins: int = 500

    def __post_init__(self):
        if not all(w and set(w) <= set(self.depths) for w in self.windows):
            raise ValueError(
                f"windows must hold some of the depths {self.depths}: {self.windows}."
            )


def shared_trend(
    config: Trend, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""Training loss of the trained weights, of their own moving average (of all
    layers, and `sign_loss` of those of each sign apart), and of the trend that the
    networks of several depths share. `positive` is the share of positive $\delta_k$.

    `gap` is the largest distance, over depth-time, of a network's own path
    $L^{\beta - 1} \sum_{j \le sL} (A_j, b_j)$ from the shared one, relative to the
    largest norm of that. Networks enter as `sized` makes them.
    """
    setting.require("optimiser", config.optimiser, setting.OPTIMISERS)
    seeds = seeded(config, max(config.depths), key=key)
    found, paths = {}, {}
    for depth in tqdm(config.depths, disable=not progress):
        cut = seeds._replace(draws=seeds.draws[:, :depth])
        compute = partial(_fitted, config, cut)
        found[depth] = files.kept(scratch, f"depth-{depth}", compute)
        paths[depth] = [_path(config, found[depth][part]) for part in _PARTS]
    shared = [
        [np.mean([paths[depth][i] for depth in window], axis=0) for i in range(2)]
        for window in config.windows
    ]
    for depth, row in found.items():
        layers = [[_layers(config, part, depth) for part in mean] for mean in shared]
        losses = [_losses(config, pair, row["steps"], seeds.train) for pair in layers]
        row["shared_loss"] = np.stack(losses, axis=1)
        row["gap"] = np.stack([_gap(paths[depth], mean) for mean in shared], axis=1)
    dims = ("depth", "seed", "window")
    values = {key: np.stack([row[key] for row in found.values()]) for key in _KEPT}
    return xr.Dataset(
        {key: (dims[: value.ndim], value) for key, value in values.items()},
        {
            "depth": list(config.depths),
            "seed": np.arange(config.seeds),
            "window": [f"{min(w)} to {max(w)}" for w in config.windows],
        },
    )


@partial(jax.jit, static_argnums=0)
def _fitted(config: Trend, seeds: Seeds) -> dict[str, Array]:
    def one(seeds: Seeds) -> dict[str, Array]:
        run = trained(config, seeds.draws.shape[0], seeds)[1]
        model = sized(run.model)
        block = setting.layers(model)
        return {
            "weight": block.weight,
            "bias": block.bias,
            "steps": model.steps,
            "train_loss": mean_square_entry(run.model, seeds.train),
            "moving_loss": mean_square_entry(smoothed(run.model), seeds.train),
            "sign_loss": mean_square_entry(
                smoothed(run.model, by_sign=True), seeds.train
            ),
            "positive": jnp.mean(run.model.steps > 0),
            "epochs": run.epochs,
        }

    return over_devices(one)(seeds)


def _resampled(values: np.ndarray, intervals: int) -> np.ndarray:
    """The piecewise linear path through `values`, axis 1, at the ends of `intervals`
    equal intervals."""
    nodes = np.linspace(0, 1, values.shape[1])
    path = make_interp_spline(nodes, values, k=1, axis=1)
    return path(np.linspace(0, 1, intervals + 1))


def _path(config: Trend, layers: np.ndarray) -> np.ndarray:
    sums = np.cumsum(layers, axis=1)
    sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)
    return layers.shape[1] ** (config.beta - 1) * _resampled(sums, config.bins)


def _layers(config: Trend, path: np.ndarray, depth: int) -> np.ndarray:
    return depth ** (1 - config.beta) * np.diff(_resampled(path, depth), axis=1)


def _gap(paths: list[np.ndarray], means: list[np.ndarray]) -> np.ndarray:
    def largest(parts: list[np.ndarray]) -> np.ndarray:
        squares = [np.sum(p**2, axis=tuple(range(2, p.ndim))) for p in parts]
        return np.sqrt(np.sum(squares, axis=0)).max(axis=1)

    apart = [path - mean for path, mean in zip(paths, means, strict=True)]
    return largest(apart) / largest(means)


def _losses(
    config: Trend, layers: list[np.ndarray], steps: np.ndarray, data
) -> Float[Array, " seeds"]:
    """The losses of the networks with these layers and signed steps, one a seed."""

    def one(weight, bias, steps, data):
        block = OneLayer(weight, bias, activation=config.activation)
        return mean_square_entry(ResNet(block, scale=steps, beta=0.0), data)

    arrays = (jnp.asarray(a, data[0].dtype) for a in (*layers, steps))
    return jax.jit(jax.vmap(one))(*arrays, data)
