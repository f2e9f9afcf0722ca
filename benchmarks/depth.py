"""What a step of gradient descent costs against depth, and against what.

Run `python benchmarks/depth.py`: it measures everything in one process, one after the
other in rounds, and writes `results/benchmarks/depth-<device>.nc`. The comparison
with PyTorch needs the group `bench` and is left out with a note where it is missing.
All times are the best of several rounds, in seconds; compilation is timed apart. Every
core is a device of its own, for the examples that are spread over them.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(os.cpu_count()))
# PyTorch's idle threads would spin while others are timed
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import optax
import xarray as xr

from deeplimits import datasets, devices, losses, results, training
from deeplimits.residual import ResNet, TwoLayer

# on a GPU too, as PyTorch does there
jax.config.update("jax_default_matmul_precision", "float32")

N, D, M = 100, 16, 32  # the synthetic set of Marion et al., Figure 1
TORCH_DEPTH = 1014
RATE = 0.01


def network(depth: int, recompute: bool) -> ResNet:
    """The network of Figure 1 after a little training: no weight is zero."""
    outer_key, inner_key = jr.split(jr.key(depth))
    outer = 0.1 * jr.normal(outer_key, (depth, D, M))
    inner = jr.normal(inner_key, (depth, M, D))
    return ResNet(TwoLayer(outer, inner, activation="gelu"), recompute=recompute)


def descent(model: ResNet, mean_loss=losses.mean_square) -> tuple[Callable, ResNet]:
    """`steps` updates of the library's rule as one function of the layers."""
    data = datasets.gaussian_pairs(N, D, key=jr.key(0))
    rule = optax.chain(training.depth_factor(), optax.sgd(RATE))
    params, fixed = eqx.partition(model, eqx.is_inexact_array)

    def update(params, _):
        def loss(params):
            return mean_loss(eqx.combine(params, fixed), data, None)

        grads = jax.grad(loss)(params)
        changes, _ = rule.update(grads, rule.init(params))
        return eqx.apply_updates(params, changes), None

    return lambda params, steps: jax.lax.scan(update, params, length=steps)[0], params


def products(depth: int) -> tuple[Callable, tuple]:
    """The six matrix products a layer of one step needs, and nothing else, scanned."""
    model = network(depth, recompute=False)
    h = jr.normal(jr.key(1), (N, D))

    def forward(h, layer):
        v, w = layer
        a = h @ w.T
        return a @ v.T, (h, a)

    def backward(p, saved):
        (h, a), (v, w) = saved
        b = p @ v
        return b @ w, (p.T @ a, b.T @ h)

    def step(layers, _):
        last, kept = jax.lax.scan(forward, h, layers)
        _, grads = jax.lax.scan(backward, last, (kept, layers), reverse=True)
        # the sum ties one step to the next; without it a compiler may drop them
        return jax.tree.map(lambda z, g: z - 1e-30 * g, layers, grads), None

    layers = (model.block.outer / 100, model.block.inner / 100)
    return lambda layers, steps: jax.lax.scan(step, layers, length=steps)[0], layers


def compiled(case: Callable, steps: int) -> tuple[Callable, tuple, float, int]:
    """The program, its argument, the seconds to compile it, its scratch bytes.

    Compiled three times, from fresh functions that no cache knows; the best counts.
    """
    seconds = []
    for _ in range(3):
        function, argument = case()
        jax.block_until_ready(argument)
        start = time.perf_counter()
        program = jax.jit(function, static_argnums=1).lower(argument, steps).compile()
        seconds.append(time.perf_counter() - start)
    memory = program.memory_analysis()
    return program, argument, min(seconds), memory.temp_size_in_bytes if memory else 0


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, to the last byte of its result."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def case(kind: str, depth: int) -> tuple[Callable, tuple]:
    """What is measured under that name: a function of the layers, and layers."""
    if kind == "products":
        return products(depth)
    if kind == "spread":
        loss = devices.over_examples(losses.mean_square)
        return descent(network(depth, recompute=True), loss)
    return descent(network(depth, kind == "recomputed"))


def measure(depths: list[int], rounds: int) -> xr.Dataset:
    """Times of a step, of its bare products, compile times and memory, by depth."""
    kinds = ("kept", "recomputed", "products")
    programs, compile_time, memory, steps = {}, {}, {}, {}
    for depth in depths:
        steps[depth] = max(2, 2**15 // depth)  # every call does the same work
        for kind in kinds:
            program, argument, *cost = compiled(
                partial(case, kind, depth), steps[depth]
            )
            programs[kind, depth] = program, argument
            compile_time[kind, depth], memory[kind, depth] = cost
            jax.block_until_ready(program(argument))
    times = {name: [] for name in programs}
    for _ in range(rounds):
        for name, (program, argument) in programs.items():
            seconds = clock(lambda p=program, a=argument: p(a))
            times[name].append(seconds / steps[name[1]])

    def table(values):
        return ("kind", "depth"), [[values[k, d] for d in depths] for k in kinds]

    best = {name: min(seconds) for name, seconds in times.items()}
    return xr.Dataset(
        {
            "seconds": table(best),
            "compile_seconds": table(compile_time),
            "scratch_bytes": table(memory),
        },
        coords={"kind": list(kinds), "depth": depths},
    )


LOOPS = ("modules", "indexed", "unbound")
OURS = ("scan", "spread")


def torch_step(depth: int, kind: str, threads: int) -> Callable | None:
    """The same step as an eager loop over layers in PyTorch, or None without it.

    "modules": two `Linear` layers for each layer under its SGD, as its tutorials do.
    "indexed": the stacked weights, from which the loop takes `V[k]`, as the public code
    of Marion et al. does; its gradient is then a zero array of the size of the stack.
    "unbound": the stack taken apart once, the best eager loop that we know.
    """
    try:
        import torch
    except ImportError:
        return None
    model = network(depth, recompute=False)
    data = datasets.gaussian_pairs(N, D, key=jr.key(0))
    x, y, outer, inner = (
        torch.tensor(np.asarray(z))
        for z in (*data, model.block.outer, model.block.inner)
    )
    stacks = [outer, inner]
    if kind == "modules":
        linear = [
            torch.nn.Linear(*shape, bias=False) for shape in depth * [(M, D), (D, M)]
        ]
        for k, layer in enumerate(linear):
            layer.weight.data = stacks[k % 2][k // 2].clone()
        stacks = [layer.weight for layer in linear]
    optimiser = torch.optim.SGD([z.requires_grad_() for z in stacks], lr=RATE * depth)

    def layers():
        if kind == "modules":
            return zip(linear[::2], linear[1::2], strict=True)
        pairs = zip(outer.unbind(), inner.unbind(), strict=True)
        indexed = ((outer[k], inner[k]) for k in range(depth))
        affine = torch.nn.functional.linear
        return (
            (lambda a, v=v: affine(a, v), lambda h, w=w: affine(h, w))
            for v, w in (indexed if kind == "indexed" else pairs)
        )

    def step():
        torch.set_num_threads(threads)
        h = x
        for v, w in layers():
            a = torch.nn.functional.gelu(w(h) / D**0.5)
            h = h + v(a) / M**0.5 / depth
        optimiser.zero_grad()
        (((h - y) ** 2).sum() / N).backward()
        optimiser.step()

    return step


def against_torch(rounds: int) -> dict[str, float]:
    """Seconds of one step at depth 1014 in PyTorch's eager loops and here, in turn:
    "scan" on one core, "spread" with the examples spread over all of them.

    Each loop counts with the number of threads, one or two, at which it is faster.
    """
    loops = [(kind, n) for kind in LOOPS for n in (1, 2)]
    calls: dict[tuple[str, int], Callable | None] = {
        (kind, n): torch_step(TORCH_DEPTH, kind, n) for kind, n in loops
    }
    if None in calls.values():
        print("PyTorch is not installed: its comparison is left out (group bench).")
        return {}
    for name, kind in (("scan", "recomputed"), ("spread", "spread")):
        program, argument, *_ = compiled(partial(case, kind, TORCH_DEPTH), 16)
        calls[name, 2] = lambda program=program, argument=argument: program(argument)
    gc.freeze()  # what was built so far would slow an eager loop's garbage collection
    best: dict[str, float] = dict.fromkeys((*LOOPS, *OURS), np.inf)
    for count in range(rounds + 1):  # the first round warms up
        for (name, _), call in calls.items():
            seconds = clock(call) / (16 if name in OURS else 1)
            best[name] = min(best[name], seconds) if count else np.inf
    return {f"{name}_seconds": seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--most", type=int, default=14, help="log2 of the last depth")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    depths = [2**p for p in range(4, options.most + 1, 2)]
    dataset = measure(depths, options.rounds)
    for name, seconds in against_torch(options.rounds).items():
        dataset[name] = seconds
    platform = jax.devices()[0].platform
    path = options.output or Path("results", "benchmarks", f"depth-{platform}.nc")
    config = {"n": N, "d": D, "m": M, "rounds": options.rounds, "depths": depths}
    seconds = time.perf_counter() - start
    results.save(dataset, path, config=config, seed=0, wall_seconds=seconds)
    print((1e6 * dataset.seconds / dataset.depth).round(2).to_pandas().T)
    print(dataset.compile_seconds.round(2).to_pandas().T)
    print((dataset.scratch_bytes / dataset.depth).to_pandas().T)
    for kind in LOOPS:
        if f"{kind}_seconds" in dataset:
            ratios = [
                dataset[f"{kind}_seconds"] / dataset[f"{o}_seconds"] for o in OURS
            ]
            print(kind, *(f"{float(ratio):.1f}" for ratio in ratios))


if __name__ == "__main__":
    main()
