"""Which exponents are the network's, and which the optimiser's: a table."""

import dataclasses
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray
from tqdm import tqdm

from ... import files
from .scaling import Scaling, measured_row, seeded

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


def label(case: Case) -> str:
    """One case in words, as `tanh, shared, adam 0.01, loss < 0.001`."""
    activation, delta, optimiser, rate, loss, epochs = case
    stop = f"loss < {loss:g}" if loss else f"{epochs} epochs"
    return f"{activation}, {delta}, {optimiser} {rate:g}, {stop}"


def case_config(config: Robustness, case: Case) -> Scaling:
    """The same run as an experiment of its own."""
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


def robustness(
    config: Robustness, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Norms of trained weights for every case, depth and seed."""
    work = [(case, depth) for case in config.cases for depth in config.depths]
    found = {}
    for case, depth in tqdm(work, disable=not progress):
        chosen = case_config(config, case)
        name = f"{config.cases.index(case)}-{depth}"
        compute = partial(_one, chosen, depth, key)
        found[case, depth] = files.kept(scratch, name, compute)
    dims = ("case", "depth", "seed")
    return xr.Dataset(
        {
            name: (
                dims,
                np.array(
                    [[found[c, L][name] for L in config.depths] for c in config.cases]
                ),
            )
            for name in _KEPT
        },
        {
            "case": [label(case) for case in config.cases],
            "depth": list(config.depths),
            "seed": np.arange(config.seeds),
        },
    )


def _one(config: Scaling, depth: int, key: PRNGKeyArray) -> dict[str, np.ndarray]:
    found = measured_row(config, depth, seeded(config, max(config.depths), key=key))
    return {name: found[name] for name in _KEPT}
