"""Many particles and many layers: which of the two errors is the larger one."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import stats

from ... import meanfield
from ...checks import (
    require_at_least,
    require_multiple,
    require_positive,
    require_room,
    require_within,
)
from ...devices import over_devices
from ...measures import Histogram
from ...residual import OneLayer
from ..registry import experiment
from ..runner import Point, Runner

__all__ = ["Sampling", "distances", "sample_and_depth", "sizes"]

LEAST = 100  # particles, of the smallest sample
REACH = 6.0  # standard deviations of the start, between which laws are compared


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Ours: one tanh unit in each layer, all layers the same, a normal start."""

    particles: int = 10**8
    piece: int = 10**6
    blocks: int = 8
    depth: int = 1000
    bins: int = 4096
    weight: float = -1.0
    bias: float = 0.3
    duration: float = 2.0

    def __post_init__(self):
        require_positive(
            self, "particles", "piece", "blocks", "depth", "bins", "duration"
        )
        require_at_least(LEAST, self, "piece")
        require_within("(-inf, inf)", bias=self.bias, weight=self.weight)
        require_multiple(self, "particles", "piece")
        require_multiple(self, "piece", "blocks")
        counts = self.particles // self.piece * len(sizes(self.piece))
        require_room(
            8 * (2 * counts * (self.bins + 1) + 4 * self.piece + 2 * self.depth)
        )
        if self.duration * self.weight <= -self.depth:
            raise ValueError(
                f"depth must exceed {-self.duration * self.weight:g}, or a layer "
                f"changes the order of particles: got {self.depth}."
            )

    @property
    def control(self) -> OneLayer:
        """The network, as a control with a piece for each layer."""
        layers = np.ones(self.depth)
        return meanfield.line_control(self.weight * layers, self.bias * layers)


def sizes(piece: int) -> list[int]:
    """The sizes of the samples in a piece: all of it, a tenth, a tenth of that."""
    found = [piece]
    while found[0] // 10 >= LEAST:
        found.insert(0, found[0] // 10)
    return found


@experiment(
    "herty2022/sampling",
    "distances of up to 10^8 particles to the law of their network and to its limit",
    Sampling(),
    book={"particles": 10**6, "piece": 10**5, "depth": 100},
    smoke={"particles": 2000, "piece": 1000, "depth": 8, "bins": 64},
)
def sample_and_depth(config: Sampling, run: Runner) -> xr.Dataset:
    r"""$W_1(\mu^N_L, \mu_L)$ and $W_1(\mu^N_L, \mu_T)$ for samples of many sizes $N$.

    $\mu_L$ is the law of one particle after $L$ layers, whose distribution function is
    exact at the images of points, since layers keep the order; $\mu_T$ is that of the
    limit, in closed form. `constant` is
    $\sqrt{2/\pi} \int \sqrt{F(1 - F)}\,\mathrm{d}x$ for $\mu_L$, to which
    $\sqrt N\, \mathbb{E}\, W_1(\mu^N_L, \mu_L)$ converges, and `bias` is
    $W_1(\mu_L, \mu_T)$, below which no sample comes near the limit for long.
    """
    pieces = range(config.particles // config.piece)
    found = run.each("below", {"piece": pieces}, _piece, shared=_law)
    law = _law(config, None, run.key)
    below = np.moveaxis(found.below.values, 1, 0)
    samples = dict(zip(sizes(config.piece), below, strict=True))
    many = 10
    while many <= len(pieces):
        whole = samples[config.piece][: len(pieces) // many * many]
        samples[many * config.piece] = whole.reshape(-1, many, *whole.shape[1:]).sum(1)
        many *= 10
    rows = [distances(law, counts, size) for size, counts in samples.items()]
    number = np.repeat(list(samples), [len(row["to_network"]) for row in rows])
    x, F = law["image"], law["network"]
    exact = Histogram(x, np.diff(F) / (F[-1] - F[0]))
    return xr.Dataset(
        {
            "particles": ("draw", number),
            **{n: ("draw", np.concatenate([r[n] for r in rows])) for n in rows[0]},
            "moments": ("order", found.sums.values.sum(0) / config.particles),
            "law_moments": ("order", [float(exact.moment(k)[0]) for k in (1, 2)]),
            "constant": np.sqrt(2 / np.pi) * np.trapezoid(np.sqrt(F * (1 - F)), x),
            "bias": np.trapezoid(np.abs(F - law["limit"]), x),
        },
        {"order": [1, 2]},
    )


def distances(law, below, size: int) -> dict[str, Float[np.ndarray, " samples"]]:
    """$W_1$ of samples of so many particles to both laws, from how many lie `below`
    each image, `(samples, edges)`."""
    share, x = below / size, law["image"]
    return {
        f"to_{name}": np.trapezoid(np.abs(share - law[name]), x, axis=-1)
        for name in ("network", "limit")
    }


def _law(config: Sampling, point: Point | None, key: PRNGKeyArray):
    """Both distribution functions at the images of equidistant points."""
    edges = np.linspace(-REACH, REACH, config.bins + 1)
    image = np.asarray(_ends(config, jnp.asarray(edges, float)[None, None]))[0, 0]
    limit = meanfield.transported_cdf(
        stats.norm.cdf, config.duration, config.weight, config.bias
    )
    exact = stats.norm.cdf(np.asarray(jnp.asarray(edges, float), np.float64))
    return {"image": image, "network": exact, "limit": limit(image)}


def _piece(config: Sampling, point: Point, key: PRNGKeyArray, law):
    """How many of each sample lie below each image, and the sums of powers."""
    shape = (config.blocks, 1, config.piece // config.blocks)
    start = jr.normal(jr.fold_in(key, point["piece"]), shape)
    end = np.asarray(_ends(config, start)).ravel()
    below = [
        np.searchsorted(np.sort(end[:n]), law["image"], side="right")
        for n in sizes(config.piece)
    ]
    powers = [(end.astype(np.float64) ** k).sum() for k in (1, 2)]
    return {"below": (("sample", "edge"), below), "sums": ("order", powers)}


@partial(jax.jit, static_argnums=0)
def _ends(config: Sampling, start: Float[Array, "blocks d n"]):
    """The particles after all layers, in blocks over all devices."""

    def flow(x):
        return meanfield.flow(x, config.control, duration=config.duration)

    return over_devices(flow)(start)
