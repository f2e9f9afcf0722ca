"""The experiments of Marion, Fermanian, Biau and Vert, *Scaling ResNets in the
large-depth regime* (`marion2025`), and what we add to them.

The presets called `paper` have the sizes of the paper's public code where there are
such; for the experiments that are ours they are the sizes of the archived runs.
"""

from functools import partial

from ..registry import Experiment
from .critical import Critical, critical, crossing, first_order, first_order_exponent
from .depth import Depth, against_depth, mean_square
from .histogram import Histogram, bounds, histogram, lognormal
from .identity import Identity, identity
from .limits import Limits, limits
from .regimes import Regimes, regimes
from .trained import Accuracies, Trained, accuracies, trained_weights

__all__ = [
    "EXPERIMENTS",
    "Accuracies",
    "Critical",
    "Depth",
    "Histogram",
    "Identity",
    "Limits",
    "Regimes",
    "Trained",
    "accuracies",
    "against_depth",
    "bounds",
    "critical",
    "crossing",
    "first_order",
    "first_order_exponent",
    "histogram",
    "identity",
    "limits",
    "lognormal",
    "mean_square",
    "regimes",
    "trained_weights",
]


_experiment = partial(Experiment.sized, "marion2025")

_FEW = {"depths": (10, 100, 1000), "repetitions": 10}
_LEAST = {"depths": (4, 8, 16), "repetitions": 3, "width": 6}
_TINY = {"data": "digits", "depth": 32, "width": 6, "epochs": 1}
_SMOOTH = Depth(law="smooth", betas=(0.5, 1.0, 2.0))

EXPERIMENTS = [
    _experiment(
        "identity",
        "mean squares at finite depth, against the exact identity",
        identity,
        Identity(),
        {},
        {"draws": 512},
    ),
    _experiment(
        "independent-depth",
        "Figures 1 and 3: independent weights, states and gradients against depth",
        against_depth,
        Depth(),
        _FEW,
        _LEAST,
    ),
    _experiment(
        "smooth-depth",
        "Figures 4 and 5: smooth weights, states and gradients against depth",
        against_depth,
        _SMOOTH,
        _FEW,
        _LEAST,
    ),
    _experiment(
        "histogram",
        "Figure 2: the law of the growth at the critical exponent",
        histogram,
        Histogram(),
        {"width": 40, "depth": 256, "draws": 1500},
        {"width": 6, "depth": 8, "draws": 100, "batch": 50},
    ),
    _experiment(
        "regimes",
        "Figure 7: the map of regimes over exponent and Hurst index",
        regimes,
        Regimes(),
        {"columns": 27, "rows": 10, "depth": 128, "networks": 2, "points": 4},
        {"columns": 5, "rows": 3, "depth": 8, "width": 6, "networks": 1, "points": 2},
    ),
    _experiment(
        "critical",
        "the critical exponent against the Hurst index",
        critical,
        Critical(),
        {
            "hursts": (0.1, 0.3, 0.5, 0.7, 0.9),
            "depths": (256, 1024),
            "networks": 32,
            "width": 8,
        },
        {"hursts": (0.2, 0.8), "depths": (16, 64), "width": 6, "networks": 64},
    ),
    _experiment(
        "limits",
        "rates of convergence to the SDE and to the ODE",
        limits,
        Limits(),
        {"draws": 256},
        {"depths": (4, 8, 16), "finest": 64, "draws": 16},
    ),
    _experiment(
        "trained-weights",
        "Figure 8: weights against the layer, before and after training",
        trained_weights,
        Trained(),
        {"data": "digits", "depth": 128, "epochs": 20},
        _TINY,
    ),
    _experiment(
        "accuracy-map",
        "Figure 9: test accuracy over exponent and Hurst index",
        accuracies,
        Accuracies(),
        {"data": "digits", "depth": 64, "grid": 5, "rates": (1e-2,)},
        {**_TINY, "grid": 2, "rates": (1e-2,)},
    ),
]
