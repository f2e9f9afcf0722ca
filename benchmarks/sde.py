"""The stochastic limits by a scan over steps and by diffrax: the same steps, timed.

Run `python benchmarks/sde.py`: 64 paths of 4,096 steps at width 10, each equation
compiled both ways, in one process and in turn. It writes
`results/benchmarks/sde-<device>.nc`: the best of several rounds, in seconds, and the
compile times apart.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr

from deeplimits import results
from deeplimits.continuous import NeuralSDE, OneLayerSDE

STEPS, PATHS, WIDTH = 4096, 64, 10


def cases(steps: int, paths: int) -> dict:
    """By equation and method: a function of the paths' noise, and the noise."""
    start_key, noise_key = jr.split(jr.key(0))
    x = jr.normal(start_key, (WIDTH,))
    noise = jr.normal(noise_key, (paths, steps, WIDTH, WIDTH + 1))
    independent = NeuralSDE("tanh")
    trend = OneLayerSDE(
        jnp.eye(WIDTH),
        jnp.ones(WIDTH),
        std_matrix=0.3,
        std_bias=0.3,
        activation="centred softplus",
    )
    square = noise[..., :-1]
    return {
        ("independent", "scan"): (lambda z: independent.network(z)(x), square),
        ("independent", "diffrax"): (lambda z: independent(x, z), square),
        ("trend and noise", "scan"): (lambda z: trend.scan(x, z), noise),
        ("trend and noise", "diffrax"): (lambda z: trend(x, z), noise),
    }


def clock(call) -> float:
    """Seconds of one call, to the last byte of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(steps: int, paths: int, rounds: int) -> xr.Dataset:
    """Seconds to run and to compile, by equation and method."""
    programs, compiling, ends = {}, {}, {}
    for name, (function, noise) in cases(steps, paths).items():
        jax.block_until_ready(noise)
        start = time.perf_counter()
        program = jax.jit(jax.vmap(function)).lower(noise).compile()
        compiling[name] = time.perf_counter() - start
        programs[name] = program, noise
        ends[name] = np.asarray(program(noise))
    for equation in ("independent", "trend and noise"):
        np.testing.assert_allclose(
            ends[equation, "scan"], ends[equation, "diffrax"], rtol=1e-3, atol=1e-3
        )
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, (program, noise) in programs.items():
            times[name].append(clock(lambda p=program, z=noise: p(z)))
    equations, methods = ("independent", "trend and noise"), ("scan", "diffrax")

    def table(values):
        rows = [[values[equation, m] for m in methods] for equation in equations]
        return ("equation", "method"), rows

    best = {name: min(seconds) for name, seconds in times.items()}
    return xr.Dataset(
        {"seconds": table(best), "compile_seconds": table(compiling)},
        {"equation": list(equations), "method": list(methods)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    dataset = measure(STEPS, PATHS, options.rounds)
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"sde-{platform}.nc")
    config = {"steps": STEPS, "paths": PATHS, "width": WIDTH, "rounds": options.rounds}
    seconds = time.perf_counter() - start
    results.save(dataset, path, config=config, seed=0, wall_seconds=seconds)
    print(dataset.seconds.to_pandas())
    print(dataset.compile_seconds.to_pandas())


if __name__ == "__main__":
    main()
