"""What training as a variational problem costs, against what it cannot do without.

Run `python benchmarks/variational.py`: everything in one process, in float64 and on one
device, on the planar rings. It writes `results/benchmarks/variational-<device>.nc`:
iterations of L-BFGS, with 80 pairs, to |g| < 1e-7 along depth (or to where rounding
stops it, which is said), in whitened increments and in the weights themselves ("raw"),
the median seconds of several such searches, the same from random starts at one depth,
and the best of several rounds, in seconds, of one gradient.
Compilation is not counted. PyTorch (group `bench`) is left out with a note where it is
missing. With `--memories` it times instead the searches at one depth with several
numbers of pairs that L-BFGS keeps, in both kinds of variables, and writes
`results/benchmarks/memories-<device>.nc`.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr

from deeplimits import datasets, results, variational
from deeplimits.variational import Minimum, Parameters, Problem, whitening

jax.config.update("jax_enable_x64", True)
ALPHA, GOAL, START, TRIES = 0.01, 1e-7, 3, 7
COLD, COLD_TRIES = tuple(range(21, 45)), 1  # keys of the random starts
PAIRS = 80  # of steps, that L-BFGS keeps in both kinds of variables
SAME = 1e-6  # between energies of one minimum
MEMORIES, MEMORY_TRIES = (10, 20, 40, 80, 160), 3
# Bars that a ratio of one run has to pass, where there is one.
BARS = {
    "whitened iterations, most / fewest": "at most 2.5",
    "raw / whitened, time at one depth": "at least 10",
    "raw / whitened, time from random starts, median": "at least 10",
    "raw / whitened, the same with one end": "at least 10",
    "gradient / bare": "at most 3",
}


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, to the last byte of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def timed(
    problem: Problem, start: Parameters, *, tries: int = TRIES, **options
) -> tuple[Minimum, float]:
    """What L-BFGS finds, and the median seconds of several equal searches, once its
    program is there."""
    settings = {"memory": PAIRS} | options
    search = functools.partial(variational.minimise, problem, start, **settings)
    search(max_iterations=2)
    found = search(tolerance=GOAL, polish=False)
    spent = []
    for _ in range(tries):
        begin = time.perf_counter()
        search(tolerance=GOAL, polish=False)
        spent.append(time.perf_counter() - begin)
    return found, float(np.median(spent))


def lowest_found(problem: Problem) -> Parameters:
    """The branch to follow: its start at depth 16 was found among sixty, with 20 pairs;
    another number of them leads to another minimum."""
    like = variational.one_layer(16, 2)
    start = variational.random_start(problem, like, key=jr.key(START))
    return variational.minimise(problem, start, memory=20).parameters


def iterations(problem: Problem, depths: list[int], raw: int) -> xr.Dataset:
    """From the interpolated minimiser of depth 16 at every depth."""
    coarse, rows = lowest_found(problem), {}
    for depth in depths:
        start = variational.refined(problem, coarse, depth)
        rows[depth, "whitened"] = timed(problem, start)
    start = variational.refined(problem, coarse, raw)
    rows[raw, "raw"] = timed(problem, start, variables="raw")
    if raw not in depths:
        rows[raw, "whitened"] = timed(problem, start)
    keys = list(rows)
    return xr.Dataset(
        {
            "iterations": ("solve", [rows[key][0].iterations for key in keys]),
            "solve_seconds": ("solve", [rows[key][1] for key in keys]),
            "gradient_norm": ("solve", [rows[key][0].gradient_norm for key in keys]),
            "energy": ("solve", [rows[key][0].value for key in keys]),
            "depth": ("solve", [depth for depth, _ in keys]),
            "variables": ("solve", [name for _, name in keys]),
        }
    )


def from_random_starts(problem: Problem, depth: int) -> xr.Dataset:
    """Both kinds of variables from the same starts, and how far each comes: the norm
    of the gradient in whitened increments at its end."""
    like, rows = variational.one_layer(depth, 2), []
    layout = whitening.layout_of(problem, like, "whitened")
    for key in COLD:
        start = variational.random_start(problem, like, key=jr.key(key))
        for variables in whitening.VARIABLES:
            options = {"variables": variables, "tries": COLD_TRIES}
            found, seconds = timed(problem, start, **options)
            flat = variational.whitened(problem, found.parameters)
            slope = whitening.value_and_gradient(problem, flat, layout)[1]
            norm = float(jnp.linalg.norm(slope))
            rows.append((found.iterations, seconds, norm, found.value))
    names = ("iterations", "solve_seconds", "gradient_norm", "energy")
    table = np.array(rows).reshape(len(COLD), 2, len(names))
    return xr.Dataset(
        {
            f"cold_{name}": (("start", "kind"), table[..., n])
            for n, name in enumerate(names)
        },
        coords={"start": list(COLD), "kind": list(whitening.VARIABLES)},
    )


def by_memory(problem: Problem, depth: int) -> xr.Dataset:
    """From the interpolated minimiser of depth 16, with each number of pairs."""
    start, rows = variational.refined(problem, lowest_found(problem), depth), []
    for variables in whitening.VARIABLES:
        for memory in MEMORIES:
            options = {"variables": variables, "memory": memory}
            found, seconds = timed(problem, start, tries=MEMORY_TRIES, **options)
            rows.append((found.iterations, seconds, found.gradient_norm, found.value))
    names = ("iterations", "solve_seconds", "gradient_norm", "energy")
    table = np.array(rows).reshape(2, len(MEMORIES), len(names))
    return xr.Dataset(
        {name: (("kind", "memory"), table[..., n]) for n, name in enumerate(names)},
        {"kind": list(whitening.VARIABLES), "memory": list(MEMORIES)},
    )


def bare(problem: Problem, parameters: Parameters) -> Callable[[], object]:
    """The products and activations of both passes, written out: two products and tanh
    forward; two products and a sum backward. No penalty, no reading, no whitening."""
    n, block = parameters.nodes, parameters.block

    @jax.jit
    def passes(x, weights, biases):
        def forward(x, layer):
            a = jnp.tanh(x @ layer[0].T + layer[1][None])
            return x + a / n, (x, a)

        def backward(p, layer):
            weight, x, a = layer
            q = p * (1 - a**2) / n
            return p + q @ weight, (q.T @ x, q.sum(0))

        last, (states, activations) = jax.lax.scan(forward, x, (weights, biases))
        layers = weights, states, activations
        return jax.lax.scan(backward, last, layers, reverse=True)

    return lambda: passes(problem.inputs, block.weight, block.bias)


def torch(problem: Problem, parameters: Parameters) -> dict[str, Callable[[], object]]:
    """Autograd of PyTorch on the same functional."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its comparison is left out (group bench).")
        return {}
    torch.set_num_threads(1)
    leaves = [
        torch.tensor(np.asarray(z), requires_grad=True)
        for z in jax.tree.leaves(parameters)
    ]
    inputs, labels = (
        torch.tensor(np.asarray(a)) for a in (problem.inputs, problem.labels)
    )
    n = parameters.nodes

    def gradient():
        K, b, W, c = leaves
        x = inputs
        for i in range(n):
            x = x + torch.tanh(x @ K[i].T + b[i]) / n
        energy = ((torch.tanh(x @ W.T + c) - labels) ** 2).sum()
        for z in (K, b):
            energy = energy + ALPHA * n * ((z[1:] - z[:-1]) ** 2).sum()
            energy = energy + ALPHA * (z[0] ** 2).sum()
        energy = energy + ALPHA * ((W**2).sum() + (c**2).sum())
        return torch.autograd.grad(energy, leaves)

    return {"torch": gradient}


def gradients(problem: Problem, depth: int, rounds: int) -> dict[str, float]:
    """The best of the rounds, ten calls each, of each way to a gradient."""
    start = variational.one_layer(depth, 2)
    parameters = variational.random_start(problem, start, key=jr.key(0))
    by_adjoint = jax.jit(lambda p: variational.adjoint(problem, p).gradient)
    by_autodiff = jax.jit(lambda p: jax.grad(problem.energy)(p))
    calls = {
        "gradient": lambda: by_autodiff(parameters),
        "adjoint": lambda: by_adjoint(parameters),
        "bare": bare(problem, parameters),
    } | torch(problem, parameters)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            times[name].append(
                clock(lambda call=call: [call() for _ in range(10)]) / 10
            )
    return {name: min(values[1:]) for name, values in times.items()}


def ratios(
    solves: xr.Dataset, cold: xr.Dataset, seconds: dict[str, float], raw: int
) -> dict[str, float]:
    """Whose share of whose iterations or time is of interest."""
    rows = solves.to_dataframe().set_index(["variables", "depth"])
    counts, spent = rows.loc["whitened"].iterations, rows.solve_seconds
    random = cold["cold_solve_seconds"]
    random = random.sel(kind="raw") / random.sel(kind="whitened")
    apart = np.ptp(cold["cold_energy"].values, axis=1)
    found = {
        "whitened iterations, most / fewest": counts.max() / counts.min(),
        "raw / whitened, time at one depth": spent["raw", raw] / spent["whitened", raw],
        "raw / whitened, time from random starts, median": float(random.median()),
        "raw / whitened, the same with one end": float(random[apart < SAME].median()),
        "gradient / bare": seconds["gradient"] / seconds["bare"],
        "gradient / adjoint": seconds["gradient"] / seconds["adjoint"],
    }
    if "torch" in seconds:
        found["torch / gradient"] = seconds["torch"] / seconds["gradient"]
    return found


def save(dataset: xr.Dataset, name: str, options, begin: float) -> None:
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"{name}-{platform}.nc")
    config = {k: v for k, v in vars(options).items() if k != "output"}
    wall = time.perf_counter() - begin
    results.save(dataset, path, config=config, seed=START, wall_seconds=wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--depths", type=int, nargs="+", default=[32, 64, 128, 256, 512]
    )
    parser.add_argument("--raw", type=int, default=256)
    parser.add_argument("--memories", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    problem = Problem(*datasets.rings(), alpha=ALPHA)
    if options.memories:
        save(by_memory(problem, options.raw), "memories", options, begin)
        return
    solves = iterations(problem, options.depths, options.raw)
    cold = from_random_starts(problem, options.raw)
    seconds = gradients(problem, options.raw, options.rounds)
    timings = {"seconds": ("case", list(seconds.values())), "case": list(seconds)}
    dataset = xr.merge([solves, cold, xr.Dataset(timings)])
    save(dataset, "variational", options, begin)
    print(solves.to_dataframe().round(9).to_string(), "\n")
    print((1e3 * dataset.seconds).to_pandas().round(4).to_string(), "\nms, each\n")
    if stalled := int((solves.gradient_norm >= GOAL).sum()):
        print(f"{stalled} of {solves.solve.size} runs stopped above {GOAL:g}.")
    print(cold.to_dataframe().round(9).to_string(), "\n")
    for name, value in ratios(solves, cold, seconds, options.raw).items():
        print(f"{name}: {value:.2f}", f"({BARS[name]})" if name in BARS else "")


if __name__ == "__main__":
    main()
