"""The critical exponent: where networks of two depths move equally far."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import (
    require_at_least,
    require_known,
    require_multiple,
    require_positive,
    require_room,
)
from ...initialisation import coarsened, fractional_noise
from ...intervals import Interval
from ...statistics import mean_interval
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "Critical",
    "all_roots",
    "covariance",
    "critical_exponent",
    "crossing",
    "figure_critical",
    "first_order",
    "first_order_exponent",
    "growth",
    "heavy_tails",
    "last_root",
    "log_ratios",
    "roots",
]


@dataclasses.dataclass(frozen=True)
class Critical:
    """Sizes are ours. `tail` > 0 asks for independent Student weights instead."""

    model: str = "res-3"
    hursts: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    depths: tuple[int, ...] = (1024, 4096)
    width: int = 16
    networks: int = 192
    batch: int = 8
    points: int = 4
    betas: tuple[float, ...] = tuple(i / 20 for i in range(27))
    tail: float = 0.0

    def __post_init__(self):
        require_known("model", self.model, setting.MODELS)
        require_positive(self, "hursts", "depths", "width", "networks", "batch")
        require_positive(self, "points")
        require_at_least(0, self, "betas", "tail")
        if max(self.hursts) >= 1:
            raise ValueError(f"every Hurst index must be below 1: got {self.hursts}.")
        setting.require_nested(self.depths, finest := max(self.depths))
        require_multiple(self, "networks", "batch")
        noise = 4 * finest * self.width**2 + self.points * self.width
        kept = self.networks * len(self.depths) * len(self.betas)
        require_room(8 * (self.batch * noise + kept))


def log_ratios(config: Critical, run: Runner) -> xr.Dataset:
    r"""$\log_{10} \|h_L - h_0\|/\|h_0\|$, the mean over inputs, for each network.

    The networks of a draw are coupled: their weights are increments of one fractional
    Brownian path over grids of different step.
    """
    found = run.each("networks", {"hurst": config.hursts}, _networks)
    return found.assign_coords(depth=list(config.depths), beta=list(config.betas))


critical_exponent = experiment(
    "marion2025/critical",
    "the critical exponent against the Hurst index",
    Critical(),
    book={
        "hursts": (0.1, 0.3, 0.5, 0.7, 0.9),
        "depths": (256, 1024),
        "networks": 32,
        "width": 8,
    },
    smoke={"hursts": (0.2, 0.8), "depths": (16, 64), "width": 6, "networks": 64},
)(log_ratios)

figure_critical = experiment(
    "marion2025/figure-critical",
    "the critical exponent at the width and depth of Figure 7",
    Critical(
        hursts=(0.5, 0.6, 0.7, 0.8, 0.9), depths=(250, 1000), width=40, networks=64
    ),
    book={"depths": (125, 500), "width": 16},
    smoke={"hursts": (0.8,), "depths": (16, 64), "width": 6, "networks": 64},
)(log_ratios)

heavy_tails = experiment(
    "marion2025/heavy-tails",
    "the critical exponent of independent weights of infinite variance",
    Critical(hursts=(0.5,), depths=(256, 1024), width=8, networks=1024, tail=1.5),
    book={"networks": 256},
    smoke={"depths": (16, 64), "width": 6, "networks": 64},
)(log_ratios)


def _networks(config: Critical, point: Point, key: PRNGKeyArray):
    keys = jr.split(key, config.networks // config.batch)
    rows = np.concatenate([_batch(config, point["hurst"], key) for key in keys])
    return {"log_ratio": (("network", "depth", "beta"), rows)}


def _batch(
    config: Critical, hurst: float, key: PRNGKeyArray
) -> Float[Array, "batch depths betas"]:
    """The noise is drawn outside, so that one compilation serves every `hurst`."""
    end_key, *weight_keys = jr.split(key, 1 + setting.PARTS[config.model])
    noises = [_noise(config, hurst, i, k) for i, k in enumerate(weight_keys)]
    starts = jr.normal(end_key, (config.batch, config.points, config.width))
    # one positive entry: from a state without any, res-1 never moves
    starts = starts.at[..., 0].set(jnp.abs(starts[..., 0]))
    return _moved(config, jnp.asarray(hurst, float), noises, starts)


def _noise(config, hurst, position, key) -> Float[Array, "batch depth q q"]:
    """The heavy tail, if any, is that of $V$: position 0."""
    depth, shape = max(config.depths), (config.batch, config.width, config.width)
    if config.tail and position == 0:
        size = depth * config.batch * config.width**2
        noise = jr.t(key, config.tail, (size,)).reshape(depth, *shape)
    else:
        noise = fractional_noise(depth, shape, hurst=hurst, key=key)
    return jnp.moveaxis(noise, 0, 1)


@partial(jax.jit, static_argnums=0)
def _moved(config, hurst, noises, starts) -> Float[Array, "batch depths betas"]:
    def one(arguments):
        noises, h = arguments
        at = partial(_at, config, hurst, noises, h)
        return jnp.stack([at(depth) for depth in config.depths])

    return jax.lax.map(one, (noises, starts))


def _at(config, hurst, noises, h, depth: int) -> Float[Array, " betas"]:
    """Independent layers need no coupling: a shallow network takes the first ones."""
    factor = max(config.depths) // depth
    if config.tail:
        layers = [noise[:depth] for noise in noises]
    else:
        layers = [coarsened(z, factor, hurst=0.0) * factor**-hurst for z in noises]
    block = setting.stacked(
        config.model, *(layer / config.width**0.5 for layer in layers)
    )
    scales = depth ** -jnp.asarray(config.betas, h.dtype)

    def change(scale, h):
        return setting.log10(setting.change(block, scale, h))

    return jax.vmap(jax.vmap(change, (None, 0)), (0, None))(scales, h).mean(1)


def crossing(
    dataset: xr.Dataset, depths: tuple[int, int] | None = None, groups: int = 8
) -> list[Interval]:
    r"""Where $\beta \mapsto \mathbb{E} \log \|h_L - h_0\|/\|h_0\|$ of two depths meet
    for the last time: the border of the identity, above which deeper networks move less
    far. For each `hurst`, Student's interval over `groups` of networks.

    It is a critical exponent only where it is the one root: see `all_roots`.
    """

    def interval(rows: np.ndarray) -> Interval:
        means = setting.group_means(rows, groups)
        return mean_interval([last_root(dataset["beta"].values, row) for row in means])

    return [interval(rows) for rows in _gaps(dataset, depths).values]


def all_roots(
    dataset: xr.Dataset, depths: tuple[int, int] | None = None
) -> list[list[tuple[float, int]]]:
    r"""For each `hurst` every sign change of the curve of the deeper networks less that
    of the shallower ones, means over all networks, as `roots` gives them.

    Above the last one that falls, deeper networks move less far: the border of the
    identity. Where it is the only one, it is the critical exponent. Exponents up to
    which some network may have overflowed are left out: 16 is not its logarithm.
    """
    betas = dataset["beta"].values
    large = (dataset["log_ratio"] >= setting.INFINITE).any(("network", "depth"))
    first = [np.max(np.nonzero(row)[0], initial=-1) + 1 for row in large.values]
    means = _gaps(dataset, depths).mean("network").values
    return [roots(betas[i:], row[i:]) for i, row in zip(first, means, strict=True)]


def _gaps(dataset: xr.Dataset, depths: tuple[int, int] | None) -> xr.DataArray:
    shallow, deep = depths or tuple(dataset["depth"].values[[0, -1]])
    ratio = dataset["log_ratio"].transpose("hurst", "network", "depth", "beta")
    return ratio.sel(depth=deep) - ratio.sel(depth=shallow)


def roots(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> list[tuple[float, int]]:
    """All sign changes of `y`, between points by a straight line, each with its
    direction: -1 where `y` falls through zero, 1 where it rises. A zero counts as
    negative."""
    positive = y > 0
    [places] = np.nonzero(positive[:-1] != positive[1:])
    return [
        (
            float(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])),
            -1 if positive[i] else 1,
        )
        for i in places
    ]


def last_root(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """The last sign change of `y` from positive; `ValueError` where there is none."""
    falling = [root for root, direction in roots(x, y) if direction < 0]
    if not falling:
        raise ValueError(f"no crossing between {x[0]:.3g} and {x[-1]:.3g}.")
    return falling[-1]


def covariance(depth: int, hurst: float) -> Float[np.ndarray, " depth"]:
    r"""$\rho_n = \frac12 (|n+1|^{2H} - 2 |n|^{2H} + |n-1|^{2H})$ for $n < L$."""
    n = np.arange(depth, dtype=float)
    powers = [np.abs(n + shift) ** (2 * hurst) for shift in (-1, 0, 1)]
    return (powers[0] - 2 * powers[1] + powers[2]) / 2


def first_order(model: str, hurst: float, depth: int) -> float:
    r"""$\mathbb{E} \|\sum_k V_k g(h_0)\|^2/\|h_0\|^2$ for fractional noise: `growth` of
    its `covariance`. For res-1 it is $\frac12 L^{2H}$."""
    return growth(model, covariance(depth, hurst))


def growth(model: str, rho: Float[np.ndarray, " depth"]) -> float:
    r"""$\mathbb{E} \|\sum_k V_k g(h_0)\|^2/\|h_0\|^2$ for normal weights whose entries
    are stationary in depth, of covariance $\rho_n$ over $q$:

    $$ \sum_{|n| < L} (L - |n|)\, \rho_n \, \rho_0\, \kappa(\rho_n/\rho_0), $$

    with $\kappa(\rho) = \mathbb{E} \mathrm{ReLU}(X) \mathrm{ReLU}(Y)$ for normal
    variables of variance one and correlation $\rho$ (res-3). For res-1 the second
    factor is $\frac12$.
    """
    depth = len(rho)
    correlation = np.clip(rho / rho[0], -1, 1)
    angle = np.arccos(correlation)
    kappa = (np.sin(angle) + correlation * (np.pi - angle)) / (2 * np.pi)
    inner = rho[0] * kappa if model == "res-3" else 0.5
    terms = rho * inner * (depth - np.arange(depth))
    return float(2 * terms.sum() - terms[0])


def first_order_exponent(model: str, hurst: float, depths: tuple[int, int]) -> float:
    """The exponent at which `first_order`, scaled, is equal at two depths."""
    shallow, deep = (first_order(model, hurst, depth) for depth in depths)
    return float(np.log(deep / shallow) / (2 * np.log(depths[1] / depths[0])))
