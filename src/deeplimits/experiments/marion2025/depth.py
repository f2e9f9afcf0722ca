"""Figures 1, 3, 4 and 5: how far states and gradients move, against depth."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_at_least, require_known, require_positive, require_room
from ...statistics import Slope, loglog_slope
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "Depth",
    "against_depth",
    "independent_depth",
    "root_mean_square",
    "slope",
    "smooth_depth",
]


@dataclasses.dataclass(frozen=True)
class Depth:
    """Figures 4 and 5, and with more repetitions 1 and 3, where the exponents 0.4 and
    0.6 are ours. The public code has 50 repetitions for all."""

    model: str = "res-3"
    law: str = "uniform"
    betas: tuple[float, ...] = (0.25, 0.4, 0.5, 0.6, 1.0)
    depths: tuple[int, ...] = (10, 120, 230, 340, 450, 560, 670, 780, 890, 1000)
    repetitions: int = 50
    width: int = 40
    inputs: int = 64
    length_scale: float = 0.1

    def __post_init__(self):
        require_known("model", self.model, setting.MODELS)
        require_known("law", self.law, setting.LAWS)
        require_positive(self, "depths", "repetitions", "width", "inputs")
        require_at_least(0, self, "betas")
        setting.require_length_scale(self.length_scale)
        layer = 4 * self.width**2 + 2 * self.width * len(self.betas)
        rows = self.repetitions * len(self.betas)
        inputs = self.width * self.inputs
        require_room(8 * (layer * max(self.depths) + inputs + 2 * rows))


def against_depth(config: Depth, run: Runner) -> xr.Dataset:
    r"""$\|h_L - h_0\|/\|h_0\|$ and $\|p_0 - p_L\|/\|p_L\|$ by exponent and depth.

    One draw of the weights serves all exponents. With smooth weights it serves all
    depths as well, which then sample the same path.
    """
    found = run.each("ratio", {"depth": config.depths}, _repeated)
    quantities = list(setting.QUANTITIES)
    return found.assign_coords(beta=list(config.betas), quantity=quantities)


independent_depth = experiment(
    "marion2025/independent-depth",
    "Figures 1 and 3: independent weights, states and gradients against depth",
    Depth(repetitions=400),
    book={"depths": (10, 100, 1000), "repetitions": 10},
    smoke={"depths": (4, 8, 16), "repetitions": 3, "width": 6},
)(against_depth)

smooth_depth = experiment(
    "marion2025/smooth-depth",
    "Figures 4 and 5: smooth weights, states and gradients against depth",
    Depth(law="smooth", betas=(0.5, 1.0, 2.0)),
    book={"depths": (10, 100, 1000), "repetitions": 10},
    smoke={"depths": (4, 8, 16), "repetitions": 3, "width": 6},
)(against_depth)


def _repeated(config: Depth, point: Point, key: PRNGKeyArray):
    keys = jr.split(key, config.repetitions)
    rows = [_ratios(*_network(config, point["depth"], key)) for key in keys]
    return {"ratio": (("repetition", "beta", "quantity"), np.stack(rows))}


def _network(config: Depth, depth: int, key: PRNGKeyArray):
    """Block, steps for each exponent, $h_0$ and $p_L$; layers beyond `depth` take no
    step, so that one compilation serves all depths."""
    weight_key, end_key = jr.split(key)
    law = setting.law(config.law, length_scale=config.length_scale)
    longest = max(config.depths)
    # of independent layers a shallow network takes the first; a path it samples anew
    drawn = longest if config.law == "uniform" else depth
    block = setting.draw(config.model, law, drawn, config.width, key=weight_key)
    beyond = ((0, longest - drawn), (0, 0), (0, 0))
    padded = jax.tree.map(lambda w: jnp.pad(w, beyond), block)
    steps = np.zeros((len(config.betas), longest))
    steps[:, :depth] = depth ** -np.array(config.betas, float)[:, None]
    h, p = setting.ends(config.width, config.inputs, key=end_key)
    return padded, jnp.asarray(steps, h.dtype), h, p


@jax.jit
def _ratios(block, steps, h, p) -> Float[Array, "betas 2"]:
    return jax.vmap(setting.ratios, (None, 0, None, None))(block, steps, h, p)


def root_mean_square(dataset: xr.Dataset, quantity: str) -> xr.DataArray:
    """Of a ratio, over the repetitions, by exponent and depth."""
    return (dataset["ratio"].sel(quantity=quantity) ** 2).mean("repetition") ** 0.5


def slope(
    dataset: xr.Dataset,
    beta: float,
    quantity: str,
    *,
    window: tuple[float, float] = (100.0, 2000.0),
    groups: int = 5,
) -> Slope:
    """The exponent in depth of `root_mean_square`, over groups of repetitions.

    One repetition is too rough a root mean square, all of them leave no interval.
    Raises `ValueError` unless `groups` divides the repetitions.
    """
    squares = dataset["ratio"].sel(beta=beta, quantity=quantity) ** 2
    means = setting.group_means(squares.transpose("repetition", "depth").values, groups)
    return loglog_slope(dataset["depth"], np.sqrt(means), window=window)
