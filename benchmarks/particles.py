"""What particles and their mean field cost, against what they cannot do without.

Run `python benchmarks/particles.py`: everything in one process, one after the other in
rounds, in float32 and on one device, but for the particles in blocks, which are spread
over several (on a CPU two, of one core each). It writes
`results/benchmarks/particles-<device>.nc`: the best of several rounds, in seconds, for
one layer of all particles, one step of all cells, one steering. Compilation is not
counted. PyTorch (group `bench`) is left out with a note where it is missing.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr

from deeplimits import devices, meanfield, results, steering
from deeplimits.residual import OneLayer

Call = tuple[Callable[[], object], int]  # and how many layers or steps it makes
BLOCK = 10_000  # particles: 80 kB, which stay in the cache through all layers
W = np.asarray([[0.5, -2.0], [1.0, -0.75]], np.float32)
# Whose share of whose time is of interest: a bar of the plan, where there is one.
RATIOS = (
    ("flow", "bound"),
    ("flow in blocks", "bound"),
    ("flow, a tenth of the particles", "flow"),
    ("flow, a tenth of the layers", "flow"),
    ("numpy", "flow"),
    ("torch", "flow"),
    ("upwind", "stream of upwind"),
    ("MC", "stream of MC"),
    ("MC, a quarter of the cells", "MC"),
    ("Fokker-Planck", "banded solve"),
)


def control(depth: int) -> OneLayer:
    weight = jnp.broadcast_to(jnp.asarray(W), (depth, 2, 2))
    return OneLayer(weight, jnp.full((depth, 2), 0.1, jnp.float32))


@partial(jax.jit, static_argnums=(0, 2))
def repeated(function, x, count):
    return jax.lax.fori_loop(0, count, lambda _, x: function(x), x)


def streamed(x):
    """The array read and written, with as little arithmetic as keeps it from going."""
    return 0.999 * x + 1e-3


def particles(count: int, depth: int) -> dict[str, Call]:
    """A layer: of the library, of NumPy and PyTorch, and its two bounds alone."""
    x = jr.normal(jr.key(0), (2, count))
    host, short = np.asarray(x), max(1, depth // 50)

    def flow(x, depth):
        network = control(depth)
        return lambda: meanfield.flow(x, network)

    def in_blocks(x, depth):
        network, parts = control(depth), len(jax.devices())
        size = min(BLOCK, count // parts)
        blocks = jnp.moveaxis(x.reshape(2, parts, -1, size), 0, 2)
        through = partial(jax.lax.map, lambda block: meanfield.flow(block, network))
        spread = jax.jit(devices.over_devices(through))
        return lambda: spread(blocks)

    def numpy():
        y = host
        for _ in range(short):
            y = y + np.tanh(W @ y + np.float32(0.1)) / depth
        return y

    return {
        "flow": (flow(x, depth), depth),
        "flow in blocks": (in_blocks(x, depth), depth),
        "flow, a tenth of the particles": (flow(x[:, ::10], depth), depth),
        "flow, a tenth of the layers": (flow(x, depth // 10), depth // 10),
        "stream": (lambda: repeated(streamed, x, depth), depth),
        "tanh": (lambda: repeated(jnp.tanh, x, depth), depth),
        "numpy": (numpy, short),
    } | torch(host, depth, short)


def torch(host: np.ndarray, depth: int, short: int) -> dict[str, Call]:
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: its comparison is left out (group bench).")
        return {}
    torch.set_num_threads(1)
    x, weight = torch.tensor(host), torch.tensor(W)

    def loop():
        y = x
        for _ in range(short):
            y = y + torch.tanh(weight @ y + 0.1) / depth
        return y

    return {"torch": (loop, short)}


def bell(cells: int):
    edges = jnp.linspace(-4, 4, cells + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    g = jnp.exp(-((middles[:, None] - 0.5) ** 2) - 2 * middles**2)
    return g / (g.sum() * (8 / cells) ** 2), (edges, edges)


def cells(cells: int, steps: int) -> dict[str, Call]:
    """A step of both schemes; reading the density and the speeds, and writing it."""

    def scheme(cells, order):
        g, edges = bell(cells)
        settings = {"order": order, "steps": steps, "duration": 1e-3 * steps}
        found = partial(meanfield.transport, g, edges, control(1), **settings)
        return (lambda: found().density), steps

    g, _ = bell(cells)
    speeds = jr.normal(jr.key(1), (2, cells, cells))  # alike, they would not be read

    def touch(g):
        return g + 1e-6 * (speeds[0] * g + speeds[1])

    return {
        "upwind": scheme(cells, 1),
        "MC": scheme(cells, 2),
        "MC, a quarter of the cells": scheme(cells // 2, 2),
        "stream of upwind": (lambda: repeated(touch, g, steps), steps),
        "stream of MC": (lambda: repeated(touch, g, 2 * steps), steps),  # two stages
    }


def fokker_planck(cells: int, steps: int) -> dict[str, Call]:
    edges = jnp.linspace(-8, 8, cells + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    g = jnp.exp(-(middles**2)) / jnp.pi**0.5
    drift, noise = meanfield.line_control(-1.0, 0.3), meanfield.Noise(0.5)
    evolve = partial(meanfield.evolve, g, edges, drift, noise, steps=steps)
    bands = jnp.full(cells, -0.2), jnp.full(cells, 1.4), jnp.full(cells, -0.2)

    def solve(p):
        return jax.lax.linalg.tridiagonal_solve(*bands, p[:, None])[:, 0]

    return {
        "Fokker-Planck": (lambda: evolve().density, steps),
        "banded solve": (lambda: repeated(solve, g, steps), steps),
    }


def steered(count: int) -> dict[str, Call]:
    draws = np.random.default_rng(0).uniform(size=(2, count, 2))
    return {"steering": (lambda: steering.steer(*draws).durations, 1)}


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, to the last byte of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """The best of the rounds, of one layer or step; the first one warms up."""
    times = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, (call, _) in calls.items():
            times[name].append(clock(call))
    return {name: min(times[name][1:]) / count for name, (_, count) in calls.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--particles", type=int, default=10**6)
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--points", type=int, default=64)
    parser.add_argument("--devices", type=int, default=2, help="of a CPU")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    begin = time.perf_counter()
    groups = (
        particles(options.particles, options.depth),
        cells(options.cells, options.steps),
        fokker_planck(options.cells, options.steps),
        steered(options.points),
    )
    seconds: dict[str, float] = {}
    for calls in groups:
        seconds |= measure(calls, options.rounds)
    seconds["bound"] = max(seconds["stream"], seconds["tanh"])
    dataset = xr.Dataset(
        {"seconds": ("case", list(seconds.values()))}, {"case": list(seconds)}
    )
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"particles-{platform}.nc")
    config = {k: v for k, v in vars(options).items() if k != "output"}
    wall = time.perf_counter() - begin
    results.save(dataset, path, config=config, seed=0, wall_seconds=wall)
    print((1e3 * dataset.seconds).to_pandas().round(4).to_string(), "\nms, each\n")
    for name, other in RATIOS:
        if name in seconds:
            print(f"{name} / {other}: {seconds[name] / seconds[other]:.2f}")


if __name__ == "__main__":
    main()
