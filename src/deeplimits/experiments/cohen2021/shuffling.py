"""The defect of shuffling through views: what survives, and what it does."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Int, PRNGKeyArray
from tqdm import tqdm

from ... import files
from . import setting
from .fitting import orders
from .scaling import Scaling, measured_row, seeded

ROWS = ("examples", "batches", "views", "views kept")
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


def shuffling(
    config: Shuffling, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Distinct examples seen in each epoch, and norms of the weights by shuffling."""
    for row in config.rows:
        setting.require("shuffling", row, ROWS)
    found = [_one(config, row, key, scratch, progress) for row in config.rows]
    names = {name: ("shuffle", "depth", "seed") for name in _KEPT}
    variables = {
        name: (dims, np.array([[depth[name] for depth in row] for row in found]))
        for name, dims in names.items()
    }
    counts = [_distinct(config, how.split()[0], key) for how in config.rows]
    variables["distinct"] = (("shuffle", "seed", "epoch"), np.array(counts))
    return xr.Dataset(
        variables,
        {
            "shuffle": list(config.rows),
            "depth": list(config.depths),
            "seed": np.arange(config.seeds),
            "epoch": np.arange(1, config.counted + 1),
        },
    )


def _distinct(config: Shuffling, how: str, key) -> Int[np.ndarray, "seeds epochs"]:
    sizes = (config.train, config.batch, config.counted, how)
    keys = jr.split(key, config.seeds)
    seen = jax.vmap(lambda k: orders(*sizes, key=k))(keys)
    rows = np.asarray(seen).reshape(config.seeds, config.counted, -1)
    return np.array([[len(np.unique(epoch)) for epoch in seed] for seed in rows])


def _one(config: Shuffling, row: str, key, scratch, progress) -> list[dict]:
    how, kept = row.split()[0], row.endswith("kept")
    # every depth may use all epochs: enough shuffles for all of them
    rounds = config.epochs * (len(config.depths) if kept else 1)
    chosen = Scaling(
        shuffle=how,
        depths=config.depths,
        seeds=config.seeds,
        epochs=rounds,
        batch=config.batch,
        train=config.train,
        test=config.test,
    )
    seeds = seeded(chosen, max(config.depths), key=key)
    short = dataclasses.replace(chosen, epochs=config.epochs)
    start, found = np.zeros(config.seeds, int), []
    for depth in tqdm(config.depths, row, disable=not progress):
        part = seeds._replace(batches=_window(seeds.batches, start, config.epochs))

        def compute(depth=depth, part=part):
            values = measured_row(short, depth, part)
            return {name: values[name] for name in _KEPT}

        name = f"{row.replace(' ', '-')}-{depth}"
        found.append(files.kept(scratch, name, compute))
        if kept:
            start = start + found[-1]["epochs"]
    return found


def _window(batches: Array, start: np.ndarray, epochs: int) -> Array:
    """The `epochs` of each seed that follow its own `start`."""
    return jnp.stack(
        [rows[i : i + epochs] for rows, i in zip(batches, start, strict=True)]
    )
