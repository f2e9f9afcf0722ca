"""Training as a variational problem: functionals of the weights, and their limits."""

from .gamma import (
    CENTRES,
    INTERFACE,
    PENALTIES,
    depth_penalty,
    lattice_energy,
    lattice_force,
    lattice_interface,
    layered,
    relaxed_start,
    scalar_energy,
    scalar_limit,
    scalar_minimiser,
    scalar_network,
    scalar_profile,
    string_at_rest,
    string_energy,
)

__all__ = [
    "CENTRES",
    "INTERFACE",
    "PENALTIES",
    "depth_penalty",
    "lattice_energy",
    "lattice_force",
    "lattice_interface",
    "layered",
    "relaxed_start",
    "scalar_energy",
    "scalar_limit",
    "scalar_minimiser",
    "scalar_network",
    "scalar_profile",
    "string_at_rest",
    "string_energy",
]
