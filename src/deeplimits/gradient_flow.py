"""The flow of a gradient: training in continuous time."""

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .checks import as_floats, holds, require_finite, require_times, require_within
from .losses import Loss
from .training import depth_factor, split_trainable


def flow(
    model: Any,
    data: PyTree,
    loss: Loss,
    times: Float[Array, " times"],
    *,
    rule: optax.GradientTransformation | None = None,
    trainable: PyTree | Callable[[Any], PyTree] = eqx.is_inexact_array,
    solver: diffrax.AbstractSolver | None = None,
    tolerance: float = 1e-8,
) -> Any:
    r"""The gradient flow $\dot Z_k = -L\,\partial_{Z_k} \ell$ from training time 0.

    Returns the model at the increasing `times`, stacked on a leading axis.
    `rule` turns gradients into what is followed downhill (a stateless transformation of
    optax; by default `depth_factor`, and `optax.chain(depth_factor(), optax.clip(c))`
    is the clipped flow). The flow is integrated by diffrax to the `tolerance`.
    Raises `ValueError` for times that do not increase from 0 or later, for a model
    or data that are not finite, and for an optimiser in place of a rule, whose updates
    point downhill themselves. Source: `marion2024`, equations (4) and (5).

    ```pycon
    >>> from deeplimits import residual
    >>> network = residual.ResNet(residual.OneLayer(jnp.ones((4, 1, 1))))
    >>> loss = lambda model, data, key: jnp.mean(model.block.weight**2) / 2
    >>> path = flow(network, jnp.zeros(1), loss, jnp.array([0.0, 1.0]), tolerance=1e-4)
    >>> [round(w, 2) for w in path.block.weight[1].ravel().tolist()]  # 1/e at any depth
    [0.37, 0.37, 0.37, 0.37]
    ```
    """
    times = as_floats("times", times, shape=(None,))
    require_times("times", times, end=math.inf)
    require_within("(0, inf)", tolerance=tolerance)
    require_finite("model", model)
    require_finite("data", data)
    params, fixed = split_trainable(model, trainable)
    rule = depth_factor() if rule is None else rule
    _require_rule(rule, params)

    def velocity(t, params, args):
        grads = jax.grad(lambda p: loss(eqx.combine(p, fixed), data, None))(params)
        return jax.tree.map(jnp.negative, rule.update(grads, rule.init(params))[0])

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5() if solver is None else solver,
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=params,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=2**16,
    )
    return eqx.combine(solution.ys, fixed)


def _require_rule(rule: optax.GradientTransformation, params: PyTree) -> None:
    ones = jax.tree.map(jnp.ones_like, params)
    found = jax.tree.leaves(rule.update(ones, rule.init(ones))[0])
    along, size = sum(map(jnp.sum, found)), sum(map(jnp.size, found))
    if not holds(lambda total: total >= -1e-4 * size, along):  # less is rounding
        raise ValueError(
            "rule turns gradients round, as an optimiser does: the flow goes against "
            "what it returns, and would climb."
        )
