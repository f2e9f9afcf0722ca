"""The mean field: particles under one control, the equations of their law, its limits.

`flow` and `diffuse` move particles, `transport` and `evolve` densities; where there is
a closed form, it is here to compare with.
"""

from .closed_forms import (
    affine_moments,
    characteristic,
    linear_moments,
    moment_rates,
    moment_trajectory,
    network_moments,
    policy_bias,
    transported_cdf,
)
from .controls import Noise, growing_cosine, growth_bounds, line_control
from .fokker_planck import (
    Evolved,
    Generator,
    chi_square,
    evolve,
    generator,
    relative_entropy,
    slowest_rates,
)
from .particles import Sensitivity, diffuse, flow, sensitivities, trajectory
from .steady import Relaxation, SteadyLaw, log_ratio, relaxation, steady_law
from .volumes import Transported, cell_averages, transport

__all__ = [
    "Evolved",
    "Generator",
    "Noise",
    "Relaxation",
    "Sensitivity",
    "SteadyLaw",
    "Transported",
    "affine_moments",
    "cell_averages",
    "characteristic",
    "chi_square",
    "diffuse",
    "evolve",
    "flow",
    "generator",
    "growing_cosine",
    "growth_bounds",
    "line_control",
    "linear_moments",
    "log_ratio",
    "moment_rates",
    "moment_trajectory",
    "network_moments",
    "policy_bias",
    "relative_entropy",
    "relaxation",
    "sensitivities",
    "slowest_rates",
    "steady_law",
    "trajectory",
    "transport",
    "transported_cdf",
]
