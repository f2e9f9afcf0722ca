"""The experiments of Cohen, Cont, Rossier and Xu, *Scaling properties of deep residual
networks* (`cohen2021`), and what we add to them.

The hyper-parameters of the published runs are not known: those of the tanh networks
are of the example in the public code, the depths of its grids. The presets called
`paper` are the sizes of the archived runs.
"""

from dataclasses import replace
from functools import partial

from ..registry import Experiment
from .convolution import Convolutional, convolutional, spectral_norms
from .fitting import SHUFFLES, Fit, Stopping, fit, orders, shuffled_views
from .limits import Limits, limits
from .robustness import CASES, Robustness, label, robustness
from .scaling import Scaling, grid, scaling, smoothed
from .setting import matrices, network
from .shuffling import Shuffling, shuffling
from .trend import Trend, shared_trend

__all__ = [
    "CASES",
    "EXPERIMENTS",
    "SHUFFLES",
    "Convolutional",
    "Fit",
    "Limits",
    "Robustness",
    "Scaling",
    "Shuffling",
    "Stopping",
    "Trend",
    "convolutional",
    "fit",
    "grid",
    "label",
    "limits",
    "matrices",
    "network",
    "orders",
    "robustness",
    "scaling",
    "shared_trend",
    "shuffled_views",
    "shuffling",
    "smoothed",
    "spectral_norms",
]


_experiment = partial(Experiment.sized, "cohen2021")

TANH = Scaling()
RELU = Scaling(activation="relu", delta="layer", loss=1e-2, depths=grid(1.2, 3, 9100))
_RELU_TREND = Trend(
    activation="relu",
    delta="layer",
    loss=1e-2,
    beta=0.5,
    depths=(95, 164, 197, 237, 284, 590, 1020, 2539, 3047, 3657, 4388),
    windows=((164, 197, 237, 284), (2539, 3047, 3657, 4388)),
)
_MNIST = {
    "data": "mnist",
    "depths": (8, 16, 32, 64, 128, 256),
    "train": 8192,
    "test": 2048,
    "loss": 0.02,
    "epochs": 6,
}
_BOOK = {"depths": (16, 64, 256, 1024, 2048)}
_SLOW = {"rate": 1e-3, "epochs": 100}  # Adam at a tenth of the example's rate
_SHARED = {"depths": (64, 128, 256, 512), "windows": ((128, 256, 512),)}
_LEAST = {"depths": (4, 8, 16), "seeds": 2, "epochs": 2, "train": 64, "test": 32}
_TINY = {"depths": (4, 8, 16), "seeds": 2, "train": 64, "test": 32}

EXPERIMENTS = [
    _experiment(
        "tanh-depth",
        "tanh, one delta: norms of trained weights against depth",
        scaling,
        TANH,
        _BOOK,
        _LEAST,
    ),
    _experiment(
        "tanh-depth-slow",
        "as tanh-depth, at a tenth of the learning rate",
        scaling,
        replace(TANH, **_SLOW),
        _BOOK,
        _LEAST,
    ),
    _experiment(
        "relu-depth",
        "ReLU, a delta for each layer: norms of trained weights against depth",
        scaling,
        RELU,
        _BOOK,
        _LEAST,
    ),
    _experiment(
        "relu-depth-slow",
        "as relu-depth, at a tenth of the learning rate",
        scaling,
        replace(RELU, **_SLOW),
        _BOOK,
        _LEAST,
    ),
    _experiment(
        "tanh-mnist",
        "as tanh-depth, on MNIST through untrained convolutions",
        scaling,
        replace(TANH, **_MNIST),
        {"depths": (8, 32, 128)},
        _LEAST,
    ),
    _experiment(
        "relu-mnist",
        "as relu-depth, on MNIST through untrained convolutions",
        scaling,
        replace(RELU, **_MNIST, seeds=16),
        {"depths": (8, 32, 128), "seeds": 5},
        _LEAST,
    ),
    _experiment(
        "tanh-trend",
        "as tanh-depth: one trend for all depths in place of the weights",
        shared_trend,
        Trend(),
        _SHARED,
        _LEAST | {"windows": ((8, 16),), "bins": 8},
    ),
    _experiment(
        "tanh-trend-slow",
        "as tanh-trend, at a tenth of the learning rate",
        shared_trend,
        Trend(**_SLOW, beta=0.45),
        _SHARED,
        _LEAST | {"windows": ((8, 16),), "bins": 8},
    ),
    _experiment(
        "relu-trend",
        "as relu-depth: one trend for all depths in place of the weights",
        shared_trend,
        _RELU_TREND,
        _SHARED,
        _LEAST | {"windows": ((8, 16),), "bins": 8},
    ),
    _experiment(
        "relu-trend-slow",
        "as relu-trend, at a tenth of the learning rate",
        shared_trend,
        replace(_RELU_TREND, **_SLOW, beta=0.75),
        _SHARED,
        _LEAST | {"windows": ((8, 16),), "bins": 8},
    ),
    _experiment(
        "robustness",
        "exponents by activation, delta, optimiser, learning rate and stopping",
        robustness,
        Robustness(),
        {"cases": CASES[:2], "depths": (16, 64, 256)},
        {**_TINY, "cases": (("tanh", "shared", "adam", 1e-2, 0.0, 2),)},
    ),
    _experiment(
        "shuffling",
        "shuffling through views: examples that survive, and the exponents",
        shuffling,
        Shuffling(),
        {"depths": (16, 64, 256)},
        {**_TINY, "epochs": 2, "counted": 3, "batch": 8},
    ),
    _experiment(
        "limits",
        "rates of convergence to the SDE, with its correction, and to the linear ODE",
        limits,
        Limits(),
        {},
        {
            "depths": (4, 8, 16),
            "finest": 64,
            "draws": 16,
            "ode_depths": (16, 32, 64),
            "ode_draws": 4,
        },
    ),
    _experiment(
        "convolution",
        "convolutional networks on handwritten digits: norms against depth",
        convolutional,
        Convolutional(seeds=9),
        {"depths": (4, 8, 16), "seeds": 2, "epochs": 10},
        {"depths": (2, 4, 8), "seeds": 2, "channels": 2, "epochs": 1, "batch": 512},
    ),
]
