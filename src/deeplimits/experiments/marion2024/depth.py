"""Figure 1: successive distances, and convergence to the limit, as depth grows."""

import dataclasses

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ... import files, training
from ...checks import require_known
from ...residual import ResNet
from . import setting


@dataclasses.dataclass(frozen=True)
class SuccessiveDistance:
    """Figure 1, left."""

    variants: tuple[str, ...] = setting.VARIANTS
    depths: tuple[int, ...] = (2, 16, 64, 256, 1014)
    steps: int = 500
    n: int = 100
    d: int = 16
    m: int = 32
    rate: float = 0.01


def _chosen(config, variant: str, key: PRNGKeyArray) -> setting.Setting:
    require_known("variant", variant, setting.VARIANTS)
    if variant == "script":
        return setting.script(2, config.n, config.d, config.m)
    return setting.equation(config.n, config.d, config.m, key=key)


def successive_distance(
    config: SuccessiveDistance, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""The distances of neighbouring layers at every iteration, for each depth.

    Iteration $t$ is the state before update $t + 1$; the first is the initialisation.
    """
    optimiser = setting.descent(config.rate)

    def one(variant, depth):
        chosen = _chosen(config, variant, key)
        run = training.train(
            chosen.network(depth),
            chosen.data,
            chosen.loss,
            optimiser,
            config.steps,
            record=setting.distances,
            trainable=training.only_layers,
            progress=progress,
            checkpoint=files.checkpoint(scratch, f"{variant}-{depth}"),
        ).finished()
        return xr.Dataset({k: ("iteration", v) for k, v in run.records.items()})

    rows = [
        xr.concat([one(name, depth) for depth in config.depths], "depth")
        for name in config.variants
    ]
    coordinates = {
        "variant": list(config.variants),
        "depth": list(config.depths),
        "iteration": np.arange(config.steps + 1),
    }
    return xr.concat(rows, "variant").assign_coords(coordinates)


def aggregate(dataset: xr.Dataset, horizon: int) -> xr.DataArray:
    r"""What the public code plots: over the first `horizon` iterations,

    $$ \Bigl(\sum_{t < T} \sum_k \|V_{k+1}(t) - V_k(t)\|_F^2\Bigr)^{1/2}. $$
    """
    first = dataset["squares_outer"].isel(iteration=slice(0, horizon))
    return first.sum("iteration") ** 0.5


def largest(dataset: xr.Dataset, horizon: int) -> xr.DataArray:
    r"""What the caption names: $\max_{t < T} \max_k \|Z_{k+1}(t) - Z_k(t)\|_F$."""
    return dataset["max_layer"].isel(iteration=slice(0, horizon)).max("iteration")


@dataclasses.dataclass(frozen=True)
class DepthConvergence:
    """Figure 1, right."""

    depths: tuple[int, ...] = tuple(2**j for j in range(1, 11))
    reference: int = 2**14
    steps: int = 500
    every: int = 10
    precisions: tuple[str, ...] = ("float64", "float32")
    n: int = 100
    d: int = 16
    m: int = 32
    rate: float = 0.01


def depth_convergence(
    config: DepthConvergence, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    r"""The distance of the weights at depth $L$ from those of a deep reference,

    $$ \Bigl(\tfrac1L \sum_{i<L} \|V_{i+1} -
       V^{\mathrm{ref}}_{\lfloor i N / L \rfloor + 1}\|_F^2\Bigr)^{1/2}, $$

    and the same for $W$. The numbers are the public code's: `key` is not used.
    """
    finest = max(config.depths)
    if any(finest % depth for depth in config.depths) or config.reference % finest:
        raise ValueError(
            "each depth must divide the largest, and that the reference: "
            f"{config.depths}, {config.reference}."
        )
    rows = []
    for precision in config.precisions:
        with jax.enable_x64(precision == "float64"):
            rows.append(_against_reference(config, precision, scratch, progress))
    iterations = np.arange(0, config.steps + 1, config.every)
    return xr.Dataset(
        {"distance": (("precision", "weights", "depth", "iteration"), np.stack(rows))},
        {
            "precision": list(config.precisions),
            "weights": ["V", "W"],
            "depth": list(config.depths),
            "iteration": iterations,
        },
        {"dtype": ", ".join(config.precisions)},
    )


def _against_reference(
    config: DepthConvergence, precision: str, scratch, progress
) -> Float[np.ndarray, "two depths iterations"]:
    chosen = setting.script(0, config.n, config.d, config.m).astype(precision)
    optimiser = setting.descent(config.rate)

    def weights(depth, kept):
        """The weights of `kept` equidistant layers, at every recorded iteration."""

        def record(model: ResNet):
            return jax.tree.map(lambda z: z[:: depth // kept], model.block)

        run = training.train(
            chosen.network(depth),
            chosen.data,
            chosen.loss,
            optimiser,
            config.steps,
            record=record,
            every=config.every,
            trainable=training.only_layers,
            progress=progress,
            checkpoint=files.checkpoint(scratch, f"{precision}-{depth}"),
        ).finished()
        return run.records.outer, run.records.inner

    finest = max(config.depths)
    reference = weights(config.reference, finest)
    return np.stack(
        [
            [
                _root_mean_square(a - b[:, :: finest // depth])
                for a, b in zip(weights(depth, depth), reference, strict=True)
            ]
            for depth in config.depths
        ],
        axis=1,
    )


def _root_mean_square(
    gap: Float[np.ndarray, "iterations depth rows columns"],
) -> Float[np.ndarray, " iterations"]:
    """Over the layers, of the Frobenius norm."""
    return np.sqrt(np.mean(np.sum(gap**2, axis=(2, 3)), axis=1))
