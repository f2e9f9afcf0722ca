"""The mean square of states and gradients at finite depth, draw by draw."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from ...checks import require_at_least, require_positive, require_room
from ...intervals import Interval
from ...statistics import mean_interval
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = ["Identity", "mean_square", "mean_squares", "start", "versus_identity"]

STARTS = ("alternating", "positive", "negative")
QUANTITIES = ("state", "state change", "gradient", "gradient change")
FIVE_ERRORS = 0.9999994  # the level of an interval of five standard errors


@dataclasses.dataclass(frozen=True)
class Identity:
    """Sizes are ours: small, so that the mean of few draws is sharp."""

    depth: int = 16
    width: int = 6
    beta: float = 0.5
    draws: int = 16384

    def __post_init__(self):
        require_positive(self, "depth", "width", "draws")
        require_at_least(0, self, "beta")
        layer = 2 * self.width**2 + 2 * len(STARTS) * self.width
        require_room(8 * self.draws * self.depth * layer)


def start(name: str, width: int) -> Float[Array, " q"]:
    """A fixed state of norm one: entries of alternating, positive, negative sign."""
    entries = jnp.arange(1.0, width + 1)
    signs = {"positive": 1.0, "negative": -1.0, "alternating": (-1.0) ** entries}
    return signs[name] * entries / jnp.linalg.norm(entries)


@experiment(
    "marion2025/identity",
    "mean squares at finite depth, against the exact identity",
    Identity(),
    smoke={"draws": 512},
)
def mean_squares(config: Identity, run: Runner) -> xr.Dataset:
    r"""$\|h_L\|^2$, $\|h_L - h_0\|^2$, $\|p_0\|^2$ and $\|p_0 - p_L\|^2$ from fixed
    $h_0$ and $p_L$ of norm one."""
    found = run.each("squares", {"model": setting.MODELS}, _squares)
    return found.assign_coords(start=list(STARTS), quantity=list(QUANTITIES))


def _squares(config: Identity, point: Point, key: PRNGKeyArray):
    model = point["model"]
    keys = dict(zip(setting.MODELS, jr.split(key, len(setting.MODELS)), strict=True))
    starts = jnp.stack([start(name, config.width) for name in STARTS])
    p = start("alternating", config.width)[::-1]
    law = setting.law("uniform", length_scale=1.0)
    scale = jnp.asarray(config.depth**-config.beta, float)

    def one(h, weights):
        block = setting.stacked(model, *weights)
        last, first = setting.propagate(block, scale, h, p)
        return jnp.sum(jnp.stack([last, last - h, first, first - p]) ** 2, axis=1)

    sizes = (config.depth, config.width, config.draws)
    weights = setting.draws(model, law, *sizes, key=keys[model])
    values = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(starts, weights)
    return {"square": (("start", "draw", "quantity"), values)}


def mean_square(depth: ArrayLike | int, beta: float) -> np.ndarray | float:
    r"""$(1 + L^{-2\beta}/2)^L - 1$: the exact mean square of both relative changes, of
    state and gradient (res-3). One more is that of $\|h_L\|/\|h_0\|$."""
    depth = np.asarray(depth, float)
    return np.expm1(depth * np.log1p(depth ** (-2 * beta) / 2))


def versus_identity(
    dataset: xr.Dataset, config: Identity, *, model: str, start: str, quantity: str
) -> Interval:
    """The mean of a square over the draws, over what the identity says for res-3: the
    ratio, and Student's interval of five standard errors."""
    samples = dataset["square"].sel(model=model, start=start, quantity=quantity)
    exact = mean_square(config.depth, config.beta) + (not quantity.endswith("change"))
    return mean_interval(samples / exact, level=FIVE_ERRORS)
