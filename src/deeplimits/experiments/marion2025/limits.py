"""How fast networks approach their limits: the SDE, and the ODE of smooth weights."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...continuous import NeuralSDE
from ...initialisation import coarsened, smooth_increments
from ...residual import ResNet
from . import setting


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes are ours; the network of depth `finest` stands for the limit."""

    depths: tuple[int, ...] = (32, 64, 128, 256)
    finest: int = 8192
    width: int = 8
    draws: int = 256
    length_scale: float = 0.25


def limits(
    config: Limits, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""$\|h_L - H(1)\|$ for the SDE (res-1, $\beta = \frac12$) and the ODE (res-3,
    $\beta = 1$), on one Brownian path or one smooth path a draw."""
    with jax.enable_x64(True):
        keys = jr.split(key, config.draws)
        values = [
            jax.jit(lambda keys, f=f: jax.lax.map(lambda k: f(config, k), keys))(keys)
            for f in (_sde, _ode)
        ]
        return xr.Dataset(
            {"error": (("limit", "draw", "depth"), np.stack(values))},
            {"limit": ["sde", "ode"], "depth": list(config.depths)},
            {"dtype": "float64"},
        )


def _gaps(config: Limits, states: list[Array]) -> Float[Array, " depths"]:
    return jnp.linalg.norm(jnp.stack(states[:-1]) - states[-1][None], axis=1)


def _sde(config: Limits, key: PRNGKeyArray) -> Float[Array, " depths"]:
    noise_key, state_key = jr.split(key)
    noise = jr.normal(noise_key, (config.finest, config.width, config.width))
    h = jr.normal(state_key, (config.width,))
    depths = (*config.depths, config.finest)
    noises = [coarsened(noise, config.finest // L) for L in depths]
    return _gaps(config, [NeuralSDE("relu").network(z)(h) for z in noises])


def _ode(config: Limits, key: PRNGKeyArray) -> Float[Array, " depths"]:
    weight_key, state_key = jr.split(key)
    law = setting.normalised(smooth_increments, length_scale=config.length_scale)
    h = jr.normal(state_key, (config.width,))

    def last(depth):
        block = setting.draw("res-3", law, depth, config.width, key=weight_key)
        return ResNet(block)(h)

    return _gaps(config, [last(depth) for depth in (*config.depths, config.finest)])
