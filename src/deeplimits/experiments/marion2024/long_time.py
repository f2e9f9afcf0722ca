"""Figure 2: a long training at fixed depth, and the decay of the loss at others."""

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ...checks import require_at_least, require_multiple, require_positive
from ...residual import ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = ["LongTime", "decay_rate", "train_long"]

_SERIES = ("loss", "max_outer", "max_inner", "mean_outer", "mean_inner")


@dataclasses.dataclass(frozen=True)
class LongTime:
    """Figure 2 shows the last of the depths; the entries (`row`, `column`) are kept."""

    depths: tuple[int, ...] = (8, 16, 32, 64)
    steps: int = 80_000
    every: int = 400
    n: int = 50
    d: int = 16
    m: int = 64
    rate: float = 0.005
    row: int = 3
    column: int = 5

    def __post_init__(self):
        require_positive(self, "steps", "every", "n", "d", "m", "rate")
        require_at_least(2, self, "depths")
        require_multiple(self, "steps", "every")
        least = min(self.d, self.m)
        if not (0 <= self.row < least and 0 <= self.column < least):
            raise ValueError(
                f"row and column must lie between 0 and {least - 1}, to be entries of "
                f"both matrices: got {self.row}, {self.column}."
            )
        setting.require_script(self, unused=True)
        setting.require_room(max(self.depths), self)


@experiment(
    "marion2024/long-time",
    "Figure 2: weights along depth, and the loss, over 80,000 iterations",
    LongTime(),
    book={"depths": (64,), "steps": 2000, "every": 100},
    smoke={"depths": (2, 4), "steps": 20, "every": 5},
)
def train_long(config: LongTime, run: Runner) -> xr.Dataset:
    """Loss and successive distances at each depth; entries of the weights at the last.

    The numbers are those of the public code: the key is not used.
    """
    found = run.each("trained", {"depth": config.depths}, _trained)
    last = {"depth": -1, "layer": slice(config.depths[-1])}
    entries = found[["outer_entry", "inner_entry"]].isel(last, drop=True)
    return (
        found[list(_SERIES)]
        .merge(entries)
        .assign_coords(
            iteration=np.arange(0, config.steps + 1, config.every),
            layer=np.arange(config.depths[-1]),
        )
    )


def _trained(config: LongTime, point: Point, key: PRNGKeyArray):
    chosen = setting.script(0, config.n, config.d, config.m, unused=True)

    def record(model: ResNet):
        layers = setting.layers(model)
        entries = {
            "outer_entry": layers.outer[:, config.row, config.column],
            "inner_entry": layers.inner[:, config.row, config.column],
        }
        loss = chosen.loss(model, chosen.data, None)
        return setting.distances(model) | {"loss": loss}, entries

    series, entries = setting.train(
        chosen, point["depth"], config, point, record, every=config.every
    )
    found = {name: ("iteration", series[name]) for name in _SERIES}
    layered = {name: (("iteration", "layer"), z) for name, z in entries.items()}
    return found | layered


def decay_rate(dataset: xr.Dataset, start: int, end: int) -> xr.DataArray:
    r"""The decay rate $-\Delta \log \ell / \Delta t$ between two iterations."""
    loss = dataset["loss"]
    fall = loss.sel(iteration=start) / loss.sel(iteration=end)
    return xr.apply_ufunc(np.log, fall) / (end - start)
