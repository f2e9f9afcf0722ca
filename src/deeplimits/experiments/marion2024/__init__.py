"""The experiments of Marion, Wu, Sander and Biau, *Implicit regularization of deep
residual networks towards neural ODEs* (`marion2024`), and what we add to them.

The presets called `paper` have the paper's own sizes where there are such; for the
experiments that are ours they are the sizes of the archived runs.
"""

from functools import partial

from ..registry import Experiment
from .counterexample import Counterexample, limit, relu_counterexample, time_to_reach
from .depth import (
    DepthConvergence,
    SuccessiveDistance,
    aggregate,
    depth_convergence,
    largest,
    successive_distance,
)
from .digits import Digits, digits
from .initialisation import Initialisation, initialisation
from .limit import LimitDynamics, limit_dynamics
from .long_time import LongTime, decay_rate, long_time

__all__ = [
    "EXPERIMENTS",
    "Counterexample",
    "DepthConvergence",
    "Digits",
    "Initialisation",
    "LimitDynamics",
    "LongTime",
    "SuccessiveDistance",
    "aggregate",
    "decay_rate",
    "depth_convergence",
    "digits",
    "initialisation",
    "largest",
    "limit",
    "limit_dynamics",
    "long_time",
    "relu_counterexample",
    "successive_distance",
    "time_to_reach",
]


_experiment = partial(Experiment.sized, "marion2024")

EXPERIMENTS = [
    _experiment(
        "successive-distance",
        "Figure 1, left: neighbouring layers against depth",
        successive_distance,
        SuccessiveDistance(),
        {"depths": (2, 256), "steps": 50},
        {"depths": (2, 16), "steps": 4},
    ),
    _experiment(
        "depth-convergence",
        "Figure 1, right: distance to a deep reference",
        depth_convergence,
        DepthConvergence(),
        {
            "depths": (4, 16, 64),
            "reference": 512,
            "steps": 40,
            "every": 2,
            "precisions": ("float64",),
        },
        {"depths": (2,), "reference": 4, "steps": 4, "every": 2},
    ),
    _experiment(
        "long-time",
        "Figure 2: weights along depth, and the loss, over 80,000 iterations",
        long_time,
        LongTime(),
        {"depths": (64,), "steps": 2000, "every": 100},
        {"depths": (2, 4), "steps": 20, "every": 5},
    ),
    _experiment(
        "initialisation",
        "tied, smooth and independent layers; GELU, tanh and ReLU",
        initialisation,
        Initialisation(),
        {"activations": ("tanh", "relu"), "depths": (16, 64), "seeds": 3, "steps": 100},
        {"activations": ("gelu", "relu"), "depths": (4,), "seeds": 2, "steps": 4},
    ),
    _experiment(
        "relu-counterexample",
        "Appendix D: layers that drift apart, in closed form",
        relu_counterexample,
        Counterexample(),
        {"half_depths": (2, 8, 32, 128)},
        {"half_depths": (2, 4), "steps": 40},
    ),
    _experiment(
        "limit-dynamics",
        "Appendix A.5: the limit of training, against networks of growing depth",
        limit_dynamics,
        LimitDynamics(),
        {"depths": (8, 32)},
        {"depths": (4,), "nodes": 5, "horizon": 0.2, "times": 3},
    ),
    _experiment(
        "digits",
        "convolutional networks on digits: smoothness along depth, and accuracy",
        digits,
        Digits(),
        {"activations": ("gelu",), "depth": 16, "seeds": 1, "steps": 60},
        {"activations": ("gelu",), "depth": 2, "seeds": 1, "steps": 2, "batch": 16},
    ),
]
