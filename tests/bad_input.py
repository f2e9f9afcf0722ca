"""Feed each public function of the library what it should refuse; print what it did.

A program, not a test: `test_bad_input.py` runs it in an interpreter of its own, without
the hook that checks annotations under pytest, and in float32, as a user has it. For
each argument of a valid call hypothesis draws faults of dtype, rank, sign, NaN and
emptiness. The answer must be a `ValueError` (for another type of Python, a `TypeError`)
that names the argument, or a right number.
"""

import contextlib
import importlib
import inspect
import io
import json
import math
import pkgutil
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import deeplimits
from deeplimits import (
    collocation,
    continuous,
    control,
    datasets,
    diagnosis,
    epochs,
    exercises,
    gradient_flow,
    initialisation,
    intervals,
    losses,
    meanfield,
    measures,
    residual,
    statistics,
    steering,
    training,
    transport,
    variation,
    variational,
)
from deeplimits.variational import gamma, tracking

OTHER_TYPES = st.sampled_from(["three", None, 1j, {}])
Fault = tuple[str, st.SearchStrategy, str]  # what is wrong, values, what must follow
REFUSED, SAME, NAN, MAPPED = "refused", "the numbers of floats", "NaN", "one by one"


@dataclass
class Argument:
    """A valid value; `named` are other words by which a message may call it."""

    value: Any
    named: tuple[str, ...] = ()
    optional: bool = False  # None has a meaning

    def faults(self) -> Iterator[Fault]:
        yield from ()


@dataclass
class Count(Argument):
    """A whole number from `least` on."""

    least: int = 1

    def faults(self):
        yield "sign", st.integers(-(2**40), self.least - 1), REFUSED
        yield "fraction", st.floats(1, 9).filter(lambda x: x % 1), REFUSED
        yield "NaN", st.sampled_from([math.nan, math.inf]), REFUSED
        yield "type", OTHER_TYPES, REFUSED


@dataclass
class Real(Argument):
    """A number in an interval; the infinite ends of it are outside."""

    within: str = "(-inf, inf)"

    def faults(self):
        low, high = (float(end) for end in self.within[1:-1].split(","))
        outside = [math.nan]
        outside += [low] * (self.within[0] == "(") + [high] * (self.within[-1] == ")")
        outside += [-math.inf] * (low > -math.inf) + [math.inf] * (high < math.inf)
        yield "NaN or an end", st.sampled_from(outside), REFUSED
        if low > -math.inf:
            yield "below", st.floats(-1e9, low - 1e-3), REFUSED
        if high < math.inf:
            yield "above", st.floats(high + 1e-3, 1e9), REFUSED
        yield "type", OTHER_TYPES, REFUSED


@dataclass
class Name(Argument):
    """One of several names."""

    def faults(self):
        yield "name", st.text(max_size=8).filter(lambda s: s != self.value), REFUSED
        yield "type", st.sampled_from([None, 3, 1j]), REFUSED


@dataclass
class Sizes(Argument):
    """Positive sizes in a row."""

    def faults(self):
        yield "sign", st.lists(st.integers(-5, 0), min_size=1, max_size=2), REFUSED
        yield "fraction", st.sampled_from([(1.5,), (math.nan,)]), REFUSED
        yield "type", st.sampled_from([None, 3, ("two",), 1j]), REFUSED


@dataclass
class Numbers(Argument):
    """An array. Whole numbers between those of `whole` must count as floats do, or be
    refused where it is None; where it is empty they are not tried. NaN is refused, or
    gives NaN where `nan` says so. `ranks` are refused, by default the next two; where
    `mapped`, one more acts one by one."""

    whole: tuple[int, ...] | None = (-9, 9)
    nan: str = REFUSED
    ranks: tuple[int, ...] | None = None
    mapped: bool = False
    positive: bool = False
    plain: bool = True  # of Python: a list is taken, and a word refused
    infinite: bool = False  # infinity has a meaning

    def faults(self):
        array = np.asarray(self.value, np.float32)
        places = st.tuples(*(st.integers(0, size - 1) for size in array.shape))
        values = [math.nan]
        if self.nan == REFUSED and not self.infinite:
            values += [math.inf, -math.inf]

        def spoilt(place, value):
            copy = array.copy()
            copy[place] = value
            return jnp.asarray(copy)

        yield "NaN", st.builds(spoilt, places, st.sampled_from(values)), self.nan
        if self.positive:
            below = st.sampled_from([0.0, -1.0])
            yield "sign", st.builds(spoilt, places, below), REFUSED
        axes = st.integers(0, max(array.ndim - 1, 0))
        if array.ndim:
            empty = axes.map(lambda axis: jnp.asarray(np.take(array, [], axis)))
            yield "empty", empty, REFUSED
        yield "complex", st.just(jnp.asarray(array + 1j)), REFUSED
        if self.plain:
            yield "type", st.sampled_from(["three", None, {}, ["a", "b"]]), REFUSED
        low, high = self.whole or (-9, 9)
        kinds = st.sampled_from(["int32", "int8"] + ["uint8"] * (low >= 0))
        seeds = st.integers(0, 2**20)
        draws = st.builds(
            lambda kind, seed: (
                np.random.default_rng(seed)
                .integers(low, high, array.shape, endpoint=True)
                .astype(kind)
            ),
            kinds,
            seeds,
        )
        if self.whole != ():
            law = REFUSED if self.whole is None else SAME
            yield "whole", draws.map(jnp.asarray), law
        if self.plain:
            yield "list", draws.map(lambda a: a.astype(float).tolist()), SAME
        ranks = self.ranks
        if ranks is None:
            ranks = {array.ndim - 1, array.ndim + 1} - {-1}
        yield from ((f"rank {n}", st.just(_ranked(array, n)), REFUSED) for n in ranks)
        if self.mapped:
            yield "batch", st.just(jnp.asarray(np.stack([array, -array / 2]))), MAPPED


def _ranked(array: np.ndarray, rank: int) -> jax.Array:
    while array.ndim > rank:
        array = array[0]
    return jnp.asarray(array.reshape((1,) * (rank - array.ndim) + array.shape))


@dataclass
class Window(Argument):
    """Two ends, or None."""

    def faults(self):
        lists = [(math.nan, 9.0), (9.0, 1.0), (1.0,), (1.0, 5.0, 9.0), (1j, 9.0), ()]
        yield "ends", st.sampled_from(lists), REFUSED
        yield "type", st.sampled_from(["three", 3, {}, ["a", "b"]]), REFUSED
        yield "whole", st.just((2, 16)), SAME


@dataclass
class Labels(Argument):
    """Whole numbers from 0 to `last`, one an example."""

    last: int = 2

    def faults(self):
        value = np.asarray(self.value)
        wrong = st.one_of(st.integers(-9, -1), st.integers(self.last + 1, 99))
        yield "class", wrong.map(lambda k: jnp.asarray(value * 0 + k)), REFUSED
        yield "floats", st.just(jnp.asarray(value, float)), REFUSED
        yield "NaN", st.just(jnp.asarray(value * math.nan)), REFUSED
        yield "empty", st.just(jnp.asarray(value[:0])), REFUSED
        yield "rank", st.just(jnp.asarray(value[None])), REFUSED
        yield "type", st.sampled_from(["three", None, {}]), REFUSED


@dataclass
class Call:
    """A function and its valid arguments; what is no `Argument` stays as it is. `few`
    where a call that is not refused compiles for a second."""

    function: Callable
    arguments: dict[str, Any] = field(default_factory=dict)
    few: bool = False

    def __call__(self, **changed):
        valid = {
            name: value.value if isinstance(value, Argument) else value
            for name, value in self.arguments.items()
        }
        return self.function(**valid | changed)


KEY = jr.key(0)
POSITIVE = Real(0.5, within="(0, inf)")
A = np.array([[0.5, -0.25], [1.0, 0.75]], np.float32)
X = np.array([1.0, -0.5], np.float32)
STACK = jnp.asarray(np.stack([A, -A, A / 2]))
NOISE = np.random.default_rng(0).normal(size=(4, 2, 2)).astype("float32")
WIDE = np.random.default_rng(1).normal(size=(4, 2, 3)).astype("float32")
LAYERS = np.random.default_rng(2).normal(size=(20, 3)).astype("float32")
KERNELS = np.random.default_rng(3).normal(size=(2, 2, 2, 3, 3)).astype("float32")
IMAGE = np.random.default_rng(4).normal(size=(2, 4, 5)).astype("float32")
IMAGES = np.random.default_rng(5).uniform(0, 255, (2, 1, 28, 28)).astype("float32")
NETWORK = residual.ResNet(residual.OneLayer(STACK))
ODE = continuous.from_network(NETWORK)
SDE = continuous.NeuralSDE("tanh")
LINEAR = continuous.OneLayerSDE(
    jnp.asarray(A), jnp.asarray(X), std_matrix=0.5, std_bias=0.5
)
DEPTHS, ERRORS = np.array([2.0, 4.0, 8.0, 16.0]), np.array([1.0, 0.6, 0.2, 0.1])
EXERCISE, ANSWER = next((k, v["answer"]) for k, v in exercises.answers().items())
SLOPE = statistics.loglog_slope(DEPTHS, ERRORS)
TRAINED = {"loss": losses.mean_square, "model": NETWORK}
SGD = optax.sgd(0.1)
POINTS = np.random.default_rng(6).normal(size=(6, 2)).astype("float32")
MU, NU = measures.Empirical(POINTS), measures.Empirical(POINTS[::-1] / 2)
MANY = measures.Empirical(np.linspace(0, 1, 32, dtype="float32"))
UNIFORM = measures.Histogram(jnp.arange(3.0), jnp.full(2, 0.5))
NORMAL = measures.Gaussian(jnp.ones(2), jnp.eye(2))
GRAPH = np.array([[0.0, 0.25], [0.5, 1.0], [1.0, 0.5]], np.float32)
CELLS, FLAT = np.linspace(-1, 1, 5), np.full(4, 0.5, np.float32)
LINE = meanfield.line_control(-1.0, 0.5)
NOISE_ON_LINE = meanfield.Noise(0.5)
MOMENTS = np.array([1.0, 0.5, 2.0], np.float32)
STEADY = meanfield.steady_law(-1.0, 0.5, NOISE_ON_LINE)
MOVED = meanfield.transport(FLAT, CELLS, LINE)
SPREAD = meanfield.evolve(FLAT, CELLS, LINE, NOISE_ON_LINE, steps=1)
SCALARS = np.array([0.5, -0.25, 1.0], np.float32)
STIFFNESS = {"stiffness": Numbers(SCALARS + 1, whole=(1, 9), positive=True)}
SCALAR_TRAINING = {
    "target": Real(1.5, within="(0, 2]"),
    "alpha": Real(0.1, within="(0, inf)"),
    "tau": Real(1.0, within="(0, inf)"),
}
STEERED = steering.steer(GRAPH, -GRAPH, activation="tanh")
TWO_WIDE = variational.one_layer(3, 2, dtype="float32")
PLANE = variational.Problem(GRAPH, X[[0, 1, 0]], alpha=0.1, loss=variational.square)
START = Numbers(
    np.full(3, 0.5, np.float32), ("theta",), whole=None, ranks=(0,), plain=False
)
ON_LINE = control.ControlProblem(X[:, None], X, decay=0.1)
PLANT = {"A": Numbers(A), "B": Numbers(A[:, :1]), "duration": POSITIVE}
SHARES = np.full(3, 1 / 3, np.float32)
HIDDEN = transport.hidden_start(2, 2, key=KEY, dtype="float32")
FEEDBACK = control.riccati(A, A, state=A * 0, control=np.eye(2), terminal=np.eye(2))


def calls(prefix: str, table: dict[str, Call]) -> dict[str, Call]:
    return {f"{prefix}.{name}": call for name, call in table.items()}


def weights(value: np.ndarray, **options) -> Numbers:
    """Weights of one layer: fewer axes are wrong, one more is a stack of layers."""
    fixed = {"whole": None, "nan": NAN, "ranks": tuple(range(value.ndim))}
    return Numbers(value, plain=False, **fixed | options)


def depth_leading(value: np.ndarray, **options) -> Numbers:
    return Numbers(value, **{"ranks": (0,)} | options)


def state(value: np.ndarray, **options) -> Numbers:
    """The state of a layer: NaN stays NaN, a batch is a batch."""
    return Numbers(value, **{"nan": NAN, "ranks": (0,), "mapped": True} | options)


def block(kind: Callable, *arrays: np.ndarray) -> Callable:
    return kind(*map(jnp.asarray, arrays), activation="tanh")


SIZED = {"depth": Count(3), "shape": Sizes((2,)), "key": KEY}
POINT = Real(0.3, within="[0, 1]")


def used_on_line(control: Any) -> Any:
    return meanfield.flow(jnp.ones((1, 2)), control)


def parts(function: Callable) -> Callable:
    """The fields of the record that a function makes: records are no pytrees."""
    return lambda **given: vars(function(**given))


def used(block: Any) -> Any:
    """What a block, a path or a map makes of one, so that NaN in it shows."""
    return block(jnp.ones(2))


TABLE = {
    **calls(
        "initialisation",
        {
            "independent": Call(
                initialisation.independent,
                SIZED | {"std": Real(0.5, within="[0, inf)")},
            ),
            "tied": Call(
                initialisation.tied, SIZED | {"std": Real(0.5, within="[0, inf)")}
            ),
            "smooth": Call(
                initialisation.smooth,
                SIZED
                | {"length_scale": Real(0.5, within="[0.01, inf)")}
                | {"std": Real(0.5, within="[0, inf)")},
            ),
            "uniform": Call(initialisation.uniform, SIZED),
            "fractional_noise": Call(
                initialisation.fractional_noise,
                SIZED | {"hurst": Real(0.3, within="(0, 1)")},
            ),
            "coarsened": Call(
                initialisation.coarsened,
                {
                    "noise": depth_leading(NOISE, nan=NAN),
                    "factor": Count(2),
                    "hurst": Real(0.3, within="(0, 1)"),
                },
            ),
            "smooth_increments": Call(
                initialisation.smooth_increments,
                SIZED | {"length_scale": Real(0.5, within="[0.01, inf)")},
            ),
            "along_path": Call(
                initialisation.along_path, {"path": lambda s: s, "depth": Count(3)}
            ),
            "SmoothPath": Call(
                initialisation.SmoothPath,
                {
                    "shape": Sizes((2,)),
                    "length_scale": Real(0.5, within="[0.01, inf)"),
                    "std": Real(0.5, within="[0, inf)"),
                    "key": KEY,
                },
            ),
            "SmoothPath.__call__": Call(
                initialisation.SmoothPath((2,), 0.5, key=KEY), {"s": POINT}
            ),
            "LacunaryPath": Call(
                lambda direction, **rest: initialisation.LacunaryPath(
                    direction, **rest
                )(0.3),
                {
                    "direction": Numbers(A, nan=NAN, ranks=()),
                    "gamma": Real(0.5, within="(0, 1]"),
                    "levels": Count(3),
                },
            ),
            "LacunaryPath.__call__": Call(
                initialisation.LacunaryPath(jnp.asarray(X), 0.5), {"s": POINT}
            ),
            "PiecewiseConstant.__call__": Call(
                initialisation.PiecewiseConstant(STACK), {"s": POINT}
            ),
            "PiecewiseLinear.__call__": Call(
                initialisation.PiecewiseLinear(STACK), {"s": POINT}
            ),
        },
    ),
    **calls(
        "initialisation",
        {
            kind.__name__: Call(
                lambda layers, kind=kind: jax.vmap(kind(layers))(jnp.arange(4) / 4),
                {"layers": depth_leading(NOISE, nan=NAN, plain=False)},
            )
            for kind in (
                initialisation.PiecewiseConstant,
                initialisation.PiecewiseLinear,
            )
        },
    ),
    **calls(
        "residual",
        {
            "named_activation": Call(
                residual.named_activation, {"name": Name("tanh", ("activation",))}
            ),
            "OneLayer": Call(
                lambda **given: used(residual.OneLayer(**given)),
                {"weight": weights(A), "bias": weights(X, optional=True)},
            ),
            "OneLayer.__call__": Call(block(residual.OneLayer, A, X), {"h": state(X)}),
            "OuterLayer": Call(
                lambda outer: used(residual.OuterLayer(outer)), {"outer": weights(A)}
            ),
            "OuterLayer.__call__": Call(block(residual.OuterLayer, A), {"h": state(X)}),
            "TwoLayer": Call(
                lambda **given: used(residual.TwoLayer(**given)),
                {"outer": weights(A), "inner": weights(A)},
            ),
            "TwoLayer.__call__": Call(block(residual.TwoLayer, A, A), {"h": state(X)}),
            "Convolution": Call(
                lambda kernels, biases: residual.Convolution(kernels, biases)(
                    jnp.asarray(IMAGE)
                ),
                {
                    "kernels": weights(KERNELS),
                    "biases": weights(np.stack([X, X]), optional=True),
                },
            ),
            "Convolution.__call__": Call(
                block(residual.Convolution, KERNELS),
                {"h": Numbers(IMAGE, nan=NAN)},
            ),
            "convolve": Call(
                residual.convolve,
                {
                    "image": Numbers(IMAGE, nan=NAN),
                    "kernel": Numbers(KERNELS[0], nan=NAN),
                    "stride": Count(1),
                },
            ),
            "Matrix": Call(
                lambda weight: used(residual.Matrix(weight)),
                {"weight": Numbers(A, whole=None, nan=NAN, plain=False)},
            ),
            "Matrix.__call__": Call(residual.Matrix(jnp.asarray(A)), {"x": state(X)}),
            "ResNet": Call(
                lambda weight, **rest: residual.ResNet(
                    residual.OneLayer(weight), **rest
                )(jnp.ones(2)),
                {
                    "weight": Numbers(
                        NOISE,
                        ("arrays", "weights"),
                        whole=None,
                        nan=NAN,
                        ranks=(0, 1),
                        plain=False,
                    ),
                    "beta": Real(0.5),
                    "scale": Numbers(np.float32(0.5), optional=True),
                },
                few=True,
            ),
            "ResNet.trajectory": Call(
                NETWORK.trajectory,
                {"x": state(X, named=("h",), mapped=False)},
                few=True,
            ),
            "ResNet.__call__": Call(NETWORK, {"x": state(X, named=("h",))}, few=True),
        },
    ),
    **calls(
        "continuous",
        {
            "NeuralODE.trajectory": Call(
                ODE.trajectory,
                {
                    "x": Numbers(X, named=("h",), ranks=(0,)),
                    "times": Numbers(np.array([0.0, 0.5, 1.0]), whole=(0, 0)),
                    "tolerance": Real(1e-4, within="(0, inf)"),
                },
                few=True,
            ),
            "NeuralODE.__call__": Call(
                lambda x, steps: ODE(x, steps=steps),
                {
                    "x": Numbers(X, named=("h",), ranks=(0,), mapped=True),
                    "steps": Count(4, optional=True),
                },
                few=True,
            ),
            "from_network": Call(
                continuous.from_network,
                {"network": NETWORK, "interpolation": Name("linear")},
            ),
            "to_network": Call(continuous.to_network, {"ode": ODE, "depth": Count(3)}),
            "NeuralSDE": Call(continuous.NeuralSDE, {"activation": Name("tanh")}),
            "NeuralSDE.network": Call(
                lambda noise: SDE.network(noise)(jnp.ones(2)),
                {"noise": Numbers(NOISE, nan=NAN)},
                few=True,
            ),
            "NeuralSDE.__call__": Call(
                SDE,
                {"x": Numbers(X, nan=NAN), "noise": Numbers(NOISE, nan=NAN)},
                few=True,
            ),
            "OneLayerSDE": Call(
                continuous.OneLayerSDE,
                {
                    "matrix": Numbers(A),
                    "bias": Numbers(X),
                    "std_matrix": Real(0.5, within="[0, inf)"),
                    "std_bias": Real(0.5, within="[0, inf)"),
                    "activation": Name("tanh"),
                },
            ),
            "OneLayerSDE.network": Call(
                lambda noise: LINEAR.network(noise)(jnp.ones(2)),
                {"noise": Numbers(WIDE, nan=NAN)},
                few=True,
            ),
            "OneLayerSDE.drift": Call(LINEAR.drift, {"h": Numbers(X, nan=NAN)}),
            "OneLayerSDE.scan": Call(
                LINEAR.scan,
                {"x": Numbers(X, nan=NAN), "noise": Numbers(WIDE, nan=NAN)},
                few=True,
            ),
            "OneLayerSDE.__call__": Call(
                LINEAR,
                {"x": Numbers(X, nan=NAN), "noise": Numbers(WIDE, nan=NAN)},
                few=True,
            ),
            "linear_flow": Call(
                continuous.linear_flow,
                {
                    "matrix": Numbers(A, nan=NAN),
                    "bias": Numbers(X, nan=NAN),
                    "x": Numbers(X, nan=NAN),
                },
            ),
            "adjoint_states": Call(
                continuous.adjoint_states,
                {
                    "network": NETWORK,
                    "x": Numbers(X, nan=NAN, named=("h", "cotangent")),
                    "cotangent": Numbers(X, nan=NAN),
                },
                few=True,
            ),
        },
    ),
    **calls(
        "datasets",
        {
            "gaussian_pairs": Call(
                datasets.gaussian_pairs, {"n": Count(3), "d": Count(2), "key": KEY}
            ),
            "torch_normals": Call(
                lambda seed, sizes: datasets.torch_normals(seed, sizes),
                {"seed": Count(3, ("Seed",), least=0), "sizes": Sizes((16, 2))},
            ),
            "digits": Call(datasets.digits, {"test": Count(36), "key": KEY}),
            "rings": Call(
                lambda n, inner, outer: datasets.rings(n, radii=(inner, outer)),
                {
                    "n": Count(3),
                    "inner": Real(0.5, within="(0, inf)"),
                    "outer": Real(1.5, within="(0, inf)"),
                },
            ),
            "flow_pairs": Call(
                datasets.flow_pairs,
                {
                    "n": Count(3),
                    "d": Count(2),
                    "noise": Real(0.5, within="[0, inf)"),
                    "steps": Count(4),
                    "key": KEY,
                },
            ),
            "untrained_embedding": Call(
                datasets.untrained_embedding,
                {"images": Numbers(IMAGES, whole=(0, 127)), "key": KEY},
                few=True,
            ),
            "embedded_digits": Call(
                datasets.embedded_digits,
                {
                    "images": Numbers(IMAGES, ("image",), whole=(0, 127)),
                    "labels": Labels(np.array([0, 24]), ("image", "classes"), last=24),
                    "key": KEY,
                },
                few=True,
            ),
        },
    ),
    **calls(
        "collocation",
        {
            "Grid": Call(
                lambda count, substeps: collocation.Grid(count, substeps).stages,
                {"count": Count(4, least=2), "substeps": Count(2)},
            ),
            "Grid.at": Call(
                collocation.Grid(4, 2).at,
                {"points": Numbers(np.array([0.1, 0.7]), nan=NAN)},
            ),
        },
    ),
    **calls(
        "epochs",
        {
            "Stopping": Call(
                epochs.Stopping,
                {
                    "loss": Real(0.1, within="[0, inf)"),
                    "epochs": Count(3),
                    "patience": Count(2),
                    "improvement": Real(0.1, within="[0, 1)"),
                },
            ),
            "orders": Call(
                epochs.orders,
                {
                    "n": Count(4, ("batch",)),
                    "size": Count(2),
                    "epochs": Count(3),
                    "key": KEY,
                },
            ),
            "consecutive_batches": Call(
                epochs.consecutive_batches,
                {"n": Count(4, ("batch",)), "size": Count(2)},
            ),
        },
    ),
    **calls(
        "variational.gamma",
        {
            "layered": Call(gamma.layered, {"periods": Count(2), "pieces": Count(3)}),
            "string_energy": Call(
                gamma.string_energy, {"u": Numbers(np.arange(4.0)), **STIFFNESS}
            ),
            "string_at_rest": Call(
                gamma.string_at_rest,
                {**STIFFNESS, "end": Real(1.0), "load": Real(0.5)},
            ),
            "depth_penalty": Call(
                gamma.depth_penalty,
                {"weights": Numbers(SCALARS), "kind": Name("variation")}
                | {"tau": Real(1.0, within="[0, inf)")},
            ),
            "relaxed_start": Call(
                gamma.relaxed_start,
                {"value": Real(0.7), "tau": Real(1.0, within="(0, inf)")},
            ),
            "scalar_network": Call(gamma.scalar_network, {"weights": Numbers(SCALARS)}),
            "scalar_energy": Call(
                gamma.scalar_energy, {"weights": Numbers(SCALARS), **SCALAR_TRAINING}
            ),
            "scalar_minimiser": Call(
                gamma.scalar_minimiser, {"depth": Count(3, least=2), **SCALAR_TRAINING}
            ),
            "scalar_limit": Call(gamma.scalar_limit, SCALAR_TRAINING),
            "scalar_profile": Call(
                gamma.scalar_profile,
                {"s": Numbers(SCALARS), "mean": Real(0.5)}
                | {"tau": Real(1.0, within="(0, inf)")},
            ),
            **{
                function.__name__: Call(
                    function,
                    {"u": Numbers(SCALARS)} | {"spacing": Real(0.5, within="(0, inf)")},
                )
                for function in (gamma.lattice_energy, gamma.lattice_force)
            },
            "lattice_interface": Call(
                gamma.lattice_interface,
                {"spacing": Real(0.5, within="[0.01, 10]"), "centre": Name("site")},
            ),
        },
    ),
    **calls(
        "variational.tracking",
        {
            "velocity_cost": Call(
                tracking.velocity_cost,
                {"u": Numbers(SCALARS / 10, whole=None, ranks=())},
            ),
            "envelope": Call(tracking.envelope, {}),
            "Tracking": Call(
                lambda **given: tracking.Tracking(**given).stop,
                {
                    "speed": Real(0.15, within="(0, 0.301002)"),
                    "decay": Real(0.005, within="(0, 0.0686356)"),
                    "field": Name("tanh"),
                    "smoothing": Real(0.1, within="[0, inf)"),
                },
            ),
            "Tracking.target": Call(
                tracking.Tracking().target, {"t": Numbers(SCALARS, ranks=())}
            ),
            **{
                f"Tracking.{name}": Call(
                    getattr(tracking.Tracking(), name), {"theta": Numbers(SCALARS)}
                )
                for name in ("excess_parts", "path", "value", "value_and_gradient")
            },
            "Tracking.descend": Call(
                tracking.Tracking().descend,
                {
                    "start": Numbers(SCALARS, ("theta",)),
                    "tolerance": Real(1e-6, within="(0, inf)"),
                },
            ),
            "constant": Call(
                tracking.constant,
                {
                    "problem": tracking.Tracking(),
                    "depth": Count(4),
                    "control": Real(0.5),
                },
            ),
            "switching": Call(
                tracking.switching,
                {
                    "problem": tracking.Tracking(),
                    "depth": Count(4),
                    "periods": Count(2),
                },
            ),
            "periodic_excess": Call(
                tracking.periodic_excess,
                {"problem": tracking.Tracking(), "periods": Count(2)},
            ),
            "phases": Call(tracking.phases, {"theta": Numbers(SCALARS)}),
            "programmed": Call(
                tracking.programmed,
                {
                    "problem": tracking.Tracking(),
                    "depth": Count(4),
                    "levels": Count(4),
                    "reach": Real(2.0, within="[1, inf)"),
                    "variation": Real(0.1, within="[0, inf)"),
                },
            ),
        },
    ),
    **calls(
        "measures.laws",
        {
            "Empirical": Call(
                measures.Empirical,
                {
                    "points": Numbers(POINTS, ranks=(0, 3)),
                    "weights": Numbers(np.full(6, 1 / 6, "float32"), optional=True),
                },
            ),
            "Histogram": Call(
                measures.Histogram,
                {
                    "edges": Numbers(np.arange(3.0)),
                    "masses": Numbers(np.full(2, 0.5, "float32"), positive=True),
                },
            ),
            "Gaussian": Call(
                measures.Gaussian,
                {"mean": Numbers(X), "covariance": Numbers(np.eye(2))},
            ),
            **{
                f"{name}.moment": Call(law.moment, {"order": Count(2, least=0)})
                for name, law in (
                    ("Empirical", MU),
                    ("Histogram", UNIFORM),
                    ("Gaussian", NORMAL),
                )
            },
            "Gaussian.sample": Call(NORMAL.sample, {"count": Count(3), "key": KEY}),
            "Affine": Call(
                measures.Affine,
                {"matrix": Numbers(A, nan=NAN), "offset": Numbers(X, nan=NAN)},
            ),
            "Affine.__call__": Call(
                measures.Affine(jnp.asarray(A), jnp.asarray(X)),
                {"x": Numbers(X, nan=NAN)},
            ),
            "affine_flow": Call(
                measures.affine_flow,
                {
                    "matrix": Numbers(A, nan=NAN),
                    "bias": Numbers(X, nan=NAN),
                    "time": Real(0.5),
                },
                few=True,
            ),
        },
    ),
    **calls(
        "measures.distances",
        {
            "wasserstein": Call(
                measures.wasserstein, {"mu": MU, "nu": NU, "p": Count(1)}
            ),
            "sliced": Call(
                measures.sliced,
                {"mu": MU, "nu": NU, "p": Count(1), "directions": Count(3, least=2)}
                | {"level": Real(0.9, within="(0, 1)"), "key": KEY},
            ),
            "between_laws": Call(
                measures.between_laws,
                {"mu": MANY, "nu": MANY, "groups": Count(4, least=4)}
                | {"level": Real(0.9, within="(0, 1)")},
            ),
            "binomial_deviation": Call(
                measures.binomial_deviation,
                {
                    "u": Numbers(np.array([0.2, 0.7]), whole=(0, 1), ranks=()),
                    "count": Count(3),
                },
            ),
            "expected_w1": Call(
                measures.expected_w1, {"law": UNIFORM, "count": Count(3)}
            ),
        },
    ),
    **calls(
        "measures.entropic",
        {
            function.__name__: Call(
                function,
                {
                    "mu": MU,
                    "nu": NU,
                    "epsilon": Real(1.0, within="(0, inf)"),
                    "p": Count(2),
                    "tolerance": Real(1e-3, within="(0, inf)"),
                    "steps": Count(5),
                },
                few=True,
            )
            for function in (measures.sinkhorn, measures.sinkhorn_divergence)
        },
    ),
    "epochs.fit": Call(
        lambda data, batches: (
            epochs.fit(
                jnp.asarray(X),
                data,
                batches,
                lambda z, part, _: ((z - part) ** 2).mean(),
                SGD,
                epochs.Stopping(epochs=1),
            ).losses
        ),
        {
            "data": Numbers(A, whole=(), ranks=(), plain=False),
            "batches": Labels(np.array([[[0, 1]]]), last=1),
        },
        few=True,
    ),
    "control.problem.squares": Call(
        control.problem.squares, {"theta": Numbers(A, nan=NAN, ranks=())}
    ),
    **{
        f"variational.functional.{loss.__name__}": Call(
            loss,
            {
                "output": Numbers(X, ("label",), nan=NAN),
                "label": Numbers(X, nan=NAN),
            },
        )
        for loss in (variational.square, variational.tanh_square)
    },
    **calls(
        "losses",
        {
            **{
                loss.__name__: Call(
                    lambda inputs, targets, loss=loss: loss(NETWORK, (inputs, targets)),
                    {
                        "inputs": Numbers(A, ("x", "h", "targets"), nan=NAN),
                        "targets": Numbers(A, nan=NAN),
                    },
                    few=True,
                )
                for loss in (losses.mean_square, losses.mean_square_entry)
            },
            "cross_entropy": Call(
                lambda inputs, labels: losses.cross_entropy(NETWORK, (inputs, labels)),
                {
                    "inputs": Numbers(A, ("x", "h", "labels"), nan=NAN),
                    "labels": Labels(np.array([0, 1]), last=1),
                },
                few=True,
            ),
            "accuracy": Call(
                lambda inputs, labels: losses.accuracy(NETWORK, (inputs, labels)),
                {
                    "inputs": jnp.asarray(A),
                    "labels": Labels(np.array([0, 1]), last=1),
                },
                few=True,
            ),
            "on_batches": Call(
                lambda size: losses.on_batches(losses.mean_square, size)(
                    NETWORK, (jnp.asarray(A), jnp.asarray(A)), KEY
                ),
                {"size": Count(2)},
            ),
        },
    ),
    **calls(
        "steering",
        {
            "Shears": Call(
                lambda **given: used(steering.Shears(**given)),
                {"outer": weights(A), "inner": weights(A), "bias": weights(X)},
            ),
            "Shears.__call__": Call(block(steering.Shears, A, A, X), {"h": state(X)}),
            "Steering.positions": Call(
                STEERED.positions,
                {
                    "points": Numbers(GRAPH, ("h", "x"), ranks=(0, 1)),
                    "times": Numbers(np.array([0.0, 0.5]), whole=(0, 0)),
                },
                few=True,
            ),
            **{
                function.__name__: Call(
                    lambda function=function, **given: function(**given).durations,
                    {
                        "points": Numbers(GRAPH, ("targets",)),
                        "targets": Numbers(GRAPH[::-1], ("points",)),
                        "activation": Name("tanh"),
                        "slope": Real(4.0, within=f"({math.log(3)}, inf)"),
                        **more,
                    },
                    few=True,
                )
                for function, more in (
                    (
                        steering.steer,
                        {"width": Count(2), "directions": Count(9)},
                    ),
                    (steering.steer_without_outer, {}),
                )
            },
            "hinge_flow": Call(
                steering.hinge_flow,
                {
                    "x": Numbers(A, ("outer", "inner")),
                    "outer": Numbers(X),
                    "inner": Numbers(-2 * X),
                    "bias": Numbers(np.float32(0.5)),
                },
            ),
            "least_pieces": Call(
                steering.least_pieces,
                {"n": Count(3), "d": Count(2), "width": Count(1)},
            ),
        },
    ),
    **calls(
        "variational",
        {
            "parameters.Affine": Call(
                lambda **given: used(variational.Affine(**given)),
                {"weight": weights(A), "bias": weights(X)},
            ),
            "parameters.Affine.__call__": Call(
                variational.Affine(jnp.asarray(A), jnp.asarray(X)),
                {"x": Numbers(X, nan=NAN)},
            ),
            "parameters.one_layer": Call(
                variational.one_layer,
                {
                    "depth": Count(3),
                    "width": Count(2),
                    "outputs": Count(1),
                    "activation": Name("tanh"),
                },
            ),
            **{
                name: Call(
                    lambda make=make, **given: jax.tree.leaves(make(**given)),
                    more
                    | {
                        "inputs": Numbers(GRAPH, ("labels",)),
                        "labels": Numbers(X[[0, 1, 0]]),
                        "alpha": Real(0.5, within="(0, inf)"),
                        "tau": Real(0.5, within="(0, inf)"),
                        "penalty": Name("sobolev"),
                        "scheme": Name("heun"),
                    },
                )
                for name, make, more in (
                    (
                        "functional.Problem",
                        variational.Problem,
                        {"loss": variational.square},
                    ),
                    ("functional.Problem.but", PLANE.but, {}),
                )
            },
            "minima.minimise": Call(
                variational.minimise,
                {
                    "problem": PLANE,
                    "start": TWO_WIDE,
                    "tolerance": Real(1e-2, within="(0, inf)"),
                    "variables": Name("raw"),
                    "memory": Count(3),
                    "max_iterations": Count(2),
                },
                few=True,
            ),
            "minima.newton": Call(
                variational.newton,
                {
                    "problem": PLANE,
                    "start": TWO_WIDE,
                    "tolerance": Real(1e-2, within="(0, inf)"),
                    "max_steps": Count(2),
                },
                few=True,
            ),
            "whitening.coloured": Call(
                lambda flat: variational.coloured(PLANE, flat, TWO_WIDE),
                {"flat": Numbers(np.linspace(0, 1, 21, dtype="float32"))},
                few=True,
            ),
            "branches.refined": Call(
                lambda depth: variational.refined(PLANE, TWO_WIDE, depth),
                {"depth": Count(4, least=2)},
            ),
            "whitening.random_start": Call(
                variational.random_start,
                {
                    "problem": PLANE,
                    "like": TWO_WIDE,
                    "scale": Real(0.5, within="[0, inf)"),
                    "modes": Count(2, optional=True),
                    "key": KEY,
                },
            ),
            "branches.multi_start": Call(
                variational.multi_start,
                {
                    "problem": PLANE,
                    "like": TWO_WIDE,
                    "starts": Count(2),
                    "same": Real(1e-3, within="(0, inf)"),
                    "key": KEY,
                },
                few=True,
            ),
            "steps.learn_steps": Call(
                variational.learn_steps,
                {
                    "problem": PLANE,
                    "start": TWO_WIDE,
                    "pace": Numbers(np.ones(3, "float32"), plain=False),
                    "cap": Real(3.0, within="[1, inf)"),
                    "tolerance": Real(1.0, within="(0, inf)"),
                    "rounds": Count(1),
                },
                few=True,
            ),
            "limits.recovered": Call(
                lambda depth: variational.recovered(
                    initialisation.PiecewiseLinear(residual.OneLayer(STACK)),
                    TWO_WIDE.readout,
                    depth,
                ),
                {"depth": Count(4, least=2)},
            ),
            "limits.extrapolated": Call(
                variational.extrapolated,
                {"depths": Numbers(DEPTHS, ("values",)), "values": Numbers(ERRORS)},
            ),
        },
    ),
    **calls(
        "control.problem",
        {
            name: Call(
                lambda make=make, **given: jax.tree.leaves(make(**given)),
                {
                    "inputs": Numbers(GRAPH, ("labels",)),
                    "labels": Numbers(GRAPH),
                    "weights": Numbers(np.full(3, 1 / 3), whole=(), optional=True),
                    "decay": Real(0.5, within="[0, inf)"),
                    "duration": POSITIVE,
                },
            )
            for name, make in (
                ("ControlProblem", control.ControlProblem),
                (
                    "ControlProblem.but",
                    control.ControlProblem(GRAPH, GRAPH, decay=1).but,
                ),
            )
        },
    ),
    **calls(
        "control.sampling",
        {
            name: Call(
                function,
                size
                | {
                    "centres": Numbers(GRAPH),
                    "labels": Numbers(GRAPH[:, :1], ("centres",)),
                    "radius": POSITIVE,
                },
            )
            for name, function, size in (
                ("bumps", control.bumps, {"nodes": Count(3)}),
                ("sample_bumps", control.sample_bumps, {"count": Count(3), "key": KEY}),
            )
        },
    ),
    **calls(
        "control.solvers",
        {
            "direct": Call(
                parts(control.direct),
                {
                    "problem": ON_LINE,
                    "start": START,
                    "tolerance": POSITIVE,
                    "memory": Count(3),
                    "max_iterations": Count(2),
                },
                few=True,
            ),
            "sweep": Call(
                parts(control.sweep),
                {
                    "problem": ON_LINE,
                    "start": Numbers(np.full(3, 0.5)),
                    "damping": Real(0.5, within="(0, 1]"),
                    "tolerance": POSITIVE,
                    "max_sweeps": Count(2),
                    "reach": Real(9.5, within="(0, inf)"),
                    "points": Count(5, least=3),
                },
                few=True,
            ),
        },
    ),
    **calls(
        "control.extended",
        {
            "extended_msa": Call(
                parts(control.extended_msa),
                {
                    "problem": ON_LINE,
                    "start": START,
                    "rho": Real(0.5, within="[0, inf)"),
                    "tolerance": POSITIVE,
                    "max_sweeps": Count(2),
                    "inner": Count(2),
                },
                few=True,
            ),
            "summed_rho": Call(
                control.summed_rho,
                {
                    "rho": Real(0.5, within="[0, inf)"),
                    "points": Count(3),
                    "step": POSITIVE,
                },
            ),
        },
    ),
    "control.densities.DensityForm": Call(
        lambda **given: jax.tree.leaves(control.DensityForm(ON_LINE, **given)),
        {
            "grid": Numbers(np.linspace(-4, 4, 9), whole=()),
            "forward": Name("points"),
            "costate": Name("leaving"),
        },
    ),
    **calls(
        "control.linear",
        {
            "riccati": Call(
                parts(control.riccati),
                PLANT
                | {
                    "state": Numbers(np.eye(2)),
                    "control": Numbers(np.eye(1)),
                    "terminal": Numbers(np.eye(2)),
                    "steps": Count(3),
                    "times": Name("layers"),
                },
            ),
            "Riccati.value": Call(FEEDBACK.value, {"start": Numbers(X)}),
            "gramian": Call(control.gramian, PLANT),
            "least_energy": Call(
                parts(control.least_energy),
                PLANT | {"start": Numbers(X), "end": Numbers(-X), "steps": Count(3)},
            ),
            "shared_bias": Call(
                parts(control.shared_bias),
                {
                    "inputs": Numbers(GRAPH),
                    "labels": Numbers(GRAPH),
                    "weight": Numbers(A),
                    "penalty": POSITIVE,
                    "duration": POSITIVE,
                    "steps": Count(3),
                },
            ),
        },
    ),
    **calls(
        "control.reversal",
        {
            "straight_slopes": Call(
                control.straight_slopes,
                {"depth": Count(3), "kinetic": Real(0.2, within="(0, 1)")},
            ),
            "reversal_energy": Call(
                control.reversal_energy,
                {
                    "slopes": Numbers(SCALARS),
                    "kinetic": POSITIVE,
                    "price": Real(0.1, within="[0, inf)"),
                },
            ),
            "least_reversal": Call(
                lambda **given: control.least_reversal(**given).factors,
                {
                    "depth": Count(2),
                    "kinetic": Real(0.2, within="(0, 1)"),
                    "price": POSITIVE,
                },
            ),
            "reversal_limit": Call(
                control.reversal_limit,
                {"kinetic": Real(0.2, within="(0, 1)"), "price": POSITIVE},
            ),
        },
    ),
    **calls(
        "transport",
        {
            "kinetic.kinetic_energy": Call(
                transport.kinetic_energy,
                {
                    "paths": Numbers(GRAPH, ranks=(0, 1, 4)),
                    "weights": Numbers(
                        np.full(2, 0.5, "float32"), whole=(), optional=True
                    ),
                    "duration": POSITIVE,
                },
            ),
            "normal.bures": Call(transport.bures, {"mu": NORMAL, "nu": NORMAL}),
            "normal.bures_geodesic": Call(
                transport.bures_geodesic,
                {"mu": NORMAL, "nu": NORMAL, "time": Real(0.5, within="[0, 1]")},
            ),
            "normal.bures_map": Call(transport.bures_map, {"mu": NORMAL, "nu": NORMAL}),
            "dynamic.benamou_brenier": Call(
                parts(transport.benamou_brenier),
                {
                    "mu": Numbers(FLAT / 2, ("nu",), whole=()),
                    "nu": Numbers(FLAT / 2, whole=()),
                    "lengths": Real(2.0, within="(0, inf)"),
                    "steps": Count(2, least=2),
                    "sigma": POSITIVE,
                    "tolerance": POSITIVE,
                    "max_iterations": Count(2),
                },
                few=True,
            ),
            **{
                f"staggered.{name}": Call(
                    function,
                    {"density": Numbers(GRAPH[:, 0], ("square", "fluxes"), nan=NAN)}
                    | {other: Numbers(GRAPH[:, 0], nan=NAN)}
                    | {"gamma": POSITIVE},
                )
                for name, function, other in (
                    ("kinetic_root", transport.kinetic_root, "square"),
                    (
                        "kinetic_prox",
                        lambda density, fluxes, gamma: transport.kinetic_prox(
                            density, (fluxes,), gamma
                        ),
                        "fluxes",
                    ),
                )
            },
            "idealised.straight_lines": Call(
                transport.straight_lines,
                {"inputs": Numbers(GRAPH, ("labels",)), "labels": Numbers(GRAPH / 2)}
                | {"weights": Numbers(SHARES, whole=(), optional=True)}
                | {"decay": POSITIVE, "duration": POSITIVE},
            ),
            "idealised.ordered_lines": Call(
                transport.ordered_lines,
                {"inputs": Numbers(SCALARS, ("labels",)), "labels": Numbers(-SCALARS)}
                | {"weights": Numbers(SHARES, whole=(), optional=True)}
                | {"decay": POSITIVE, "duration": POSITIVE},
            ),
            "networks.KineticProblem": Call(
                lambda **given: jax.tree.leaves(transport.KineticProblem(**given)),
                {"inputs": Numbers(GRAPH, ("labels",)), "labels": Numbers(GRAPH / 2)}
                | {"weights": Numbers(SHARES, whole=(), optional=True)}
                | {name: Real(0.5, within="[0, inf)") for name in ("kinetic", "decay")},
            ),
            "networks.HiddenLayer": Call(
                lambda **given: used(transport.HiddenLayer(**given)),
                {"outer": weights(A), "inner": weights(A), "bias": weights(X)},
            ),
            "networks.HiddenLayer.__call__": Call(
                block(transport.HiddenLayer, A, A, X), {"h": Numbers(X, nan=NAN)}
            ),
            "networks.hidden_start": Call(
                transport.hidden_start,
                {name: Count(2) for name in ("depth", "width", "dimension")}
                | {"key": KEY, "size": Real(0.5, within="[0, inf)")},
            ),
            "networks.widened": Call(
                transport.widened,
                {"block": HIDDEN, "width": Count(3, least=2), "key": KEY}
                | {"size": Real(0.5, within="[0, inf)")},
            ),
        },
    ),
    "gradient_flow.flow": Call(
        lambda x, y, **rest: gradient_flow.flow(data=(x, y), **rest),
        TRAINED
        | {
            "x": Numbers(A, ("data", "inputs", "h", "targets"), whole=(), plain=False),
            "y": Numbers(A, ("data", "targets"), whole=(), plain=False),
            "times": Numbers(np.array([0.0, 0.5]), whole=(0, 0), plain=False),
            "tolerance": Real(1e-4, within="(0, inf)"),
        },
        few=True,
    ),
    "training.train": Call(
        lambda x, y, **rest: training.train(data=(x, y), optimiser=SGD, **rest).losses,
        TRAINED
        | {
            "x": Numbers(A, ("data", "inputs", "h", "targets"), plain=False),
            "y": Numbers(A, ("data", "targets"), plain=False),
            "steps": Count(2),
            "every": Count(1),
            "chunk": Count(1, optional=True),
        },
        few=True,
    ),
    **calls(
        "statistics",
        {
            "loglog_slope": Call(
                statistics.loglog_slope,
                {
                    "x": Numbers(DEPTHS, whole=(1, 99), positive=True),
                    "y": Numbers(ERRORS, whole=(1, 9), positive=True, ranks=(0, 3)),
                    "window": Window(None),
                    "level": Real(0.9, within="(0, 1)"),
                },
            ),
            "Slope.line": Call(
                SLOPE.line,
                {
                    "x": Numbers(
                        DEPTHS, whole=(1, 9), positive=True, infinite=True, ranks=()
                    )
                },
            ),
            "mean_interval": Call(
                statistics.mean_interval,
                {"samples": Numbers(ERRORS), "level": Real(0.9, within="(0, 1)")},
            ),
            "successive_distances": Call(
                statistics.successive_distances, {"weights": depth_leading(LAYERS)}
            ),
            "scaling_norms": Call(
                statistics.scaling_norms, {"weights": depth_leading(LAYERS)}
            ),
            "trend_and_noise": Call(
                statistics.trend_and_noise,
                {
                    "weights": depth_leading(LAYERS),
                    "window": Real(0.3, within="(0, 1]"),
                },
            ),
        },
    ),
    **calls(
        "variation",
        {
            "second_differences": Call(
                variation.second_differences,
                {
                    "weights": depth_leading(LAYERS, nan=NAN),
                    "lag": Count(2),
                    "order": Count(2),
                },
            ),
            "variogram": Call(
                variation.variogram,
                {
                    "weights": depth_leading(LAYERS, nan=NAN),
                    "lags": Sizes((1, 2), ("lag",)),
                    "order": Count(2),
                },
            ),
            "regularity": Call(
                variation.regularity,
                {
                    "weights": depth_leading(LAYERS, nan=NAN),
                    "lags": Sizes((1, 2), ("lag",)),
                    "order": Count(2),
                    "level": Real(0.9, within="(0, 1)"),
                },
            ),
        },
    ),
    **calls(
        "intervals",
        {
            "Interval": Call(
                intervals.Interval,
                {
                    "value": 0.5,
                    "low": Real(0.0, within="[-inf, 0.5]"),
                    "high": Real(1.0, within="[0.5, inf]"),
                    "kind": Name("one run"),
                },
            ),
            "hull": Call(
                intervals.hull,
                {"parts": Numbers(ERRORS, ranks=()), "kind": Name("over seeds")},
            ),
        },
    ),
    **calls(
        "diagnosis",
        {
            "examination.examine": Call(
                diagnosis.examine,
                {"array": depth_leading(LAYERS, plain=False)},
            ),
            "verdict.diagnose": Call(
                lambda w, beta: diagnosis.diagnose([{"w": w}], beta=beta),
                {
                    "w": depth_leading(LAYERS, whole=None, plain=False),
                    "beta": Real(0.5, optional=True),
                },
            ),
            "weights.check_array": Call(
                lambda w: diagnosis.weights.check_array(w, "w"),
                {"w": depth_leading(LAYERS, plain=False)},
            ),
        },
    ),
    **{
        f"exercises.{function.__name__}": Call(
            function, {"name": Name(EXERCISE, ("exercise",)), "value": ANSWER}
        )
        for function in (exercises.is_right, exercises.check)
    },
}

WEIGHT, BIAS = {"weight": Real(-1.0)}, {"bias": Real(0.5)}
TIME = {"duration": Real(0.5, within="[0, inf)")}
NAMED = {"activation": Name("tanh")}
IN_CELLS = {
    "density": Numbers(FLAT, whole=()),
    "edges": Numbers(CELLS, whole=(), ranks=(0, 2)),
}
TABLE |= {
    **calls(
        "meanfield.controls",
        {
            "line_control": Call(
                lambda weight, bias, **rest: used_on_line(
                    meanfield.line_control(weight, bias, **rest)
                ),
                {
                    "weight": Numbers(X, ranks=(2,)),
                    "bias": Numbers(X, ranks=(2,)),
                    **NAMED,
                },
            ),
            "Noise": Call(
                lambda kappa, kind: meanfield.Noise(kappa, kind).kappa,
                {
                    "kappa": Numbers(
                        np.array([0.5, 1]), whole=(1, 9), positive=True, ranks=(2,)
                    ),
                    "kind": Name("root"),
                },
            ),
            "Noise.in_pieces": Call(
                lambda pieces: NOISE_ON_LINE.in_pieces(pieces).kappa,
                {"pieces": Count(3)},
            ),
            "growth_bounds": Call(
                meanfield.growth_bounds, {"weight": Numbers(A), **NAMED}
            ),
        },
    ),
    **calls(
        "meanfield.particles",
        {
            **{
                function.__name__: Call(
                    lambda function=function, **rest: function(control=LINE, **rest),
                    {
                        "x": Numbers(NOISE[:1, 0], ("state",)),
                        "steps": Count(2),
                        **TIME,
                    },
                    few=True,
                )
                for function in (meanfield.flow, meanfield.trajectory)
            },
            "diffuse": Call(
                lambda **rest: meanfield.diffuse(
                    control=LINE, noise=NOISE_ON_LINE, key=KEY, **rest
                ),
                {
                    "x": Numbers(NOISE[:1, 0], ("state",)),
                    "steps": Count(2),
                    **TIME,
                },
                few=True,
            ),
            "sensitivities": Call(
                lambda **rest: meanfield.sensitivities(control=LINE, **rest),
                {"x": Numbers(X, ("state",)), "steps": Count(2), **TIME},
                few=True,
            ),
        },
    ),
    **calls(
        "meanfield.closed_forms",
        {
            "characteristic": Call(
                meanfield.characteristic,
                {
                    "x": Numbers(X, nan=NAN, ranks=()),
                    "t": Real(0.5),
                    **WEIGHT,
                    **BIAS,
                    **NAMED,
                },
            ),
            "transported_cdf": Call(
                lambda **rest: meanfield.transported_cdf(np.tanh, **rest)(X),
                {"t": Real(0.5), **WEIGHT, **BIAS, **NAMED},
            ),
            "affine_moments": Call(
                meanfield.affine_moments,
                {
                    "moments": Numbers(MOMENTS, whole=(1, 9)),
                    "scale": Real(0.5),
                    "shift": Real(0.5),
                },
            ),
            "linear_moments": Call(
                meanfield.linear_moments,
                {
                    "moments": Numbers(MOMENTS, whole=(1, 9)),
                    "t": Real(0.5),
                    **WEIGHT,
                    **BIAS,
                },
            ),
            "policy_bias": Call(
                meanfield.policy_bias,
                {
                    "policy": Name("mean"),
                    "moments": Numbers(MOMENTS, whole=(1, 9)),
                    **WEIGHT,
                },
            ),
            "moment_rates": Call(
                meanfield.moment_rates,
                {"moments": Numbers(MOMENTS, whole=(1, 9)), **WEIGHT, **BIAS},
            ),
            "moment_trajectory": Call(
                meanfield.moment_trajectory,
                {
                    "moments": Numbers(MOMENTS, whole=(1, 9)),
                    "policy": Name("mean"),
                    "steps": Count(2),
                    **WEIGHT,
                    **BIAS,
                    **TIME,
                },
                few=True,
            ),
            "network_moments": Call(
                meanfield.network_moments,
                {
                    "moments": Numbers(MOMENTS, whole=(1, 9)),
                    "policy": Name("mean"),
                    "depth": Count(2),
                    **WEIGHT,
                    **TIME,
                },
                few=True,
            ),
        },
    ),
    **calls(
        "meanfield.volumes",
        {
            "cell_averages": Call(
                lambda edges: meanfield.cell_averages(np.tanh, edges),
                {"edges": Numbers(CELLS, whole=(), ranks=(0, 2))},
            ),
            "Transported.require_kept": Call(
                lambda most: MOVED.require_kept(most).lost,
                {"most": Real(0.9, within="[0, inf)")},
            ),
            "transport": Call(
                lambda **rest: meanfield.transport(control=LINE, **rest),
                {
                    **IN_CELLS,
                    **TIME,
                    "steps": Count(9, optional=True),
                    "order": Count(2),
                },
                few=True,
            ),
        },
    ),
    **calls(
        "meanfield.steady",
        {
            "steady_law": Call(
                lambda **rest: meanfield.steady_law(noise=NOISE_ON_LINE, **rest).mean,
                {
                    "weight": Real(-1.0, within="(-inf, 0)"),
                    **BIAS,
                    **NAMED,
                },
            ),
            **{
                f"SteadyLaw.{method}": Call(
                    getattr(STEADY, method), {"x": Numbers(X, nan=NAN, ranks=())}
                )
                for method in ("log_density", "cdf", "survival")
            },
            "SteadyLaw.averages": Call(
                STEADY.averages,
                {"edges": Numbers(CELLS, whole=(), ranks=(0, 2))},
            ),
            "SteadyLaw.quantile": Call(
                STEADY.quantile,
                {"u": Numbers(np.array([0.2, 0.5]), whole=(), ranks=())},
            ),
            "relaxation": Call(
                lambda **rest: meanfield.relaxation(noise=NOISE_ON_LINE, **rest).gap,
                {
                    "weight": Real(-1.0, within="(-inf, 0)"),
                    "count": Count(2),
                    **NAMED,
                },
            ),
        },
    ),
    **calls(
        "meanfield.fokker_planck",
        {
            "generator": Call(
                lambda **rest: meanfield.generator(noise=NOISE_ON_LINE, **rest),
                {
                    "edges": Numbers(CELLS, whole=(), ranks=(0, 2)),
                    "averages": Numbers(FLAT, whole=(), positive=True, optional=True),
                    **WEIGHT,
                    **BIAS,
                    **NAMED,
                },
                few=True,
            ),
            "slowest_rates": Call(
                lambda **rest: meanfield.slowest_rates(noise=NOISE_ON_LINE, **rest),
                {
                    "edges": Numbers(CELLS, whole=(), ranks=(0, 2)),
                    "count": Count(2),
                    **WEIGHT,
                    **BIAS,
                    **NAMED,
                },
                few=True,
            ),
            "Evolved.require_inside": Call(
                lambda most: SPREAD.require_inside(most).at_ends,
                {"most": Real(0.9, within="[0, inf)")},
            ),
            "evolve": Call(
                lambda **rest: meanfield.evolve(
                    control=LINE, noise=NOISE_ON_LINE, **rest
                ),
                {
                    **IN_CELLS,
                    **TIME,
                    "steps": Count(2),
                    "scheme": Name("implicit"),
                    "averages": Numbers(FLAT, whole=(), positive=True, optional=True),
                },
                few=True,
            ),
            **{
                divergence.__name__: Call(
                    divergence,
                    {
                        **IN_CELLS,
                        "other": Numbers(FLAT, whole=()),
                    },
                    few=True,
                )
                for divergence in (meanfield.relative_entropy, meanfield.chi_square)
            },
        },
    ),
}

# What is not in the table, and why: a name, or a module with all that is in it.
EXCEPT = {
    "checks": "what all others refuse with",
    "checkpoints": "a part of `train`, which gives it what it has made itself",
    "cli": "takes a command line, and is fed wrong ones as such in test_cli",
    "devices": "takes a function and returns one, whose errors are its own",
    "diagnosis.report": "draws and prints what `diagnose` has checked",
    "diagnosis.examination.Network": "a record",
    "diagnosis.examination.chosen": "two sizes of an array that `examine` has checked",
    "diagnosis.examination.figures": "prints an `Interval`, which checks itself",
    "diagnosis.noise": "measures what `examine` has checked",
    "diagnosis.trend": "measures what `examine` has checked",
    "diagnosis.gauge": "multiplies what `diagnose` has checked",
    "diagnosis.verdict.decision": "takes what `diagnose` returns",
    "diagnosis.verdict.pooled": "takes what `diagnose` returns",
    "diagnosis.verdict.voters": "takes what `diagnose` returns",
    "diagnosis.verdict.Parameter": "a record",
    "diagnosis.verdict.overall": "takes what `diagnose` returns",
    "diagnosis.assembly": "takes names and types, and is fed any in test_reading",
    "diagnosis.formats": "takes files, and is fed damaged ones in test_reading",
    "diagnosis.frameworks": "takes models, and is fed what is none in test_reading",
    "diagnosis.stages": "takes names, and is fed any in test_reading",
    "diagnosis.weights.Stack": "takes what `assemble` has checked",
    "diagnosis.weights.Weights": "takes what `assemble` has checked",
    "diagnosis.weights.epsilon": "takes a type of NumPy",
    "diagnosis.weights.is_float": "takes a type of NumPy",
    "collocation.interpolate": "takes a matrix of `Grid`",
    "collocation.runge_kutta_step": "takes callables",
    "continuous.NeuralODE": "takes callables",
    "continuous.TwoLayerPath": "takes callables",
    "continuous.TwoLayerPath.__call__": "passes its s on to the paths",
    "epochs.Fit": "a record",
    "exercises.answers": "takes nothing",
    "films": "takes a callable, and is fed wrong sizes and words in test_films",
    "files": "takes files, and is fed damaged ones where these are read",
    "images": "takes files, and is fed damaged ones in test_datasets",
    "intervals.Kind": "names, which `Interval` refuses",
    "ledger": "takes files and cells, and is fed wrong ones in test_ledger",
    "meanfield.closed_forms.divided": "takes a function of its own table",
    "meanfield.closed_forms.numbers": "what others refuse numbers with",
    "meanfield.controls.growing_cosine": "an activation, which layers give arrays",
    "meanfield.controls.Noise.factor": "a part of `diffuse`",
    "meanfield.controls.Noise.diffusion": "a part of `evolve`",
    "meanfield.controls.pieces_of": "what others refuse a control with",
    "meanfield.fokker_planck.Evolved": "a record",
    "meanfield.fokker_planck.Generator": "a record, of `generator`",
    "meanfield.fokker_planck.bernoulli": "a part of `generator`",
    "meanfield.particles.Sensitivity": "a record",
    "meanfield.steady.Relaxation": "a record",
    "meanfield.steady.SteadyLaw": "a record",
    "meanfield.steady.log_ratio": "a part of `generator`",
    "meanfield.steady.mean_activation": "a part of `generator`",
    "meanfield.volumes.Transported": "a record",
    "meanfield.volumes.as_density": "what others refuse a density with",
    "meanfield.volumes.as_edges": "what others refuse edges with",
    "plots": "draws what it is given",
    "measures.distances.require_pair": "what the distances refuse with",
    "measures.entropic.Entropic": "a record",
    "measures.laws.AbstractMeasure": "has no call of its own",
    "measures.laws.as_masses": "what the laws and `transport` refuse masses with",
    "measures.laws.as_shares": "the same, where there may be none",
    "measures.laws.Empirical.push_forward": "takes a callable",
    "measures.laws.Gaussian.push_forward": "takes a callable",
    "measures.laws.Histogram.push_forward": "takes a callable",
    "residual.AbstractBlock": "has no call of its own",
    "results": "takes files, and is fed wrong ones in test_results",
    "losses.examples_in": "a part of `on_batches` and of `fit`",
    "sources": "reads the library's own sources",
    "steering.Steering": "a record",
    "statistics.Slope": "a record, of `loglog_slope`",
    "training.Run": "a record",
    "training.depth_factor": "takes nothing",
    "training.only_layers": "takes a model",
    "training.split_trainable": "takes a model",
    "transport.kinetic.Kinetic": "a record",
    **{
        f"transport.staggered.{name}": "takes fields that `benamou_brenier` has checked"
        for name in ("Staggered", "apart", "cosines")
    },
    "transport.dynamic.Dynamic": "a record",
    "transport.idealised.Lines": "a record",
    "transport.networks.KineticProblem.rate": "a cost, of one point",
    "transport.networks.KineticProblem.hamiltonian": "takes a control",
    "variational.descent": "descends on what solvers make of problems they checked",
    "control.problem.gain": "a field, of one point",
    "control.problem.of_block": "a field, of one point",
    "control.problem.half_square": "a loss, of one point",
    "control.problem.ControlProblem.rate": "a cost, of one point",
    "control.problem.Pontryagin": "a record",
    "control.problem.hamiltonian_slopes": "takes a control",
    "control.problem.size_in_l2": "takes a control",
    "control.problem.depth_of": "takes a control",
    **{
        f"control.{kind}.{method}": "takes a control"
        for kind, methods in {
            "problem.ControlProblem": (
                "step",
                "states",
                "losses",
                "effort",
                "value",
                "pontryagin",
                "hamiltonian",
                "gradient",
            ),
            "densities.DensityForm": (
                "step",
                "hamiltonian",
                "adjoint",
                "masses",
                "value",
                "pontryagin",
            ),
        }.items()
        for method in methods
    },
    "control.sampling.Law": "a record",
    "control.sampling.SamplingConstants": "a record",
    "control.sampling.sampling_constants": "takes a control",
    "control.solvers.Solution": "a record",
    "control.solvers.started": "a part of the solvers, which are fed wrong starts",
    "control.reversal.Reversal": "a record",
    "control.linear.Riccati": "a record",
    "control.linear.LeastEnergy": "a record",
    "control.linear.SharedBias": "a record",
    "variational.parameters.Parameters": "takes a block, which has checked its weights",
    "variational.functional.Problem.steps": "takes parameters",
    "variational.functional.Problem.outputs": "takes parameters",
    "variational.functional.Problem.data_loss": "takes parameters",
    "variational.functional.Problem.roughness": "takes parameters",
    "variational.functional.Problem.alphas": "takes parameters",
    "variational.functional.Problem.taus": "takes parameters",
    "variational.functional.Problem.energy": "takes parameters",
    "variational.functional.states": "takes parameters",
    "variational.functional.adjoint": "takes parameters",
    "variational.functional.Adjoint": "a record",
    "variational.limits.closed": "takes parameters",
    "variational.steps.Paced": "what `learn_steps` returns: its pace is checked there",
    "variational.steps.Paced.__call__": "a block, which has checked its weights",
    "variational.steps.LearnedSteps": "a record",
    "variational.steps.gains": "takes what `learn_steps` returns",
    "variational.limits.limit_energy": "takes parameters",
    "variational.limits.distances": "takes parameters",
    "variational.limits.tl2_distance": "takes parameters",
    "variational.limits.euler_lagrange": "takes parameters",
    "variational.limits.EulerLagrange": "a record",
    "variational.limits.hamiltonian": "takes parameters",
    "variational.limits.rate_constant": "takes parameters",
    "variational.limits.RateConstant": "a record",
    "variational.tracking.Envelope": "a record",
    "variational.tracking.Found": "a record",
    "variational.minima.Minimum": "a record",
    "variational.branches.Search": "a record",
    "variational.functional.require_alike": "what others refuse weights with",
    "variational.functional.spread": "what others refuse penalties with",
    "variational.whitening.Layout": "a record",
    "variational.whitening.layout_of": "takes parameters",
    "variational.whitening.whiten": "takes parameters",
    "variational.whitening.colour": "a part of `coloured`",
    "variational.whitening.value_and_gradient": "a part of `minimise`",
    "variational.whitening.whitened": "takes parameters",
    "variational.minima.hessian": "takes parameters",
    "variational.branches.continue_in_depth": "passes its depths on to `refined`",
}


def public() -> list[str]:
    """Functions, classes and their methods, but those of the experiments."""
    names = []
    for _, name, _ in pkgutil.walk_packages(deeplimits.__path__, "deeplimits."):
        if name.startswith("deeplimits.experiments"):
            continue
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            if key.startswith("_") or getattr(value, "__module__", None) != name:
                continue
            short = f"{name.removeprefix('deeplimits.')}.{key}"
            if inspect.isclass(value):
                names += [short, *(f"{short}.{method}" for method in _methods(value))]
            elif callable(value):
                names.append(short)
    return names


def _methods(kind: type) -> list[str]:
    fields = getattr(kind, "__dataclass_fields__", {})
    return [
        name
        for name in vars(kind)
        if (name == "__call__" or not name.startswith("_"))
        and callable(getattr(kind, name, None))
        and name not in fields
    ]


def excepted(name: str) -> bool:
    if name in TABLE:
        return False
    return any(name == each or name.startswith(f"{each}.") for each in EXCEPT)


def judged(call: Call, name: str, value: Any, law: str) -> str:
    """An empty word where the law holds, or what happened instead."""
    try:
        found = call(**{name: value})
    except (TypeError, ValueError) as error:
        if law == SAME:
            return _refused_too(call, name, value, error)
        if law != REFUSED:
            return f"refused: {error}"
        return _said(error, call.arguments[name], name, value)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if law == REFUSED:
        return f"accepted, with {_short(found)}"
    if law == NAN:
        return "" if not _finite(found) else f"NaN vanished: {_short(found)}"
    if law == MAPPED:
        expected = jax.vmap(lambda one: call(**{name: one}))(value)
    else:
        expected = call(**{name: jnp.asarray(value, jnp.float32)})
    same = jax.tree.map(_close, _plain(found), _plain(expected))
    return (
        "" if all(jax.tree.leaves(same)) else f"{_short(found)}, not {_short(expected)}"
    )


def _refused_too(call: Call, name: str, value: Any, error: Exception) -> str:
    """Floats that are the same numbers may be wrong for another reason."""
    try:
        call(**{name: jnp.asarray(value, jnp.float32)})
    except ValueError as same:
        return "" if str(same) == str(error) else f"{error} but for floats: {same}"
    return f"refused: {error}"


def _said(error: Exception, argument: Argument, name: str, value: Any) -> str:
    words = (name, *argument.named)
    named = any(
        re.search(rf"(?<!\w){re.escape(word)}(?!\w)", str(error)) for word in words
    )
    typed = isinstance(error, ValueError) or isinstance(
        value, str | dict | complex | None
    )
    if named and typed:
        return ""
    return f"{type(error).__name__}, which does not name it: {error}"


def _plain(found: Any) -> list:
    """The numbers of a result, whatever holds them."""
    if isinstance(found, intervals.Interval):
        found = vars(found)
    leaves = jax.tree.leaves(found)
    return [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray | float)]


def _close(a: Any, b: Any) -> bool:
    return np.shape(a) == np.shape(b) and bool(
        np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
    )


def _finite(found: Any) -> bool:
    return all(bool(np.isfinite(leaf).all()) for leaf in _plain(found))


def _short(found: Any) -> str:
    return re.sub(r"\s+", " ", str(found))[:200]


def tried(function: str, call: Call) -> Iterator[dict[str, str]]:
    """Every fault of every argument of a function: what came, and what went wrong."""
    for name, argument in call.arguments.items():
        if not isinstance(argument, Argument):
            continue
        for fault, values, law in argument.faults():
            yield from _drawn(function, call, name, fault, values, law)


def _drawn(function, call, name, fault, values, law):
    records, seen = [], set()

    @settings(
        max_examples=3 if law == REFUSED else 1 if call.few else 2,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(values)
    def draw(value):
        text = _short(value)
        if text in seen or (value is None and call.arguments[name].optional):
            return
        seen.add(text)
        wrong = judged(call, name, value, law)
        records.append(
            {
                "function": function,
                "argument": name,
                "fault": fault,
                "value": text,
                "law": law,
                "wrong": wrong,
            }
        )

    draw()
    return records


def careless(depth, x):
    """What the law is for: it takes sizes that are none, and rounds in silence."""
    x = jnp.asarray(x)
    return (0.3 * x[0] * (depth or 1)).astype(x.dtype)


CONTROL = Call(careless, {"depth": Count(2), "x": Numbers(X)})


def main() -> None:
    chosen, seconds = sys.argv[1:] or list(TABLE), {}
    names = [name for name in public() if not excepted(name)]
    # drawings and warnings of NumPy on the way to an error are no part of the answer
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        records = []
        for name in chosen:
            started = time.process_time()
            if not TABLE[name].few:
                TABLE[name]()  # what is valid is: else found by the first whole numbers
            records += tried(name, TABLE[name])
            seconds[name] = round(time.process_time() - started, 2)
        control = [r for r in tried("careless", CONTROL) if r["wrong"]]
    answer = {
        "missing": sorted(set(names) - set(TABLE)),
        "unknown": sorted(set(TABLE) - set(names)),
        "seconds": seconds,
        "tried": len(records),
        "refused": sum(r["law"] == REFUSED for r in records),
        "wrong": [r for r in records if r["wrong"]],
        "control": control,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
