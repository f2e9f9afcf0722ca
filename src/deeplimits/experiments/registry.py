"""What an experiment is: a configuration in three sizes, and a pure function of it."""

import ast
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import xarray as xr

from ..checks import require_known

_COUNTS = ("seeds", "repetitions", "networks", "draws", "ode_draws")
PROFILES = ("smoke", "book", "paper")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A named experiment.

    `compute(config, *, key, scratch=None, progress=False)` returns a labelled data set;
    it saves what it can resume from in the folder `scratch`. `presets` holds one frozen
    dataclass for each of the profiles `smoke`, `book` and `paper`.
    """

    name: str
    summary: str
    presets: Mapping[str, Any]
    compute: Callable[..., xr.Dataset]

    def __post_init__(self):
        if tuple(self.presets) != PROFILES:
            raise ValueError(
                f"{self.name} needs presets {PROFILES}: {list(self.presets)}."
            )

    @classmethod
    def sized(
        cls,
        paper_key: str,
        name: str,
        summary: str,
        compute: Callable[..., xr.Dataset],
        paper: Any,
        book: Mapping[str, Any],
        smoke: Mapping[str, Any],
    ) -> "Experiment":
        """The experiment `paper_key/name`; `book` and `smoke` as changes to `paper`."""
        presets = {
            "smoke": dataclasses.replace(paper, **smoke),
            "book": dataclasses.replace(paper, **book),
            "paper": paper,
        }
        return cls(f"{paper_key}/{name}", summary, presets, compute)

    def run(self, config: Any, **options: Any) -> xr.Dataset:
        """`compute`, its float32 products in float32 on every device.

        Left to itself, JAX multiplies them in TensorFloat-32 on a recent GPU, to three
        digits: less than the distances that these experiments measure.
        """
        with jax.default_matmul_precision("float32"):
            return self.compute(config, **options)

    def preset(self, profile: str) -> Any:
        """The configuration of that profile."""
        require_known("profile", profile, self.presets)
        return self.presets[profile]


def override(config: Any, assignments: Mapping[str, str]) -> Any:
    """A configuration with fields replaced by values given as text.

    A tuple is written `2,16,64`, or `tied,independent`. Raises `ValueError` for an
    unknown field, for a value of another type than the field's present one, for a
    tuple without entries, and for a number of repeats that is not positive.
    """
    known = sorted(field.name for field in dataclasses.fields(config))
    for name in assignments:
        require_known("parameter", name, known)
    changes = {n: _parse(n, t, getattr(config, n)) for n, t in assignments.items()}
    for name, value in changes.items():
        if value == ():
            raise ValueError(f"{name} needs at least one entry: got none.")
        if name in _COUNTS and value < 1:
            raise ValueError(f"{name} must be positive: got {value}.")
    return dataclasses.replace(config, **changes)


def _parse(name: str, text: str, present: Any) -> Any:
    if isinstance(present, str):
        return text
    if isinstance(present, tuple) and present and isinstance(present[0], str):
        parts = (part.strip(" '\"") for part in text.strip("() ").split(","))
        return tuple(part for part in parts if part)
    try:
        value = ast.literal_eval(f"({text},)" if isinstance(present, tuple) else text)
    except (ValueError, SyntaxError):
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
