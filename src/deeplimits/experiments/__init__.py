"""The experiments of the papers, by name: each module adds its own list here."""

from .registry import PROFILES, Experiment, override

__all__ = ["EXPERIMENTS", "PROFILES", "Experiment", "find", "override"]

EXPERIMENTS: dict[str, Experiment] = {}


def find(name: str) -> Experiment:
    """The experiment of that name; `ValueError` names the known ones."""
    if name not in EXPERIMENTS:
        known = ", ".join(EXPERIMENTS)
        raise ValueError(f"unknown experiment {name!r}; known: {known}.")
    return EXPERIMENTS[name]
