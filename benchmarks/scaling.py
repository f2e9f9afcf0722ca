"""What a training step of Cohen et al. costs, against PyTorch, and seeds at once.

Run `python benchmarks/scaling.py`: tanh with one delta, width 10, batches of 32, Adam,
at depths 1,000 and 10,000, in one process, one after the other in rounds. It writes
`results/benchmarks/scaling-<device>.nc`. PyTorch (group `bench`) runs a loop over
unbound layers, the best that we know; without it that column is left out with a note.
All times are the best of several rounds, in seconds; compilation is not counted.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import xarray as xr

from deeplimits import datasets, results
from deeplimits.experiments import cohen2021
from deeplimits.experiments.cohen2021 import setting
from deeplimits.training import mean_square_entry

D, BATCH, RATE = 10, 32, 1e-2
SEEDS = 5


def start(depth: int, key):
    """The network before training, and a batch."""
    draw_key, data_key = jr.split(key)
    draws = jr.normal(draw_key, (depth, D + 2, D))
    return cohen2021.network(draws), datasets.flow_pairs(BATCH, key=data_key)


def program(depth: int, seeds: int, steps: int) -> Callable[[], object]:
    """`steps` updates of the library for `seeds` seeds at once, compiled."""
    optimiser = optax.adam(RATE)

    def train(key):
        model, data = start(depth, key)
        params, fixed = eqx.partition(model, eqx.is_inexact_array)

        def update(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: mean_square_entry(eqx.combine(p, fixed), data))(
                params
            )
            changes, state = optimiser.update(grads, state, params)
            return (eqx.apply_updates(params, changes), state), None

        carry = (params, optimiser.init(params))
        return jax.lax.scan(update, carry, length=steps)[0][0]

    keys = jr.split(jr.key(0), seeds)
    function = jax.vmap(train) if seeds > 1 else lambda keys: train(keys[0])
    compiled = jax.jit(function).lower(keys).compile()
    return lambda: compiled(keys)


def torch_step(depth: int, indexed: bool) -> Callable[[], None] | None:
    """The same update as an eager loop over layers in PyTorch, or None without it.

    `indexed` takes layer k as `weight[k]`, as one writes it: the gradient of each
    indexing is then a zero array of the size of all layers.
    """
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)  # with more, so small products are slower
    model, (x, y) = start(depth, jr.key(0))
    block = setting.layers(model)
    weight, bias, delta = (
        torch.tensor(np.asarray(z), requires_grad=True)
        for z in (block.weight, block.bias, model.scale)
    )
    x, y = torch.tensor(np.asarray(x)), torch.tensor(np.asarray(y))
    optimiser = torch.optim.Adam([weight, bias, delta], lr=RATE)

    def step():
        h, size = x, delta.abs()
        unbound = zip(weight.unbind(), bias.unbind(), strict=True)
        indices = ((weight[k], bias[k]) for k in range(depth))
        for a, b in indices if indexed else unbound:
            h = h + size * torch.tanh(torch.addmm(b, h, a.T))
        optimiser.zero_grad()
        ((h - y) ** 2).mean().backward()
        optimiser.step()

    return step


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, to the last byte of its result."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def measure(depth: int, rounds: int, steps: int) -> dict[str, float]:
    """Seconds of a step: PyTorch, one seed, and a seed's share of several at once."""
    eager = torch_step(depth, indexed=False)
    calls = {"one": program(depth, 1, steps), "several": program(depth, SEEDS, steps)}
    if eager is None:
        print("PyTorch is not installed: its comparison is left out (group bench).")
    else:
        calls["torch"] = eager
        if depth <= 1000:  # beyond, its quadratic cost takes minutes
            calls["torch indexed"] = torch_step(depth, indexed=True)
    times = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first round warms up
        for name, call in calls.items():
            times[name].append(clock(call))
    share = {"one": steps, "several": steps * SEEDS}
    best = {name: min(found[1:]) for name, found in times.items()}
    return {name: seconds / share.get(name, 1) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    rows = [measure(L, options.rounds, max(2, 20_000 // L)) for L in options.depths]
    kinds = list(rows[0])
    dataset = xr.Dataset(
        {
            "seconds": (
                ("depth", "kind"),
                [[row.get(k, np.nan) for k in kinds] for row in rows],
            )
        },
        {"depth": options.depths, "kind": kinds},
    )
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"scaling-{platform}.nc")
    config = {"d": D, "batch": BATCH, "seeds": SEEDS, "rounds": options.rounds}
    seconds = time.perf_counter() - begin
    results.save(dataset, path, config=config, seed=0, wall_seconds=seconds)
    print((1e3 * dataset.seconds).round(2).to_pandas(), "ms a step")
    print((dataset.seconds / dataset.seconds.sel(kind="one")).round(2).to_pandas())


if __name__ == "__main__":
    main()
