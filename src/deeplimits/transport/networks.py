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
    require_floats,
    require_whole,
    require_within,
)
from ..control.problem import Control, ControlProblem, Field, Pontryagin, of_block
from ..residual import AbstractBlock, Activation, named_activation
from .kinetic import kinetic_energy


def half_square(x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
    r"""$\ell(x, y) = \frac12 |x - y|^2$."""
    return jnp.sum((x - y) ** 2) / 2


class KineticProblem(ControlProblem):
    r"""A control problem that pays for the kinetic energy of its flow:

    $$ J(\theta) = \int \ell(x_n, y)\, \mathrm{d}\mu_0
       + \frac\lambda2\, h \sum_{k<n} \int |f(x_k, \theta_k)|^2\, \mathrm{d}\mu_0
       + \text{decay} \cdot h \sum_{k<n} |\theta_k|^2, $$

    with $\lambda$ = `kinetic`. With no `decay`, $\ell = \frac12 |x - y|^2$ and any
    field it is the problem of `straight_lines`. All else is as in `ControlProblem`, and
    the solvers of `control` take it. Raises `ValueError` for `kinetic` < 0, and as
    `ControlProblem` does.
    """

    kinetic: Float[Array, ""]

    def __init__(
        self,
        inputs: Float[Array | np.ndarray, "points d"],
        labels: Float[Array | np.ndarray, "points ..."],
        weights: Float[Array | np.ndarray, " points"] | None = None,
        *,
        kinetic: float | Float[Array, ""],
        decay: float | Float[Array, ""] = 0.0,
        field: Field = of_block,
        loss: Any = half_square,
        **settings: Any,
    ):
        super().__init__(
            inputs, labels, weights, decay=decay, field=field, loss=loss, **settings
        )
        require_within("[0, inf)", kinetic=kinetic)
        self.kinetic = jnp.asarray(kinetic, self.inputs.dtype)

    def value(self, theta: Control) -> Float[Array, ""]:
        r"""$J(\theta)$."""
        spent = kinetic_energy(
            self.states(theta), self.weights, duration=self.duration
        ).energy
        return super().value(theta) + self.kinetic / 2 * spent

    def pontryagin(self, theta: Control) -> Pontryagin:
        r"""States, and the costates of each point backwards,

        $$ p_k = p_{k+1} + h\, \partial_x f(x_k, \theta_k)^\top
           \bigl(p_{k+1} + \lambda f(x_k, \theta_k)\bigr)
           + h\, \partial_x r(t_k, x_k, y). $$
        """
        at = super().pontryagin(theta)
        path, h = at.states, self.step(theta)

        def back(p, place):
            x, t, node = place

            def left(x):  # what is yet to pay, to first order
                v = jax.vmap(self.field, (0, None))(x, node)
                paid = self.kinetic / 2 * jnp.sum(v**2)
                if self.running is not None:
                    each = jax.vmap(self.running, (None, 0, 0))
                    paid = paid + jnp.sum(each(t, x, self.labels))
                return jnp.sum(p * (x + h * v)) + h * paid

            return jax.grad(left)(x), p

        times = h * jnp.arange(len(path), dtype=path.dtype)
        _, costates = jax.lax.scan(
            back, at.costates[-1], (path, times, theta), reverse=True
        )
        return Pontryagin(self.value(theta), path, at.weights, costates)

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

    With enough neurons it comes near every continuous field on a compact set.

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
    r"""So many random layers of `HiddenLayer`, that hardly move anything: $W$ and $b$
    are normal with standard deviation `size`, and $V$ with `size`$/m$."""
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

    Raises `ValueError` for a `width` under that of the block.
    """
    require_whole(block.width, width=width)
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
