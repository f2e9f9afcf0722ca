"""Figures 1, 3, 4 and 5: how far states and gradients move, against depth."""

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

QUANTITIES = ("state", "gradient")


@dataclasses.dataclass(frozen=True)
class Depth:
    """Figures 1 and 3; the exponents 0.4 and 0.6 are ours."""

    model: str = "res-3"
    law: str = "uniform"
    betas: tuple[float, ...] = (0.25, 0.4, 0.5, 0.6, 1.0)
    depths: tuple[int, ...] = (10, 120, 230, 340, 450, 560, 670, 780, 890, 1000)
    repetitions: int = 50
    width: int = 40
    inputs: int = 64
    length_scale: float = 0.1


def against_depth(
    config: Depth, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""$\|h_L - h_0\|/\|h_0\|$ and $\|p_0 - p_L\|/\|p_L\|$ by exponent and depth.

    One draw of the weights serves all exponents. With smooth weights it serves all
    depths as well, which then sample the same path.
    """
    require_known("model", config.model, setting.MODELS)
    require_known("law", config.law, setting.LAWS)
    keys = jr.split(key, config.repetitions)

    def row(depth: int) -> np.ndarray:
        def compute():
            return {"row": [_ratios(*_network(config, depth, k)) for k in keys]}

        return files.kept(scratch, f"depth-{depth}", compute)["row"]

    values = [row(depth) for depth in tqdm(config.depths, disable=not progress)]
    return xr.Dataset(
        {"ratio": (("depth", "repetition", "beta", "quantity"), np.stack(values))},
        {
            "depth": list(config.depths),
            "beta": list(config.betas),
            "quantity": list(QUANTITIES),
        },
    )


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
    steps[:, :depth] = depth ** -np.array(config.betas)[:, None]
    h, p = setting.ends(config.width, config.inputs, key=end_key)
    return padded, jnp.asarray(steps, h.dtype), h, p


@jax.jit
def _ratios(block, steps, h, p) -> Float[Array, "betas 2"]:
    return jax.vmap(setting.ratios, (None, 0, None, None))(block, steps, h, p)


def mean_square(depth, beta: float):
    r"""$(1 + L^{-2\beta}/2)^L - 1$: the exact mean square of both ratios (res-3)."""
    depth = np.asarray(depth, float)
    return np.expm1(depth * np.log1p(depth ** (-2 * beta) / 2))
