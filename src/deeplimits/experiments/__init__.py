"""The experiments of the papers, by name: each package adds its own list here."""

from ..checks import require_known
from . import cohen2021, marion2024, marion2025
from .registry import PROFILES, Experiment, override

__all__ = ["EXPERIMENTS", "PROFILES", "Experiment", "find", "override"]

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        *marion2024.EXPERIMENTS,
        *marion2025.EXPERIMENTS,
        *cohen2021.EXPERIMENTS,
    )
}


def find(name: str) -> Experiment:
    """The experiment of that name; `ValueError` names the known ones."""
    require_known("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]
