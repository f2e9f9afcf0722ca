r"""Learned step sizes: the network $X_{i+1} = X_i + \delta_i f(X_i, \theta_i)$.

The steps $\delta_i = v_i/n$ are trained as well, free of charge, with $0 \le v_i \le
V$ and $\sum_i \delta_i = 1$. Where the energy is stationary there is a number $\nu$
such that, with $S_i = \sum_s P_{i+1} \cdot f(X_i, \theta_i)$,

$$ v_i = V \text{ where } S_i < -\nu, \qquad v_i = 0 \text{ where } S_i > -\nu. $$

The bounds are kept by L-BFGS-B and the sum by an augmented Lagrangian.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize

from ..checks import as_floats, require_known, require_whole, require_within
from ..residual import AbstractBlock
from .functional import Problem, adjoint
from .parameters import Parameters
from .whitening import Layout, colour, layout_of, whiten

STIFFNESS = 200.0  # of the augmented Lagrangian


class Paced(AbstractBlock):
    r"""A block times a pace, $f(h, (Z, v)) = v f(h, Z)$.

    ```pycon
    >>> from deeplimits import residual
    >>> block = residual.OneLayer(jnp.eye(2), activation="identity")
    >>> Paced(block, jnp.array(0.5))(jnp.array([1.0, 2.0])).tolist()
    [0.5, 1.0]
    ```
    """

    block: AbstractBlock
    pace: Float[Array, "*depth"]

    def __call__(self, h: Array) -> Array:
        return self.pace * self.block(h)


@dataclass(frozen=True)
class LearnedSteps:
    r"""Weights and paces $v_i$ at which the energy is stationary.

    `multiplier` is $\nu$. `defect` is the larger of $|\sum_i \delta_i - 1|$ and of the
    largest entry of the projected gradient; `solved` whether it is below what was
    asked for.

    ```pycon
    >>> from deeplimits.residual import OneLayer
    >>> from deeplimits.variational.parameters import Affine
    >>> block = OneLayer(jnp.ones((2, 1, 1)), activation="identity")
    >>> growth = Parameters(block, Affine(jnp.ones((1, 1)), jnp.zeros(1)))
    >>> found = LearnedSteps(0.0, growth, jnp.array([2.0, 0.0]), 0.0, 0.0, True)
    >>> found.paced.network(jnp.ones(1)).tolist()  # (1 + 2/2)(1 + 0/2)
    [2.0]
    ```
    """

    value: float
    parameters: Parameters
    pace: Float[Array, " steps"]
    multiplier: float
    defect: float
    solved: bool

    @property
    def paced(self) -> Parameters:
        """The network itself, its paces within the block."""
        return _paced(self.parameters, self.pace)


def _paced(parameters: Parameters, pace: Array) -> Parameters:
    return Parameters(Paced(parameters.block, pace), parameters.readout)


@functools.partial(jax.jit, static_argnums=2)
def _lagrangian(problem: Problem, flat: Array, layout: Layout, nu: Array) -> Any:
    r"""Value and gradient of $E + \nu (\bar v - 1) + \frac c2 (\bar v - 1)^2$; $E$."""

    def value(flat):
        steps = layout.shapes[0][0]
        parameters = colour(problem, flat[:-steps], layout)
        excess = jnp.mean(flat[-steps:]) - 1
        penalty = problem.alphas(parameters) @ problem.roughness(parameters)
        energy = penalty + problem.data_loss(_paced(parameters, flat[-steps:]))
        return energy + nu * excess + STIFFNESS / 2 * excess**2, energy

    return jax.value_and_grad(value, has_aux=True)(flat)


def learn_steps(
    problem: Problem,
    start: Parameters,
    *,
    pace: Float[Array | np.ndarray, " steps"] | None = None,
    cap: float = 3.0,
    tolerance: float = 1e-6,
    rounds: int = 30,
) -> LearnedSteps:
    r"""A local minimum over weights and step sizes, from `start` and a `pace` (all 1).

    Raises `ValueError` for another scheme than "euler", for a `cap` below 1, with
    which steps cannot add up to 1, and for a pace that is not between 0 and the cap.

    ```pycon
    >>> from deeplimits.variational.parameters import one_layer
    >>> with jax.enable_x64(True):
    ...     problem = Problem(jnp.eye(2), jnp.array([1.0, -1.0]), alpha=0.1)
    ...     learned = learn_steps(problem, one_layer(4, 2), tolerance=1e-3)
    ...     pace = learned.pace.tolist()
    >>> learned.solved, round(sum(pace) / 4, 2), round(pace[0], 2)  # no first step
    (True, 1.0, 0.0)
    >>> round(learned.value, 3)  # with equal steps 0.179
    0.174
    ```
    """
    require_known("scheme", problem.scheme, ("euler",))
    require_within("[1, inf)", cap=cap)
    require_within("(0, inf)", tolerance=tolerance)
    require_whole(rounds=rounds)
    layout, n = layout_of(problem, start, "whitened"), start.nodes
    v = np.ones(n) if pace is None else np.asarray(as_floats("pace", pace, shape=(n,)))
    if not ((v >= 0) & (v <= cap)).all():
        raise ValueError(f"pace must lie between 0 and {cap=}: got {v.tolist()}.")
    flat, nu = np.concatenate([whiten(problem, start, layout), v]), 0.0
    low, high = _bounds(flat.size, n, cap)
    defect = np.inf
    for _ in range(rounds):
        flat, gradient = _descend(problem, flat, layout, nu, (low, high), tolerance)
        excess = flat[-n:].mean() - 1
        nu += STIFFNESS * excess
        defect = float(max(abs(excess), np.abs(gradient).max()))
        if defect < tolerance:
            break
    (_, energy), _ = _lagrangian(problem, jnp.asarray(flat), layout, nu)
    parameters = colour(problem, flat[:-n], layout, np)
    pace = jnp.asarray(flat[-n:])
    return LearnedSteps(
        float(energy), parameters, pace, float(nu), defect, defect < tolerance
    )


def _bounds(size: int, n: int, cap: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    low[-n:], high[-n:] = 0.0, cap
    return low, high


def _descend(problem, flat, layout, nu, bounds, tolerance):
    """L-BFGS-B at one multiplier: the point, and the projected gradient there."""

    def objective(x):
        (value, _), gradient = _lagrangian(problem, jnp.asarray(x), layout, nu)
        return float(value), np.asarray(gradient)

    options = {"maxcor": 20, "maxiter": 3000, "maxfun": 9000, "ftol": 0.0}
    found = optimize.minimize(
        objective,
        flat,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack(bounds, axis=1),
        options=options | {"gtol": tolerance / 2},
    )
    return found.x, found.x - np.clip(found.x - found.jac, *bounds)


def gains(problem: Problem, learned: LearnedSteps) -> Float[Array, " steps"]:
    r"""$S_i = \sum_s P_{i+1} \cdot f(X_i, \theta_i)$ of each layer: what the loss gains
    by a longer step there, per unit.

    ```pycon
    >>> from deeplimits.residual import OneLayer
    >>> from deeplimits.variational.parameters import Affine
    >>> one, zero = jnp.ones((1, 1)), jnp.zeros(1)
    >>> problem = Problem(one, zero, alpha=0.1, loss=lambda z, y: z @ z)
    >>> block = OneLayer(jnp.ones((2, 1, 1)), activation="identity")
    >>> growth = Parameters(block, Affine(one, zero))
    >>> gains(problem, LearnedSteps(0.0, growth, jnp.ones(2), 0.0, 0.0, True)).tolist()
    [6.75, 6.75]
    ```
    """
    found = jax.jit(adjoint)(problem, learned.paced)
    each = jax.vmap(lambda block, x: jax.vmap(block)(x))
    f = each(learned.parameters.block, found.states[:-1])
    return jnp.sum(found.costates[1:] * f, axis=tuple(range(1, f.ndim)))
