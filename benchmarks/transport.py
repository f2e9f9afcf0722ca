"""What control and transport cost, against what they cannot do without.

Run `python benchmarks/transport.py`: everything in one process, in float64 and on one
device. It writes `results/benchmarks/transport-<device>.nc`:

- Benamou and Brenier between two normal laws in the plane, by default on 64 x 64 cells
  and 32 steps with 300 iterations, in seconds, and an iteration against the bare cosine
  transforms (by matrices, as in the library, and by Fourier's) and the cubic roots;
- iterations of L-BFGS to a gradient of 1e-9 in L2 along the number of steps of a
  control problem, in the variables of the library ("scaled") and in the controls;
- a forward-backward sweep against one gradient.

Of each time the best of several rounds is kept, and compilation is not counted.
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
GOAL, SWEEPS = 1e-9, 20
LAWS = (
    Gaussian(np.array([0.35, 0.35]), np.diag([0.1, 0.06]) ** 2),
    Gaussian(np.array([0.65, 0.6]), np.array([[0.006, 0.003], [0.003, 0.008]])),
)
# Bars that a number of one run has to pass, where there is one.
BARS = {
    "Benamou-Brenier, seconds": "at most 60 on two cores",
    "iteration / (transforms + roots)": "at most 4",
    "scaled iterations, most / fewest": "at most 1.5",
}


def best(call: Callable[[], object], rounds: int) -> float:
    """Seconds of one call, to the last byte of its result: the best after a first."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times[1:])


def masses(law: Gaussian, cells: int) -> np.ndarray:
    """Of the cells of the unit square, by the density at their centres."""
    x = (np.arange(cells) + 0.5) / cells
    away = np.stack(np.meshgrid(x, x, indexing="ij"), -1) - np.asarray(law.mean)
    inverse = np.linalg.inv(law.covariance)
    density = np.exp(-np.einsum("...i,ij,...j", away, inverse, away) / 2)
    return density / density.sum()


def dynamic(cells: int, steps: int, iterations: int) -> tuple[dict, float]:
    """What is found, and in how many seconds once its program is there."""
    laws = [masses(law, cells) for law in LAWS]
    options = {"steps": steps, "tolerance": 1e-12}
    transport.benamou_brenier(*laws, max_iterations=10, **options)
    start = time.perf_counter()
    found = transport.benamou_brenier(*laws, max_iterations=iterations, **options)
    seconds = time.perf_counter() - start
    exact = float(transport.bures(*LAWS)) ** 2
    return {"value / exact": found.value / exact, "residual": found.residual}, seconds


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
        rows["scaled", depth] = found.iterations, found.residual
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


def ratios(solves: xr.Dataset, seconds: dict[str, float], iterations: int) -> dict:
    """Whose share of whose time or iterations is of interest."""
    table = solves.to_dataframe().set_index(["variables", "depth"]).iterations
    step = seconds["Benamou-Brenier"] / iterations
    sweep = seconds["sweeps"] / (SWEEPS + 1)  # it looks once before the first
    found = {
        "Benamou-Brenier, seconds": seconds["Benamou-Brenier"],
        "iteration / (transforms + roots)": step
        / (seconds["transforms"] + seconds["roots"]),
        "fourier / transforms": seconds["fourier"] / seconds["transforms"],
        "sweep / gradient": sweep / seconds["gradient"],
        "autodiff / gradient": seconds["autodiff"] / seconds["gradient"],
    }
    for name in ("scaled", "raw"):
        counts = table.loc[name]
        found[f"{name} iterations, most / fewest"] = counts.max() / counts.min()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument(
        "--depths", type=int, nargs="+", default=[10, 20, 40, 80, 160, 320]
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    found, spent = dynamic(options.cells, options.steps, options.iterations)
    solves = descents(options.depths)
    calls = bare(options.cells, options.steps) | control_calls(max(options.depths))
    seconds = {name: best(call, options.rounds) for name, call in calls.items()}
    seconds["Benamou-Brenier"] = spent
    dataset = solves.assign(seconds=("case", list(seconds.values())))
    dataset = dataset.assign_coords(case=list(seconds))
    dataset = dataset.assign(found=("quantity", list(found.values())))
    dataset = dataset.assign_coords(quantity=list(found))
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"transport-{platform}.nc")
    config = {k: v for k, v in vars(options).items() if k != "output"}
    wall = time.perf_counter() - begin
    results.save(dataset, path, config=config, seed=0, wall_seconds=wall)
    print(solves.to_dataframe().to_string(), "\n")
    print((1e3 * dataset.seconds).to_pandas().round(4).to_string(), "\nms, each\n")
    print(dataset.found.to_pandas().to_string(), "\n")
    for name, value in ratios(solves, seconds, options.iterations).items():
        print(f"{name}: {value:.2f}", f"({BARS[name]})" if name in BARS else "")


if __name__ == "__main__":
    main()
