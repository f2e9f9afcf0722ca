r"""Networks that pay for kinetic energy, and how to make a narrow one wide."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import (
    as_floats,
    as_number,
    as_scalar,
    require_floats,
    require_whole,
    require_within,
)
from ..control.problem import Control, ControlProblem, Field, half_square, of_block
from ..residual import AbstractBlock, Activation, named_activation


class KineticProblem(ControlProblem):
    r"""A control problem that pays for the kinetic energy of its flow:

    $$ J(\theta) = \int \ell(x_n, y)\, \mathrm{d}\mu_0
       + \frac\lambda2\, h \sum_{k<n} \int |f(x_k, \theta_k)|^2\, \mathrm{d}\mu_0
       + \text{decay} \cdot h \sum_{k<n} |\theta_k|^2, $$

    with $\lambda$ = `kinetic`, which is the `decay` of `straight_lines`; `decay` here
    is the price of the controls, 0 by default. As a field of a layer does not see the
    label, the least value over all fields is, on the line and in continuous time, that
    of `ordered_lines`; that of `straight_lines` is a lower bound for every network.
    All else is as in `ControlProblem`, with blocks for controls and
    $\ell = \frac12 |x - y|^2$ by default, and the solvers of `control` and
    `DensityForm` take it. Raises `ValueError` for `kinetic` < 0, and as
    `ControlProblem` does.

    ```pycon
    >>> from deeplimits.transport.idealised import straight_lines
    >>> x, y = jnp.zeros((1, 1)), jnp.ones((1, 1))
    >>> problem = KineticProblem(x, y, kinetic=1.0, field=lambda x, v: 0 * x + v)
    >>> least = straight_lines(x, y, decay=1.0).value  # of (1 - v)²/2 + v²/2
    >>> round(float(problem.value(jnp.full(3, 0.5))), 3), round(float(least), 3)
    (0.25, 0.25)
    ```
    """

    kinetic: Float[Array, ""]

    def __init__(
        self,
        *law: Any,
        kinetic: float | Float[Array, ""],
        decay: float | Float[Array, ""] = 0.0,
        field: Field = of_block,
        loss: Any = half_square,
        **settings: Any,
    ):
        super().__init__(*law, decay=decay, field=field, loss=loss, **settings)
        self.kinetic = as_scalar(
            "kinetic", kinetic, self.inputs.dtype, within="[0, inf)"
        )

    def rate(
        self,
        t: Float[Array, ""],
        x: Float[Array, " d"],
        y: Float[Array, " outputs"],
        v: Float[Array, " d"],
    ) -> Float[Array, ""]:
        r"""With $\frac\lambda2 |v|^2$ besides."""
        return super().rate(t, x, y, v) + self.kinetic / 2 * jnp.sum(v**2)

    def hamiltonian(
        self,
        states: Float[Array, "points d"],
        weights: Float[Array, " points"],
        costates: Float[Array, "points d"],
        theta: Control,
    ) -> Float[Array, ""]:
        r"""With $\frac\lambda2 \sum_s w_s |f(x_s, \theta)|^2$ besides."""
        moves = jax.vmap(self.field, (0, None))(states, theta)
        spent = self.kinetic / 2 * (weights @ jnp.sum(moves**2, axis=1))
        return super().hamiltonian(states, weights, costates, theta) + spent


class HiddenLayer(AbstractBlock):
    r"""One hidden layer of $m$ neurons, $f(x) = V \sigma(W x + b)$, with a bias.

    With an activation that is not a polynomial, and enough neurons with weights as
    large as it takes, it comes near every continuous field on a compact set. Raises
    `ValueError` for arrays that are not floats or do not fit, and for an unknown
    activation.

    ```pycon
    >>> block = HiddenLayer(jnp.ones((2, 1)), jnp.array([[0.0, 0.0]]), jnp.array([0.5]))
    >>> block(jnp.array([1.0, 3.0])).round(4)  # tanh ½
    Array([0.4621, 0.4621], dtype=float32)
    ```
    """

    outer: Float[Array, "*depth d m"]
    inner: Float[Array, "*depth m d"]
    bias: Float[Array, "*depth m"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        outer: Float[Array, "*depth d m"],
        inner: Float[Array, "*depth m d"],
        bias: Float[Array, "*depth m"],
        *,
        activation: str | Activation = "tanh",
    ):
        for name, array in (("outer", outer), ("inner", inner), ("bias", bias)):
            require_floats(name, array)
        shape = outer.shape
        if outer.ndim < 2 or (inner.shape, bias.shape) != (
            (*shape[:-2], *shape[:-3:-1]),
            (*shape[:-2], shape[-1]),
        ):
            raise ValueError(
                "outer must be (depth, d, m), inner (depth, m, d) and bias (depth, m): "
                f"got {shape}, {inner.shape} and {bias.shape}."
            )
        self.outer, self.inner, self.bias = outer, inner, bias
        self.activation = named_activation(activation)

    @property
    def width(self) -> int:
        """The number of neurons $m$."""
        return self.bias.shape[-1]

    def __call__(self, h: Float[Array, " d"]) -> Float[Array, " d"]:
        h = as_floats("h", h, shape=self.inner.shape[-1:])
        return self.activation(h @ self.inner.T + self.bias) @ self.outer.T


def hidden_start(
    depth: int,
    width: int,
    dimension: int = 1,
    *,
    key: PRNGKeyArray,
    size: float = 1.0,
    dtype: Any = float,
) -> HiddenLayer:
    r"""So many random layers of `HiddenLayer`: $W$ and $b$ are normal with standard
    deviation `size`, and $V$ with `size`$/m$.

    So $f(x)$ is of the size of $s / \sqrt m$, for $s$ = `size` and an activation
    between $-1$ and 1: a wide start hardly moves anything, and a narrow one does.
    Raises `ValueError` for a `depth`, `width` or `dimension` under 1, and for a `size`
    that is negative or no number of Python: `jax.jit` may choose the `key` alone.
    """
    require_whole(depth=depth, width=width, dimension=dimension)
    require_within("[0, inf)", size=size)
    shapes = (dimension, width), (width, dimension), (width,)
    scales = as_number("size", size) / np.array([width, 1, 1])
    return HiddenLayer(
        *(
            jr.normal(k, (depth, *shape), dtype) * jnp.asarray(scale, dtype)
            for k, shape, scale in zip(jr.split(key, 3), shapes, scales, strict=True)
        )
    )


def widened(
    block: HiddenLayer, width: int, *, key: PRNGKeyArray, size: float = 1.0
) -> HiddenLayer:
    r"""The same field with more neurons, up to `width`: the new ones are random, with
    zeros in $V$, so that descent from here ends no higher than where it began.

    Raises `ValueError` for what is no stack of `HiddenLayer`, for a `width` under that
    of the block, and as `hidden_start` does. May be compiled where `width` and `size`
    are numbers of Python.
    """
    if not isinstance(block, HiddenLayer) or block.outer.ndim != 3:
        raise ValueError(
            "block must be a HiddenLayer with outer (depth, d, m): got "
            f"{getattr(getattr(block, 'outer', None), 'shape', type(block).__name__)}."
        )
    require_whole(block.width, width=width)
    require_within("[0, inf)", size=size)
    if width == block.width:
        return block
    depth, d, m = block.outer.shape
    dtype = block.outer.dtype
    more = hidden_start(depth, width - m, d, key=key, size=size, dtype=dtype)
    return HiddenLayer(
        jnp.concatenate([block.outer, 0 * more.outer], axis=2),
        jnp.concatenate([block.inner, more.inner], axis=1),
        jnp.concatenate([block.bias, more.bias], axis=1),
        activation=block.activation,
    )
