"""Figure 7: the map of regimes over the exponent and the regularity of the weights."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from ... import files
from ...checks import require_known
from ...initialisation import fractional_noise
from . import setting
from .depth import QUANTITIES


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

    @property
    def betas(self) -> np.ndarray:
        return np.linspace(0.0, 1.3, self.columns)

    @property
    def hursts(self) -> np.ndarray:
        return np.linspace(0.05, 0.97, self.rows)


def regimes(
    config: Regimes, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""The mean of $\log_{10}$ of both ratios, over networks and inputs.

    Weights are fractional Gaussian noise over $\sqrt q$. A draw serves a whole row of
    the map, where the paper's code draws afresh in each cell.
    """

    for model in config.models:
        require_known("model", model, setting.MODELS)

    def row(model: str, i: int) -> np.ndarray:
        def compute():
            return {"row": _row(config, model, i, jr.fold_in(key, i))}

        return files.kept(scratch, f"{model}-{i}", compute)["row"]

    values = [
        [row(model, i) for i in tqdm(range(config.rows), model, disable=not progress)]
        for model in config.models
    ]
    return xr.Dataset(
        {"log_ratio": (("model", "hurst", "beta", "quantity"), np.asarray(values))},
        {
            "model": list(config.models),
            "hurst": config.hursts,
            "beta": config.betas,
            "quantity": list(QUANTITIES),
        },
    )


def _row(config, model: str, index: int, key: PRNGKeyArray) -> Float[Array, "betas 2"]:
    law = setting.normalised(fractional_noise, hurst=float(config.hursts[index]))
    scales = jnp.asarray(config.depth**-config.betas)

    def network(key):
        weight_key, end_key = jr.split(key)
        net = (model, law, config.depth, config.width)
        block = setting.draw(*net, key=weight_key)
        starts = jr.split(end_key, config.points)
        return _cell(config, block, scales, starts).mean(1)

    keys = [jr.fold_in(key, number) for number in range(config.networks)]
    return jnp.mean(jnp.stack([network(key) for key in keys]), 0)


def _cell(config, block, scales, keys) -> Float[Array, "betas points 2"]:
    h, p = jax.vmap(lambda key: setting.ends(config.width, config.inputs, key=key))(
        keys
    )
    return _log_ratios(block, scales, h, p)


@jax.jit
def _log_ratios(block, scales, h, p):
    over_points = jax.vmap(setting.ratios, (None, None, 0, 0))
    return setting.log10(
        jax.vmap(over_points, (None, 0, None, None))(block, scales, h, p)
    )
