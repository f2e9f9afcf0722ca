r"""Training as a variational problem: the functional $E_n$ of a network of depth $n$.

A network of $n$ layers with step $1/n$ and an affine reading,

$$ X_{i+1} = X_i + \tfrac1n f(X_i, \theta_i), \qquad z = W X_n + c, $$

is trained by making small

$$ \begin{gathered} E_n(\theta, \omega) = \sum_s \ell(z_s, y_s)
   + \sum_j \alpha_j R_n(\theta_j) + \alpha |\omega|^2, \\
   R_n(\theta_j) = n \sum_{i=1}^{n-1} |\theta_{j,i} - \theta_{j,i-1}|^2
   + \tau_j |\theta_{j,0}|^2, \end{gathered} $$

where the parts $\theta_j$ of $\theta$ are the arrays of a block, and $\omega = (W, c)$.
The limit $E_\infty$ has the flow of the neural ODE in place of the network and
$\int_0^1 |\dot\theta_j|^2 + \tau_j |\theta_j(0)|^2$ in place of $R_n$.
Source: `thorpe2023`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..checks import (
    as_floats,
    as_real,
    holds,
    require_finite,
    require_known,
    require_shape,
)
from ..collocation import runge_kutta_step
from ..residual import AbstractBlock
from .parameters import Affine, Parameters

PointLoss = Callable[[Array, Array], Float[Array, ""]]
PENALTIES = ("sobolev", "no factor", "no tau", "weight decay")
SCHEMES = ("euler", "heun", "ode")
SUBSTEPS = 4  # of the fourth-order scheme, between two nodes


def tanh_square(
    output: Float[Array, " outputs"], label: Float[Array, " outputs"]
) -> Float[Array, ""]:
    r"""$\ell(z, y) = |\tanh z - y|^2$, for labels $\pm 1$."""
    output, label = _alike(output, label)
    return jnp.sum((jnp.tanh(output) - label) ** 2)


def square(
    output: Float[Array, " outputs"], label: Float[Array, " outputs"]
) -> Float[Array, ""]:
    r"""$\ell(z, y) = |z - y|^2$.

    ```pycon
    >>> float(square(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])))
    5.0
    ```
    """
    output, label = _alike(output, label)
    return jnp.sum((output - label) ** 2)


def _alike(output: Any, label: Any) -> tuple[Array, Array]:
    """Both as floats: squares of int8 overflow. `ValueError` for different shapes,
    which would be stretched in silence."""
    output, label = as_floats("output", output), as_floats("label", label)
    if output.shape != label.shape:
        raise ValueError(
            f"label must have the output's shape {output.shape}: got {label.shape}."
        )
    return output, label


class Problem(eqx.Module):
    r"""Data, loss and penalties: all of $E_n$ but its parameters.

    `alpha` is one number for all parts, or one for each array of the block (in the
    order of its fields), the reading's $W$ and its $c$; `tau` is one, or one for each
    array of the block. `penalty` is one of

    - "sobolev": $R_n$ as above;
    - "no factor": without the factor $n$ of the sum;
    - "no tau": without the term with $\tau$, which leaves constants free;
    - "weight decay": the mean of $|\theta_i|^2$ over the nodes in its place.

    `scheme` is "euler", the network; "heun", the trapezoidal network
    $X_{i+1} = X_i + \frac{1}{2n} (f(X_i, \theta_i) + f(\tilde X_i, \theta_{i+1}))$,
    $\tilde X_i = X_i + \frac1n f(X_i, \theta_i)$, on $n + 1$ nodes; or "ode", which is
    $E_\infty$ itself at the weights that are linear between $n + 1$ nodes. The sum of
    its $R_n$ runs to the last node, $i = n$.

    Raises `ValueError` for data that are not finite or do not fit, for labels other
    than $\pm 1$ with `tanh_square`, and for an $\alpha$ or a $\tau$ that is not
    positive: $E_n$ would not be coercive.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> float(problem.energy(one_layer(8, 2)))  # z = 0 for both: |0 - 1|² + |0 + 1|²
    2.0
    ```
    """

    inputs: Float[Array, "examples width"]
    labels: Float[Array, "examples outputs"]
    alpha: Float[Array, "*parts"]
    tau: Float[Array, "*arrays"]
    loss: PointLoss = eqx.field(static=True)
    penalty: str = eqx.field(static=True)
    scheme: str = eqx.field(static=True)

    def __init__(
        self,
        inputs: Float[Array | np.ndarray, "examples width"],
        labels: Float[Array | np.ndarray, "examples ..."],
        *,
        alpha: float | Float[Array | np.ndarray, "*parts"],
        tau: float | Float[Array | np.ndarray, "*arrays"] = 1.0,
        loss: PointLoss = tanh_square,
        penalty: str = "sobolev",
        scheme: str = "euler",
    ):
        x = as_floats("inputs", inputs, shape=(None, None))
        y = as_floats("labels", labels).astype(x.dtype)
        y = y[:, None] if y.ndim == 1 else y
        require_shape("labels", y, (len(x), None))
        require_finite("inputs", x)
        require_finite("labels", y)
        if loss is tanh_square and not holds(lambda y: (abs(y) == 1).all(), y):
            raise ValueError("labels must be -1 or 1 with tanh_square: got others.")
        require_known("penalty", penalty, PENALTIES)
        require_known("scheme", scheme, SCHEMES)
        self.inputs, self.labels, self.loss = x, y, loss
        self.alpha = _positive("alpha", alpha, x.dtype)
        self.tau = _positive("tau", tau, x.dtype)
        self.penalty, self.scheme = penalty, scheme

    def but(self, **changes: Any) -> "Problem":
        """The same problem with other settings, by name as in `Problem(...)`."""
        names = ("inputs", "labels", "alpha", "tau", "loss", "penalty", "scheme")
        for name in changes:
            require_known("setting", name, names)
        settings = {name: getattr(self, name) for name in names} | changes
        return Problem(settings.pop("inputs"), settings.pop("labels"), **settings)

    def steps(self, parameters: Parameters) -> int:
        """The number $n$ of steps: that of nodes, or one less."""
        steps = parameters.nodes - (self.scheme != "euler")
        if steps < 2:
            raise ValueError(f"a depth of at least 2 is needed: got {steps}.")
        return steps

    @jax.jit
    def outputs(self, parameters: Parameters) -> Float[Array, "examples outputs"]:
        """What is read off the last states, $z_s$."""
        last, _ = _propagate(self, parameters, keep=False)
        return jax.vmap(parameters.readout)(last)

    @jax.jit
    def data_loss(self, parameters: Parameters) -> Float[Array, ""]:
        r"""The sum $\sum_s \ell(z_s, y_s)$."""
        last, _ = _propagate(self, parameters, keep=False)
        return _read(self, parameters.readout, last)

    def roughness(self, parameters: Parameters) -> Float[Array, " parts"]:
        r"""The $R_n(\theta_j)$ of the block's arrays, then $|W|^2$ and $|c|^2$."""
        parts, n = jax.tree.leaves(parameters.block), self.steps(parameters)
        tau = self.taus(parameters)
        rows = [self._roughness(z, t, n) for z, t in zip(parts, tau, strict=True)]
        rows += [jnp.sum(z**2) for z in jax.tree.leaves(parameters.readout)]
        return jnp.stack(rows)

    def _roughness(self, z: Array, tau: Array, n: int) -> Array:
        if self.penalty == "weight decay":
            return jnp.sum(z**2) / z.shape[0]
        rise = jnp.sum((z[1:] - z[:-1]) ** 2)
        if self.penalty != "no factor":
            rise = n * rise
        return rise if self.penalty == "no tau" else rise + tau * jnp.sum(z[0] ** 2)

    def alphas(self, parameters: Parameters) -> Float[Array, " parts"]:
        r"""The $\alpha_j$, one for each part of `roughness`."""
        return spread("alpha", self.alpha, len(jax.tree.leaves(parameters)))

    def taus(self, parameters: Parameters) -> Float[Array, " parts"]:
        r"""The $\tau_j$, one for each array of the block."""
        return spread("tau", self.tau, len(jax.tree.leaves(parameters.block)))

    @jax.jit
    def energy(self, parameters: Parameters) -> Float[Array, ""]:
        r"""$E_n(\theta, \omega)$."""
        parts = self.roughness(parameters)
        return self.data_loss(parameters) + self.alphas(parameters) @ parts


def _positive(name: str, value: Any, dtype: Any) -> Array:
    array = as_real(name, value, jnp.asarray).astype(dtype)
    if array.ndim > 1 or not array.size:
        raise ValueError(f"{name} must be one number or one a part: got {array.shape}.")
    if not holds(lambda a: ((a > 0) & np.isfinite(a)).all(), array):
        raise ValueError(
            f"{name} must be positive and finite, or the functional is not coercive: "
            f"got {np.asarray(array).tolist()}."
        )
    return array


def require_alike(problem: Any, parameters: Any) -> None:
    """Raise `ValueError` for weights of another precision than that of the `inputs` of
    a problem, of any kind."""
    types = {leaf.dtype.name for leaf in jax.tree.leaves(parameters)}
    if types != {problem.inputs.dtype.name}:
        raise ValueError(
            f"data and weights must have one precision: got {problem.inputs.dtype} and "
            f"{', '.join(sorted(types))}."
        )


def spread(name: str, values: Array, parts: int) -> Array:
    if values.shape not in {(), (1,), (parts,)}:
        raise ValueError(
            f"{name} must be one number or {parts}, one a part: got {values.shape}."
        )
    return jnp.broadcast_to(values, (parts,))


# ------------------------------------------------------------- the forward pass


def _field(block: AbstractBlock, x: Array) -> Array:
    return jax.vmap(block)(x)


def _step(scheme: str, x: Array, nodes: PyTree, h: float) -> Array:
    """One step, from the weights at its left end or at both ends."""
    if scheme == "euler":
        return x + h * _field(nodes, x)
    left, right = nodes
    if scheme == "heun":
        slope = _field(left, x)
        return x + h / 2 * (slope + _field(right, x + h * slope))
    stages = (np.arange(SUBSTEPS)[:, None] + np.array([0.0, 0.5, 1.0])) / SUBSTEPS

    def substep(x, parts):
        at = jax.vmap(_between, (None, None, 0))(left, right, parts)
        return runge_kutta_step(lambda x, z: _field(z, x), x, h / SUBSTEPS, at), None

    return jax.lax.scan(substep, x, jnp.asarray(stages, x.dtype))[0]


def _between(left: PyTree, right: PyTree, part: Array) -> PyTree:
    return jax.tree.map(lambda a, b: a + part * (b - a), left, right)


def _nodes(problem: Problem, block: AbstractBlock) -> PyTree:
    """What each step takes of the weights, on a leading axis."""
    if problem.scheme == "euler":
        return block
    left, right = slice(None, -1), slice(1, None)
    return tuple(jax.tree.map(lambda z, s=s: z[s], block) for s in (left, right))


def _propagate(
    problem: Problem, parameters: Parameters, keep: bool
) -> tuple[Array, Array | None]:
    h = 1 / problem.steps(parameters)
    require_alike(problem, parameters)

    def step(x, nodes):
        following = _step(problem.scheme, x, nodes, h)
        return following, following if keep else None

    nodes = _nodes(problem, parameters.block)
    return jax.lax.scan(step, problem.inputs, nodes)


def _read(problem: Problem, readout: Affine, last: Array) -> Float[Array, ""]:
    outputs, labels = jax.vmap(readout)(last), problem.labels
    if outputs.shape != labels.shape:
        raise ValueError(
            f"labels must have the outputs' shape {outputs.shape}: got {labels.shape}."
        )
    return jnp.sum(jax.vmap(problem.loss)(outputs, labels))


@jax.jit
def states(
    problem: Problem, parameters: Parameters
) -> Float[Array, "times examples width"]:
    r"""The states $X_0, \dots, X_n$ of all examples.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> states(problem, one_layer(8, 2)).shape
    (9, 2, 2)
    ```
    """
    _, kept = _propagate(problem, parameters, keep=True)
    assert kept is not None
    return jnp.concatenate([problem.inputs[None], kept])


class Adjoint(eqx.Module):
    r"""States $X_i$, costates $P_i = \partial_{X_i} \sum_s \ell_s$, and the gradient of
    $\sum_s \ell_s$ (without the penalties).

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> adjoint(problem, one_layer(8, 2)).gradient.readout.bias.tolist()  # they cancel
    [0.0]
    ```
    """

    states: Float[Array, "times examples width"]
    costates: Float[Array, "times examples width"]
    gradient: Parameters


@jax.jit
def adjoint(problem: Problem, parameters: Parameters) -> Adjoint:
    r"""The discrete adjoint: for the network, backwards from $P_n = \nabla_X \ell$,

    $$ P_i = P_{i+1} + \tfrac1n \partial_x f(X_i, \theta_i)^\top P_{i+1}, \qquad
       \partial_{\theta_i} \ell
       = \tfrac1n \partial_\theta f(X_i, \theta_i)^\top P_{i+1}, $$

    with the costate at the *next* layer. Automatic differentiation gives the same to
    rounding.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    >>> found = adjoint(problem, one_layer(8, 2))
    >>> found.costates.shape, float(abs(found.costates).max())  # W = 0
    ((9, 2, 2), 0.0)
    ```
    """
    path, h = states(problem, parameters), 1 / problem.steps(parameters)

    def reading(readout, last):
        return _read(problem, readout, last)

    onto, last = jax.grad(reading, argnums=(0, 1))(parameters.readout, path[-1])

    def back(costate, place):
        x, nodes = place
        _, pull = jax.vjp(lambda x, z: _step(problem.scheme, x, z, h), x, nodes)
        costate, onto = pull(costate)
        return costate, (costate, onto)

    nodes = _nodes(problem, parameters.block)
    _, (costates, onto_nodes) = jax.lax.scan(
        back, last, (path[:-1], nodes), reverse=True
    )
    costates = jnp.concatenate([costates, last[None]])
    block = onto_nodes if problem.scheme == "euler" else _gathered(*onto_nodes)
    return Adjoint(path, costates, Parameters(block, onto))


def _gathered(left: PyTree, right: PyTree) -> PyTree:
    """The gradient on nodes from that on the left and the right ends of steps."""

    def both(a, b):
        zero = jnp.zeros_like(a[:1])
        return jnp.concatenate([a, zero]) + jnp.concatenate([zero, b])

    return jax.tree.map(both, left, right)
