"""The experiments of the papers, by name: `run`, `archive`, and what lies behind them.

A package a paper; importing this one imports none of them.
"""

from .registry import (
    PROFILES,
    Entry,
    Experiment,
    archive,
    experiment,
    find,
    index,
    override,
    run,
)
from .runner import Point, Runner

__all__ = [
    "PROFILES",
    "Entry",
    "Experiment",
    "Point",
    "Runner",
    "archive",
    "experiment",
    "find",
    "index",
    "override",
    "run",
]
