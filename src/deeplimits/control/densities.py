r"""The mean-field optimality system on the line: a density and an adjoint on a grid.

With $T_k$ the layer map $x \mapsto x + h f(x, \theta_k)$, the adjoint
$\psi_k(x) = \psi_{k+1}(T_k(x))$, $\psi_n(\cdot) = \ell(\cdot, y)$, is what a particle
has yet to pay, and its slope $\partial_x \psi_k$ along a particle is the costate. The
optimality condition reads

$$ 2 \lambda \theta_k + \int \partial_x \psi_{k+1}(T_k(x), y)\,
   \partial_\theta f(x, \theta_k)\, \mathrm{d}\mu_k(x, y) = 0, $$

with $\partial_x \psi_{k+1}$ at $T_k(x)$, where the particle arrives. On a grid
$\psi_{k+1}$ is a spline through its nodes, read at $T_k$ of the nodes: a
semi-Lagrangian step. Its transpose moves the masses of $\mu_k$, so that, where there
is no running cost, $\langle \mu_k, \psi_k \rangle$ is the same in all layers, exactly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..checks import as_doubles, require_finite, require_known
from .problem import Control, ControlProblem, Field, Pontryagin

FORWARD = ("density", "points")
COSTATES = ("arriving", "leaving")


class DensityForm(eqx.Module):
    r"""A `ControlProblem` on the line with its adjoint on the nodes of a `grid`.

    $\psi$ moves by splines of that `degree`, 3 or 1. With degree 1, where no node moves
    past the next one, $h |f| \le \Delta x$, a step is one of explicit upwinding: it
    smears $\psi$ like a diffusion of $\frac12 |f| (\Delta x - h |f|)$. `forward` says
    what carries $\mu_k$: a "density", as masses on the nodes that the transposed steps
    move, or the problem's own "points". The slope of $\psi_{k+1}$ is always that of the
    cubic spline, where a particle is "arriving" ($T_k(x)$), or, which is wrong by
    $O(h)$, where it is "leaving" ($x$): `costate`.

    With degree 3, density and arriving costate, the optimality condition is that of the
    value on the grid itself, to rounding. Where a particle leaves the grid, beyond
    which a spline means nothing, the value is NaN, and a sweep flags it. Raises
    `ValueError` for a problem that is not on the line, for a grid under eight nodes,
    not even, or that does not hold the inputs.

    ```pycon
    >>> from deeplimits.control.problem import ControlProblem
    >>> problem = ControlProblem(jnp.array([[0.5]]), jnp.array([[0.0]]), decay=0.1)
    >>> form, theta = DensityForm(problem, jnp.linspace(-1, 2, 31)), jnp.ones(2)
    >>> paired = (form.masses(theta) * form.adjoint(theta)).sum((1, 2))
    >>> [round(p, 3) for p in paired.tolist()], round(problem.losses(theta).item(), 3)
    ([1.088, 1.088, 1.088], 1.088)
    ```
    """

    problem: ControlProblem
    grid: Float[Array, " nodes"]
    spline: Float[Array, "coefficients nodes"]
    classes: Float[Array, "classes outputs"]
    member: Int[Array, " points"]
    degree: int = eqx.field(static=True)
    forward: str = eqx.field(static=True)
    costate: str = eqx.field(static=True)

    def __init__(
        self,
        problem: ControlProblem,
        grid: Float[Array | np.ndarray, " nodes"],
        *,
        degree: int = 3,
        forward: str = "density",
        costate: str = "arriving",
    ):
        if problem.inputs.shape[1] != 1:
            raise ValueError(
                "problem must be on the line, with inputs (N, 1): got "
                f"{problem.inputs.shape}."
            )
        nodes = _even("grid", grid, np.asarray(problem.inputs))
        require_known("degree", str(degree), ("1", "3"))
        require_known("forward", forward, FORWARD)
        require_known("costate", costate, COSTATES)
        dtype = problem.inputs.dtype
        classes, member = np.unique(
            np.asarray(problem.labels), axis=0, return_inverse=True
        )
        self.problem, self.grid = problem, jnp.asarray(nodes, dtype)
        self.spline = jnp.asarray(_coefficients(len(nodes)), dtype)
        self.classes, self.member = jnp.asarray(classes), jnp.asarray(member.ravel())
        self.degree, self.forward, self.costate = int(degree), forward, costate

    @property
    def decay(self) -> Float[Array, ""]:
        r"""$\lambda$ of the problem."""
        return self.problem.decay

    def step(self, theta: Control) -> Float[Array, ""]:
        """The step of the problem."""
        return self.problem.step(theta)

    def hamiltonian(self, states, weights, costates, theta) -> Float[Array, ""]:
        """The Hamiltonian of the problem, of nodes or points alike."""
        return self.problem.hamiltonian(states, weights, costates, theta)

    def adjoint(self, theta: Control) -> Float[Array, "times classes nodes"]:
        r"""$\psi_0, \dots, \psi_n$ on the nodes, one row for each label there is."""
        problem, h = self.problem, self.step(theta)
        x = self.grid[:, None]
        last = jax.vmap(lambda y: jax.vmap(problem.loss, (0, None))(x, y))(self.classes)

        def back(psi, place):
            t, node = place
            v = self._field(self.grid, node)[:, None]
            rate = jax.vmap(problem.rate, (None, 0, None, 0))
            paid = jax.vmap(lambda y: rate(t, x, y, v))(self.classes)
            moved = self._transported(psi, node, h) + h * paid
            return moved, moved

        times = h * jnp.arange(len(jax.tree.leaves(theta)[0]), dtype=x.dtype)
        _, kept = jax.lax.scan(back, last, (times, theta), reverse=True)
        return jnp.concatenate([kept, last[None]])

    def _transported(self, psi: Array, node: Control, h: Array) -> Array:
        """One layer of the adjoint, linear in `psi`, of one row for each label."""
        return self._read(psi, self.grid + h * self._field(self.grid, node))

    def _field(self, x: Array, node: Control) -> Array:
        field: Field = self.problem.field
        return jax.vmap(field, (0, None))(x[:, None], node)[:, 0]

    def _read(self, psi: Array, places: Array, *, slope: bool = False) -> Array:
        """Splines through the rows of `psi`, or their slopes, at the places."""
        spacing = self.grid[1] - self.grid[0]
        degree = 3 if slope else self.degree
        position = (places - self.grid[0]) / spacing
        first = jnp.clip(jnp.floor(position), 0, len(self.grid) - 2)
        part = position - first
        rows = psi @ self.spline.T if degree == 3 else psi
        shares = _basis(part, degree)
        if slope:
            _, shares = jax.jvp(
                lambda u: _basis(u, degree), (part,), (jnp.ones_like(part),)
            )
            shares = shares / spacing
        near = first.astype(int)[:, None] + jnp.arange(degree + 1)[None]
        return jnp.sum(rows[:, near] * shares[None], axis=-1)

    def masses(self, theta: Control) -> Float[Array, "times classes nodes"]:
        r"""The masses of $\mu_0, \dots, \mu_n$ on the nodes, one row for each label.

        The first are the problem's points, spread over the nodes by the transposed
        spline: masses beside a jump of a density may be negative.
        """
        h, start = self.step(theta), self._start()

        def layer(m, node):
            transpose = jax.linear_transpose(
                lambda psi: self._transported(psi, node, h), m
            )
            (following,) = transpose(m)
            return following, following

        _, kept = jax.lax.scan(layer, start, theta)
        return jnp.concatenate([start[None], kept])

    def _start(self) -> Float[Array, "classes nodes"]:
        w, x = self.problem.weights, self.problem.inputs[:, 0]
        blank = jnp.zeros((1, len(self.grid)), w.dtype)

        def means(psi):  # of a function, over the points of each label
            shares = w * self._read(psi, x)[0]
            return jnp.zeros(len(self.classes), w.dtype).at[self.member].add(shares)

        return jax.jacrev(means)(blank)[:, 0]

    def value(self, theta: Control) -> Float[Array, ""]:
        r"""$\langle \mu_0, \psi_0 \rangle$ and the cost of the control; with "points",
        that of the problem."""
        if self.forward == "points":
            return self._held(self.problem.value(theta), theta)
        first = jnp.sum(self._start() * self.adjoint(theta)[0])
        return self._held(first + self.problem.effort(theta), theta)

    def _held(self, value: Array, theta: Control) -> Array:
        """The value, or NaN where a particle leaves the grid."""
        path = self.problem.states(theta)
        inside = (path >= self.grid[0]) & (path <= self.grid[-1])
        return jnp.where(jnp.all(inside), value, jnp.nan)

    def pontryagin(self, theta: Control) -> Pontryagin:
        r"""Nodes or points, their masses, and the slopes of $\psi_{k+1}$ there."""
        psi = self.adjoint(theta)
        if self.forward == "points":
            return self._on_points(theta, psi)
        h, masses = self.step(theta), self.masses(theta)
        value = jnp.sum(masses[0] * psi[0]) + self.problem.effort(theta)
        value = self._held(value, theta)

        def slopes(psi, node):
            return self._read(psi, self._place(self.grid, node, h), slope=True)

        p = jax.vmap(slopes)(psi[1:], theta)
        states = jnp.broadcast_to(self.grid, p.shape)
        rows = (each.reshape(len(p), -1) for each in (states, masses[:-1], p))
        states, weights, costates = rows
        return Pontryagin(value, states[..., None], weights, costates[..., None])

    def _on_points(self, theta: Control, psi: Array) -> Pontryagin:
        problem, h = self.problem, self.step(theta)
        states = problem.states(theta)[:-1, :, 0]

        def slopes(psi, x, node):
            rows = self._read(psi, self._place(x, node, h), slope=True)
            return jnp.take_along_axis(rows, self.member[None], axis=0)[0]

        p = jax.vmap(slopes)(psi[1:], states, theta)
        weights = jnp.broadcast_to(problem.weights, states.shape)
        value = self._held(problem.value(theta), theta)
        return Pontryagin(value, states[..., None], weights, p[..., None])

    def _place(self, x: Array, node: Control, h: Array) -> Array:
        """Where the slope of the adjoint is read."""
        return x + h * self._field(x, node) if self.costate == "arriving" else x


def _basis(u: Array, degree: int) -> Float[Array, "places shares"]:
    """The B-splines at a part `u` of a cell, of its two or four neighbours."""
    if degree == 1:
        return jnp.stack([1 - u, u], axis=1)
    v = 1 - u
    inner = 4 - 6 * u**2 + 3 * u**3, 4 - 6 * v**2 + 3 * v**3
    return jnp.stack([v**3, *inner, u**3], axis=1) / 6


def _coefficients(nodes: int) -> np.ndarray:
    """From values on the nodes to the coefficients of their cubic spline, one more at
    each end: fourth differences vanish there, so that cubics are exact."""
    size = nodes + 2
    matrix = np.zeros((size, size))
    for j in range(nodes):
        matrix[j + 1, j : j + 3] = np.array([1, 4, 1]) / 6
    matrix[0, :5] = matrix[-1, -5:] = [1, -4, 6, -4, 1]
    return np.linalg.inv(matrix)[:, 1:-1]


def _even(name: str, grid: np.ndarray | Array, inputs: np.ndarray) -> np.ndarray:
    nodes = as_doubles(name, grid, shape=(None,))
    require_finite(name, nodes)
    steps = np.diff(nodes)
    even = len(nodes) >= 8 and steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-3)
    if not even:
        raise ValueError(
            f"{name} must increase in equal steps over eight nodes or more: got "
            f"{len(nodes)} nodes."
        )
    if inputs.min() < nodes[0] or inputs.max() > nodes[-1]:
        raise ValueError(
            f"{name} must hold all inputs, from {inputs.min():g} to {inputs.max():g}: "
            f"got {nodes[0]:g} to {nodes[-1]:g}."
        )
    return nodes
