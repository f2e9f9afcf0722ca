"""Entropic transport by Sinkhorn's algorithm: a distance with gradients."""

import functools
from typing import SupportsFloat

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from ..checks import as_scalar, require_whole, require_within
from .distances import require_pair
from .laws import Empirical


class Entropic(eqx.Module):
    r"""What Sinkhorn's algorithm found: the value, potentials, and how it got there.

    `residual` is the largest $|\log|$ of a marginal over its weight, `steps` how many
    steps were taken. Where the residual is above the tolerance, they did not suffice.

    ```pycon
    >>> from deeplimits.measures import laws
    >>> mu, nu = laws.Empirical(jnp.zeros(1)), laws.Empirical(jnp.array([2.0]))
    >>> found = sinkhorn(mu, nu, epsilon=0.1)
    >>> float(found.value), found.f.shape
    (4.0, (1,))
    ```
    """

    value: Float[Array, ""]
    f: Float[Array, " N"]
    g: Float[Array, " M"]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


def sinkhorn(
    mu: Empirical,
    nu: Empirical,
    *,
    epsilon: SupportsFloat | Float[Array, ""],
    p: int = 2,
    tolerance: float = 1e-5,
    steps: int = 10_000,
) -> Entropic:
    r"""Entropic transport, in the units of $|x - y|^p$, for $p = 1$ or $2$:

    $$ \mathrm{OT}_\varepsilon(\mu, \nu) = \min_\pi \int |x - y|^p\,
       \mathrm{d}\pi + \varepsilon\, \mathrm{KL}(\pi \,|\, \mu \otimes \nu). $$

    Sinkhorn's algorithm on the logarithms, $\varepsilon$ halved step by step down to
    the one that is asked for, until the residual is below the `tolerance`, or for so
    many `steps`: where the plan is nearly a matching, they are many. The value is off
    by the residual times the largest cost at most. It can be differentiated once, in
    points, weights and $\varepsilon$. For $N$ points each, of equal weight, $W_p^p \le
    \mathrm{OT}_\varepsilon \le W_p^p + \varepsilon \log N$. Raises `ValueError` for
    measures in different dimensions, an `epsilon` that is not positive, and another
    $p$. Source: `peyre2019`.
    """
    clouds, options = _prepared(mu, nu, epsilon, p, tolerance, steps)
    return _entropic(*clouds, *options)


def sinkhorn_divergence(
    mu: Empirical,
    nu: Empirical,
    *,
    epsilon: SupportsFloat | Float[Array, ""],
    p: int = 2,
    tolerance: float = 1e-5,
    steps: int = 10_000,
) -> Entropic:
    r"""The debiased divergence, which vanishes for equal measures alone,

    $$ S_\varepsilon(\mu, \nu) = \mathrm{OT}_\varepsilon(\mu, \nu)
       - \tfrac12 \mathrm{OT}_\varepsilon(\mu, \mu)
       - \tfrac12 \mathrm{OT}_\varepsilon(\nu, \nu). $$

    It tends to $W_p^p$ as $\varepsilon \to 0$ and, for $p = 2$, to the squared distance
    of the means as $\varepsilon \to \infty$. The potentials are differences, too; the
    residual is the largest of the three, the steps are all of them. Arguments and
    errors are those of `sinkhorn`. Source: `feydy2019`.
    """
    clouds, options = _prepared(mu, nu, epsilon, p, tolerance, steps)
    x, y, a, b, epsilon = clouds
    cross = _entropic(*clouds, *options)
    left = _entropic(x, x, a, a, epsilon, *options, symmetric=True)
    right = _entropic(y, y, b, b, epsilon, *options, symmetric=True)
    return Entropic(
        cross.value - (left.value + right.value) / 2,
        cross.f - left.f,
        cross.g - right.g,
        jnp.maximum(cross.residual, jnp.maximum(left.residual, right.residual)),
        cross.steps + left.steps + right.steps,
    )


def _prepared(mu, nu, epsilon, p, tolerance, steps):
    """The arrays of both clouds, and the options, in one precision."""
    require_pair(mu, nu, p)
    require_whole(steps=steps)
    require_within("(0, inf)", tolerance=tolerance)
    arrays = (mu.points, nu.points, mu.masses, nu.masses)
    dtype = jnp.result_type(*arrays)
    clouds = (array.astype(dtype) for array in arrays)
    epsilon = as_scalar("epsilon", epsilon, dtype, within="(0, inf)")
    return (*clouds, epsilon), (tolerance, steps, p)


@functools.partial(jax.jit, static_argnames=("p", "symmetric"))
def _entropic(x, y, a, b, epsilon, tolerance, steps, p, *, symmetric=False):
    costs = jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)
    if p == 1:  # with slope 0 where points meet
        met = costs == 0
        costs = jnp.where(met, 0, jnp.sqrt(jnp.where(met, 1, costs)))
    fixed = jax.lax.stop_gradient((costs, a, b, epsilon))
    f, g, residual, taken = _potentials(*fixed, tolerance, steps, symmetric)
    # At the best potentials the dual is stationary: it is enough to differentiate it
    # with these fixed.
    pairs = a[:, None] * b[None]
    exponents = (f[:, None] + g[None] - costs) / epsilon
    plan = pairs * jnp.exp(jnp.where(pairs > 0, exponents, 0))
    value = jnp.sum(a * f) + jnp.sum(b * g) - epsilon * (jnp.sum(plan) - 1)
    return Entropic(value, f, g, residual, taken)


def _potentials(costs, a, b, epsilon, tolerance, steps, symmetric):
    """Potentials of both sides, the residual, and the steps that were taken."""
    zeros = jnp.zeros_like(costs)
    far = jnp.maximum(jnp.max(costs), epsilon)
    unknown = jnp.full_like(epsilon, jnp.inf)
    start = zeros[:, 0], zeros[0], far, unknown, jnp.zeros((), int)

    def step(state):
        f, g, scale, _, taken = state
        new = -scale * logsumexp((g[None] - costs) / scale, axis=1, b=b[None])
        if symmetric:  # both potentials are one: the mean of old and new contracts
            moved = _largest(new - f, a)
            f = g = (f + new) / 2
        else:
            f, old = new, g
            g = -scale * logsumexp((f[:, None] - costs) / scale, axis=0, b=a[:, None])
            moved = _largest(g - old, b)
        residual = jnp.where(scale > epsilon, jnp.inf, moved / scale)
        return f, g, jnp.maximum(scale / 2, epsilon), residual, taken + 1

    def goes_on(state):
        return (state[3] > tolerance) & (state[4] < steps)

    f, g, _, residual, taken = jax.lax.while_loop(goes_on, step, start)
    return f, g, residual, taken


def _largest(changes, weights):
    return jnp.max(jnp.where(weights > 0, jnp.abs(changes), 0))
