r"""Laws of bumps, their samples, and what a control loses that knows a sample alone."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import ArrayLike

from ..checks import (
    as_doubles,
    require_finite,
    require_room,
    require_whole,
    require_within,
)
from .problem import Control, ControlProblem

CENTRES = np.array([[-1.0], [1.0]])
LABELS = 2 * CENTRES
RADIUS = 0.2
NEAR = 1e-3  # to the optimum, for the constants to be those there


class Law(NamedTuple):
    """Points with labels and weights: `ControlProblem(*law, decay=…)`.

    ```pycon
    >>> law = Law(jnp.zeros((2, 1)), jnp.ones((2, 1)), jnp.array([0.5, 0.5]))
    >>> law._fields
    ('inputs', 'labels', 'weights')
    ```
    """

    inputs: Float[Array, "points d"]
    labels: Float[Array, "points outputs"]
    weights: Float[Array, " points"]


def bumps(
    nodes: int = 40,
    *,
    centres: ArrayLike = CENTRES,
    labels: ArrayLike = LABELS,
    radius: float = RADIUS,
) -> Law:
    r"""The population of bumps of equal mass, by Gauss–Legendre quadrature.

    A point is a centre plus independent standard normals, each conditioned to
    $[-r, r]$; its label is that of the bump. There are so many `nodes` in each
    coordinate. By default these are the two bumps of the "bigaussian" in the public
    code of `bonnet2023`, where 40 nodes give the costs of smooth fields to $10^{-12}$;
    a larger radius asks for more.

    ```pycon
    >>> law = bumps(nodes=8)
    >>> law.inputs.shape, round(float(law.weights.sum()), 4)
    ((16, 1), 1.0)
    ```
    """
    require_whole(nodes=nodes)
    centres, labels = _bumps(centres, labels, radius)
    d = centres.shape[1]
    require_room(8 * len(centres) * (2 * d + 2) * nodes**d)
    places, shares = np.polynomial.legendre.leggauss(nodes)
    places = radius * places
    shares = shares * np.exp(-(places**2) / 2)
    grid = np.meshgrid(*[places] * d, indexing="ij")
    offsets = np.stack([g.ravel() for g in grid], axis=1)
    weights = functools.reduce(np.multiply.outer, [shares / shares.sum()] * d).ravel()
    inputs = (centres[:, None] + offsets).reshape(-1, d)
    repeated = np.repeat(labels, len(offsets), axis=0)
    weights = np.tile(weights, len(centres)) / len(centres)
    return Law(*(jnp.asarray(a, float) for a in (inputs, repeated, weights)))


def sample_bumps(
    count: int,
    *,
    centres: ArrayLike = CENTRES,
    labels: ArrayLike = LABELS,
    radius: float = RADIUS,
    key: PRNGKeyArray,
) -> Law:
    """So many independent points of the law of `bumps`, the bump itself drawn first.

    ```pycon
    >>> law = sample_bumps(100, key=jr.key(0))
    >>> law.inputs.shape, float(law.weights.sum().round(4))
    ((100, 1), 1.0)
    ```
    """
    require_whole(count=count)
    centres, labels = _bumps(centres, labels, radius)
    bump_key, place_key = jr.split(key)
    bump = jr.randint(bump_key, (count,), 0, len(centres))
    offsets = jr.truncated_normal(
        place_key, -radius, radius, (count, centres.shape[1]), float
    )
    inputs = jnp.asarray(centres, float)[bump] + offsets
    weights = jnp.full(count, 1 / count, float)
    return Law(inputs, jnp.asarray(labels, float)[bump], weights)


def _bumps(
    centres: ArrayLike, labels: ArrayLike, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    centres = as_doubles("centres", centres, shape=(None, None))
    labels = as_doubles("labels", labels, shape=(len(centres), None))
    require_finite("centres", centres)
    require_finite("labels", labels)
    require_within("(0, inf)", radius=radius)
    return centres, labels


@dataclass(frozen=True)
class SamplingConstants:
    r"""How far the optimum of $M$ independent points is from that of the population.

    As $M \to \infty$, at an optimum where the Hessian $H$ of $J$ is invertible, and
    with $\Sigma$ the covariance of the gradients of single points,

    $$ \sqrt M\,(\theta_M - \theta) \to N(0, H^{-1} \Sigma H^{-1}), \qquad
       \sqrt M\,(J_M - J) \to N(0, \operatorname{Var} \ell), $$

    and $M\, \mathrm{E}(J_M - J) \to -\frac12 \operatorname{tr}(H^{-1} \Sigma)$.
    `control` is the limit of $\sqrt M$ times the root mean square, over draws and over
    depth, of $\theta_M - \theta$.

    `value` is the standard deviation of $\ell$, and `bias` the limit of the mean.

    Entry by entry, in the form of the control, `each` is the root of the diagonal of
    $H^{-1} \Sigma H^{-1}$.

    ```pycon
    >>> x, y = jnp.zeros((3, 1)), jnp.array([[0.0], [0.0], [3.0]])
    >>> problem = ControlProblem(x, y, decay=0.0, field=lambda x, theta: 0 * x + theta)
    >>> found = sampling_constants(problem, jnp.ones(1))  # the mean of the labels
    >>> round(found.control, 3), round(found.bias, 3)  # of variance 2
    (1.414, -2.0)
    ```
    """

    control: float
    value: float
    bias: float
    each: Control


def sampling_constants(problem: ControlProblem, theta: Control) -> SamplingConstants:
    r"""The constants at an optimum `theta` of a problem that is the population's.

    They want a unique optimum, or a branch of local ones. Raises `ValueError` where the
    Hessian is not positive definite, or Newton's method would still move `theta`.

    ```pycon
    >>> x, y = jnp.zeros((2, 1)), jnp.array([[-1.0], [1.0]])
    >>> problem = ControlProblem(x, y, decay=1.0, field=lambda x, theta: 0 * x + theta)
    >>> found = sampling_constants(problem, jnp.zeros(1))  # J is 1 + 2 θ²
    >>> found.control, found.value, found.bias
    (0.5, 0.0, -0.5)
    ```
    """
    gradient, covariance, hessian, spread = jax.device_get(_moments(problem, theta))
    least = np.linalg.eigvalsh(hessian).min()
    if not least > 0 or np.abs(np.linalg.solve(hessian, gradient)).max() > NEAR:
        raise ValueError(
            "theta must be a minimum of the problem, with an invertible Hessian: got "
            f"a gradient up to {np.abs(gradient).max():.2g}, eigenvalues from "
            f"{least:.2g}."
        )
    response = np.linalg.solve(hessian, covariance)
    both = np.linalg.solve(hessian, response.T)
    duration, h = float(problem.duration), float(problem.step(theta))
    return SamplingConstants(
        control=float(np.sqrt(h * np.trace(both) / duration)),
        value=float(np.sqrt(spread)),
        bias=float(-np.trace(response) / 2),
        each=ravel_pytree(theta)[1](jnp.sqrt(jnp.diag(both)).astype(hessian.dtype)),
    )


@jax.jit
def _moments(problem: ControlProblem, theta: Control):
    flat, unravel = ravel_pytree(theta)
    w = problem.weights
    each = problem.losses(theta)
    slopes = jax.jacrev(lambda z: problem.losses(unravel(z)))(flat)
    centred = slopes - (w @ slopes)[None]
    covariance = (w[:, None] * centred).T @ centred
    hessian = jax.hessian(lambda z: problem.value(unravel(z)))(flat)
    gradient = ravel_pytree(problem.gradient(theta))[0]
    return gradient, covariance, hessian, w @ (each - w @ each) ** 2
