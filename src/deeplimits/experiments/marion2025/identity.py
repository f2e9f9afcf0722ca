"""The mean square of states and gradients at finite depth, draw by draw."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from . import setting

STARTS = ("alternating", "positive", "negative")


@dataclasses.dataclass(frozen=True)
class Identity:
    """Sizes are ours: small, so that the mean of few draws is sharp."""

    depth: int = 16
    width: int = 6
    beta: float = 0.5
    draws: int = 16384


def start(name: str, width: int) -> Float[Array, " q"]:
    """A fixed state of norm one: entries of alternating, positive, negative sign."""
    entries = jnp.arange(1.0, width + 1)
    signs = {"positive": 1.0, "negative": -1.0, "alternating": (-1.0) ** entries}
    return signs[name] * entries / jnp.linalg.norm(entries)


def identity(
    config: Identity, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""$\|h_L\|^2$, $\|h_L - h_0\|^2$, $\|p_0\|^2$ and $\|p_0 - p_L\|^2$ from fixed
    $h_0$ and $p_L$ of norm one."""
    starts = jnp.stack([start(name, config.width) for name in STARTS])
    keys = jr.split(key, len(setting.MODELS))
    pairs = zip(setting.MODELS, keys, strict=True)
    values = [_squares(config, model, starts, k) for model, k in pairs]
    return xr.Dataset(
        {"square": (("model", "start", "draw", "quantity"), np.asarray(values))},
        {
            "model": list(setting.MODELS),
            "start": list(STARTS),
            "quantity": ["state", "state change", "gradient", "gradient change"],
        },
    )


def _squares(
    config: Identity, model: str, starts: Float[Array, "starts q"], key: PRNGKeyArray
) -> Float[Array, "starts draws 4"]:
    p = start("alternating", config.width)[::-1]
    law = setting.law("uniform", length_scale=1.0)
    scale = jnp.asarray(config.depth**-config.beta)

    def one(h, weights):
        block = setting.stacked(model, *weights)
        last, first = setting.propagate(block, scale, h, p)
        return jnp.sum(jnp.stack([last, last - h, first, first - p]) ** 2, axis=1)

    sizes = (config.depth, config.width, config.draws)
    weights = setting.draws(model, law, *sizes, key=key)
    return jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(starts, weights)
