r"""Training as optimal control: Pontryagin's principle for all the data at once.

    problem = control.ControlProblem(*control.bumps(), decay=0.1)
    start = jnp.ones(20)  # one number for each of 20 layers
    found = control.direct(problem, start)  # L-BFGS on the value
    control.sweep(problem, start)  # the optimality system, forwards and backwards
    control.extended_msa(problem, start, rho=0.5)  # the same, with penalties
    grid = np.linspace(-4, 4, 81)
    control.sweep(control.DensityForm(problem, grid), start)  # the law on a grid
    control.sampling_constants(problem, found.theta).control  # of the sqrt(M)-law

In float64: `jax.config.update("jax_enable_x64", True)` comes first.
"""

from .densities import DensityForm
from .extended import extended_msa, summed_rho
from .linear import (
    LeastEnergy,
    Riccati,
    SharedBias,
    gramian,
    least_energy,
    riccati,
    shared_bias,
)
from .problem import ControlProblem, Pontryagin, gain, half_square, of_block
from .reversal import (
    Reversal,
    least_reversal,
    reversal_energy,
    reversal_limit,
    straight_slopes,
)
from .sampling import Law, SamplingConstants, bumps, sample_bumps, sampling_constants
from .solvers import Solution, direct, sweep

__all__ = [
    "ControlProblem",
    "DensityForm",
    "Law",
    "LeastEnergy",
    "Pontryagin",
    "Reversal",
    "Riccati",
    "SamplingConstants",
    "SharedBias",
    "Solution",
    "bumps",
    "direct",
    "extended_msa",
    "gain",
    "gramian",
    "half_square",
    "least_energy",
    "least_reversal",
    "of_block",
    "reversal_energy",
    "reversal_limit",
    "riccati",
    "sample_bumps",
    "sampling_constants",
    "shared_bias",
    "straight_slopes",
    "summed_rho",
    "sweep",
]
