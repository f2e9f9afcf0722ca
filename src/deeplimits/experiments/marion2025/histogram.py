"""Figure 2: the law of the growth of states and gradients at the critical exponent."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike
from scipy import stats

from ...checks import require_known, require_multiple, require_positive, require_room
from ...intervals import Interval, Kind
from ...statistics import mean_interval
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "Histogram",
    "bounds",
    "growth_histogram",
    "lognormal",
    "share_within_bounds",
    "spread",
]


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Figure 2."""

    model: str = "res-3"
    width: int = 100
    depth: int = 1000
    inputs: int = 64
    draws: int = 10_000
    batch: int = 20

    def __post_init__(self):
        require_known("model", self.model, setting.MODELS)
        require_positive(self, "width", "depth", "inputs", "draws", "batch")
        require_multiple(self, "draws", "batch")
        layers = self.depth * (2 * self.width**2 + 2 * self.width)
        require_room(8 * (layers + self.width * self.inputs + 4 * self.draws))


@experiment(
    "marion2025/histogram",
    "Figure 2: the law of the growth at the critical exponent",
    Histogram(),
    book={"width": 40, "depth": 256, "draws": 1500},
    smoke={"width": 6, "depth": 8, "draws": 100, "batch": 50},
)
def growth_histogram(config: Histogram, run: Runner) -> xr.Dataset:
    r"""$\|h_L\|/\|h_0\|$ and $\|p_0\|/\|p_L\|$ of independent uniform networks."""
    batches = range(config.draws // config.batch)
    found = run.each("growth", {"batch": batches}, _batch)
    return xr.Dataset({name: ("draw", v.values.ravel()) for name, v in found.items()})


def _batch(config: Histogram, point: Point, key: PRNGKeyArray):
    """A batch, in blocks: between two of them a deep run can be stopped."""
    starts = range(0, config.batch, size := _block(config))
    place = point["batch"]
    blocks = [np.asarray(_growth(config, size, key, place, at)) for at in starts]
    growth = np.concatenate(blocks)
    return {"state": ("member", growth[:, 0]), "gradient": ("member", growth[:, 1])}


LAYERS = 2**20  # that are drawn and crossed in a block, of as many networks as it takes


def _block(config: Histogram) -> int:
    """The networks of a block: a divisor of a batch, so that one program serves all."""
    most = max(1, LAYERS // config.depth)
    return max(
        n for n in range(1, config.batch + 1) if not config.batch % n and n <= most
    )


@partial(jax.jit, static_argnums=(0, 1))
def _growth(
    config: Histogram, size: int, key: PRNGKeyArray, batch, start
) -> Float[Array, "{size} 2"]:
    keys = jr.split(key, (config.draws // config.batch, config.batch))
    block = jax.lax.dynamic_slice_in_dim(keys[batch], start, size)
    law = setting.law("uniform", length_scale=1.0)

    def one(key: PRNGKeyArray) -> Float[Array, "2"]:
        weight_key, end_key = jr.split(key)
        net = (config.model, law, config.depth, config.width)
        block = setting.draw(*net, key=weight_key)
        h, p = setting.ends(config.width, config.inputs, key=end_key)
        last, first = setting.propagate(block, jnp.asarray(config.depth**-0.5), h, p)
        norms = jnp.linalg.norm(jnp.stack([h, last, p, first]), axis=1)
        return norms[1::2] / norms[::2]

    return jax.lax.map(one, block)


def lognormal(width: int) -> tuple[float, float]:
    r"""Mean $\frac12 - \frac1q$ and variance $\frac2q$ of the limit of
    $\log \|h_L\|^2/\|h_0\|^2$ (res-3, $\beta = \frac12$)."""
    return 0.5 - 1 / width, 2 / width


def spread(growth: ArrayLike, width: int) -> Interval:
    r"""The variance of $\log \|h_L\|^2/\|h_0\|^2$ over that of `lognormal`, from draws
    of $\|h_L\|/\|h_0\|$: the ratio, and Student's interval."""
    logs = 2 * np.log(np.asarray(growth, float))
    return mean_interval((logs - logs.mean()) ** 2 / lognormal(width)[1])


def bounds(width: int, delta: float) -> tuple[float, float]:
    r"""What $\|h_L - h_0\|^2/\|h_0\|^2$ lies between with probability $1 - \delta$, as
    we recall it from `marion2025`: to be checked against the paper."""
    low = 3 / 8 - (22 / (width * delta)) ** 0.5
    high = 1 + (10 / (width * delta)) ** 0.5
    return float(jnp.expm1(low)), float(jnp.exp(high) + 1)


def share_within_bounds(change: ArrayLike, width: int, delta: float) -> Interval:
    r"""The share of draws of $\|h_L - h_0\|/\|h_0\|$ whose square lies within `bounds`,
    and its exact binomial interval (of Clopper and Pearson)."""
    low, high = bounds(width, delta)
    squares = np.asarray(change, float) ** 2
    inside = int(np.sum((low < squares) & (squares < high)))
    found = stats.binomtest(inside, squares.size).proportion_ci()
    return Interval(inside / squares.size, found.low, found.high, Kind.SEEDS)
