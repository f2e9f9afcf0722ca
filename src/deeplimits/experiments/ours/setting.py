r"""The planar problem of chapter 6 as a network: two rings, layers $\tanh(K h + b)$."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets, initialisation
from ...residual import OneLayer, ResNet
from ...variational import Affine, tanh_square

WIDTH = 2
ENTRIES = WIDTH * (WIDTH + 1)  # of one layer: K row by row, then b


def data() -> tuple[Float[Array, "n 2"], Float[Array, "n 1"]]:
    """Two rings of ten points, and their labels, in the precision of the run."""
    return in_precision(*datasets.rings())


def in_precision(inputs: Any, labels: Any) -> tuple[Array, Array]:
    """Data in the precision of the run, and a column of labels."""
    return jnp.asarray(inputs, float), jnp.asarray(labels, float)[:, None]


def loss(model: Any, pairs: tuple[Array, Array], key: PRNGKeyArray | None = None):
    r"""$\sum_s |\tanh z_s - y_s|^2$, that of $E_n$."""
    x, y = pairs
    return jnp.sum(jax.vmap(tanh_square)(jax.vmap(model)(x), y))


def split(rows: Any, width: int) -> tuple[Any, Any]:
    """$K$ and $b$ of layers that are rows, one array each."""
    return rows[:, : width**2].reshape(-1, width, width), rows[:, width**2 :]


def network(
    layers: Float[Array, "depth entries"], reading: Float[Array, " width"], beta: float
) -> ResNet:
    r"""The network of factor $L^{-\beta}$ with these layers and $z = W h_L$."""
    decoder = Affine(reading[None], jnp.zeros(1, reading.dtype))
    return ResNet(OneLayer(*split(layers, len(reading))), decoder=decoder, beta=beta)


def layers(model: ResNet) -> Float[Array, "depth entries"]:
    """The layers of a network, one a row."""
    block = model.block
    assert isinstance(block, OneLayer)
    return jnp.concatenate([block.weight.reshape(model.depth, -1), block.bias], axis=1)


def tied(depth: int, *, key: PRNGKeyArray, width: int = WIDTH) -> ResNet:
    """Equal normal layers of variance one, and a normal reading; the factor is $1/L$.
    One key gives the same layer at every depth."""
    layer_key, reading_key = jr.split(key)
    rows = initialisation.tied(depth, (width * (width + 1),), key=layer_key)
    return network(rows, jr.normal(reading_key, (width,)), beta=1.0)


def independent(
    depth: int, finest: int, *, key: PRNGKeyArray, width: int = WIDTH
) -> ResNet:
    r"""Increments of Brownian paths, of variance $1/L$; a normal reading; no factor.

    One key gives the same paths at every depth that divides the `finest`.
    """
    layer_key, reading_key = jr.split(key)
    entries = (width * (width + 1),)
    rows = initialisation.independent(finest, entries, key=layer_key)
    rows = initialisation.coarsened(rows, finest // depth) / depth**0.5
    return network(rows, jr.normal(reading_key, (width,)), beta=0.0)
