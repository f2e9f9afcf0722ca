"""The defect of shuffling through views: what survives, and what it does."""

import dataclasses

import jax
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Int, PRNGKeyArray

from ...checks import require_choices, require_positive, require_room
from ..registry import experiment
from ..runner import Point, Runner
from .runs import TINY, measured, seeded
from .scaling import Scaling
from .shuffling import SHUFFLES, shuffled_orders

__all__ = ["ROWS", "Shuffling", "shuffling_defect"]

ROWS = (*SHUFFLES, "views kept")
_KEPT = ("delta", "max_A", "root_squares_A", "train_loss", "test_loss", "epochs")


@dataclasses.dataclass(frozen=True)
class Shuffling:
    """Ours, with the batches and the stopping rule of the tanh networks.

    "views" starts every depth from whole data; "views kept" goes on with what the
    depth before has left, as a script does whose data live in one tensor.
    """

    rows: tuple[str, ...] = ROWS
    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    seeds: int = 5
    epochs: int = 10
    counted: int = 40
    batch: int = 32
    train: int = 1024
    test: int = 256

    def __post_init__(self):
        require_choices("shuffling", self.rows, ROWS)
        require_positive(self, "counted")
        require_room(8 * self.seeds * self.counted * self.train)
        for row in self.rows:
            row_config(self, row)  # which refuses what cannot be trained


def row_config(config: Shuffling, row: str) -> Scaling:
    """The same runs as an experiment of their own, with orders for all its depths."""
    # every depth may use all epochs: "views kept" needs enough shuffles for all of them
    rounds = len(config.depths) if row.endswith("kept") else 1
    return Scaling(
        shuffle=row.split()[0],
        depths=config.depths,
        seeds=config.seeds,
        epochs=config.epochs * rounds,
        batch=config.batch,
        train=config.train,
        test=config.test,
    )


@experiment(
    "cohen2021/shuffling",
    "shuffling through views: examples that survive, and the exponents",
    Shuffling(),
    book={"depths": (16, 64, 256)},
    smoke={**TINY, "epochs": 2, "counted": 3, "batch": 8},
)
def shuffling_defect(config: Shuffling, run: Runner) -> xr.Dataset:
    """Distinct examples seen in each epoch, and norms of the weights by shuffling."""
    found = run.each("trained", {"shuffle": config.rows}, _row)
    return found.assign_coords(
        depth=list(config.depths),
        seed=np.arange(config.seeds),
        epoch=np.arange(1, config.counted + 1),
    )


def _row(config: Shuffling, point: Point, key: PRNGKeyArray):
    """All depths: of "views kept", each depends on the one before."""
    chosen = row_config(config, point["shuffle"])
    short = dataclasses.replace(chosen, epochs=config.epochs)
    seeds = seeded(chosen, key=key)
    start, found = np.zeros(config.seeds, int), []
    for depth in config.depths:
        batches = _from(start, np.asarray(seeds.batches), config.epochs)
        row = measured(short, depth, seeds._replace(batches=batches))
        found.append({name: np.asarray(row[name][1]) for name in _KEPT})
        if point["shuffle"].endswith("kept"):
            start = start + found[-1]["epochs"]
    dims = ("depth", "seed")
    rows = {name: (dims, np.stack([row[name] for row in found])) for name in _KEPT}
    return rows | {
        "distinct": (("seed", "epoch"), _distinct(config, chosen.shuffle, key))
    }


def _from(
    start: np.ndarray, batches: Int[np.ndarray, "seeds rounds batches size"], epochs
) -> Int[np.ndarray, "seeds epochs batches size"]:
    """The `epochs` of each seed that follow its own `start`."""
    pairs = zip(batches, start, strict=True)
    return np.stack([rows[i : i + epochs] for rows, i in pairs])


def _distinct(config: Shuffling, how: str, key) -> Int[np.ndarray, "seeds epochs"]:
    sizes = (config.train, config.batch, config.counted, how)
    keys = jr.split(key, config.seeds)
    seen = jax.vmap(lambda k: shuffled_orders(*sizes, key=k))(keys)
    rows = np.asarray(seen).reshape(config.seeds, config.counted, -1)
    return np.array([[len(np.unique(epoch)) for epoch in seed] for seed in rows])
