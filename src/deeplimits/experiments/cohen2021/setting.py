"""The experiments' common ground: networks, their start and their trend, and data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets
from ...checks import require_known
from ...residual import OneLayer, ResNet
from ...statistics import trend_and_noise

__all__ = [
    "layers",
    "matrices",
    "network",
    "pairs",
    "sized",
    "smoothed",
    "split_factor",
]

DELTAS = ("shared", "layer")
WIDTHS = {"flow": 10, "mnist": 25}  # of the network, for each data set
OPTIMISERS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "sgd": optax.sgd,
}

Pairs = tuple[Float[Array, "*n d"], Float[Array, "*n d"]]
Sets = tuple[Any, Any]  # two Pairs, of different sizes


def network(
    draws: Float[Array, "depth rows width"],
    *,
    activation: str = "tanh",
    delta: str = "shared",
    std: float = 0.01,
) -> ResNet:
    r"""$h_{k+1} = h_k + \delta_k \sigma(A_k h_k + b_k)$, $\delta$ trained: the start.

    `delta="shared"` is one $|\delta|$ for all layers, from $1/L$; `"layer"` is a signed
    $\delta_k$ for each, from $\mathcal{N}(0, 1/L^2)$. The entries of $A_k$ and $b_k$
    are normal with standard deviations $\mathrm{std}/(dL)$, $\mathrm{std}/(\sqrt dL)$:
    the "xavier-depth" of the public code. `draws` holds standard normal numbers,
    `width + 2` rows a layer. Source: `cohen2021`.
    """
    require_known("delta", delta, DELTAS)
    depth, rows, width = draws.shape
    if rows != width + 2:
        raise ValueError(f"draws must be (depth, width + 2, width): got {draws.shape}.")
    weight = draws[:, :width] * (std / width / depth)
    bias = draws[:, width] * (std / width**0.5 / depth)
    shared = delta == "shared"
    scale = jnp.ones((), draws.dtype) if shared else draws[:, width + 1, 0]
    block = OneLayer(weight, bias, activation=activation)
    return ResNet(block, beta=0.0, scale=scale / depth, absolute=shared)


def layers(model: ResNet) -> OneLayer:
    """The layers of a network that is known to have one map in each."""
    assert isinstance(model.block, OneLayer)
    return model.block


def split_factor(
    model: ResNet,
) -> tuple[Float[Array, " depth"], Float[Array, " depth"]]:
    r"""$\delta_k$ of every layer as a factor inside the activation and one outside.

    $|\delta_k|$ and its sign: the same network for ReLU. For tanh, which is odd,
    $\delta_k$ and 1, the same to first order in $A_k$, $b_k$: there
    $(-\delta_k, -A_k, -b_k)$ is the same layer, so that a sign of $A_k$ alone says
    nothing. With one $\delta$ for all layers, 1 and $\delta$.
    """
    steps, ones = model.steps, jnp.ones_like(model.steps)
    if model.absolute:
        return ones, steps
    if layers(model).activation is jnp.tanh:
        return steps, ones
    return jnp.abs(steps), jnp.sign(steps)


def matrices(model: ResNet) -> Float[Array, "depth width width"]:
    r"""The matrices whose norms are measured: $A_k$ with the inner factor of
    `split_factor`, so $A_k$ with one $\delta$, else $|\delta_k| A_k$ or, for tanh,
    $\delta_k A_k$."""
    return split_factor(model)[0][:, None, None] * layers(model).weight


def sized(model: ResNet) -> ResNet:
    r"""With a $\delta_k$ for each layer, its inner factor (`split_factor`) in $A_k$ and
    $b_k$, the outer one before the layer."""
    if model.absolute:
        return model
    block = layers(model)
    inner, outer = split_factor(model)
    inside = (inner[:, None, None] * block.weight, inner[:, None] * block.bias)
    block = eqx.tree_at(lambda b: (b.weight, b.bias), block, inside)
    return eqx.tree_at(lambda m: (m.block, m.scale), model, (block, outer))


def smoothed(model: ResNet, window: float = 0.1, *, by_sign: bool = False) -> ResNet:
    r"""The network `sized`, its matrices and biases replaced by their trend.

    With `by_sign` a layer of positive $\delta_k$ is averaged over the positive ones
    among its neighbours, and one of negative $\delta_k$ over the negative ones.
    """
    model = sized(model)
    positive = model.steps > 0 if by_sign else jnp.ones(model.depth, bool)

    def average(layers: Float[Array, "depth ..."]) -> Float[Array, "depth ..."]:
        own = positive.reshape(-1, *(1,) * (layers.ndim - 1))
        means = []
        # Masks and not a selection: how many layers are positive is known only when the
        # program runs, and its arrays need a fixed shape. The mean over those of a mask
        # is the moving average with zeros for the others, over that of the mask itself.
        for mask in (own.astype(layers.dtype), (~own).astype(layers.dtype)):
            total, share = (
                trend_and_noise(a, window)[0] for a in (mask * layers, mask)
            )
            # a layer outside the mask may have none of it near: not used, but 0/0
            means.append(total / jnp.where(mask > 0, share, 1))
        return jnp.where(own, *means)

    return eqx.tree_at(lambda m: m.block, model, jax.tree.map(average, model.block))


def pairs(name: str, train: int, test: int, *, key: PRNGKeyArray) -> Sets:
    """`train` and `test` examples of the synthetic set, or of embedded MNIST.

    MNIST examples are drawn without replacement from its training and test set.
    """
    require_known("data", name, WIDTHS)
    if name == "flow":
        x, y = datasets.flow_pairs(train + test, key=key)
        return (x[:train], y[:train]), (x[train:], y[train:])
    embedding_key, *draw_keys = jr.split(key, 3)
    mnist = datasets.mnist()

    def part(images, labels, count, key):
        chosen = np.asarray(jr.choice(key, len(images), (count,), replace=False))
        shown = images[chosen], labels[chosen].astype(np.int32)
        return datasets.embedded_digits(*shown, key=embedding_key)

    return (
        part(mnist.train, mnist.train_labels, train, draw_keys[0]),
        part(mnist.test, mnist.test_labels, test, draw_keys[1]),
    )
