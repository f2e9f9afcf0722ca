"""Figure 7: the map of regimes over the exponent and the regularity of the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_choices, require_positive, require_room
from ...initialisation import fractional_noise
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = ["Regimes", "map_of_regimes"]


@dataclasses.dataclass(frozen=True)
class Regimes:
    """Figure 7: `columns` exponents to 1.3, `rows` Hurst indices from 0.05 to 0.97."""

    models: tuple[str, ...] = setting.MODELS
    columns: int = 70
    rows: int = 51
    depth: int = 1000
    width: int = 40
    networks: int = 5
    points: int = 10
    inputs: int = 64

    def __post_init__(self):
        require_choices("model", self.models, setting.MODELS)
        sizes = ("columns", "rows", "depth", "width", "networks", "points", "inputs")
        require_positive(self, *sizes)
        layer = 4 * self.width**2 + 2 * self.columns * self.points * self.width
        inputs = self.points * self.width * self.inputs
        cells = 2 * self.columns * (self.rows + self.networks)
        require_room(8 * (self.depth * layer + inputs + cells))

    @property
    def betas(self) -> np.ndarray:
        return np.linspace(0.0, 1.3, self.columns)

    @property
    def hursts(self) -> np.ndarray:
        return np.linspace(0.05, 0.97, self.rows)


@experiment(
    "marion2025/regimes",
    "Figure 7: the map of regimes over exponent and Hurst index",
    Regimes(),
    book={"columns": 27, "rows": 10, "depth": 128, "networks": 2, "points": 4},
    smoke={
        "columns": 5,
        "rows": 3,
        "depth": 8,
        "width": 6,
        "networks": 1,
        "points": 2,
    },
)
def map_of_regimes(config: Regimes, run: Runner) -> xr.Dataset:
    r"""The mean of $\log_{10}$ of both ratios, over networks and inputs.

    Weights are fractional Gaussian noise over $\sqrt q$. A network serves a whole row
    of the map, as in the public code, and so do its inputs, each with its own maps in
    and out; there inputs are new in each cell, and the maps one pair a network.
    """
    grid = {"model": config.models, "row": range(config.rows)}
    found = run.each("map", grid, _row).rename(row="hurst")
    return found.assign_coords(
        hurst=config.hursts, beta=config.betas, quantity=list(setting.QUANTITIES)
    )


def _row(config: Regimes, point: Point, key: PRNGKeyArray):
    hurst = float(config.hursts[point["row"]])
    law = setting.normalised(fractional_noise, hurst=hurst)
    scales = jnp.asarray(config.depth**-config.betas)

    def network(key):
        weight_key, end_key = jr.split(key)
        net = (point["model"], law, config.depth, config.width)
        block = setting.draw(*net, key=weight_key)
        starts = jr.split(end_key, config.points)
        ends = jax.vmap(lambda k: setting.ends(config.width, config.inputs, key=k))
        return _log_ratios(block, scales, *ends(starts)).mean(1)

    row_key = jr.fold_in(key, point["row"])
    keys = [jr.fold_in(row_key, number) for number in range(config.networks)]
    row = jnp.mean(jnp.stack([network(key) for key in keys]), 0)
    return {"log_ratio": (("beta", "quantity"), row)}


@jax.jit
def _log_ratios(block, scales, h, p) -> Float[Array, "betas points 2"]:
    over_points = jax.vmap(setting.ratios, (None, None, 0, 0))
    return setting.log10(
        jax.vmap(over_points, (None, 0, None, None))(block, scales, h, p)
    )
