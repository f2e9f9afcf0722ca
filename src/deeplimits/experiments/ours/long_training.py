"""Very long training of the planar problem, with weight decay: do the layers tear?"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ... import training
from ...checks import require_positive, require_room
from ..registry import experiment
from ..runner import Point, Runner
from .setting import ENTRIES, data, layers, loss, tied

__all__ = ["LongTraining", "first_passage", "largest_increments"]

MOST = 10**6  # steps


@dataclasses.dataclass(frozen=True)
class LongTraining:
    r"""Gradient flow from tied layers with factor $1/L$ and the penalty
    $\frac{\alpha}{L} \sum_k \|Z_k\|^2$, in so many `steps` of size `rate`; recorded
    every `every` steps."""

    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 5
    alpha: float = 0.003
    rate: float = 0.01
    steps: int = 40_000
    every: int = 20

    def __post_init__(self):
        require_positive(self, *(field.name for field in dataclasses.fields(self)))
        if self.steps % self.every or self.steps > MOST:
            raise ValueError(
                f"steps must be a multiple of every, at most {MOST}: got {self.steps}, "
                f"{self.every}."
            )
        if min(self.depths) < 2 or any(max(self.depths) % L for L in self.depths):
            raise ValueError(
                f"depths must be 2 or more and divide the deepest: got {self.depths}."
            )
        require_room(200 * self.seeds * ENTRIES * max(self.depths) + 32 * self.steps)

    @property
    def rule(self) -> optax.GradientTransformation:
        r"""Descent in the layers along $L\,\partial_{Z_k} \ell + 2 \alpha Z_k$."""
        decay = optax.add_decayed_weights(2 * self.alpha)
        return optax.chain(training.depth_factor(), decay, optax.sgd(self.rate))


@experiment(
    "ours/long-training",
    "very long training with weight decay: the largest increment of the layers",
    LongTraining(),
    book={"depths": (16, 32, 64), "seeds": 2, "steps": 4000},
    smoke={"depths": (8,), "seeds": 2, "steps": 40, "every": 4},
)
def largest_increments(config: LongTraining, run: Runner) -> xr.Dataset:
    """The `largest` increment of the layers and the `loss` along training; at the end
    its `place` in depth-time and, as step functions, the `layers`."""
    found = run.each("trained", {"depth": config.depths}, _trained)
    kept = np.arange(config.steps // config.every + 1) * config.every * config.rate
    return found.assign_coords(time=kept.round(9), seed=range(config.seeds))


def _trained(config: LongTraining, point: Point, key: PRNGKeyArray):
    depth, many = point["depth"], config.seeds

    def record(model):
        gaps = jnp.linalg.norm(jnp.diff(layers(model), axis=0), axis=1)
        return gaps.max(), loss(model, data())

    run = training.train(
        eqx.filter_vmap(lambda key: tied(depth, key=key))(jr.split(key, many)),
        jax.tree.map(lambda a: jnp.broadcast_to(a, (many, *a.shape)), data()),
        loss,
        config.rule,
        config.steps,
        record=record,
        every=config.every,
        ensemble=True,
        **point.resumable,
    ).finished()
    rows = np.asarray(eqx.filter_vmap(layers)(run.model))
    gaps = np.linalg.norm(np.diff(rows, axis=1), axis=-1)
    largest, losses = map(np.asarray, run.records)
    drawn = np.repeat(rows, max(config.depths) // depth, axis=1)
    return {
        "largest": (("seed", "time"), largest),
        "loss": (("seed", "time"), losses),
        "place": ("seed", (gaps.argmax(1) + 1) / depth),
        "layers": (("seed", "layer", "entry"), drawn),
    }


def first_passage(found: xr.Dataset, level: float) -> Float[np.ndarray, "seeds depths"]:
    """The first recorded time at which the largest increment is above `level`; infinite
    where it never is."""
    above = found["largest"].transpose("seed", "depth", "time").values > level
    first = found["time"].values[above.argmax(-1)]
    return np.where(above.any(-1), first, np.inf)
