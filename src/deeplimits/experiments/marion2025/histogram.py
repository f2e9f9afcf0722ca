"""Figure 2: the law of the growth of states and gradients at the critical exponent."""

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
from . import setting


@dataclasses.dataclass(frozen=True)
class Histogram:
    """Figure 2."""

    model: str = "res-3"
    width: int = 100
    depth: int = 1000
    inputs: int = 64
    draws: int = 10_000
    batch: int = 20


def histogram(
    config: Histogram, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""$\|h_L\|/\|h_0\|$ and $\|p_0\|/\|p_L\|$ of independent uniform networks."""
    if config.draws % config.batch:
        raise ValueError(f"batch must divide draws: {config.batch}, {config.draws}.")
    require_known("model", config.model, setting.MODELS)
    keys = jr.split(key, (config.draws // config.batch, config.batch))
    law, scale = setting.law("uniform", length_scale=1.0), config.depth**-0.5

    def one(key: PRNGKeyArray) -> Float[Array, "2"]:
        weight_key, end_key = jr.split(key)
        net = (config.model, law, config.depth, config.width)
        block = setting.draw(*net, key=weight_key)
        h, p = setting.ends(config.width, config.inputs, key=end_key)
        last, first = setting.propagate(block, jnp.asarray(scale), h, p)
        norms = jnp.linalg.norm(jnp.stack([h, last, p, first]), axis=1)
        return norms[1::2] / norms[::2]

    batch = jax.jit(lambda keys: jax.lax.map(one, keys))
    rows = [
        files.kept(scratch, f"batch-{i}", lambda k=k: {"growth": batch(k)})
        for i, k in enumerate(tqdm(keys, disable=not progress))
    ]
    growth = np.concatenate([row["growth"] for row in rows])
    return xr.Dataset(
        {"state": ("draw", growth[:, 0]), "gradient": ("draw", growth[:, 1])}
    )


def lognormal(width: int) -> tuple[float, float]:
    r"""Mean $\frac12 - \frac1q$ and variance $\frac2q$ of the limit of
    $\log \|h_L\|^2/\|h_0\|^2$ (res-3, $\beta = \frac12$)."""
    return 0.5 - 1 / width, 2 / width


def bounds(width: int, delta: float) -> tuple[float, float]:
    r"""What $\|h_L - h_0\|^2/\|h_0\|^2$ lies between with probability $1 - \delta$, as
    we recall it from `marion2025`: to be checked against the paper."""
    low = 3 / 8 - (22 / (width * delta)) ** 0.5
    high = 1 + (10 / (width * delta)) ** 0.5
    return float(jnp.expm1(low)), float(jnp.exp(high) + 1)
