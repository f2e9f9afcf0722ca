r"""Training as optimal control: one control for a whole law of inputs and labels.

A network of $n$ layers with step $h = T/n$ carries the law $\mu_0$ of pairs $(x, y)$,
labels at rest,

$$ \begin{gathered} x_{k+1} = x_k + h f(x_k, \theta_k), \\
   J(\theta) = \int \ell(x_n, y) + h \sum_{k<n} r(t_k, x_k, y)\,\mathrm{d}\mu_0
   + \lambda h \sum_{k<n} |\theta_k|^2, \end{gathered} $$

with a terminal loss $\ell$, a running cost $r$ or none, and no factor $\frac12$. A law
is points $x_s$ with labels $y_s$ and weights $w_s$: a sample with equal ones, or the
nodes of a quadrature, which is the population itself to the last digits. Sources:
`herty2022continuous`, `e2019`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..checks import (
    as_floats,
    as_scalar,
    require_finite,
    require_floats,
    require_known,
    require_shape,
)
from ..measures.laws import as_shares
from ..variational.functional import require_alike, square

# what it takes: the layers on the leading axis, in one array or in a stacked block
Control = PyTree
Field = Callable[[Array, Any], Array]
Running = Callable[[Array, Array, Array], Array]


def gain(x: Float[Array, " d"], theta: Float[Array, "..."]) -> Float[Array, " d"]:
    r"""The field $\tanh(\theta x)$ of one number $\theta$ a layer, or one matrix.

    The first is that of `bonnet2023`, in their public code.

    ```pycon
    >>> gain(jnp.array([0.0, 1.0]), jnp.array(1.0)).round(4)
    Array([0.        , 0.76159996], dtype=float32)
    ```
    """
    x, theta = as_floats("x", x), as_floats("theta", theta)
    return jnp.tanh(theta * x if theta.ndim == 0 else theta @ x)


def of_block(x: Float[Array, " d"], block: Any) -> Float[Array, " d"]:
    r"""The field of a block, for controls that are stacked blocks: with `OneLayer`,
    $\sigma(w x + b)$."""
    return block(x)


def half_square(x: Float[Array, " d"], y: Float[Array, " d"]) -> Float[Array, ""]:
    r"""$\ell(x, y) = \frac12 |x - y|^2$."""
    return square(x, y) / 2


class Pontryagin(NamedTuple):
    r"""What the maximum principle needs in each of the $n$ layers.

    `states` are the $x_k$ that the control $\theta_k$ acts on, `weights` theirs, and
    `costates` the $p_{k+1}$, those of the *next* layer.

    ```pycon
    >>> problem = ControlProblem(jnp.array([[1.0]]), jnp.array([[2.0]]), decay=0.1)
    >>> at = problem.pontryagin(jnp.zeros(4))
    >>> at.states.shape, at.costates[-1].item()
    ((4, 1, 1), -2.0)
    ```
    """

    value: Float[Array, ""]
    states: Float[Array, "steps points d"]
    weights: Float[Array, "steps points"]
    costates: Float[Array, "steps points d"]


class ControlProblem(eqx.Module):
    r"""A law, a field $f$ and costs: all of $J$ but the control.

    `inputs` are $(N, d)$ and `labels` $(N, \cdot)$; `weights`, equal by default, sum
    to 1; `decay` is $\lambda$ and `duration` $T$. `field(x, theta)` takes one point
    and the control of one layer, `loss(x, y)` and `running(t, x, y)` one point and its
    label, and give one number. Raises `ValueError` for data that are not finite or do
    not fit, for weights that are negative or do not sum to 1, for $\lambda < 0$ and
    $T \le 0$, and where it is used with a control of another precision. States that
    overflow make the value infinite or NaN, without an error, here and in kin.

    ```pycon
    >>> problem = ControlProblem(jnp.array([[1.0]]), jnp.array([[2.0]]), decay=0.1)
    >>> round(float(problem.value(jnp.zeros(4))), 4)  # nothing moves: |1 - 2|²
    1.0
    ```
    """

    inputs: Float[Array, "points d"]
    labels: Float[Array, "points outputs"]
    weights: Float[Array, " points"]
    decay: Float[Array, ""]
    duration: Float[Array, ""]
    field: Field = eqx.field(static=True)
    loss: Callable = eqx.field(static=True)
    running: Running | None = eqx.field(static=True)

    def __init__(
        self,
        inputs: Float[Array | np.ndarray, "points d"],
        labels: Float[Array | np.ndarray, "points ..."],
        weights: Float[Array | np.ndarray, " points"] | None = None,
        *,
        decay: float | Float[Array, ""],
        duration: float | Float[Array, ""] = 1.0,
        field: Field = gain,
        loss: Callable = square,
        running: Running | None = None,
    ):
        x = as_floats("inputs", inputs, shape=(None, None))
        y = as_floats("labels", labels).astype(x.dtype)
        y = y[:, None] if y.ndim == 1 else y
        require_shape("labels", y, (len(x), None))
        require_finite("inputs", x)
        require_finite("labels", y)
        self.inputs, self.labels = x, y
        self.weights = as_shares(weights, x)
        self.decay = as_scalar("decay", decay, x.dtype, within="[0, inf)")
        self.duration = as_scalar("duration", duration, x.dtype, within="(0, inf)")
        self.field, self.loss, self.running = field, loss, running
        if loss in (square, half_square) and y.shape[1] != x.shape[1]:
            raise ValueError(
                "labels must be as wide as the inputs, unless a loss says how they "
                f"compare: got {y.shape} and {x.shape}."
            )
        _require_number("loss", loss, x[0], y[0])
        if running is not None:
            _require_number("running", running, self.decay, x[0], y[0])

    def but(self, **changes: Any) -> "ControlProblem":
        """The same problem with other settings, by name as in `ControlProblem(...)`."""
        settings = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in changes:
            require_known("setting", name, settings)
        settings |= changes
        return type(self)(settings.pop("inputs"), settings.pop("labels"), **settings)

    def step(self, theta: Control) -> Float[Array, ""]:
        """The step $h = T/n$ of so many layers as the control has."""
        depth = depth_of(theta)
        require_alike(self, theta)
        return self.duration / depth

    def states(self, theta: Control) -> Float[Array, "times points d"]:
        """The states $x_0, …, x_n$ of all points."""
        h = self.step(theta)

        def layer(x, node):
            following = x + h * _moves(self.field, x, node)
            return following, following

        _, kept = jax.lax.scan(layer, self.inputs, theta)
        return jnp.concatenate([self.inputs[None], kept])

    def rate(
        self,
        t: Float[Array, ""],
        x: Float[Array, " d"],
        y: Float[Array, " outputs"],
        v: Float[Array, " d"],
    ) -> Float[Array, ""]:
        r"""What a point at $x$ with the velocity $v$ pays a unit of time: the running
        cost $r(t, x, y)$, whatever $v$."""
        return jnp.zeros((), x.dtype) if self.running is None else self.running(t, x, y)

    def losses(self, theta: Control) -> Float[Array, " points"]:
        r"""What each point costs, $\ell(x_n, y)$ and its share of the running cost: the
        value is their mean and the cost of the control."""
        return self._losses(self.states(theta), self.step(theta))

    def _losses(self, path: Array, h: Array) -> Array:
        each = jax.vmap(self.loss)(path[-1], self.labels)
        rates = jax.vmap(jax.vmap(self.rate, (None, 0, 0, 0)), (0, 0, None, 0))
        times, moves = _times(path[:-1], h), jnp.diff(path, axis=0) / h
        return each + h * rates(times, path[:-1], self.labels, moves).sum(0)

    def effort(self, theta: Control) -> Float[Array, ""]:
        r"""The cost of the control, $\lambda h \sum_k |\theta_k|^2$."""
        return self.decay * self.step(theta) * squares(theta)

    def value(self, theta: Control) -> Float[Array, ""]:
        r"""$J(\theta)$."""
        return self.weights @ self.losses(theta) + self.effort(theta)

    def pontryagin(self, theta: Control) -> Pontryagin:
        r"""States, and the costates of each point backwards from
        $p_n = \nabla \ell(x_n, y)$,

        $$ p_k = p_{k+1} + h\, \partial_x f(x_k, \theta_k)^\top p_{k+1}
           + h\, \partial_x r(t_k, x_k, y), $$

        with all of `rate` for $r$ where it depends on the velocity $f(x, \theta_k)$.
        """
        path, h = self.states(theta), self.step(theta)
        last = jax.vmap(jax.grad(self.loss))(path[-1], self.labels)

        def back(following, place):
            x, t, node = place

            def left(x):  # what is yet to pay, to first order
                v = _moves(self.field, x, node)
                rates = jax.vmap(self.rate, (None, 0, 0, 0))(t, x, self.labels, v)
                return jnp.vdot(following, x + h * v) + h * jnp.sum(rates)

            return jax.grad(left)(x), following

        places = path[:-1], _times(path[:-1], h), theta
        _, costates = jax.lax.scan(back, last, places, reverse=True)
        value = self.weights @ self._losses(path, h) + self.effort(theta)
        weights = jnp.broadcast_to(self.weights, path.shape[:-1])[:-1]
        return Pontryagin(value, path[:-1], weights, costates)

    def hamiltonian(
        self,
        states: Float[Array, "points d"],
        weights: Float[Array, " points"],
        costates: Float[Array, "points d"],
        theta: Control,
    ) -> Float[Array, ""]:
        r"""The Hamiltonian of one layer,

        $$ H(\theta) = \sum_s w_s\, p_s \cdot f(x_s, \theta) + \lambda |\theta|^2, $$

        without the running cost, which no control of this layer changes. An optimal
        $\theta_k$ makes it least (with $p = +\nabla\ell$; $-H$ is largest in `e2019`).
        """
        moves = _moves(self.field, states, theta)
        return weights @ jnp.sum(costates * moves, axis=1) + self.decay * squares(theta)

    def gradient(self, theta: Control) -> Control:
        r"""$\partial_{\theta_k} J = h\, \partial_\theta H(\theta_k)$, without a pass of
        automatic differentiation through the layers; to rounding it gives the same."""
        h = self.step(theta)
        slopes = hamiltonian_slopes(self, self.pontryagin(theta), theta)
        return jax.tree.map(lambda z: h * z, slopes)


def hamiltonian_slopes(problem: Any, at: Pontryagin, theta: Control) -> Control:
    r"""$\partial_\theta H(\theta_k)$ in every layer: the gradient in $L^2(0, T)$."""
    return jax.vmap(jax.grad(problem.hamiltonian, argnums=3))(*at[1:], theta)


def size_in_l2(problem: Any, slopes: Control, theta: Control) -> Float[Array, ""]:
    r"""$(h \sum_k |g_k|^2)^{1/2}$, of what has the form of the control."""
    return jnp.sqrt(problem.step(theta) * squares(slopes))


def squares(theta: Control) -> Float[Array, ""]:
    """The sum of the squares of all entries.

    ```pycon
    >>> float(squares(jnp.array([3.0, 4.0])))
    25.0
    ```
    """
    leaves = [as_floats("theta", z) for z in jax.tree.leaves(theta)]
    if not leaves:
        raise ValueError("theta holds no arrays.")
    return jnp.stack([jnp.sum(z**2) for z in leaves]).sum()


def depth_of(theta: Control) -> int:
    """How many layers a control has: the leading axis that its arrays share."""
    leaves = jax.tree.leaves(theta)
    for leaf in leaves:
        require_floats("theta", leaf)
    depths = {leaf.shape[:1] for leaf in leaves}
    if len(depths) != 1 or not any(min(depths)):
        raise ValueError(
            "theta needs the layers, at least one, as the leading axis of all its "
            f"arrays: got {sorted(leaf.shape for leaf in leaves)}."
        )
    return leaves[0].shape[0]


def _moves(field: Field, x: Array, node: Control) -> Array:
    moves = jax.vmap(field, (0, None))(x, node)
    if moves.shape != x.shape:
        raise ValueError(
            f"field must map points {x.shape[1:]} to themselves: got {moves.shape[1:]}."
        )
    return moves


def _require_number(name: str, cost: Callable, *arguments: Array) -> None:
    shape = jnp.shape(jax.eval_shape(cost, *arguments))
    if shape != ():
        raise ValueError(f"{name} must give one number a point: got shape {shape}.")


def _times(path: Array, h: Array) -> Array:
    return h * jnp.arange(len(path), dtype=path.dtype)
