"""The planar problems, and minimisers as labelled arrays."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ... import datasets, meanfield
from ...residual import Activation, OneLayer
from ...variational import Affine, Minimum, Parameters, Problem, one_layer

ACTIVATIONS: dict[str, str | Activation] = {
    "tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "logistic": "sigmoid",
    "growing cosine": meanfield.growing_cosine,
}
WIDTH = 2
# of the arrays of a minimiser, by name: K, b, W and c of one output
DIMENSIONS = {
    "weight": ("node", "row", "column"),
    "bias": ("node", "row"),
    "readout": ("column",),
    "offset": (),
}


@dataclasses.dataclass(frozen=True)
class Planar:
    r"""A problem on the two rings: an activation, and one $\alpha$ for all penalties.

    The loss is $|\tanh z - y|^2$, summed over ten points of each label, and
    $\tau = 1$.
    """

    activation: str
    alpha: float

    @property
    def name(self) -> str:
        """What it is called in an archive: `tanh 0.01`."""
        return f"{self.activation} {self.alpha:g}"

    @property
    def _activation(self) -> str | Activation:
        return ACTIVATIONS[self.activation]

    @property
    def problem(self) -> Problem:
        """$E_n$, but for its parameters."""
        return Problem(*datasets.rings(), alpha=self.alpha)

    def zero(self, nodes: int) -> Parameters:
        """The trivial network: the shape of all others."""
        return one_layer(nodes, WIDTH, activation=self._activation)

    def like(self, network: Parameters) -> Parameters:
        """The weights of a network of another problem, with this activation."""
        block = OneLayer(*jax.tree.leaves(network.block), activation=self._activation)
        return Parameters(block, network.readout)

    def parameters(self, row: xr.Dataset | Mapping[str, Any]) -> Parameters:
        """A network from its arrays, those of one entry of an archive."""
        weight, bias, readout, offset = (
            jnp.asarray(np.asarray(row[name])) for name in DIMENSIONS
        )
        block = OneLayer(weight, bias, activation=self._activation)
        return Parameters(block, Affine(readout[None], offset[None]))


def planar(
    alphas: Sequence[float], activations: Sequence[str], alpha: float
) -> dict[str, Planar]:
    """Tanh at all `alphas`, and other activations at one `alpha`; by name."""
    both = [Planar("tanh", a) for a in alphas]
    both += [Planar(s, alpha) for s in activations]
    return {each.name: each for each in both}


def arrays(parameters: Parameters) -> dict[str, np.ndarray]:
    """Its arrays, by name."""
    K, b, W, c = map(np.asarray, jax.tree.leaves(parameters))
    return dict(zip(DIMENSIONS, (K, b, W[0], c[0]), strict=True))


def labelled(
    minima: Sequence[Minimum], like: Parameters, room: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The first minima as arrays with a leading axis `branch`; NaN where there are
    fewer than there is `room`."""
    shapes = {name: array.shape for name, array in arrays(like).items()}
    found = {}
    for name, dims in DIMENSIONS.items():
        full = np.full((room, *shapes[name]), np.nan)
        for place, minimum in enumerate(minima[:room]):
            full[place] = arrays(minimum.parameters)[name]
        found[name] = (("branch", *dims), full)
    return found


def branches(found: xr.Dataset, planar: Planar) -> list[tuple[float, Parameters]]:
    """Energies and networks along the dimension `branch`, those that are there."""
    rows = (found.isel(branch=i) for i in range(found.sizes["branch"]))
    there = [row for row in rows if np.isfinite(row.offset)]
    return [(float(row.energy), planar.parameters(row)) for row in there]
