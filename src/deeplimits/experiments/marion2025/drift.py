"""The drift that training gives to independent weights at the exponent one half."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ...checks import require_positive, require_room
from ..registry import experiment
from ..runner import Point, Runner
from . import digits, setting
from .trained import TrainedWeights, layers

__all__ = ["TrainedDrift", "added_mean", "relative_sum", "trained_drift"]


@dataclasses.dataclass(frozen=True)
class TrainedDrift:
    """The independent weights of Figure 8 at `beta`; depths, seeds and the three epochs
    are ours."""

    data: str = "mnist"
    beta: float = 0.5
    depths: tuple[int, ...] = (64, 128, 256, 512, 1000)
    seeds: int = 5
    width: int = 30
    epochs: int = 3
    batch: int = 128
    rate: float = 1e-3

    def __post_init__(self):
        require_positive(self, "depths", "seeds")
        for depth in self.depths:
            self.at(depth)
        require_room(8 * self.seeds * max(self.depths))

    def at(self, depth: int) -> TrainedWeights:
        """The configuration of one depth; it refuses what cannot be trained."""
        shared = dataclasses.asdict(self)
        for name in ("beta", "depths", "seeds"):
            del shared[name]
        laws, betas = ("uniform",), (self.beta,)
        return TrainedWeights(**shared, depth=depth, laws=laws, betas=betas, kept=1)


@experiment(
    "marion2025/trained-drift",
    "the sum of all weights of independent networks before and after training",
    TrainedDrift(),
    book={"data": "digits", "depths": (32, 64, 128), "epochs": 20},
    smoke={
        "data": "digits",
        "depths": (32, 64),
        "seeds": 2,
        "width": 6,
        "epochs": 1,
    },
)
def trained_drift(config: TrainedDrift, run: Runner) -> xr.Dataset:
    r"""$\sum_k V_k$ of res-1 before and after training, the root mean square `size` of
    all entries, the accuracy on the test images, and the mean `loss` of the last tenth
    of the steps."""
    grid = {"depth": config.depths, "seed": range(config.seeds)}
    found = run.each("trained", grid, _trained)
    return found.assign_coords(time=["before", "after"])


def _trained(config: TrainedDrift, point: Point, key: PRNGKeyArray):
    weight_key, batch_key = jr.split(jr.fold_in(key, point["seed"]))
    sizes = config.at(point["depth"])
    law = setting.law("uniform", length_scale=1.0)
    train, test = digits.read(sizes)
    model = digits.classifier(sizes, law, config.beta, train, key=weight_key)
    run = digits.fit(
        sizes, model, train, config.rate, key=batch_key, **point.resumable
    ).finished()
    models = model, run.model
    weights = [layers(each).astype(float) for each in models]
    accuracies = [digits.accuracy_of(each, test) for each in models]
    last = run.losses[-max(1, len(run.losses) // 10) :]
    return {
        "sum": (("time", "row", "column"), np.stack([w.sum(0) for w in weights])),
        "size": ("time", np.array([np.sqrt(np.mean(w**2)) for w in weights])),
        "accuracy": ("time", np.array(accuracies)),
        "loss": float(jnp.mean(last)),
    }


def relative_sum(dataset: xr.Dataset, time: str) -> Float[np.ndarray, "seeds depths"]:
    r"""The root mean square over the entries of $\sum_k V_k / (\mathrm{sd} \sqrt L)$,
    with the standard deviation at the start: near 1 for independent weights."""
    total = _root_mean_square(dataset["sum"].sel(time=time))
    scale = dataset["size"].sel(time="before") * dataset["depth"] ** 0.5
    return (total / scale).transpose("seed", "depth").values


def added_mean(dataset: xr.Dataset) -> Float[np.ndarray, "seeds depths"]:
    r"""The root mean square over the entries of the mean over the layers of what
    training adds, $\frac1L \sum_k (V_k^{\text{after}} - V_k^{\text{before}})$."""
    before, after = (dataset["sum"].sel(time=time) for time in ("before", "after"))
    mean = _root_mean_square(after - before) / dataset["depth"]
    return mean.transpose("seed", "depth").values


def _root_mean_square(sums: xr.DataArray) -> xr.DataArray:
    return (sums**2).mean(("row", "column")) ** 0.5
