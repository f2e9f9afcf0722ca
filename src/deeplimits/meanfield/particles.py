r"""Particles: the data in the layers of one network, as a system of equations.

The state is $(d, N)$, coordinates first: a layer is then a few expressions over long
rows, which are computed in one pass, where a product $(N, d) \times (d, d)$ for
$d = 2$ costs several times as much as the activation.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import as_floats, require_finite, require_whole, require_within
from ..residual import Activation, OneLayer
from .controls import Noise, pieces_of

WRITTEN_OUT = 8  # dimensions up to which the product is written out

Rows = tuple[Array, ...]


def _field(rows: Rows, layer: tuple[Array, Array], activation: Activation) -> Rows:
    weight, bias = layer
    if len(rows) > WRITTEN_OUT:
        return tuple(activation(weight @ jnp.stack(rows) + bias[:, None]))
    inner = [sum(w * x for w, x in zip(ws, rows, strict=True)) for ws in weight]
    return tuple(activation(z + b) for z, b in zip(inner, bias, strict=True))


def _states(
    x: Array, control: OneLayer, duration: float, steps: int
) -> tuple[Rows, OneLayer, Array]:
    x = as_floats("x", x, shape=(None, None))
    require_finite("x", x)
    require_whole(steps=steps)
    require_within("[0, inf)", duration=duration)
    pieces, _ = pieces_of(control, len(x))
    x = x.astype(jnp.result_type(x.dtype, control.weight.dtype))
    return tuple(x), control, jnp.asarray(duration / (pieces * steps), x.dtype)


@partial(jax.jit, static_argnames=("activation", "steps", "keep"))
def _march(rows, weight, bias, h, activation, steps, keep):
    def piece(rows, layer):
        def step(_, rows):
            moves = _field(rows, layer, activation)
            return tuple(x + h * v for x, v in zip(rows, moves, strict=True))

        rows = jax.lax.fori_loop(0, steps, step, rows)
        return rows, jnp.stack(rows) if keep else None

    return jax.lax.scan(piece, rows, (weight, bias))


def flow(
    x: Float[Array, "d n"],
    control: OneLayer,
    *,
    duration: float = 1.0,
    steps: int = 1,
) -> Float[Array, "d n"]:
    r"""Where the particles are after all layers:

    $$ x_i \leftarrow x_i + h\, \sigma(w_k x_i + b_k), \qquad
       h = \frac{T}{K \cdot \mathrm{steps}}, $$

    with so many `steps` in each of the $K$ pieces of the control. With one step and
    $T = 1$ it is the `ResNet` of the control, applied to each column. Blocks of
    particles, $(m, d, n)$, go over all devices, to the same numbers, by

        over_devices(lambda x: flow(x, control))(blocks)

    Raises `ValueError` for a state that is not $(d, N)$ in the control's dimensions.

    ```pycon
    >>> from deeplimits.meanfield import controls
    >>> control = controls.line_control(1.0, 0.0, activation="identity")
    >>> flow(jnp.array([[1.0, 2.0]]), control, steps=1000).round(2)
    Array([[2.72, 5.43]], dtype=float32)
    ```
    """
    rows, control, h = _states(x, control, duration, steps)
    last, _ = _march(
        rows, control.weight, control.bias, h, control.activation, steps, False
    )
    return jnp.stack(last)


def trajectory(
    x: Float[Array, "d n"],
    control: OneLayer,
    *,
    duration: float = 1.0,
    steps: int = 1,
) -> Float[Array, "times d n"]:
    """The states of `flow` at the start and after each piece of the control.

    ```pycon
    >>> from deeplimits.meanfield import controls
    >>> control = controls.line_control([1.0, -1.0], [0.0, 0.0])
    >>> trajectory(jnp.ones((1, 5)), control, steps=10).shape
    (3, 1, 5)
    ```
    """
    rows, control, h = _states(x, control, duration, steps)
    _, kept = _march(
        rows, control.weight, control.bias, h, control.activation, steps, True
    )
    return jnp.concatenate([jnp.stack(rows)[None], kept])


@partial(jax.jit, static_argnames=("activation", "steps", "common"))
def _march_noisy(rows, weight, bias, noise, h, activation, steps, common, key):
    shape = (len(rows), 1 if common else rows[0].size)

    def piece(carry, layer):
        weight, bias, kappa = layer
        K = Noise(kappa, noise.kind).factor

        def step(_, carry):
            rows, n = carry
            xi = jr.normal(jr.fold_in(key, n), shape, h.dtype)
            moves = _field(rows, (weight, bias), activation)
            rows = tuple(
                x + h * v + jnp.sqrt(h) * K(x) * z
                for x, v, z in zip(rows, moves, xi, strict=True)
            )
            return rows, n + 1

        return jax.lax.fori_loop(0, steps, step, carry), None

    carry, _ = jax.lax.scan(piece, (rows, 0), (weight, bias, noise.kappa))
    return jnp.stack(carry[0])


def diffuse(
    x: Float[Array, "d n"],
    control: OneLayer,
    noise: Noise,
    *,
    common: bool = False,
    duration: float = 1.0,
    steps: int = 1,
    key: PRNGKeyArray,
) -> Float[Array, "d n"]:
    r"""Where the particles are after all layers with noise, by Euler–Maruyama steps:

    $$ x_i \leftarrow x_i + h\, \sigma(w_k x_i + b_k) + \sqrt h\, K(x_i)\, \xi_i, $$

    with independent $\xi_i \in \mathbb{R}^d$, or one $\xi$ for all if `common`. Step
    $n$ draws `jr.normal(jr.fold_in(key, n), shape)`, of shape $(d, N)$ or $(d, 1)$.
    Noise of the kind "root" is that of the positive part of $x$: a step may leave it.

    ```pycon
    >>> from deeplimits.meanfield import controls
    >>> control = controls.line_control(0.0, 0.0)
    >>> x = jnp.zeros((1, 10_000))
    >>> moved = diffuse(x, control, controls.Noise(0.5), steps=10, key=jr.key(0))
    >>> moved.shape, round(float(moved.var()), 1)
    ((1, 10000), 0.3)
    ```
    """
    rows, control, h = _states(x, control, duration, steps)
    noise = noise.in_pieces(control.weight.shape[0])
    arrays = control.weight, control.bias, noise, h
    return _march_noisy(rows, *arrays, control.activation, steps, common, key)


class Sensitivity(NamedTuple):
    """Where particles on the line are, and its derivatives.

    ```pycon
    >>> from deeplimits.meanfield.controls import line_control
    >>> at = sensitivities(jnp.ones(1), line_control(0.5, 0.1), steps=4)
    >>> round(float(at.to_start[0] - 0.5 * at.to_bias[0]), 4)  # J = 1 + w v
    1.0
    ```
    """

    state: Float[Array, " n"]
    to_start: Float[Array, " n"]
    to_weight: Float[Array, " n"]
    to_bias: Float[Array, " n"]


@partial(eqx.filter_jit)
def _sensitivities(x, weight, bias, h, activation, steps):
    def piece(carry, layer):
        w, b = layer

        def step(_, carry):
            x, J, u, v = carry
            value, slope = jax.jvp(activation, (w * x + b,), (jnp.ones_like(x),))
            moves = value, slope * w * J, slope * (w * u + x), slope * (w * v + 1)
            return tuple(y + h * m for y, m in zip(carry, moves, strict=True))

        return jax.lax.fori_loop(0, steps, step, carry), None

    start = x, jnp.ones_like(x), jnp.zeros_like(x), jnp.zeros_like(x)
    carry, _ = jax.lax.scan(piece, start, (weight, bias))
    return Sensitivity(*carry)


def sensitivities(
    x: Float[Array, " n"],
    control: OneLayer,
    *,
    duration: float = 1.0,
    steps: int = 1,
) -> Sensitivity:
    r"""Particles on the line with their derivatives in the start, in all weights at
    once and in all biases at once, by the linearised layers:

    $$ \begin{gathered}
       \dot J = \sigma'(z) w J, \quad \dot u = \sigma'(z)(w u + x), \\
       \dot v = \sigma'(z)(w v + 1), \quad z = w x + b.
       \end{gathered} $$

    They are the derivatives of `flow` itself. While $w$ is constant $J = 1 + w v$, in
    the layers as in the limit; no formula here divides by $w$.

    ```pycon
    >>> from deeplimits.meanfield.controls import line_control
    >>> control = line_control(1.0, 0.0, activation="identity")
    >>> at = sensitivities(jnp.ones(1), control, steps=4)
    >>> float(at.state[0]), float(at.to_start[0]), float(at.to_bias[0])  # 1.25⁴
    (2.44140625, 2.44140625, 1.44140625)
    ```
    """
    x = as_floats("x", x, shape=(None,))
    (x,), control, h = _states(x[None], control, duration, steps)
    return _sensitivities(
        x, control.weight[:, 0, 0], control.bias[:, 0], h, control.activation, steps
    )
