"""Which exponents are the network's, and which the optimiser's: a table."""

import dataclasses

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ...checks import require_kinds
from ..registry import experiment
from ..runner import Point, Runner
from .runs import TINY, measured, seeded
from .scaling import Scaling

__all__ = ["CASES", "Robustness", "case_config", "exponents_by_case", "label"]

Case = tuple[str, str, str, float, float, int]

# activation, delta, optimiser, learning rate, loss to stop at (0: never), most epochs
CASES: tuple[Case, ...] = (
    ("tanh", "shared", "adam", 1e-2, 1e-3, 100),
    ("tanh", "shared", "adam", 1e-2, 1e-2, 100),
    ("tanh", "shared", "adam", 1e-2, 0.0, 10),
    ("tanh", "shared", "adam", 1e-3, 1e-3, 100),
    ("tanh", "shared", "sgd", 1e-1, 1e-3, 400),
    ("tanh", "shared", "sgd", 1e-2, 1e-3, 400),
    ("tanh", "layer", "adam", 1e-2, 1e-3, 100),
    ("relu", "shared", "adam", 1e-2, 1e-3, 100),
    ("relu", "layer", "adam", 1e-2, 1e-2, 100),
    ("relu", "layer", "adam", 1e-2, 1e-3, 100),
    ("relu", "layer", "adam", 1e-2, 0.0, 10),
    ("relu", "layer", "adam", 1e-3, 1e-2, 100),
    ("relu", "layer", "sgd", 1e-2, 1e-2, 100),
)
_KEPT = (
    "delta",
    "max_A",
    "increment_A",
    "sum_A",
    "root_squares_A",
    "noise_share",
    "train_loss",
    "test_loss",
    "trend_loss",
    "epochs",
    "reached",
)


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Ours: depths in powers of two, the same data, starts and batches in each case."""

    cases: tuple[Case, ...] = CASES
    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 5
    batch: int = 32
    train: int = 1024
    test: int = 256

    def __post_init__(self):
        require_kinds(self)
        if not self.cases:
            raise ValueError("choose at least one case.")
        for case in self.cases:
            case_config(self, case)  # which refuses what cannot be trained


def label(case: Case) -> str:
    """One case in words, as `tanh, shared, adam 0.01, loss < 0.001`."""
    activation, delta, optimiser, rate, loss, epochs = case
    stop = f"loss < {loss:g}" if loss else f"{epochs} epochs"
    return f"{activation}, {delta}, {optimiser} {rate:g}, {stop}"


def case_config(config: Robustness, case: Case) -> Scaling:
    """The same run as an experiment of its own.

    Raises `ValueError` for what cannot be trained.
    """
    activation, delta, optimiser, rate, loss, epochs = case
    return Scaling(
        activation=activation,
        delta=delta,
        optimiser=optimiser,
        rate=rate,
        loss=loss,
        epochs=epochs,
        # without a loss to stop at, patience must not stop it either
        patience=5 if loss else epochs,
        depths=config.depths,
        seeds=config.seeds,
        batch=config.batch,
        train=config.train,
        test=config.test,
    )


@experiment(
    "cohen2021/robustness",
    "exponents by activation, delta, optimiser, learning rate and stopping",
    Robustness(),
    book={"cases": CASES[:2], "depths": (16, 64, 256)},
    smoke={**TINY, "cases": (("tanh", "shared", "adam", 1e-2, 0.0, 2),)},
)
def exponents_by_case(config: Robustness, run: Runner) -> xr.Dataset:
    """Norms of trained weights for every case, depth and seed."""
    labels = [label(case) for case in config.cases]
    found = run.each("trained", {"case": labels, "depth": config.depths}, _row)
    return found.assign_coords(seed=np.arange(config.seeds))


def _row(config: Robustness, point: Point, key: PRNGKeyArray):
    cases = {label(case): case for case in config.cases}
    chosen = case_config(config, cases[point["case"]])
    found = measured(chosen, point["depth"], seeded(chosen, key=key))
    return {name: found[name] for name in _KEPT}
