"""What is trained: the weights of all layers, and the reading of the last state."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..checks import as_floats, require_floats, require_shape, require_whole
from ..residual import AbstractBlock, Activation, OneLayer, ResNet


class Affine(eqx.Module):
    r"""The reading $x \mapsto W x + c$ of the last state.

    ```pycon
    >>> Affine(jnp.array([[1.0, 2.0]]), jnp.array([0.5]))(jnp.ones(2)).tolist()
    [3.5]
    ```
    """

    weight: Float[Array, "outputs width"]
    bias: Float[Array, " outputs"]

    def __check_init__(self):
        require_floats("weight", self.weight)
        require_floats("bias", self.bias)
        require_shape("weight", self.weight, (None, None))
        require_shape("bias", self.bias, self.weight.shape[:1])

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " outputs"]:
        x = as_floats("x", x, shape=self.weight.shape[1:])
        return x @ self.weight.T + self.bias


class Parameters(eqx.Module):
    r"""What is trained: a stacked block $\theta_0, \theta_1, \dots$ and its reading.

    ```pycon
    >>> zero = one_layer(8, 2, outputs=3)
    >>> zero.block.bias.shape, zero.readout.weight.shape
    ((8, 2), (3, 2))
    ```
    """

    block: AbstractBlock
    readout: Affine

    def __check_init__(self):
        for leaf in jax.tree.leaves(self.block):
            require_floats("weights", leaf)
        if len({leaf.shape[:1] for leaf in jax.tree.leaves(self.block)}) != 1:
            raise ValueError("the arrays of a stacked block need one common depth.")

    @property
    def nodes(self) -> int:
        r"""The number of nodes $\theta_0, \theta_1, \dots$"""
        return jax.tree.leaves(self.block)[0].shape[0]

    @property
    def network(self) -> ResNet:
        """The same as a network of step $1/n$, with one layer a node."""
        return ResNet(self.block, decoder=self.readout)


def one_layer(
    depth: int,
    width: int,
    *,
    outputs: int = 1,
    activation: str | Activation = "tanh",
    dtype: Any = float,
) -> Parameters:
    r"""The zero network $\sigma(K x + b)$: a shape for `random_start`, and the trivial
    network itself.

    ```pycon
    >>> zero = one_layer(8, 2)
    >>> zero.block.weight.shape, zero.readout(jnp.ones(2)).tolist()
    ((8, 2, 2), [0.0])
    ```
    """
    require_whole(depth=depth, width=width, outputs=outputs)
    weight, bias = jnp.zeros((depth, width, width), dtype), jnp.zeros((depth, width))
    block = OneLayer(weight, bias.astype(dtype), activation=activation)
    readout = jnp.zeros((outputs, width), dtype), jnp.zeros(outputs, dtype)
    return Parameters(block, Affine(*readout))
