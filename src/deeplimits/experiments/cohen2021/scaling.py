"""The exponents of trained networks: norms of the weights against depth."""

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ...intervals import Interval
from ...statistics import Slope, loglog_slope
from ..registry import experiment
from ..runner import Point, Runner
from .runs import (
    POINTS,
    TINY,
    AbstractTraining,
    Seeds,
    measured,
    require_training,
    shared_seeds,
)

__all__ = [
    "NORMS",
    "Scaling",
    "deepest",
    "exponents",
    "grid",
    "norms_against_depth",
    "slope_difference",
]


def grid(base: float, least: int, most: int) -> tuple[int, ...]:
    r"""The depths $\lfloor b^n \rfloor$ from `least` to `most`, as in `cohen2021`."""
    if base <= 1 or least < 1:
        raise ValueError(f"base must exceed 1 and least be positive: {base}, {least}.")
    powers = np.arange(int(np.log(most) / np.log(base)) + 2)
    # the slack keeps powers that are integers from falling just below themselves
    depths = np.unique(np.floor(base**powers + 1e-9).astype(int))
    return tuple(int(L) for L in depths if least <= L <= most)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling(AbstractTraining):
    """A network of every depth, trained; the depths are a grid of the public code."""

    depths: tuple[int, ...] = grid(2 ** (1 / 3), 3, 10_321)

    def __post_init__(self):
        require_training(self)


def norms_against_depth(config: Scaling, run: Runner) -> xr.Dataset:
    r"""Norms of the trained weights for every depth and seed, before training as well.

    A seed has its own data, start and batches, which serve all depths.
    """
    depths = {"depth": config.depths}
    found = run.each("trained", depths, _row, shared=shared_seeds)
    return found.assign_coords(
        seed=np.arange(config.seeds), s=np.linspace(0, 1, POINTS)
    )


def _row(config: Scaling, point: Point, key: PRNGKeyArray, seeds):
    return measured(config, point["depth"], Seeds(**seeds))


_TANH = Scaling()
_RELU = Scaling(activation="relu", delta="layer", loss=1e-2, depths=grid(1.2, 3, 9100))
_SLOW = {"rate": 1e-3, "epochs": 100}  # Adam at a tenth of the example's rate
_MNIST = {
    "data": "mnist",
    "depths": (8, 16, 32, 64, 128, 256),
    "train": 8192,
    "test": 2048,
    "loss": 0.02,
    "epochs": 6,
}
_SMOKE = {**TINY, "epochs": 2}
_SIZES = {"book": {"depths": (16, 64, 256, 1024, 2048)}, "smoke": _SMOKE}

tanh_depth = experiment(
    "cohen2021/tanh-depth",
    "tanh, one delta: norms of trained weights against depth",
    _TANH,
    **_SIZES,
)(norms_against_depth)

tanh_depth_slow = experiment(
    "cohen2021/tanh-depth-slow",
    "as tanh-depth, at a tenth of the learning rate",
    dataclasses.replace(_TANH, **_SLOW),
    **_SIZES,
)(norms_against_depth)

relu_depth = experiment(
    "cohen2021/relu-depth",
    "ReLU, a delta for each layer: norms of trained weights against depth",
    _RELU,
    **_SIZES,
)(norms_against_depth)

relu_depth_slow = experiment(
    "cohen2021/relu-depth-slow",
    "as relu-depth, at a tenth of the learning rate",
    dataclasses.replace(_RELU, **_SLOW),
    **_SIZES,
)(norms_against_depth)

tanh_mnist = experiment(
    "cohen2021/tanh-mnist",
    "as tanh-depth, on MNIST through untrained convolutions",
    dataclasses.replace(_TANH, **_MNIST),
    book={"depths": (8, 32, 128)},
    smoke=_SMOKE,
)(norms_against_depth)

relu_mnist = experiment(
    "cohen2021/relu-mnist",
    "as relu-depth, on MNIST through untrained convolutions",
    dataclasses.replace(_RELU, **_MNIST, seeds=16),
    book={"depths": (8, 32, 128), "seeds": 5},
    smoke=_SMOKE,
)(norms_against_depth)


NORMS = ("delta", "max_A", "increment_A", "sum_A", "root_squares_A")


def exponents(
    dataset: xr.Dataset, least: int = 16, most: int | float = np.inf
) -> dict[str, Slope]:
    r"""Slopes of the `NORMS` against depth, from `least` to `most`, over seeds.

    And of two combinations, seed by seed: `product` is $\delta \max_k \|A_k\|_F$, of
    slope $-(\alpha + \beta)$; `roughness` is the largest increment relative to the
    largest matrix, of slope $-1$ for smooth weights and about zero for rough ones.
    """
    found = {name: dataset[name] for name in NORMS}
    found["product"] = dataset["delta"] * dataset["max_A"]
    found["roughness"] = dataset["increment_A"] / dataset["max_A"]
    depth, window = dataset["depth"], (float(least), float(most))
    return {
        name: loglog_slope(depth, values.transpose("seed", "depth"), window=window)
        for name, values in found.items()
    }


def slope_difference(values: xr.DataArray, other: xr.DataArray) -> Interval:
    """The slope of `values` against depth less that of `other`, seed by seed.

    Both have the axes `depth` and `seed`. The interval is Student's, over seeds: where
    these share their data and their start, it is narrower than those of both slopes
    would make it. Raises `ValueError` for other depths or seeds in one than in the
    other.
    """
    values, other = xr.align(values, other, join="exact")
    # a slope is linear in the logarithms: the difference is the slope of the ratio
    rows = (values.astype(float) / other.astype(float)).transpose("seed", "depth")
    slope = loglog_slope(rows["depth"], rows)
    return Interval(*slope.numbers, slope.kind, slope.halves)


def deepest(dataset: xr.Dataset, least: int = 16) -> int:
    """The depth to which, from `least` on, every seed met the stopping rule.

    Raises `ValueError` where there is none.
    """
    inside = dataset.sel(depth=dataset["depth"] >= least)
    depth, met = inside["depth"].values, inside["reached"].all("seed").values
    before = depth < min(depth[~met], default=np.inf)
    if not before.any():
        raise ValueError(f"no depth from {least} on has all seeds meet the rule.")
    return int(depth[before].max())
