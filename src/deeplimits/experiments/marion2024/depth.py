"""Figure 1: successive distances, and convergence to the limit, as depth grows."""

import dataclasses
import functools

import jax
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ...checks import (
    require_at_least,
    require_choices,
    require_multiple,
    require_positive,
)
from ...residual import ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "DepthConvergence",
    "SuccessiveDistance",
    "aggregate",
    "depth_convergence",
    "largest",
    "successive_distance",
]

PRECISIONS = ("float64", "float32")


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

    def __post_init__(self):
        require_choices("variant", self.variants, setting.VARIANTS)
        require_positive(self, "steps", "n", "d", "m", "rate")
        require_at_least(2, self, "depths")
        if "script" in self.variants:
            setting.require_script(self)
        setting.require_room(max(self.depths), self)


@experiment(
    "marion2024/successive-distance",
    "Figure 1, left: neighbouring layers against depth",
    SuccessiveDistance(),
    book={"depths": (2, 256), "steps": 50},
    smoke={"depths": (2, 16), "steps": 4},
)
def successive_distance(config: SuccessiveDistance, run: Runner) -> xr.Dataset:
    r"""The distances of neighbouring layers at every iteration, for each depth.

    Iteration $t$ is the state before update $t + 1$; the first is the initialisation.
    """
    grid = {"variant": config.variants, "depth": config.depths}
    found = run.each("trained", grid, _distances)
    return found.assign_coords(iteration=np.arange(config.steps + 1))


def _distances(config: SuccessiveDistance, point: Point, key: PRNGKeyArray):
    sizes = (config.n, config.d, config.m)
    if point["variant"] == "script":
        chosen = setting.script(2, *sizes)
    else:
        chosen = setting.equation(*sizes, key=key)
    records = setting.train(chosen, point["depth"], config, point, setting.distances)
    return {name: ("iteration", values) for name, values in records.items()}


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
    precisions: tuple[str, ...] = PRECISIONS
    n: int = 100
    d: int = 16
    m: int = 32
    rate: float = 0.01

    def __post_init__(self):
        require_choices("precision", self.precisions, PRECISIONS)
        require_positive(self, "depths", "reference", "steps", "every")
        require_positive(self, "n", "d", "m", "rate")
        require_multiple(self, "steps", "every")
        finest = max(self.depths)
        if any(finest % depth for depth in self.depths) or self.reference % finest:
            raise ValueError(
                "each depth must divide the largest, and that the reference: "
                f"{self.depths}, {self.reference}."
            )
        setting.require_script(self)
        setting.require_room(self.reference, self)


@experiment(
    "marion2024/depth-convergence",
    "Figure 1, right: distance to a deep reference",
    DepthConvergence(),
    book={
        "depths": (4, 16, 64),
        "reference": 512,
        "steps": 40,
        "every": 2,
        "precisions": ("float64",),
    },
    smoke={"depths": (2,), "reference": 4, "steps": 4, "every": 2},
)
def depth_convergence(config: DepthConvergence, run: Runner) -> xr.Dataset:
    r"""The distance of the weights at depth $L$ from those of a deep reference,

    $$ \Bigl(\tfrac1L \sum_{i<L} \|V_{i+1} -
       V^{\mathrm{ref}}_{\lfloor i N / L \rfloor + 1}\|_F^2\Bigr)^{1/2}, $$

    and the same for $W$. The numbers are the public code's: the key is not used.
    """

    def row(precision: str) -> xr.Dataset:
        compute = functools.partial(_from_reference, precision)
        shared = functools.partial(_reference, precision)
        return run.each(precision, {"depth": config.depths}, compute, shared=shared)

    rows = xr.concat([row(name) for name in config.precisions], "precision")
    dims = ("precision", "weights", "depth", "iteration")
    return (
        rows.transpose(*dims)
        .assign_coords(
            precision=list(config.precisions),
            weights=["V", "W"],
            iteration=np.arange(0, config.steps + 1, config.every),
        )
        .assign_attrs(dtype=", ".join(config.precisions))
    )


def _weights(
    config: DepthConvergence, point: Point, precision: str, depth: int, kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of `kept` equidistant layers, at every recorded iteration."""

    def record(model: ResNet):
        return jax.tree.map(lambda z: z[:: depth // kept], model.block)

    with jax.enable_x64(precision == "float64"):
        chosen = setting.script(0, config.n, config.d, config.m).astype(precision)
        records = setting.train(
            chosen, depth, config, point, record, every=config.every
        )
    return records.outer, records.inner


def _reference(precision: str, config: DepthConvergence, point: Point, key):
    layers = (config.reference, max(config.depths))
    outer, inner = _weights(config, point, precision, *layers)
    return {"outer": outer, "inner": inner}


def _from_reference(
    precision: str, config: DepthConvergence, point: Point, key, reference
):
    depth = point["depth"]
    weights = _weights(config, point, precision, depth, depth)
    layers = slice(None, None, max(config.depths) // depth)
    pairs = zip(weights, (reference["outer"], reference["inner"]), strict=True)
    distances = [_root_mean_square(own - other[:, layers]) for own, other in pairs]
    return {"distance": (("weights", "iteration"), np.stack(distances))}


def _root_mean_square(
    gap: Float[np.ndarray, "iterations depth rows columns"],
) -> Float[np.ndarray, " iterations"]:
    """Over the layers, of the Frobenius norm."""
    return np.sqrt(np.mean(np.sum(gap**2, axis=(2, 3)), axis=1))
