"""Many starts at few layers: which minima there are, and how often they are met."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import jax
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ...checks import (
    require_at_least,
    require_choices,
    require_positive,
    require_room,
)
from ...variational import Parameters, minimise, random_start
from ..registry import experiment
from ..runner import Point, Runner
from .budget import require_iterations
from .setting import (
    ACTIVATIONS,
    Planar,
    branches,
    labelled,
    planar,
)

__all__ = ["Search", "distinct", "lowest_minima"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Search:
    """Tanh at all `alphas`, the other `activations` at one `alpha`.

    `starts` of each kind: rough ones, whose whitened increments are independent normals
    of a standard deviation, and smooth ones, of `modes` cosines. All go to a loose
    `tolerance`, which tells minima apart; the lowest `kept` are then polished.
    """

    alphas: tuple[float, ...] = (0.03, 0.02, 0.01, 0.005, 0.003, 0.001, 0.0003)
    activations: tuple[str, ...] = ("ReLU", "GELU", "logistic", "growing cosine")
    alpha: float = 0.01
    depth: int = 16
    starts: int = 20
    rough: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0)
    smooth: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0)
    modes: int = 4
    kept: int = 6
    shared: int = 3
    iterations: int = 1000
    tolerance: float = 1e-3
    polished: float = 1e-8
    same: float = 1e-4

    def __post_init__(self):
        require_positive(self, "alphas", "alpha", "starts", "rough", "smooth", "modes")
        require_positive(self, "kept", "shared")
        require_iterations(self)
        require_positive(self, "tolerance", "polished", "same")
        require_at_least(2, self, "depth")
        require_choices("activation", self.activations, ACTIVATIONS)
        for part, whole in (("shared", "kept"), ("modes", "depth")):
            if getattr(self, part) > getattr(self, whole):
                raise ValueError(
                    f"{part} must be at most {whole}: got {getattr(self, part)} and "
                    f"{getattr(self, whole)}."
                )
        kinds = len(self.rough) + len(self.smooth)
        problems = len(self.alphas) + len(self.activations)
        copies = self.starts + self.kept
        require_room(8 * problems * kinds * copies * (6 * self.depth + 4))

    @property
    def problems(self) -> dict[str, Planar]:
        """All problems, by name."""
        return planar(self.alphas, self.activations, self.alpha)

    @property
    def kinds(self) -> Mapping[str, tuple[float, int | None]]:
        """Scale, and number of modes if any, of each kind of start."""
        rough = {f"rough {scale:g}": (scale, None) for scale in self.rough}
        return rough | {f"smooth {s:g}": (s, self.modes) for s in self.smooth}


@experiment(
    "thorpe2023/search",
    "local minima on the rings from many starts, for five activations and seven alpha",
    Search(),
    book={"starts": 2},
    smoke={
        "alphas": (0.03, 0.01),
        "activations": ("GELU",),
        "depth": 4,
        "starts": 2,
        "rough": (1.0,),
        "smooth": (2.0,),
        "kept": 2,
        "shared": 1,
        "iterations": 400,
    },
)
def lowest_minima(config: Search, run: Runner) -> xr.Dataset:
    """The lowest local minima, `branch` by branch, and all energies that were met.

    `count` says how many starts of each kind led to a branch, `energies` are those of
    the ends of all starts, and `solved` says how many of these have a small gradient
    (with ReLU few: its minima lie in kinks). The last kind, "shared", are starts at the
    lowest minima of all *other* problems: what one search has found serves the next.
    """
    names = list(config.problems)
    with jax.enable_x64(True):
        drawn = run.each("drawn", {"problem": names, "kind": config.kinds}, _drawn)
        lent = run.each("shared", {"problem": names}, functools.partial(_lent, drawn))
        both = xr.concat([drawn, lent.expand_dims(kind=["shared"])], "kind")
        last = run.each("lowest", {"problem": names}, functools.partial(_lowest, both))
    problems = config.problems.values()
    near = np.abs(both.energies - last.energy) <= config.same * np.abs(last.energy)
    return (
        last.assign(
            count=near.sum("start").transpose("problem", "kind", "branch"),
            energies=both.energies.transpose("problem", "kind", "start"),
            solved=both.solved.transpose("problem", "kind").astype(int),
            started=both.started.transpose("problem", "kind").astype(int),
        )
        .assign_attrs(dtype="float64")
        .assign_coords(
            activation=("problem", [each.activation for each in problems]),
            alpha=("problem", [each.alpha for each in problems]),
        )
    )


def distinct(pairs: Iterable[tuple[float, T]], same: float) -> list[tuple[float, T]]:
    """Energies and what has them, the lowest first, without those that lie within the
    share `same` of one before."""
    found: list[tuple[float, T]] = []
    for energy, it in sorted(pairs, key=lambda pair: pair[0]):
        if not found or energy - found[-1][0] > same * abs(energy):
            found.append((energy, it))
    return found


def _drawn(config: Search, point: Point, key: PRNGKeyArray):
    """Where starts of one kind lead to."""
    setting = config.problems[point["problem"]]
    place = list(config.kinds).index(point["kind"])
    scale, modes = config.kinds[point["kind"]]
    starts = [
        random_start(
            setting.problem,
            setting.zero(config.depth),
            scale=scale,
            modes=modes,
            key=each,
        )
        for each in jr.split(jr.fold_in(key, place), config.starts)
    ]
    return _ends(config, setting, starts)


def _ends(config: Search, setting: Planar, starts: Iterable[Parameters]):
    """Energies of the ends of all starts, and the lowest that differ, as arrays."""
    options = {"tolerance": config.tolerance, "max_iterations": config.iterations}
    ends = [minimise(setting.problem, start, **options) for start in starts]
    there = [(each.value, each) for each in ends if np.isfinite(each.value)]
    lowest = distinct(there, config.same)[: config.kept]
    room = max(config.starts, config.shared * (len(config.problems) - 1))
    energies = sorted(energy for energy, _ in there)
    return {
        "energies": ("start", _filled(energies, room)),
        "energy": ("branch", _filled([energy for energy, _ in lowest], config.kept)),
        "solved": float(sum(each.solved for each in ends)),
        "started": float(len(ends)),
        **labelled([it for _, it in lowest], setting.zero(config.depth), config.kept),
    }


def _filled(values: Sequence[float], room: int) -> np.ndarray:
    return np.concatenate([values, np.full(room - len(values), np.nan)])


def _pool(config: Search, found: xr.Dataset, name: str) -> list[Parameters]:
    """The distinct networks that were kept of one problem, the lowest first."""
    rows = found.sel(problem=name)
    setting = config.problems[name]
    pairs = itertools.chain.from_iterable(
        branches(rows.isel(kind=i), setting) for i in range(rows.sizes["kind"])
    )
    return [network for _, network in distinct(pairs, config.same)]


def _lent(drawn: xr.Dataset, config: Search, point: Point, key: PRNGKeyArray):
    """Where the lowest minima of other problems lead to, as starts."""
    setting = config.problems[point["problem"]]
    others = [name for name in config.problems if name != setting.name]
    lowest = (_pool(config, drawn, name)[: config.shared] for name in others)
    starts = [setting.like(each) for each in itertools.chain.from_iterable(lowest)]
    return _ends(config, setting, starts)


def _lowest(both: xr.Dataset, config: Search, point: Point, key: PRNGKeyArray):
    """The lowest minima of all kinds, to a small gradient."""
    setting = config.problems[point["problem"]]
    pool = _pool(config, both, setting.name)[: 2 * config.kept]
    options = {"tolerance": config.polished, "max_iterations": 3 * config.iterations}
    ends = [minimise(setting.problem, network, **options) for network in pool]
    pairs = distinct([(each.value, each) for each in ends], config.same)
    minima = [minimum for _, minimum in pairs[: config.kept]]
    found = {
        name: [getattr(m, name) for m in minima] for name in ("value", "gradient_norm")
    }
    return {
        "energy": ("branch", _filled(found["value"], config.kept)),
        "gradient_norm": ("branch", _filled(found["gradient_norm"], config.kept)),
        **labelled(minima, setting.zero(config.depth), config.kept),
    }
