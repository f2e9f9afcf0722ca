"""The critical exponent: where networks of two depths move equally far."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from tqdm import tqdm

from ... import files
from ...checks import require_known
from ...initialisation import coarsened, fractional_noise
from ...intervals import Interval
from ...statistics import mean_interval
from . import setting


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


def critical(
    config: Critical, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""$\log_{10} \|h_L - h_0\|/\|h_0\|$, the mean over inputs, for each network.

    The networks of a draw are coupled: their weights are increments of one fractional
    Brownian path over grids of different step.
    """
    require_known("model", config.model, setting.MODELS)
    finest = max(config.depths)
    if any(finest % depth for depth in config.depths):
        raise ValueError(f"every depth must divide the largest: {config.depths}.")
    if config.networks % config.batch:
        raise ValueError(
            f"batch must divide networks: {config.batch}, {config.networks}."
        )
    keys = jr.split(key, config.networks // config.batch)

    def row(hurst: float) -> np.ndarray:
        def compute():
            return {"row": np.concatenate([_batch(config, hurst, k) for k in keys])}

        return files.kept(scratch, f"hurst-{hurst}", compute)["row"]

    rows = [row(hurst) for hurst in tqdm(config.hursts, disable=not progress)]
    return xr.Dataset(
        {"log_ratio": (("hurst", "network", "depth", "beta"), np.stack(rows))},
        {
            "hurst": list(config.hursts),
            "depth": list(config.depths),
            "beta": list(config.betas),
        },
    )


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
    r"""Where $\beta \mapsto \mathbb{E} \log \|h_L - h_0\|/\|h_0\|$ of two depths meet.

    Below, deeper networks move farther, above, less far; of several crossings, the
    last one counts. For each `hurst`, Student's interval over `groups` of networks.
    """
    shallow, deep = depths or tuple(dataset["depth"].values[[0, -1]])
    gap = dataset["log_ratio"].sel(depth=deep) - dataset["log_ratio"].sel(depth=shallow)
    betas = dataset["beta"].values

    def interval(rows: np.ndarray) -> Interval:
        means = rows.reshape(groups, -1, betas.size).mean(1)
        return mean_interval([last_root(betas, row) for row in means])

    return [interval(rows) for rows in gap.values]


def last_root(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """The last sign change of `y` from positive, between points by a straight line."""
    [places] = np.nonzero((y[:-1] > 0) & (y[1:] <= 0))
    if not places.size:
        raise ValueError(f"no crossing between {x[0]:.3g} and {x[-1]:.3g}.")
    i = places[-1]
    return float(x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1]))


def first_order(model: str, hurst: float, depth: int) -> float:
    r"""$\mathbb{E} \|\sum_k V_k g(h_0)\|^2/\|h_0\|^2$, for normal weights:

    $$ \sum_{|n| < L} (L - |n|)\, \rho_n \kappa(\rho_n), $$

    with $\rho$ the covariance of the noise; $\kappa(\rho) = \mathbb{E}
    \mathrm{ReLU}(X) \mathrm{ReLU}(Y)$ for normal variables of correlation $\rho$
    (res-3), or $\frac12$ (res-1), where the sum is $\frac12 L^{2H}$.
    """
    n = np.arange(depth, dtype=float)
    powers = [np.abs(n + shift) ** (2 * hurst) for shift in (-1, 0, 1)]
    rho = (powers[0] - 2 * powers[1] + powers[2]) / 2
    angle = np.arccos(np.clip(rho, -1, 1))
    kappa = (np.sin(angle) + rho * (np.pi - angle)) / (2 * np.pi)
    terms = rho * (kappa if model == "res-3" else 0.5) * (depth - n)
    return float(2 * terms.sum() - terms[0])


def first_order_exponent(model: str, hurst: float, depths: tuple[int, int]) -> float:
    """The exponent at which `first_order`, scaled, is equal at two depths."""
    shallow, deep = (first_order(model, hurst, depth) for depth in depths)
    return float(np.log(deep / shallow) / (2 * np.log(depths[1] / depths[0])))
