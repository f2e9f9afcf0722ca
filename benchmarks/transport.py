"""What control and transport cost, against what they cannot do without.

Run `python benchmarks/transport.py`: everything in one process, in float64 and on one
device. It writes `results/benchmarks/transport-<device>.nc`:

- Benamou and Brenier between two normal laws in the plane, by default on 64 x 64 cells
  and 32 steps to a residual of 1e-4, in seconds ("solve"), and one of its iterations,
  against the bare cosine transforms there and back (by matrices, as in the library, and
  by Fourier's) and the cubic roots;
- iterations of L-BFGS to a gradient of 1e-9 in L2 along the number of steps of a
  control problem, in the variables of the library ("whitened") and in the controls
  themselves ("raw");
- a forward-backward sweep against one gradient.

Times are taken in turn, and of each the best of several rounds is kept (of the solve
there is one); compilation is not counted.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.scipy import fft

from deeplimits import control, results, transport
from deeplimits.measures import Gaussian
from deeplimits.variational.descent import Landscape, descend

jax.config.update("jax_enable_x64", True)
GOAL, SWEEPS, ITERATIONS = 1e-9, 20, 100
LAWS = (
    Gaussian(np.array([0.35, 0.35]), np.diag([0.1, 0.06]) ** 2),
    Gaussian(np.array([0.65, 0.6]), np.array([[0.006, 0.003], [0.003, 0.008]])),
)
# Bars that a number of one run has to pass, where there is one.
BARS = {
    "Benamou-Brenier, seconds": "at most 60 on two cores",
    "iteration / (transforms + roots)": "at most 4",
    "whitened iterations, most / fewest": "at most 1.5",
}


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, to the last byte of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def timed(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best of the rounds of each, in turn, after one that compiles."""
    times = [[clock(call) for call in calls.values()] for _ in range(rounds + 1)]
    return dict(zip(calls, np.min(times[1:], axis=0).tolist(), strict=True))


def masses(law: Gaussian, cells: int) -> np.ndarray:
    """Of the cells of the unit square, by the density at their centres."""
    x = (np.arange(cells) + 0.5) / cells
    away = np.stack(np.meshgrid(x, x, indexing="ij"), -1) - np.asarray(law.mean)
    inverse = np.linalg.inv(law.covariance)
    density = np.exp(-np.einsum("...i,ij,...j", away, inverse, away) / 2)
    return density / density.sum()


def dynamic(cells: int, steps: int, **options: float) -> transport.Dynamic:
    laws = [masses(law, cells) for law in LAWS]
    return transport.benamou_brenier(*laws, steps=steps, **options)


def iterated(cells: int, steps: int) -> transport.Dynamic:
    return dynamic(cells, steps, tolerance=1e-12, max_iterations=ITERATIONS)


def solved(cells: int, steps: int) -> tuple[dict[str, float], float]:
    """What is found, and in how many seconds once its program is there."""
    iterated(cells, steps)
    start = time.perf_counter()
    found = dynamic(cells, steps, tolerance=1e-4)
    seconds = time.perf_counter() - start
    return {
        "cells": cells,
        "steps": steps,
        "value / exact": found.value / float(transport.bures(*LAWS)) ** 2,
        "residual": found.residual,
        "iterations": found.iterations,
        "solved": found.solved,
    }, seconds


def bare(cells: int, steps: int) -> dict[str, Callable[[], object]]:
    """The transforms forwards and back, and the roots, of one iteration."""
    sizes = (steps, cells, cells)
    spacings = tuple(jnp.asarray(1 / n) for n in sizes)
    flat = jnp.ones((cells, cells))
    grid = transport.Staggered(flat, flat, spacings, steps)
    rng = np.random.default_rng(0)
    source, square = (jnp.asarray(rng.uniform(size=sizes)) for _ in range(2))
    by_matrices = jax.jit(lambda grid, f: grid.potential(f))
    by_fourier = jax.jit(
        lambda f: fft.idctn(fft.dctn(f, norm="ortho") / 2, norm="ortho")
    )
    roots = jax.jit(lambda r, q2: transport.kinetic_root(r - 0.5, q2, 1.0))
    return {
        "transforms": lambda: by_matrices(grid, source),
        "fourier": lambda: by_fourier(source),
        "roots": lambda: roots(source, square),
    }


def problem() -> control.ControlProblem:
    return control.ControlProblem(*control.bumps(), decay=0.1)


@jax.jit
def value_and_gradient(problem, theta):
    return jax.value_and_grad(lambda theta: problem.value(theta))(theta)


def raw(problem: control.ControlProblem, steps: int) -> tuple[int, float]:
    """L-BFGS in the controls, to the same gradient in L2."""
    landscape = Landscape(lambda x: value_and_gradient(problem, x), np.float64)
    goal = GOAL / np.sqrt(steps)
    found = descend(landscape, np.ones(steps), tolerance=goal)
    return found.iterations, found.norm * np.sqrt(steps)


def descents(depths: list[int]) -> xr.Dataset:
    """Iterations, and the gradient in the end, of both kinds of variables."""
    rows = {}
    for depth in depths:
        found = control.direct(problem(), jnp.ones(depth), tolerance=GOAL)
        rows["whitened", depth] = found.iterations, found.residual
        rows["raw", depth] = raw(problem(), depth)
    return xr.Dataset(
        {
            "iterations": ("solve", [row[0] for row in rows.values()]),
            "gradient_norm": ("solve", [row[1] for row in rows.values()]),
            "variables": ("solve", [name for name, _ in rows]),
            "depth": ("solve", [depth for _, depth in rows]),
        }
    )


def control_calls(steps: int) -> dict[str, Callable[[], object]]:
    """One gradient, by the costates and by differentiation, and `SWEEPS` sweeps."""
    this, theta = problem(), jnp.ones(steps)
    by_costates = jax.jit(lambda theta: this.gradient(theta))
    options = {"tolerance": 1e-30, "max_sweeps": SWEEPS}
    return {
        "gradient": lambda: by_costates(theta),
        "autodiff": lambda: value_and_gradient(this, theta),
        "sweeps": lambda: control.sweep(this, theta, **options).theta,
    }


def ratios(solves: xr.Dataset, seconds: dict[str, float]) -> dict[str, float]:
    """Whose share of whose time or iterations is of interest."""
    table = solves.to_dataframe().set_index(["variables", "depth"]).iterations
    found = {
        "Benamou-Brenier, seconds": seconds["solve"],
        "iteration / (transforms + roots)": seconds["iteration"]
        / (seconds["transforms"] + seconds["roots"]),
        "fourier / transforms": seconds["fourier"] / seconds["transforms"],
        "sweep / gradient": seconds["sweep"] / seconds["gradient"],
        "autodiff / gradient": seconds["autodiff"] / seconds["gradient"],
    }
    for name in ("whitened", "raw"):
        counts = table.loc[name]
        found[f"{name} iterations, most / fewest"] = counts.max() / counts.min()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument(
        "--depths", type=int, nargs="+", default=[10, 20, 40, 80, 160, 320]
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    size = options.cells, options.steps
    (found, spent), solves = solved(*size), descents(options.depths)
    calls = {"iterations": lambda: iterated(*size)} | bare(*size)
    seconds = timed(calls | control_calls(max(options.depths)), options.rounds)
    seconds["iteration"] = seconds.pop("iterations") / ITERATIONS
    seconds["sweep"] = seconds.pop("sweeps") / (SWEEPS + 1)  # one look before the first
    seconds["solve"] = spent
    dataset = solves.assign(seconds=("case", list(seconds.values())))
    dataset = dataset.assign_coords(case=list(seconds))
    dataset = dataset.assign(found=("quantity", [float(v) for v in found.values()]))
    dataset = dataset.assign_coords(quantity=list(found))
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"transport-{platform}.nc")
    config = {k: v for k, v in vars(options).items() if k != "output"}
    wall = time.perf_counter() - begin
    results.save(dataset, path, config=config, seed=0, wall_seconds=wall)
    print(solves.to_dataframe().to_string(), "\n")
    print((1e3 * dataset.seconds).to_pandas().round(4).to_string(), "\nms, each\n")
    print(dataset.found.to_pandas().to_string(), "\n")
    for name, value in ratios(solves, seconds).items():
        print(f"{name}: {value:.2f}", f"({BARS[name]})" if name in BARS else "")


if __name__ == "__main__":
    main()
