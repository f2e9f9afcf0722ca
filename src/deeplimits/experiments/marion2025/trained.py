"""Figures 8 and 9: weights and accuracies after training on handwritten digits."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray
from scipy import stats

from ... import datasets, diagnosis, initialisation, losses, training
from ...checks import (
    require_at_least,
    require_choices,
    require_known,
    require_positive,
    require_room,
)
from ...residual import Matrix, OuterLayer, ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "AccuracyMap",
    "Digits",
    "TrainedWeights",
    "accuracy_gain",
    "accuracy_map",
    "classifier",
    "fit",
    "handwritten",
    "regions",
    "trained_weights",
]

SIZES = {"mnist": (60_000, 784), "digits": (1437, 64)}  # images to train on, pixels
CLASSES = 10


class Digits(NamedTuple):
    """Images as rows of pixels in $[0, 1]$, and their classes."""

    images: Float[Array, "n pixels"]
    labels: Int[Array, " n"]


@dataclasses.dataclass(frozen=True)
class TrainedWeights:
    """Figure 8: the pairs of `laws` and `betas`.

    `data` is `mnist`, or `digits` for the small ones that are always there. The result
    holds the first `kept` rows and columns of every layer.
    """

    data: str = "mnist"
    laws: tuple[str, ...] = ("smooth", "uniform", "uniform")
    betas: tuple[float, ...] = (1.0, 1.0, 0.5)
    depth: int = 1000
    width: int = 30
    length_scale: float = 0.1
    epochs: int = 10
    batch: int = 128
    rate: float = 1e-3
    kept: int = 3

    def __post_init__(self):
        require_choices("law", self.laws, setting.LAWS)
        require_at_least(0, self, "betas", "rate")
        if len(self.laws) != len(self.betas):
            raise ValueError(f"laws and betas must pair up: {self.laws}, {self.betas}.")
        require_at_least(diagnosis.FEWEST_LAYERS, self, "depth")
        require_at_least(0.01, self, "length_scale")
        require_positive(self, "kept")
        if self.kept > self.width:
            raise ValueError(f"kept is at most {self.width=}: got {self.kept}.")
        _check(self)


@dataclasses.dataclass(frozen=True)
class AccuracyMap:
    """Figure 9: `grid` Hurst indices and as many exponents, from 0.1 to 0.9."""

    data: str = "mnist"
    grid: int = 10
    rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    depth: int = 1000
    width: int = 30
    epochs: int = 10
    batch: int = 128

    def __post_init__(self):
        require_positive(self, "grid")
        require_at_least(0, self, "rates")
        require_room(8 * self.grid**2 * len(self.rates))
        _check(self)

    @property
    def axis(self) -> np.ndarray:
        return np.linspace(0.1, 0.9, self.grid)


def _check(config: TrainedWeights | AccuracyMap) -> None:
    """What both trainings ask of their configuration."""
    require_known("data", config.data, SIZES)
    require_positive(config, "depth", "width", "epochs", "batch")
    (images, pixels), half = SIZES[config.data], _half(config)
    if half < 1:
        raise ValueError(
            f"{config.epochs} epochs of {images} images are less than two steps: a "
            f"batch is at most {config.epochs * images // 2}, got {config.batch}."
        )
    layer = config.width * (6 * config.width + 2 * config.batch)
    data = (images + config.batch) * pixels + config.width * pixels
    require_room(8 * (config.depth * layer + data + 2 * half))


def _half(config: TrainedWeights | AccuracyMap) -> int:
    """The steps before the learning rate falls, and after."""
    return config.epochs * SIZES[config.data][0] // config.batch // 2


@experiment(
    "marion2025/trained-weights",
    "Figure 8: weights against the layer, before and after training",
    TrainedWeights(),
    book={"data": "digits", "depth": 128, "epochs": 20},
    smoke={"data": "digits", "depth": 32, "width": 6, "epochs": 1},
)
def trained_weights(config: TrainedWeights, run: Runner) -> xr.Dataset:
    """Weights of res-1 before and after training, what `diagnosis` reads from all of
    them, how far all of them `moved` (root mean square, over that of the start), the
    losses, and the accuracy on the test images."""
    found = run.each("trained", {"case": range(len(config.laws))}, _trained)
    return found.drop_vars("case").assign_coords(
        law=("case", list(config.laws)),
        beta=("case", list(config.betas)),
        time=["before", "after"],
        bound=["value", "low", "high"],
    )


def _trained(config: TrainedWeights, point: Point, key: PRNGKeyArray):
    case = point["case"]
    weight_key, batch_key = jr.split(jr.fold_in(key, case))
    law = setting.law(config.laws[case], length_scale=config.length_scale)
    train, test = _data(config)
    model = classifier(config, law, config.betas[case], train, key=weight_key)
    run = fit(
        config, model, train, config.rate, key=batch_key, **point.resumable
    ).finished()
    start, end = weights = [_layers(model), _layers(run.model)]
    seen = [diagnosis.examine(each) for each in weights]
    unknown = (np.nan,) * 3  # weights that are all the same have no increments
    kept = slice(config.kept)
    return {
        "weight": (
            ("time", "layer", "row", "column"),
            np.stack([each[:, kept, kept] for each in weights]),
        ),
        "regularity": (
            ("time", "bound"),
            np.array([each.regularity or unknown for each in seen]),
        ),
        "roughness": ("time", np.array([each.roughness for each in seen])),
        "moved": np.sqrt(np.mean((end - start) ** 2) / np.mean(start**2)),
        "accuracy": (
            "time",
            np.array([losses.accuracy(m, test) for m in (model, run.model)]),
        ),
        "loss": ("step", run.losses),
    }


@experiment(
    "marion2025/accuracy-map",
    "Figure 9: test accuracy over exponent and Hurst index",
    AccuracyMap(),
    book={"data": "digits", "depth": 64, "grid": 5, "rates": (1e-2,)},
    smoke={
        "data": "digits",
        "depth": 32,
        "width": 6,
        "epochs": 1,
        "grid": 2,
        "rates": (1e-2,),
    },
)
def accuracy_map(config: AccuracyMap, run: Runner) -> xr.Dataset:
    """Test accuracy by Hurst index, exponent and learning rate. A run whose loss stops
    being finite counts with the weights at which it did."""
    places = range(config.grid)
    grid = {"row": places, "column": places, "rate": config.rates}
    found = run.each("trained", grid, _accuracy).rename(row="hurst", column="beta")
    return found.assign_coords(hurst=config.axis, beta=config.axis)


def _accuracy(config: AccuracyMap, point: Point, key: PRNGKeyArray):
    places = point["row"], point["column"]
    weight_key, batch_key = jr.split(functools.reduce(jr.fold_in, places, key))
    hurst, beta = (float(config.axis[place]) for place in places)
    law = setting.normalised(initialisation.fractional_noise, hurst=hurst)
    train, test = _data(config)
    model = classifier(config, law, beta, train, key=weight_key)
    run = fit(config, model, train, point["rate"], key=batch_key, **point.resumable)
    return {"accuracy": losses.accuracy(run.model, test)}


def handwritten(name: str) -> tuple[Digits, Digits]:
    """Training and test set."""
    require_known("data", name, SIZES)
    if name == "mnist":
        found = datasets.mnist()
        parts = (found.train, found.train_labels), (found.test, found.test_labels)
        scale = 255.0
    else:
        parts, scale = datasets.digits(key=jr.key(0)), 1.0
    train, test = (
        Digits(jnp.asarray(x.reshape(len(x), -1), float) / scale, jnp.asarray(y))
        for x, y in parts
    )
    return train, test


def _data(config: TrainedWeights | AccuracyMap) -> tuple[Digits, Digits]:
    return _read(config.data, jnp.result_type(float).name)


@functools.lru_cache(maxsize=1)  # read once for all points, in the precision they need
def _read(name: str, dtype: str) -> tuple[Digits, Digits]:
    return handwritten(name)


def classifier(config, law, beta: float, data: Digits, *, key: PRNGKeyArray) -> ResNet:
    """res-1 between a matrix in and a matrix out. The factor is an array, not a static
    field: one compilation serves all exponents."""
    weight_key, in_key, out_key = jr.split(key, 3)
    inputs = data.images.shape[1]
    A = initialisation.uniform(1, (config.width, inputs), key=in_key)[0]
    B = initialisation.uniform(1, (CLASSES, config.width), key=out_key)[0]
    block = setting.draw("res-1", law, config.depth, config.width, key=weight_key)
    scale = jnp.asarray(config.depth**-beta, float)
    return ResNet(block, Matrix(A), Matrix(B), beta=0.0, scale=scale)


def _layers(model: ResNet) -> Float[np.ndarray, "depth q q"]:
    """The trained weights of all layers."""
    assert isinstance(model.block, OuterLayer)
    return np.asarray(model.block.outer)


def fit(
    config: TrainedWeights | AccuracyMap,
    model: ResNet,
    data: Digits,
    rate: float,
    *,
    key: PRNGKeyArray,
    **options: Any,
) -> training.Run:
    """Adam on all matrices, not on the factor. The learning rate falls to a tenth
    half-way; a batch is drawn with replacement, where the public code goes through a
    permutation an epoch. `options` are those of `training.train`."""
    half = _half(config)
    loss, optimiser = _rule(config.batch, half, rate)
    with jax.numpy_dtype_promotion("standard"):  # Adam's powers have integers
        return training.train(
            model,
            data,
            loss,
            optimiser,
            2 * half,
            every=half,
            trainable=_all_but_the_factor,
            key=key,
            **options,
        )


@functools.cache  # one loss and one optimiser: what they are part of compiles once
def _rule(
    size: int, half: int, rate: float
) -> tuple[losses.Loss, optax.GradientTransformation]:
    def loss(model, data, key):
        chosen = jr.randint(key, (size,), 0, len(data.labels))
        batch = (data.images[chosen], data.labels[chosen])
        return losses.cross_entropy(model, batch)

    return loss, optax.adam(optax.piecewise_constant_schedule(rate, {half: 0.1}))


def _all_but_the_factor(model: ResNet) -> ResNet:
    arrays = jax.tree.map(eqx.is_inexact_array, model)
    return eqx.tree_at(lambda m: m.scale, arrays, False)


def regions(dataset: xr.Dataset, mild: float = 0.4) -> dict[str, np.ndarray]:
    r"""The accuracies of all cells, at the best of the rates: `inside`, where
    $\beta \ge H$; `near`, where $\beta$ falls short of it by less than `mild`; and
    `outside`, where by `mild` or more."""
    accuracy = dataset["accuracy"].max("rate")
    excess = (accuracy["beta"] - accuracy["hurst"]).transpose(*accuracy.dims)
    excess = excess.values.round(6)  # the axis has rounding: 0.3 - 0.7 > -0.4
    outside = excess <= -mild
    parts = {"inside": excess >= 0, "near": (excess < 0) & ~outside, "outside": outside}
    return {name: accuracy.values[part] for name, part in parts.items()}


def accuracy_gain(dataset: xr.Dataset) -> tuple[float, float, float]:
    """The mean accuracy inside less that outside (see `regions`), and Welch's
    interval, as if cells were drawn at random."""
    cells = regions(dataset)
    found = stats.ttest_ind(cells["inside"], cells["outside"], equal_var=False)
    gain = cells["inside"].mean() - cells["outside"].mean()
    return (float(gain), *map(float, found.confidence_interval()))
