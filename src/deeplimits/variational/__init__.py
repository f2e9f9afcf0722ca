r"""Training as a variational problem: the functionals $E_n$ and their limit $E_\infty$.

    x, y = datasets.rings()
    problem = variational.Problem(x, y, alpha=0.01)
    search = variational.multi_start(
        problem, variational.one_layer(16, 2), starts=60, key=jr.key(0)
    )
    branch = variational.continue_in_depth(problem, search.lowest, [32, 64, 128])
    [m.value for m in branch]  # min E_n along one branch
    variational.rate_constant(problem, branch[-1].parameters).critical

In float64: `jax.config.update("jax_enable_x64", True)` comes first.
"""

from .branches import Search, continue_in_depth, multi_start, refined
from .functional import (
    Adjoint,
    Problem,
    adjoint,
    square,
    states,
    tanh_square,
)
from .limits import (
    EulerLagrange,
    RateConstant,
    closed,
    distances,
    euler_lagrange,
    extrapolated,
    hamiltonian,
    limit_energy,
    rate_constant,
    recovered,
    tl2_distance,
)
from .minima import Minimum, hessian, minimise, newton
from .parameters import Affine, Parameters, one_layer
from .steps import LearnedSteps, Paced, gains, learn_steps
from .whitening import coloured, random_start, whitened

__all__ = [
    "Adjoint",
    "Affine",
    "EulerLagrange",
    "LearnedSteps",
    "Minimum",
    "Paced",
    "Parameters",
    "Problem",
    "RateConstant",
    "Search",
    "adjoint",
    "closed",
    "coloured",
    "continue_in_depth",
    "distances",
    "euler_lagrange",
    "extrapolated",
    "gains",
    "hamiltonian",
    "hessian",
    "learn_steps",
    "limit_energy",
    "minimise",
    "multi_start",
    "newton",
    "one_layer",
    "random_start",
    "rate_constant",
    "recovered",
    "refined",
    "square",
    "states",
    "tanh_square",
    "tl2_distance",
    "whitened",
]
