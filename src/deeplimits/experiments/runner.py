"""Where an experiment runs: its grid, the pieces that are kept, and what resumes."""

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from .. import results
from ..checks import require_known
from .sending import Arrays, gather, labelled, pack


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
        was killed, with its own bar: `train(…, **point.resumable)`.

        Where the folder of the checkpoint is not seen, on another machine, the run
        begins anew.
        """
        path = self.checkpoint
        seen = path is not None and path.parent.is_dir()
        return {"checkpoint": path if seen else None, "progress": self.progress}


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A point of a grid, and where what is computed there is kept."""

    labels: Mapping[str, Any]
    path: Path | None

    def point(self, progress: bool) -> Point:
        saved = None if self.path is None else self.path.absolute().with_suffix(".npz")
        return Point(self.labels, saved, progress)


@dataclasses.dataclass(frozen=True)
class Runner:
    """What an experiment is given beside its configuration: the key, and `each`.

    What is kept, resumed and shown, and where a point is computed, is decided here
    alone: in this process, or by the workers of an `executor`, to which the code of
    `module` must be known.
    """

    config: Any
    key: PRNGKeyArray
    identity: Mapping[str, str]
    scratch: Path | None = None
    progress: bool = False
    module: str = ""
    executor: Executor | None = None
    reads: tuple[str, ...] = ()
    _names: set[str] = dataclasses.field(default_factory=set, init=False, repr=False)

    def archive(self, name: str) -> xr.Dataset:
        """The archived run of another experiment, which the identity of this one knows.

        Raises `ValueError` for a name that this experiment does not declare.
        """
        require_known("archive", name, self.reads)
        return results.archive(f"{name}.nc")

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
        Raises `ValueError` for a label that occurs twice, for a piece that has the name
        of another, and for one that belongs to another computation.
        """
        labels = {dim: list(values) for dim, values in points.items()}
        _require_distinct(labels)
        place = self._path(name, "shared") if shared is not None else None

        @functools.cache  # not even read where every point is there already
        def given() -> tuple[Mapping[str, np.ndarray], ...]:
            if shared is None:
                return ()
            piece = _Piece({}, place)
            [found] = self._pieces(f"{name}, shared", [piece], shared)
            return ({str(k): v.values for k, v in found.items()},)

        pieces = []
        for number, values in enumerate(itertools.product(*labels.values())):
            here = dict(zip(labels, values, strict=True))
            # the place, since labels may differ in what a file's name leaves out
            parts = (name, str(number), *(f"{dim}-{v}" for dim, v in here.items()))
            pieces.append(_Piece(here, self._path(*parts)))
        return _joined(labels, self._pieces(name, pieces, compute, given))

    def _path(self, *parts: str) -> Path | None:
        plain = "--".join(re.sub(r"[^\w.-]+", "_", part) for part in parts)
        if plain in self._names:
            raise ValueError(f"two pieces of one experiment have the name {plain}.")
        self._names.add(plain)
        return None if self.scratch is None else self.scratch / f"{plain}.nc"

    def _pieces(
        self,
        name: str,
        pieces: Sequence[_Piece],
        compute: Callable[..., Arrays],
        given: Callable[[], tuple] = tuple,
    ) -> list[xr.Dataset]:
        """What `compute` returns at each, from its file if that is there."""
        kept = {i: self._kept(piece) for i, piece in enumerate(pieces)}
        rows = {i: found for i, found in kept.items() if found is not None}
        missing = {i: piece for i, piece in enumerate(pieces) if i not in rows}
        if missing and self.scratch is not None:
            self.scratch.mkdir(parents=True, exist_ok=True)
        alone = self.executor is None and len(pieces) == 1
        shown = self.progress and not alone
        with tqdm(None, name, len(pieces), disable=not shown, leave=False) as bar:
            bar.update(len(rows))
            for i, found in self._computed(missing, compute, given):
                rows[i] = self._keep(found, pieces[i])
                bar.update()
        return [rows[i] for i in range(len(pieces))]

    def _kept(self, piece: _Piece) -> xr.Dataset | None:
        if piece.path is None or not piece.path.exists():
            return None
        found = results.load(piece.path)
        results.require_same(self._identity(piece.path), found, piece.path)
        return found.drop_attrs()

    def _identity(self, path: Path) -> dict[str, str]:
        """That of the run, and the place: a file under another piece's name is none."""
        return {**self.identity, "piece": path.name}

    def _computed(
        self,
        missing: Mapping[int, _Piece],
        compute: Callable[..., Arrays],
        given: Callable[[], tuple],
    ) -> Iterator[tuple[int, xr.Dataset]]:
        """What is missing, in the order in which it is finished."""

        def arguments(piece: _Piece) -> tuple:
            away = self.executor is not None
            point = piece.point(self.progress and not away)
            return (self.config, point, self.key, *given())

        if self.executor is None:
            for i, piece in missing.items():
                yield i, labelled(compute(*arguments(piece)))
        else:
            packed = (
                (i, pack(self.module, compute, *arguments(piece)))
                for i, piece in missing.items()
            )
            yield from gather(self.executor, packed)

    def _keep(self, found: xr.Dataset, piece: _Piece) -> xr.Dataset:
        if piece.path is not None:
            stamp = {"identity": json.dumps(self._identity(piece.path))}
            results.write(found.assign_attrs(stamp), piece.path)
            # its training has ended
            piece.path.with_suffix(".npz").unlink(missing_ok=True)
        return found


def _require_distinct(labels: Mapping[str, Sequence]) -> None:
    for dim, values in labels.items():
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"{dim} names {value} twice: {values}.")


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
