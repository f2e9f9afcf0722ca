"""Branches of minima, continued in depth: the constant of the rate, twice."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from ...checks import (
    require_at_least,
    require_choices,
    require_positive,
    require_room,
)
from ...variational import (
    Minimum,
    Parameters,
    Problem,
    closed,
    continue_in_depth,
    distances,
    hamiltonian,
    minimise,
    rate_constant,
    refined,
)
from ..registry import experiment
from ..runner import Point, Runner
from .budget import require_iterations
from .search import Search
from .setting import DIMENSIONS, arrays, branches

__all__ = ["Rate", "follow", "rates_of_branches", "richardson"]

KNOWN = Search().problems


@dataclasses.dataclass(frozen=True)
class Rate:
    """The lowest branches that the archived search has found: `branches` of each
    problem.

    `depths` are those of the networks, `pieces` those of the two routes to the limit:
    they double. The network of depth `kept` is kept.
    """

    problems: tuple[str, ...] = tuple(KNOWN)
    branches: tuple[int, ...] = (2, 2, 3, 1, 1, 1, 2, 1, 1, 2, 2)
    depths: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    pieces: tuple[int, ...] = (64, 128, 256)
    flows: tuple[int, ...] = (32, 64)
    kept: int = 64
    tolerance: float = 1e-7
    iterations: int = 1500

    def __post_init__(self):
        require_choices("problem", self.problems, KNOWN)
        require_positive(self, "branches", "tolerance")
        require_iterations(self)
        require_at_least(4, self, "depths", "pieces", "flows")
        require_room(8 * 40 * 8 * max(*self.depths, *self.pieces, *self.flows))
        require_doubling(self)
        if len(self.problems) != len(self.branches):
            raise ValueError(
                "each problem needs a number of branches: got "
                f"{len(self.problems)} and {len(self.branches)}."
            )
        if self.kept not in self.depths:
            raise ValueError(f"kept must be one of {self.depths}: got {self.kept}.")
        if max(self.branches) > Search().kept:
            raise ValueError(
                f"branches must be at most {Search().kept}, the minima that the search "
                f"keeps: got {self.branches}."
            )


def require_doubling(config: Any) -> None:
    """`ValueError` unless `pieces` and `flows` are two sizes at least, that double."""
    for name in ("pieces", "flows"):
        sizes = getattr(config, name)
        doubling = all(b == 2 * a for a, b in itertools.pairwise(sizes))
        if len(sizes) < 2 or not doubling:
            raise ValueError(f"{name} must double, from one to the next: got {sizes}.")


@experiment(
    "thorpe2023/rate",
    "branches of minima on the rings along depth, and the constant of their rate",
    Rate(),
    book={"problems": ("tanh 0.01", "GELU 0.01"), "branches": (1, 1)},
    smoke={
        "problems": ("tanh 0.01",),
        "branches": (1,),
        "depths": (16, 32),
        "pieces": (8, 16),
        "flows": (8, 16),
        "kept": 32,
    },
    reads=("thorpe2023/search",),
)
def rates_of_branches(config: Rate, run: Runner) -> xr.Dataset:
    """What `follow` finds along each branch, and the network of depth `kept`.

    Starts are the minimisers of the archived search: its checksum is an attribute.
    """
    archive = run.archive("thorpe2023/search")
    grid = {"problem": config.problems, "branch": range(max(config.branches))}
    with jax.enable_x64(True):
        found = run.each("branch", grid, functools.partial(_branch, archive))
    kept = config.problems
    return found.assign_coords(
        depth=list(config.depths),
        piece=list(config.pieces),
        flow_piece=list(config.flows),
        activation=("problem", [KNOWN[name].activation for name in kept]),
        alpha=("problem", [KNOWN[name].alpha for name in kept]),
    ).assign_attrs(dtype="float64", search=archive.attrs["checksum"])


def _branch(archive: xr.Dataset, config: Rate, point: Point, key: PRNGKeyArray):
    """One branch of one problem."""
    setting = KNOWN[point["problem"]]
    if point["branch"] >= config.branches[config.problems.index(setting.name)]:
        return {}
    starts = branches(archive.sel(problem=setting.name), setting)
    if len(starts) <= point["branch"]:
        raise ValueError(f"the search has {len(starts)} branches of {setting.name}.")
    _, start = starts[point["branch"]]
    found, networks = follow(setting.problem, start, config)
    return {**found, **_labelled(networks[config.depths.index(config.kept)].parameters)}


def _labelled(network: Parameters) -> dict[str, Any]:
    return {name: (DIMENSIONS[name], row) for name, row in arrays(network).items()}


def follow(
    problem: Problem, start: Parameters, config: Any
) -> tuple[Mapping[str, Any], list[Minimum]]:
    r"""A branch along the `depths` of a configuration, and its limit by two routes.

    Of each depth: `energy`, `gradient_norm` and number of `evaluations`; `roughness`,
    which is $\sum_j R_n(\theta_j) + |\omega|^2$; `largest` weight and `spread` of the
    Hamiltonian; `bend`, the largest $n^2 |\theta_{i+1} - 2\theta_i + \theta_{i-1}|$;
    the distances `l2` and `uniform` to the weights of the limit.

    For each number of `pieces`: the minima `trapezoidal` of trapezoidal networks, and
    the constant $C$ there in both forms, `general` and `critical`. For each number of
    `flows`: the minima `flow` of the equation itself, with weights that are linear in
    each piece. All are of second order; extrapolated from the last two they give
    `limit` and `limit_flow`.

    L-BFGS alone: what it leaves is recorded, and no step of Newton's method follows,
    which with ReLU could lead astray.
    """
    options = {
        "tolerance": config.tolerance,
        "max_iterations": config.iterations,
        "polish": False,
    }
    networks = continue_in_depth(problem, start, config.depths, **options)
    last = networks[-1].parameters
    heun, ode = (problem.but(scheme=scheme) for scheme in ("heun", "ode"))

    def at(route: Problem, pieces: int) -> Minimum:
        return minimise(route, closed(refined(problem, last, pieces)), **options)

    trapezoidal = [at(heun, pieces) for pieces in config.pieces]
    flows = [at(ode, pieces) for pieces in config.flows]
    constants = [rate_constant(heun, each.parameters) for each in trapezoidal]
    rows = [_measured(problem, each, trapezoidal[-1].parameters) for each in networks]
    return {
        "trapezoidal": ("piece", [each.value for each in trapezoidal]),
        "general": ("piece", [each.general for each in constants]),
        "critical": ("piece", [each.critical for each in constants]),
        "flow": ("flow_piece", [each.value for each in flows]),
        "limit": richardson([each.value for each in trapezoidal]),
        "limit_flow": richardson([each.value for each in flows]),
        **{name: ("depth", [row[name] for row in rows]) for name in rows[0]},
    }, networks


def richardson(values: Sequence[float]) -> float:
    """The limit of what errs by a constant over the square of sizes that double, from
    the last two values."""
    return float(values[-1] + (values[-1] - values[-2]) / 3)


def _measured(problem: Problem, found: Minimum, path: Parameters) -> dict[str, float]:
    """What is measured of one network."""
    network, n = found.parameters, found.parameters.nodes
    leaves = [np.asarray(z).reshape(n, -1) for z in jax.tree.leaves(network.block)]
    weights = np.concatenate(leaves, axis=1)
    conserved, _ = hamiltonian(problem, network)
    # without its last node, the path is linear between the nodes that are left
    opened = jax.tree.map(lambda z: z[:-1], path.block)
    l2, uniform = distances(network, Parameters(opened, path.readout))
    return {
        "energy": found.value,
        "gradient_norm": found.gradient_norm,
        "evaluations": float(found.evaluations),
        "roughness": float(jnp.sum(problem.roughness(network))),
        "largest": float(np.abs(weights).max()),
        "spread": float(jnp.ptp(conserved)),
        "bend": n**2 * float(np.linalg.norm(np.diff(weights, 2, axis=0), axis=1).max()),
        "l2": l2,
        "uniform": uniform,
    }
