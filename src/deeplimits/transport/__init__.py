r"""Transport of least energy, and training that pays for it.

    found = transport.benamou_brenier(mu, nu, steps=32)  # masses of cells
    found.value, found.density, found.residual, found.flags
    transport.bures(first, second) ** 2  # of measures.Gaussian
    transport.kinetic_energy(problem.states(theta), problem.weights)
    transport.straight_lines(inputs, labels, decay=0.5).value  # the idealised problem
    problem = transport.KineticProblem(inputs, labels, kinetic=0.5)
    control.direct(problem, transport.hidden_start(10, width=4, key=key))

In float64: `jax.config.update("jax_enable_x64", True)` comes first.
"""

from .dynamic import Dynamic, benamou_brenier
from .idealised import Lines, ordered_lines, straight_lines
from .kinetic import Kinetic, kinetic_energy
from .networks import (
    HiddenLayer,
    KineticProblem,
    hidden_start,
    widened,
)
from .normal import bures, bures_geodesic, bures_map
from .staggered import Staggered, kinetic_prox, kinetic_root

__all__ = [
    "Dynamic",
    "HiddenLayer",
    "Kinetic",
    "KineticProblem",
    "Lines",
    "Staggered",
    "benamou_brenier",
    "bures",
    "bures_geodesic",
    "bures_map",
    "hidden_start",
    "kinetic_energy",
    "kinetic_prox",
    "kinetic_root",
    "ordered_lines",
    "straight_lines",
    "widened",
]
