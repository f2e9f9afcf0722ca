"""What an experiment is: a configuration in three sizes, and a pure function of it."""

import ast
import dataclasses
import importlib
import json
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from .. import results, sources
from ..checks import require_known
from .runner import Runner

PROFILES = ("smoke", "book", "paper")
_REGISTERED: dict[str, "Experiment"] = {}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A named experiment: `compute(config, run)` returns a labelled data set.

    `presets` holds one frozen dataclass for each of the profiles `smoke`, `book` and
    `paper`. `module` is the one that defines it, and `reads` are the archives of other
    experiments that it starts from.
    """

    name: str
    summary: str
    presets: Mapping[str, Any]
    compute: Callable[[Any, Runner], xr.Dataset]
    module: str
    reads: tuple[str, ...] = ()
    stamp: str = dataclasses.field(default="", init=False, repr=False)

    def __post_init__(self):
        if not sources.belongs(self.module):  # its file may be edited while it runs
            object.__setattr__(self, "stamp", sources.foreign_hash(self.module))

    def preset(self, profile: str) -> Any:
        """The configuration of that profile."""
        require_known("profile", profile, self.presets)
        return self.presets[profile]

    def identity(self, config: Any, key: PRNGKeyArray) -> dict[str, str]:
        """What makes a computation this one: equal identities give equal numbers.

        Name, configuration, key, precision, a hash of the modules that it runs, and
        the checksums of the archives that it reads.
        Version and commit are not in it: they say where the code came from, and an
        edit of a page between two commits changes no number. Raises `ValueError` for
        what is not one key of JAX, and where the experiment's module was edited since.
        """
        try:
            kind, data = jr.key_impl(key), jr.key_data(key)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"key must be one of JAX: got {key!r:.60}.") from error
        if data.ndim > 1:
            raise ValueError(f"key must be one, not {len(data)} in an array.")
        # the bits that a key gives depend on this, too; as everywhere it goes unsaid
        bits = jax.config.jax_threefry_partitionable  # pyright: ignore
        other = "" if bits else ", not partitionable"
        read = {name: archive(name).attrs["checksum"] for name in self.reads}
        return {
            "experiment": self.name,
            "config": results.config_json(config),
            "key": f"{kind} {data.tolist()}{other}",
            "precision": "float64" if jax.config.read("jax_enable_x64") else "float32",
            "code": self._code(),
        } | ({"archives": json.dumps(read)} if read else {})

    def _code(self) -> str:
        code = sources.behind(self.module)
        if self.stamp not in ("", code):
            raise ValueError(
                f"{self.module} was edited after this process had imported it: start "
                "again, so that one code computes all."
            )
        return code

    def run(
        self,
        config: Any,
        *,
        key: PRNGKeyArray,
        scratch: str | os.PathLike | None = None,
        progress: bool = False,
        executor: Executor | None = None,
    ) -> xr.Dataset:
        """The data set; with a folder `scratch`, from the pieces that are there; with
        an `executor`, computed by its workers.

        Float32 products are made in float32 on every device: left to itself, JAX
        multiplies in TensorFloat-32 on a recent GPU, to three digits, less than the
        distances that these experiments measure. Raises `ValueError` where `scratch`
        holds pieces of another computation, for a number beyond the largest of
        the precision, for a result with a coordinate that names a value twice, and
        where an experiment that was typed into a notebook, whose code no file tells, is
        to be kept in pieces or computed elsewhere.
        """
        identity = self.identity(config, key)
        alone = scratch is None and executor is None
        if identity["code"] == sources.NOWHERE and not alone:
            raise ValueError(
                f"the code of {self.name} is in no file: write it in a module, so that "
                "what it runs can be told from what it ran before."
            )
        _require_representable(config, identity["precision"])
        folder = None if scratch is None else Path(scratch)
        place = folder, progress, self.module, executor, self.reads
        runner = Runner(config, key, identity, *place)
        with jax.default_matmul_precision("float32"):
            found = self.compute(config, runner)
        for dim, labels in found.indexes.items():
            if not labels.is_unique:
                twice = labels[labels.duplicated()][0]
                raise ValueError(f"{dim} names a value twice: {twice}.")
        return found.assign_attrs(identity=json.dumps(identity))


def _require_representable(config: Any, precision: str) -> None:
    most = float(np.finfo(precision).max)
    fields = config if isinstance(config, Mapping) else getattr(config, "__dict__", {})
    for name, value in fields.items():
        for entry in jax.tree.leaves(value):
            if isinstance(entry, int | float) and most < abs(entry) < math.inf:
                raise ValueError(f"{name} is beyond {precision}: got {entry}.")


def experiment(
    name: str,
    summary: str,
    paper: Any,
    *,
    book: Mapping[str, Any] | None = None,
    smoke: Mapping[str, Any],
    reads: tuple[str, ...] = (),
) -> Callable[[Callable[[Any, Runner], xr.Dataset]], Experiment]:
    """Make `compute(config, run)` the experiment `name`; the others as changes to
    `paper`.

    `reads` names the archives that the function takes from `run.archive`. Name, summary
    and these are written out: `sources.experiments` reads them without running the
    module. Written in front of a function, it makes that the experiment; called on
    it, one function serves several experiments.
    """
    presets = {
        "smoke": dataclasses.replace(paper, **smoke),
        "book": dataclasses.replace(paper, **(book or {})),
        "paper": paper,
    }

    def register(compute: Callable[[Any, Runner], xr.Dataset]) -> Experiment:
        made = Experiment(name, summary, presets, compute, compute.__module__, reads)
        _REGISTERED[name] = made
        return made

    return register


def find(name: str) -> Experiment:
    """The experiment of that name, its module imported; `ValueError` names the known
    ones."""
    if name not in _REGISTERED:
        known = sources.experiments()
        require_known("experiment", name, known)
        importlib.import_module(known[name].module)
    return _REGISTERED[name]


def run(name: str, profile: str, *, key: PRNGKeyArray, **changes: Any) -> xr.Dataset:
    """Run the experiment `name` at a profile, some fields of its preset replaced.

    Raises `ValueError` for an unknown experiment, profile or field, and for a value
    that the configuration refuses.
    """
    found = find(name)
    config = found.preset(profile)
    _require_fields(config, changes)
    return found.run(dataclasses.replace(config, **changes), key=key)


def archive(name: str) -> xr.Dataset:
    """The archived run of an experiment, at the size of its profile `paper`."""
    return results.archive(f"{name}.nc")


def override(config: Any, assignments: Mapping[str, str]) -> Any:
    """A configuration with fields replaced by values given as text.

    A tuple is written `2,16,64`, or `tied,independent`. Raises `ValueError` for an
    unknown field, for a value of another type than the field's present one, and for
    what the configuration itself refuses.
    """
    _require_fields(config, assignments)
    changes = {n: _parse(n, t, getattr(config, n)) for n, t in assignments.items()}
    return dataclasses.replace(config, **changes)


def _require_fields(config: Any, names: Mapping[str, Any]) -> None:
    known = sorted(field.name for field in dataclasses.fields(config))
    for name in names:
        require_known("parameter", name, known)


def _parse(name: str, text: str, present: Any) -> Any:
    if isinstance(present, str):
        return text
    if isinstance(present, tuple) and present and isinstance(present[0], str):
        parts = (part.strip(" '\"") for part in text.strip("() ").split(","))
        return tuple(part for part in parts if part)
    try:
        value = ast.literal_eval(f"({text},)" if isinstance(present, tuple) else text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{name}={text} is no {type(present).__name__}.") from None
    if isinstance(present, tuple):
        wanted = type(present[0]) if present else object
        if len(value) == 1 and isinstance(value[0], tuple):  # written with brackets
            value = value[0]
        if not all(_fits(item, wanted) for item in value):
            raise ValueError(f"{name}={text}: every entry must be {wanted.__name__}.")
        return tuple(type(present[0])(item) for item in value) if present else value
    if not _fits(value, type(present)):
        raise ValueError(f"{name}={text} is no {type(present).__name__}.")
    return type(present)(value)


def _fits(value: Any, wanted: type) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
