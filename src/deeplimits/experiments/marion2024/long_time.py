"""Figure 2: a long training at fixed depth, and the decay of the loss at others."""

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ... import files, training
from ...residual import ResNet
from . import setting


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


def long_time(
    config: LongTime, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Loss and successive distances at each depth; entries of the weights at the last.

    The numbers are those of the public code: `key` is not used.
    """
    least = min(config.d, config.m)
    if not (0 <= config.row < least and 0 <= config.column < least):
        raise ValueError(
            f"row and column must lie between 0 and {least - 1}, to be entries of "
            f"both matrices: got {config.row}, {config.column}."
        )
    chosen = setting.script(0, config.n, config.d, config.m, unused=True)
    optimiser = setting.descent(config.rate)

    def record(model: ResNet):
        layers = setting.layers(model)
        outer, inner = layers.outer, layers.inner
        entries = (
            outer[:, config.row, config.column],
            inner[:, config.row, config.column],
        )
        loss = chosen.loss(model, chosen.data, None)
        return setting.distances(model) | {"loss": loss}, entries

    def one(depth):
        return (
            training.train(
                chosen.network(depth),
                chosen.data,
                chosen.loss,
                optimiser,
                config.steps,
                record=record,
                every=config.every,
                trainable=training.only_layers,
                progress=progress,
                checkpoint=files.checkpoint(scratch, f"depth-{depth}"),
            )
            .finished()
            .records
        )

    runs = [one(depth) for depth in config.depths]
    kept = ("loss", "max_outer", "max_inner", "mean_outer", "mean_inner")
    series = {
        name: (("depth", "iteration"), np.stack([scalars[name] for scalars, _ in runs]))
        for name in kept
    }
    outer, inner = runs[-1][1]
    entries = {
        "outer_entry": (("iteration", "layer"), outer),
        "inner_entry": (("iteration", "layer"), inner),
    }
    coordinates = {
        "depth": list(config.depths),
        "iteration": np.arange(0, config.steps + 1, config.every),
        "layer": np.arange(config.depths[-1]),
    }
    return xr.Dataset(series | entries, coordinates)


def decay_rate(dataset: xr.Dataset, start: int, end: int) -> xr.DataArray:
    r"""The decay rate $-\Delta \log \ell / \Delta t$ between two iterations."""
    loss = dataset["loss"]
    fall = loss.sel(iteration=start) / loss.sel(iteration=end)
    return xr.apply_ufunc(np.log, fall) / (end - start)
