"""What it costs to compute pieces in other processes, and what it brings.

Run `python benchmarks/workers.py` on a machine that does nothing else. It prints, and
writes to `results/benchmarks/workers.nc`, the seconds of a piece that computes next to
nothing, and those of `marion2025/histogram` (200 pieces of its size `book`) in this
process and on `--workers` processes, with the cores that this process keeps busy
meanwhile. With `--scheduler ADDRESS` also on that Dask cluster. Every run is checked
against the first, bit by bit.
"""

import argparse
import contextlib
import dataclasses
import time
from concurrent.futures import Executor
from pathlib import Path

import jax
import jax.random as jr
import xarray as xr

from deeplimits import experiments, results
from deeplimits.experiments import executors

DRAWS = 4000  # in 200 pieces
SMALL = {"width": 2, "depth": 1, "inputs": 1, "draws": 200, "batch": 1}


def seconds(experiment, config, executor: Executor | None) -> tuple[float, xr.Dataset]:
    """Of a run, and what it found."""
    start = time.perf_counter()
    found = experiment.run(config, key=jr.key(0), executor=executor)
    return time.perf_counter() - start, found


def measure(where: str, executor: Executor | None, reference: xr.Dataset | None):
    """A row: the overhead of a piece, and the seconds of the experiment; and what it
    found. Workers import and compile in a run before the one that is measured."""
    histogram = experiments.find("marion2025/histogram")
    config = dataclasses.replace(histogram.preset("book"), draws=DRAWS)
    small = dataclasses.replace(config, **SMALL)
    for sizes in (small, config):
        seconds(histogram, sizes, executor)
    overhead = seconds(histogram, small, executor)[0] / SMALL["draws"]
    cpu = time.process_time()
    spent, found = seconds(histogram, config, executor)
    cores = (time.process_time() - cpu) / spent
    if reference is not None and not found.identical(reference):
        raise ValueError(f"{where} found other numbers than one process.")
    took = f"{1e3 * overhead:8.2f} ms a piece {spent:8.1f} s, {cores:.2f} cores"
    print(f"{where:12} {took}", flush=True)
    return {"overhead": overhead, "seconds": spent, "cores": cores}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler", help="address of a Dask cluster, measured too")
    parser.add_argument("--output", default="results/benchmarks/workers.nc", type=Path)
    options = parser.parse_args()
    places = {
        "one process": contextlib.nullcontext(),
        f"{options.workers} processes": executors.processes(options.workers),
    }
    if options.scheduler:
        places["a cluster"] = executors.cluster(options.scheduler)
    start, rows, found = time.perf_counter(), {}, None
    for where, place in places.items():
        with place as executor:
            rows[where], found = measure(where, executor, found)
    alone = rows["one process"]["seconds"]
    for where, row in rows.items():
        print(f"{where:12} {alone / row['seconds']:8.2f} times as fast")
    dataset = xr.Dataset(
        {
            n: ("where", [row[n] for row in rows.values()])
            for n in ("overhead", "seconds", "cores")
        }
    ).assign_coords(where=list(rows))
    results.save(
        dataset,
        options.output,
        config={"small": SMALL, "draws": DRAWS, "workers": options.workers},
        seed=0,
        wall_seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
