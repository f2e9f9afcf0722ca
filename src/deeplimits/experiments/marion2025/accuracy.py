"""Figure 9: the test accuracy over exponent and Hurst index."""

import dataclasses
import functools

import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from scipy import stats

from ...checks import require_at_least, require_positive, require_room
from ...initialisation import fractional_noise
from ...intervals import Interval, Kind
from ..registry import experiment
from ..runner import Point, Runner
from . import digits, setting

__all__ = ["AccuracyMap", "accuracy_gain", "accuracy_map", "regions"]


@dataclasses.dataclass(frozen=True)
class AccuracyMap:
    """Figure 9: `grid` Hurst indices and as many exponents, from 0.1 to 0.9."""

    data: str = "mnist"
    grid: int = 10
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    depth: int = 1000
    width: int = 30
    epochs: int = 10
    batch: int = 128

    def __post_init__(self):
        digits.require_trainable(self)
        require_positive(self, "grid")
        require_at_least(0, self, "rates")
        require_room(8 * self.grid**2 * len(self.rates))

    @property
    def axis(self) -> np.ndarray:
        return np.linspace(0.1, 0.9, self.grid)


@experiment(
    "marion2025/accuracy-map",
    "Figure 9: test accuracy over exponent and Hurst index",
    AccuracyMap(),
    book={"data": "digits", "depth": 64, "grid": 5, "rates": (1e-2,)},
    smoke={
        "data": "digits",
        "depth": 32,
        "width": 6,
        "epochs": 1,
        "grid": 2,
        "rates": (1e-2,),
    },
)
def accuracy_map(config: AccuracyMap, run: Runner) -> xr.Dataset:
    """Test accuracy by Hurst index, exponent and learning rate. A run whose loss stops
    being finite counts with the weights at which it did."""
    places = range(config.grid)
    grid = {"row": places, "column": places, "rate": config.rates}
    found = run.each("trained", grid, _cell).rename(row="hurst", column="beta")
    return found.assign_coords(hurst=config.axis, beta=config.axis)


def _cell(config: AccuracyMap, point: Point, key: PRNGKeyArray):
    places = point["row"], point["column"]
    weight_key, batch_key = jr.split(functools.reduce(jr.fold_in, places, key))
    hurst, beta = (float(config.axis[place]) for place in places)
    law = setting.normalised(fractional_noise, hurst=hurst)
    train, test = digits.read(config)
    model = digits.classifier(config, law, beta, train, key=weight_key)
    run = digits.fit(
        config, model, train, point["rate"], key=batch_key, **point.resumable
    )
    return {"accuracy": float(digits.accuracy_of(run.model, test))}


def regions(dataset: xr.Dataset, mild: float = 0.4) -> dict[str, np.ndarray]:
    r"""The accuracies of all cells, at the best of the rates: `inside`, where
    $\beta \ge H$; `near`, where $\beta$ falls short of it by less than `mild`; and
    `outside`, where by `mild` or more."""
    accuracy = dataset["accuracy"].max("rate")
    excess = (accuracy["beta"] - accuracy["hurst"]).transpose(*accuracy.dims)
    excess = excess.values.round(6)  # the axis has rounding: 0.3 - 0.7 > -0.4
    outside = excess <= -mild
    parts = {"inside": excess >= 0, "near": (excess < 0) & ~outside, "outside": outside}
    return {name: accuracy.values[part] for name, part in parts.items()}


def accuracy_gain(dataset: xr.Dataset) -> Interval:
    """The mean accuracy inside less that outside (see `regions`), and Welch's
    interval, as if cells were drawn at random."""
    cells = regions(dataset)
    found = stats.ttest_ind(cells["inside"], cells["outside"], equal_var=False)
    gain = cells["inside"].mean() - cells["outside"].mean()
    interval = found.confidence_interval()
    return Interval(gain, interval.low, interval.high, Kind.CASES)
