"""The experiments of the papers, by name: `run`, `archive`, and what lies behind them.

A package a paper; importing this one imports none of them.
"""

from .registry import (
    PROFILES,
    Experiment,
    archive,
    experiment,
    find,
    override,
    run,
)
from .runner import Point, Runner

__all__ = [
    "PROFILES",
    "Experiment",
    "Point",
    "Runner",
    "archive",
    "experiment",
    "find",
    "override",
    "run",
]
