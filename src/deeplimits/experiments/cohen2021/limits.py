"""Networks against their limits on the same path: the SDE, and the linear ODE."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_at_least, require_positive, require_room
from ...continuous import OneLayerSDE, linear_flow
from ...initialisation import coarsened
from ...residual import OneLayer, ResNet
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["ODE", "SDE", "Limits", "limit_errors"]

SDE = {
    "corrected": ("centred softplus", True),
    "uncorrected": ("centred softplus", False),
    "tanh": ("tanh", True),
}
ODE = {
    "softplus": ("centred softplus", 0.0),
    "softplus, noise": ("centred softplus", 1.0),
    "tanh": ("tanh", 0.0),
    "tanh, noise": ("tanh", 1.0),
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Sizes are ours; the SDE's scheme of depth `finest` stands for its solution."""

    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    finest: int = 4096
    draws: int = 1024
    ode_depths: tuple[int, ...] = tuple(2**n for n in range(8, 15))
    ode_draws: int = 16
    alpha: float = 0.7
    width: int = 4
    std: float = 0.3

    def __post_init__(self):
        require_positive(self, "depths", "finest", "draws", "width")
        require_positive(self, "ode_depths", "ode_draws")
        require_at_least(0, self, "std")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1]: got {self.alpha}.")
        layers = max(*self.depths, self.finest, *self.ode_depths)
        # the noise of one draw, coarsened, and scaled; the errors of all
        noise = 3 * layers * self.width * (self.width + 1)
        require_room(8 * (noise + len(SDE) * len(self.depths) * self.draws))
        require_room(8 * (noise + len(ODE) * len(self.ode_depths) * self.ode_draws))
        for depths, finest in (
            (self.depths, self.finest),
            (self.ode_depths, max(self.ode_depths)),
        ):
            if any(finest % depth for depth in depths):
                raise ValueError(f"every depth must divide {finest}: {depths}.")


@experiment(
    "cohen2021/limits",
    "rates of convergence to the SDE, with its correction, and to the linear ODE",
    Limits(),
    book={"depths": (16, 64, 256), "draws": 128, "ode_depths": (256, 1024, 4096)},
    smoke={
        "depths": (4, 8, 16),
        "finest": 64,
        "draws": 16,
        "ode_depths": (16, 32, 64),
        "ode_draws": 4,
    },
)
def limit_errors(config: Limits, run: Runner) -> xr.Dataset:
    r"""$\|h_L - H(1)\|^2$, by draw and depth, for both regimes.

    `sde`: $\alpha = 0$, $\beta = 1$ with noise. `ode`: $\alpha + \beta = 1$ and
    $A_k = L^{-\beta} \bar A + s\, \Delta B_k$, with and without the noise.
    """
    return (
        run.each("errors", {}, _errors)
        .assign_coords(
            equation=list(SDE),
            depth=list(config.depths),
            network=list(ODE),
            ode_depth=list(config.ode_depths),
        )
        .assign_attrs(dtype="float64")
    )


def _errors(config: Limits, point: Point, key: PRNGKeyArray):
    with jax.enable_x64(True):
        fixed_key, sde_key, ode_key = jr.split(key, 3)
        fixed = _fixed(config, fixed_key)
        sde = _mapped(_sde, config, fixed, jr.split(sde_key, config.draws))
        ode = _mapped(_ode, config, fixed, jr.split(ode_key, config.ode_draws))
    return {
        "sde": (("draw", "equation", "depth"), sde),
        "ode": (("ode_draw", "network", "ode_depth"), ode),
    }


def _mapped(one, config: Limits, fixed, keys) -> Float[Array, "draws kinds depths"]:
    return jax.jit(lambda keys: jax.lax.map(lambda k: one(config, fixed, k), keys))(
        keys
    )


def _fixed(config: Limits, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
    r"""$\bar A$, $\bar b$ and the input of all draws, of norm one."""
    keys = jr.split(key, 3)
    d = config.width
    shapes = ((d, d), (d,), (d,))
    parts = (jr.normal(k, shape) for k, shape in zip(keys, shapes, strict=True))
    matrix, bias, x = (part / jnp.linalg.norm(part) for part in parts)
    return matrix, bias, x


def _sde(config: Limits, fixed, key: PRNGKeyArray) -> Float[Array, "equations depths"]:
    matrix, bias, x = fixed
    noise = jr.normal(key, (config.finest, config.width, config.width + 1))

    def errors(activation, corrected):
        limit = OneLayerSDE(
            matrix,
            bias,
            std_matrix=config.std,
            std_bias=config.std,
            activation=activation,
            corrected=corrected,
        )
        end = limit.scan(x, noise)
        ends = [
            limit.network(coarsened(noise, config.finest // depth))(x)
            for depth in config.depths
        ]
        return jnp.sum((jnp.stack(ends) - end[None]) ** 2, axis=1)

    return jnp.stack([errors(*kind) for kind in SDE.values()])


def _ode(config: Limits, fixed, key: PRNGKeyArray) -> Float[Array, "networks depths"]:
    matrix, bias, x = fixed
    most = max(config.ode_depths)
    noise = jr.normal(key, (most, config.width, config.width + 1))
    end = linear_flow(matrix, bias, x)
    joined = jnp.concatenate([matrix, bias[:, None]], axis=1)

    def error(activation, share, depth):
        steps = share * config.std * coarsened(noise, most // depth) / depth**0.5
        layers = joined[None] * depth ** (config.alpha - 1) + steps
        block = OneLayer(layers[..., :-1], layers[..., -1], activation=activation)
        return jnp.sum((ResNet(block, beta=config.alpha)(x) - end) ** 2)

    return jnp.stack(
        [
            jnp.stack([error(*kind, depth) for depth in config.ode_depths])
            for kind in ODE.values()
        ]
    )
