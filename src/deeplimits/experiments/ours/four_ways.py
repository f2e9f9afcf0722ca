"""The planar problem, trained by gradient flow and by Adam: what the layers become."""

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
from ...variation import regularity
from ..registry import experiment
from ..runner import Point, Runner
from .setting import ENTRIES, data, independent, layers, loss, tied

__all__ = ["BETA", "TIMES", "WAYS", "FourWays", "layers_by_way", "sum_and_noise"]

# Exponent of the factor, by way.
BETA = {"flow": 1.0, "Adam": 0.0, "Adam, fixed rate": 0.0}
WAYS = tuple(BETA)
TIMES = ("start", "early", "end")
MOST = 10**6  # steps


@dataclasses.dataclass(frozen=True)
class FourWays:
    r"""Gradient flow from tied layers with factor $1/L$, in steps of `flow_rate`; Adam
    from independent layers of variance $1/L$ without a factor, at the rate
    `adam_rate` $/L$ and at `fixed_rate`. "early" is after a tenth of the steps."""

    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 20
    flow_rate: float = 0.005
    flow_steps: int = 2000
    adam_rate: float = 0.1
    fixed_rate: float = 0.002
    adam_steps: int = 1000

    def __post_init__(self):
        require_positive(self, *(field.name for field in dataclasses.fields(self)))
        for name in ("flow_steps", "adam_steps"):
            steps = getattr(self, name)
            if steps % 10 or steps > MOST:
                raise ValueError(
                    f"{name} must be a multiple of 10, at most {MOST}: got {steps}."
                )
        if min(self.depths) < 8 or any(max(self.depths) % L for L in self.depths):
            raise ValueError(
                f"depths must be 8 or more and divide the deepest: got {self.depths}."
            )
        require_room(200 * self.seeds * ENTRIES * max(self.depths))

    def rule(self, way: str, depth: int) -> optax.GradientTransformation:
        """The optimiser of a way at a depth."""
        if way == "flow":
            return optax.chain(training.depth_factor(), optax.sgd(self.flow_rate))
        return optax.adam(self.adam_rate / depth if way == "Adam" else self.fixed_rate)


@experiment(
    "ours/four-ways",
    "the planar problem by gradient flow and by Adam: sum and noise of the layers",
    FourWays(),
    book={"depths": (16, 32, 64), "seeds": 2},
    smoke={"depths": (8,), "seeds": 2, "flow_steps": 20, "adam_steps": 20},
)
def layers_by_way(config: FourWays, run: Runner) -> xr.Dataset:
    r"""Of the layers $Z_k$ (rows of $K$, then $b$) at three times of each training: the
    `total` $\sum_k Z_k$; the `noise`
    $(\frac12 \sum_k \|Z_{k+1} - Z_k\|^2)^{1/2}$; the `largest` increment; their
    `regularity` with its interval; and the `loss`. Of the first seed, the `layers` as
    step functions on the finest grid."""
    found = run.each("way", {"way": WAYS, "depth": config.depths}, _trained)
    return found.assign_coords(
        time=list(TIMES), seed=range(config.seeds), bound=["value", "low", "high"]
    )


def _trained(config: FourWays, point: Point, key: PRNGKeyArray):
    way, depth = point["way"], point["depth"]
    steps = config.flow_steps if way == "flow" else config.adam_steps

    def start(key):
        if way == "flow":
            return tied(depth, key=key)
        return independent(depth, max(config.depths), key=key)

    def record(model):
        return layers(model), loss(model, data())

    many = config.seeds
    run = training.train(
        eqx.filter_vmap(start)(jr.split(key, many)),
        jax.tree.map(lambda a: jnp.broadcast_to(a, (many, *a.shape)), data()),
        loss,
        config.rule(way, depth),
        steps,
        record=record,
        every=steps // 10,
        ensemble=True,
        **point.resumable,
    ).finished()
    rows, losses = (np.asarray(part)[:, [0, 1, -1]] for part in run.records)
    drawn = np.repeat(rows[0], max(config.depths) // depth, axis=1)
    return _measured(rows) | {
        "loss": (("seed", "time"), losses),
        "layers": (("time", "layer", "entry"), drawn),
    }


def _measured(rows: np.ndarray) -> dict:
    """The quantities of `layers_by_way`, of layers `(seed, time, depth, entry)`."""
    gaps = np.linalg.norm(np.diff(rows, axis=2), axis=-1)
    read = np.array([[regularity(z).numbers for z in each] for each in rows])
    # tied layers have no regularity: read as the smoothest
    read = np.where(np.isfinite(read), read, 2.0)
    grid = ("seed", "time")
    return {
        "total": ((*grid, "entry"), rows.sum(2)),
        "noise": (grid, np.sqrt(0.5 * np.sum(gaps**2, -1))),
        "largest": (grid, gaps.max(-1)),
        "regularity": ((*grid, "bound"), read.astype(rows.dtype)),
    }


def sum_and_noise(
    found: xr.Dataset, way: str, time: str
) -> tuple[Float[np.ndarray, "seeds depths"], Float[np.ndarray, "seeds depths"]]:
    r"""$S = L^{-\beta} \|\sum_k Z_k\|$ and
    $Q = L^{-\beta} (\frac12 \sum_k \|Z_{k+1} - Z_k\|^2)^{1/2}$ of a way at a time.

    For Adam, which starts from noise, $S$ is of what training adds.
    """
    rows = found.sel(way=way)
    factor = rows["depth"].values ** -BETA[way]
    total = rows["total"].sel(time=time)
    if way != "flow":
        total = total - rows["total"].sel(time="start")
    S = np.linalg.norm(total.transpose("seed", "depth", "entry"), axis=-1)
    Q = rows["noise"].sel(time=time).transpose("seed", "depth").values
    return S * factor, Q * factor
