"""Where an experiment runs: its grid, the pieces that are kept, and what resumes."""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from .. import results

Arrays = Mapping[str, Any]  # a scalar, or (dimensions, array), by name


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a grid: its labels by name, and how a training in it resumes."""

    labels: Mapping[str, Any]
    checkpoint: Path | None = None
    progress: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.labels[name]

    @property
    def resumable(self) -> dict[str, Any]:
        """The options of `training.train` that let a run inside a point go on where it
        was killed, with its own bar: `train(…, **point.resumable)`."""
        return {"checkpoint": self.checkpoint, "progress": self.progress}


@dataclasses.dataclass(frozen=True)
class Runner:
    """What an experiment is given beside its configuration: the key, and `each`.

    What is kept, resumed and shown, and where a point is computed, is decided here
    alone.
    """

    config: Any
    key: PRNGKeyArray
    identity: Mapping[str, str]
    scratch: Path | None = None
    progress: bool = False

    def each(
        self,
        name: str,
        points: Mapping[str, Iterable[Any]],
        compute: Callable[..., Arrays],
        *,
        shared: Callable[..., Arrays] | None = None,
    ) -> xr.Dataset:
        """`compute(config, point, key)` at every point of a labelled grid.

        `points` gives the labels of each dimension; the empty grid has one point. The
        function is pure and belongs to a module, so that it can be sent to another
        process; it returns scalars, or pairs of dimensions and array as xarray takes
        them. The result has the dimensions of the grid in front. Where an array is
        shorter at some points than at others, or missing, it is filled up with NaN.

        `shared`, called in the same way at a point without labels, returns what serves
        all points (draws, a reference solution): arrays by name, computed once and
        handed to every point as a fourth argument. Each point is a piece, and so is
        what is shared: with a folder to keep them in, a run that was killed goes on at
        the piece where it stopped.
        Raises `ValueError` for a label that occurs twice and for a piece that belongs
        to another computation.
        """
        labels = {dim: list(values) for dim, values in points.items()}
        _require_distinct(labels)

        @functools.cache  # not even read where every point is there already
        def given() -> tuple[Mapping[str, np.ndarray], ...]:
            if shared is None:
                return ()
            found = self._piece((name, "shared"), {}, shared)
            return ({str(k): v.values for k, v in found.items()},)

        def at(place: int, values: tuple) -> xr.Dataset:
            here = dict(zip(labels, values, strict=True))
            # the place, since labels may differ in what a file's name leaves out
            parts = (name, str(place), *(f"{dim}-{v}" for dim, v in here.items()))
            return self._piece(parts, here, lambda *args: compute(*args, *given()))

        grid = list(itertools.product(*labels.values()))
        alone = not self.progress or len(grid) == 1
        bar = tqdm(enumerate(grid), name, len(grid), disable=alone, leave=False)
        return _joined(labels, [at(*point) for point in bar])

    def _piece(
        self, parts: Sequence[str], labels: Mapping[str, Any], compute: Callable
    ) -> xr.Dataset:
        """What `compute` returns at a point, from its file if that is there."""
        if self.scratch is None:
            return _dataset(
                compute(self.config, Point(labels, None, self.progress), self.key)
            )
        plain = "--".join(re.sub(r"[^\w.-]+", "_", part) for part in parts)
        path = self.scratch / f"{plain}.nc"
        if path.exists():
            found = results.load(path)
            results.require_same(self.identity, found, path)
            return found.drop_attrs()
        saved = self.scratch / f"{plain}.npz"
        point = Point(labels, saved, self.progress)
        found = _dataset(compute(self.config, point, self.key))
        stamp = {"identity": json.dumps(dict(self.identity))}
        results.write(found.assign_attrs(stamp), path)
        saved.unlink(missing_ok=True)  # its training has ended
        return found


def _require_distinct(labels: Mapping[str, Sequence]) -> None:
    for dim, values in labels.items():
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{dim} names {value} twice: {values}.")


def _dataset(arrays: Arrays) -> xr.Dataset:
    """With the arrays of JAX as those of NumPy, which netCDF knows. Axes that nobody
    named are named after their array: those of what is shared."""

    def labelled(name: str, value: Any) -> Any:
        dims, array = value if isinstance(value, tuple) else (None, value)
        array = np.asarray(array)
        own = tuple(f"{name}_{axis}" for axis in range(array.ndim))
        return own if dims is None else dims, array

    return xr.Dataset({name: labelled(name, value) for name, value in arrays.items()})


def _joined(labels: Mapping[str, Sequence], rows: Sequence[xr.Dataset]) -> xr.Dataset:
    """The rows of a grid as one data set."""
    grid = tuple(len(values) for values in labels.values())
    names = dict.fromkeys(name for row in rows for name in map(str, row.data_vars))
    variables = {}
    for name in names:
        arrays = {i: row[name] for i, row in enumerate(rows) if name in row}
        dims = next(iter(arrays.values())).dims
        full = _filled(name, {i: a.values for i, a in arrays.items()}, len(rows))
        variables[name] = ((*labels, *dims), full.reshape((*grid, *full.shape[1:])))
    return xr.Dataset(variables).assign_coords(labels)


def _filled(name: str, arrays: Mapping[int, np.ndarray], count: int) -> np.ndarray:
    """Arrays by position, stacked; NaN where one is shorter than others, or missing."""
    shape = tuple(np.max([a.shape for a in arrays.values()], axis=0).astype(int))
    dtype = np.result_type(*arrays.values())
    whole = len(arrays) == count and all(a.shape == shape for a in arrays.values())
    if not whole and dtype.kind != "f":
        raise ValueError(f"{name} differs in shape, and its type {dtype} has no NaN.")
    full = np.empty((count, *shape), dtype)
    if not whole:
        full[:] = np.nan
    for i, array in arrays.items():
        full[(i, *map(slice, array.shape))] = array
    return full
