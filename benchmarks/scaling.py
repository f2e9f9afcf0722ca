"""What a training step of Cohen et al. costs, against PyTorch, and seeds at once.

Run `python benchmarks/scaling.py`: tanh with one delta, width 10, batches of 32, Adam,
at depths 1,000 and 10,000, in one process, one after the other in rounds. It writes
`results/benchmarks/scaling-<device>.nc`. PyTorch (group `bench`) runs three loops over
layers, see `torch_step`; without it those columns are left out with a note. All times
are the best of several rounds, in seconds; compilation is not counted. Every core is a
device of its own, for the seeds that are spread over them.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import xarray as xr

from deeplimits import datasets, results
from deeplimits.devices import over_devices
from deeplimits.experiments.cohen2021 import setting
from deeplimits.losses import mean_square_entry

# on a GPU too, as PyTorch does there
jax.config.update("jax_default_matmul_precision", "float32")

D, BATCH, RATE = 10, 32, 1e-2
SEEDS = 6
LOOPS = ("modules", "indexed", "unbound")


def start(depth: int, key):
    """The network before training, and a batch."""
    draw_key, data_key = jr.split(key)
    draws = jr.normal(draw_key, (depth, D + 2, D))
    return setting.network(draws), datasets.flow_pairs(BATCH, key=data_key)


def program(
    depth: int, seeds: int, steps: int, mapped=jax.vmap
) -> Callable[[], object]:
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
    function = mapped(train) if seeds > 1 else lambda keys: train(keys[0])
    compiled = jax.jit(function).lower(keys).compile()
    return lambda: compiled(keys)


def torch_step(depth: int, kind: str) -> Callable[[], None] | None:
    """The same update as an eager loop over layers in PyTorch, or None without it.

    "modules": a list of `Linear` layers under its Adam, as its tutorials write it.
    "indexed": one stack of weights for all layers, from which the loop takes
    `weight[k]`; the gradient of each indexing is a zero array of the size of the stack.
    "unbound": the stack taken apart once, the best loop that we know.
    """
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)  # with more, so small products are slower
    model, data = start(depth, jr.key(0))
    block = setting.layers(model)
    x, y, weight, bias, delta = (
        torch.tensor(np.asarray(z))
        for z in (*data, block.weight, block.bias, model.scale)
    )
    modules = torch.nn.ModuleList()
    if kind == "modules":
        for k in range(depth):
            layer = torch.nn.Linear(D, D)
            layer.weight.data, layer.bias.data = weight[k].clone(), bias[k].clone()
            modules.append(layer)
        stacks = list(modules.parameters())
    else:
        stacks = [weight, bias]
    parameters = [z.requires_grad_() for z in (*stacks, delta)]
    optimiser = torch.optim.Adam(parameters, lr=RATE)

    def layers():
        if kind == "modules":
            return modules
        pairs = zip(weight.unbind(), bias.unbind(), strict=True)
        indexed = ((weight[k], bias[k]) for k in range(depth))
        affine = torch.nn.functional.linear
        return (
            lambda h, a=a, b=b: affine(h, a, b)
            for a, b in (indexed if kind == "indexed" else pairs)
        )

    def step():
        h, size = x, delta.abs()
        for layer in layers():
            h = h + size * torch.tanh(layer(h))
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
    """Seconds of a step: one seed, a seed's share of several at once, and PyTorch's."""
    calls = {
        "one": program(depth, 1, steps),
        "vmap": program(depth, SEEDS, steps),
        "devices": program(depth, SEEDS, steps, over_devices),
    }
    # the cost of indexing is quadratic: beyond, it takes minutes
    loops = [kind for kind in LOOPS if kind != "indexed" or depth <= 1000]
    calls |= {kind: torch_step(depth, kind) for kind in loops}
    if None in calls.values():
        print("PyTorch is not installed: its comparison is left out (group bench).")
        calls = {name: call for name, call in calls.items() if call}
    gc.freeze()  # what was built so far would slow an eager loop's garbage collection
    times = {name: [] for name in calls}
    for _ in range(rounds + 1):  # the first round warms up
        for name, call in calls.items():
            times[name].append(clock(call))
    share = {"one": steps, "vmap": steps * SEEDS, "devices": steps * SEEDS}
    best = {name: min(found[1:]) for name, found in times.items()}
    return {name: seconds / share.get(name, 1) for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depths", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    begin = time.perf_counter()
    rows = [measure(L, options.rounds, 20) for L in options.depths]
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
