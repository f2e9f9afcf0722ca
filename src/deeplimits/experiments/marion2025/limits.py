"""How fast networks approach their limits: the SDE, and the ODE of smooth weights."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_positive, require_room
from ...continuous import NeuralSDE
from ...initialisation import coarsened, smooth_increments
from ...residual import ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = ["Limits", "limit_errors", "root_mean_squares"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes are ours; the network of depth `finest` stands for the limit."""

    depths: tuple[int, ...] = (32, 64, 128, 256, 512)
    finest: int = 8192
    width: int = 8
    draws: int = 2048
    length_scale: float = 0.25

    def __post_init__(self):
        require_positive(self, "depths", "finest", "width", "draws")
        setting.require_length_scale(self.length_scale)
        setting.require_nested(self.depths, self.finest)
        states = self.draws * len(self.depths) + 2 * self.width
        require_room(8 * (4 * self.finest * self.width**2 + states))


@experiment(
    "marion2025/limits",
    "rates of convergence to the SDE and to the ODE",
    Limits(),
    book={"draws": 256},
    smoke={"depths": (4, 8, 16), "finest": 64, "draws": 16},
)
def limit_errors(config: Limits, run: Runner) -> xr.Dataset:
    r"""$\|h_L - H(1)\|$ for the SDE (res-1, $\beta = \frac12$) and the ODE (res-3,
    $\beta = 1$), on one Brownian path or one smooth path a draw."""
    found = run.each("error", {"limit": _DISTANCES}, _errors)
    return found.assign_coords(depth=list(config.depths)).assign_attrs(dtype="float64")


def _errors(config: Limits, point: Point, key: PRNGKeyArray):
    def one(key: PRNGKeyArray) -> Float[Array, " depths"]:
        return _DISTANCES[point["limit"]](config, key)

    with jax.enable_x64(True):
        keys = jr.split(key, config.draws)
        values = np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))
    return {"error": (("draw", "depth"), values)}


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


_DISTANCES = {"sde": _sde, "ode": _ode}


def root_mean_squares(
    dataset: xr.Dataset, groups: int = 8
) -> dict[str, Float[np.ndarray, "groups depths"]]:
    """The root mean square error over each of `groups` of draws, by limit."""
    squares = dataset["error"].transpose("limit", "draw", "depth") ** 2
    means = [setting.group_means(rows, groups) for rows in squares.values]
    return dict(zip(dataset["limit"].values, np.sqrt(means), strict=True))
