r"""What is known in closed form on the line: characteristics, laws, moments.

With $w$ and $b$ constant in time the flow of $\dot x = \sigma(wx + b)$ is known for the
identity, tanh and ReLU, and with it the law at any time: $F_t(x) = F_0(X_{-t}(x))$.
For the identity the equations of the moments close.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import comb

from ..checks import (
    as_floats,
    as_singles,
    holds,
    require_finite,
    require_known,
    require_whole,
    require_within,
)
from ..collocation import runge_kutta_step
from .controls import Noise

Number = float | Float[Array, ""]
FLOWS = ("identity", "relu", "tanh")


# Taylor's coefficients of f(z)/z, the constant last.
SERIES: dict[Callable[..., Array], tuple[float, ...]] = {
    jnp.expm1: (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1),
    jnp.sinh: (1 / 120, 0, 1 / 6, 0, 1),
    jnp.arcsinh: (3 / 40, 0, -1 / 6, 0, 1),
    jnp.tanh: (2 / 15, 0, -1 / 3, 0, 1),
    jnp.arctanh: (1 / 5, 0, 1 / 3, 0, 1),
}


def divided(function: Callable[..., Array], z: Array) -> Array:
    """`function(z)/z` for a function of `SERIES`, with its slope, also near zero.

    ```pycon
    >>> z = jnp.array([0.0, 1.0])
    >>> [round(float(q), 4) for q in divided(jnp.expm1, z)]  # 1 and e - 1
    [1.0, 1.7183]
    ```
    """
    small = jnp.abs(z) < jnp.finfo(z.dtype).eps ** (1 / 6)
    safe, near = jnp.where(small, 1, z), jnp.where(small, z, 0)
    series = jnp.zeros_like(z)
    for coefficient in SERIES[function]:
        series = series * near + coefficient
    return jnp.where(small, series, function(safe) / safe)


def _tanh_flow(x: Array, t: Array, w: Array, b: Array) -> Array:
    # sinh(w x(t) + b) = exp(w t) sinh(w x + b), by the difference of two asinh
    z, tau = w * x + b, w * t
    a = jnp.abs(z)
    sech = 2 * jnp.exp(-a - tau) / (1 + jnp.exp(-2 * a))  # over exp(tau)
    tanh = jnp.tanh(z)
    speed = 2 * tanh * divided(jnp.sinh, tau) / (1 + jnp.sqrt(sech**2 + tanh**2))
    return x + t * speed * divided(jnp.arcsinh, tau * speed)


def characteristic(
    x: Float[Array | np.ndarray, "..."],
    t: Number,
    weight: Number,
    bias: Number,
    *,
    activation: str = "tanh",
) -> Float[Array, "..."]:
    r"""$X_t(x)$: where the flow of $\dot x = \sigma(wx + b)$ on the line has $x$ at
    time $t$, before or after 0, with $z = wx + b$:

    - identity: $x + z\,(e^{wt} - 1)/w$;
    - ReLU: $x + \max(z, 0)\,(e^{wt} - 1)/w$;
    - tanh: $\sinh(w X_t + b) = e^{wt} \sinh z$, in a form that holds for $|z|$ of any
      size, for $w \to 0$, and for $|wt|$ up to 80 (float32) or 700 (float64).

    Raises `ValueError` for another activation, and for tanh beyond these. Source:
    `herty2022meanfield`.

    ```pycon
    >>> end = characteristic(jnp.ones(()), 1.0, 1.0, 0.0, activation="identity")
    >>> round(float(end), 3)  # e
    2.718
    ```
    """
    require_known("activation with a closed form", activation, FLOWS)
    start = as_singles("x", x)
    t, w, b = numbers(start, t=t, weight=weight, bias=bias)
    if activation == "tanh":
        most = 80 if start.dtype == jnp.float32 else 700
        if not holds(lambda w: holds(lambda t: abs(w * t) <= most, t), w):
            raise ValueError(f"weight and t: their product is beyond {most} for tanh.")
    return _on_the_line(start, t, w, b, activation)


@partial(jax.jit, static_argnames="activation")
def _on_the_line(x, t, w, b, activation):
    if activation == "tanh":
        return _tanh_flow(x, t, w, b)
    z = w * x + b
    z = jax.nn.relu(z) if activation == "relu" else z
    growth = divided(jnp.expm1, w * t)
    # what stands still does so also where others have gone to infinity
    still = (z == 0) & jnp.isinf(growth)
    return x + t * z * jnp.where(still, jnp.finfo(z.dtype).max, growth)


def numbers(like: Array, **values: Any) -> list[Array]:
    """Single finite numbers, in the type of an array.

    ```pycon
    >>> numbers(jnp.zeros(3, jnp.float16), t=0.5, weight=2)
    [Array(0.5, dtype=float16), Array(2., dtype=float16)]
    ```
    """
    numbers = []
    for name, value in values.items():
        number = as_floats(name, value, shape=())
        require_finite(name, number)
        numbers.append(number.astype(like.dtype))
    return numbers


def transported_cdf(
    cdf: Callable[[Any], Any],
    t: Number,
    weight: Number,
    bias: Number,
    *,
    activation: str = "tanh",
) -> Callable[[Any], Any]:
    r"""The distribution function at time $t$ of what starts with `cdf`:
    $F_t = F_0 \circ X_{-t}$, exact at every point.

    ```pycon
    >>> time = jnp.log(2.0)
    >>> moved = transported_cdf(lambda x: x, time, 1.0, 0.0, activation="identity")
    >>> round(float(moved(jnp.array(0.5))), 4)  # the unit interval has become [0, 2]
    0.25
    ```
    """

    def moved(x):
        return cdf(characteristic(x, -t, weight, bias, activation=activation))

    require_known("activation with a closed form", activation, FLOWS)
    numbers(jnp.zeros(()), t=t, weight=weight, bias=bias)
    return moved


# -------------------------------------------------------------------------- moments

POLICIES = ("zero", "mean", "energy")


def affine_moments(
    moments: Float[Array | np.ndarray, " orders"], scale: Number, shift: Number
) -> Float[Array, " orders"]:
    r"""The moments of $\alpha X + \beta$ from those of $X$, $m_0$ first:
    $\sum_j \binom kj \alpha^j \beta^{k-j} m_j$."""
    m = _moments(moments)
    scale, shift = numbers(m, scale=scale, shift=shift)
    return _affine(m, scale, shift)


@jax.jit
def _affine(m, scale, shift):
    orders = np.arange(m.size)
    binomial = jnp.asarray(comb(orders[:, None], orders), m.dtype)
    left = np.maximum(orders[:, None] - orders, 0)
    scaled = _powers(scale, m.size) * m
    return (binomial * _powers(shift, m.size)[left]) @ scaled


def _powers(base: Array, count: int) -> Array:
    return jnp.cumprod(jnp.full(count, base).at[0].set(1))


def _moments(moments: Any) -> Array:
    m = as_floats("moments", moments, shape=(None,))
    require_finite("moments", m)
    if m.size < 3 or not holds(lambda m: m[0] > 0, m):
        raise ValueError(
            f"moments must be m_0 > 0, m_1, m_2 and perhaps more: got {moments}."
        )
    return m


def linear_moments(
    moments: Float[Array | np.ndarray, " orders"],
    t: Number,
    weight: Number,
    bias: Number,
) -> Float[Array, " orders"]:
    r"""The moments at time $t$ under $\dot x = wx + b$ with constant $b$, exactly:
    those of $e^{wt} X + b\,(e^{wt} - 1)/w$. Source: `herty2022meanfield`."""
    m = _moments(moments)
    t, w, b = numbers(m, t=t, weight=weight, bias=bias)
    return affine_moments(m, jnp.exp(w * t), b * t * divided(jnp.expm1, w * t))


def policy_bias(
    policy: str, moments: Float[Array | np.ndarray, " orders"], weight: Number
) -> Float[Array, ""]:
    r"""The bias of $\dot x = wx + b$ that leaves the mean or the energy $m_2$ constant:
    $-w m_1/m_0$ ("mean"), $-w m_2/m_1$ ("energy", for $m_1 \ne 0$), or 0 ("zero").
    All three have the same variance, $e^{2wt}$ times that of the start."""
    require_known("policy", policy, POLICIES)
    m = _moments(moments)
    (w,) = numbers(m, weight=weight)
    if policy == "energy" and not holds(lambda m: m[1] != 0, m):
        raise ValueError("moments have mean 0: no bias then keeps their energy.")
    quotients = {"zero": (0, 1), "mean": (m[1], m[0]), "energy": (m[2], m[1])}
    above, below = quotients[policy]
    return jnp.asarray(-w * above / below, m.dtype)


def moment_rates(
    moments: Float[Array | np.ndarray, " orders"],
    weight: Number,
    bias: Number,
    noise: Noise | None = None,
) -> Float[Array, " orders"]:
    r"""The right-hand side of the equations of the moments of
    $\mathrm{d}x = (wx + b)\,\mathrm{d}t + K(x)\,\mathrm{d}B$,

    $$ \dot m_k = k(w m_k + b m_{k-1}) + \tfrac12 k(k-1) \kappa^2 m_{k-2+j}, $$

    with $j = 0$, 1 or 2 for noise of the kind "constant", "root" or "linear". No moment
    needs a higher one. Source: `herty2022meanfield`.
    """
    m = _moments(moments)
    w, b = numbers(m, weight=weight, bias=bias)
    k = jnp.arange(m.size, dtype=m.dtype)
    lower = jnp.pad(m, (2, 0))
    rates = k * (w * m + b * lower[1:-1])
    if noise is None:
        return rates
    j = ("constant", "root", "linear").index(noise.kind)
    (kappa,) = numbers(m, kappa=noise.kappa)
    return rates + k * (k - 1) / 2 * kappa**2 * lower[j : j + m.size]


@partial(jax.jit, static_argnames=("policy", "steps"))
def _integrated(m, w, b, noise, duration, policy, steps):
    def field(m, _):
        return moment_rates(m, w, policy_bias(policy, m, w) + b, noise)

    def step(m, _):
        m = runge_kutta_step(field, m, duration / steps, jnp.zeros((3, 1)))
        return m, m

    _, kept = jax.lax.scan(step, m, None, length=steps)
    return jnp.concatenate([m[None], kept])


def moment_trajectory(
    moments: Float[Array | np.ndarray, " orders"],
    weight: Number,
    bias: Number = 0.0,
    *,
    policy: str = "zero",
    noise: Noise | None = None,
    duration: float = 1.0,
    steps: int = 100,
) -> Float[Array, "times orders"]:
    """The solution of the equations of the moments at equal times, by the classical
    Runge–Kutta scheme of order four; `policy_bias` is added to the bias.

    ```pycon
    >>> start = jnp.array([1.0, 0.0, 1.0])
    >>> moments = moment_trajectory(start, 0.0, noise=Noise(1.0), steps=2)
    >>> [round(m, 3) for m in moments[:, 2].tolist()]  # of a Brownian path: like t
    [1.0, 1.5, 2.0]
    ```
    """
    m = _moments(moments)
    require_whole(steps=steps)
    require_within("[0, inf)", duration=duration)
    policy_bias(policy, m, weight)
    w, b, time = numbers(m, weight=weight, bias=bias, duration=duration)
    return _integrated(m, w, b, noise, time, policy, steps)


def network_moments(
    moments: Float[Array | np.ndarray, " orders"],
    weight: Number,
    *,
    policy: str = "zero",
    depth: int,
    duration: float = 1.0,
) -> Float[Array, "layers orders"]:
    r"""The moments in the layers of the finite network $x \leftarrow x + h(wx + b)$,
    $h = T/L$, exactly, where every layer takes its bias from `policy_bias`.

    The variance is $(1 + hw)^{2k}$ times that of the start, for all three; but "energy"
    is not conserved: $m_2 \leftarrow m_2 + h^2 w^2 (m_2^2/m_1^2 - m_2)$ if $m_0 = 1$.

    ```pycon
    >>> start = jnp.array([1.0, 1.0, 2.0])
    >>> moments = network_moments(start, 1.0, policy="energy", depth=2)
    >>> float(moments[1, 2].round(4))  # 2 + (4 - 2)/4: not conserved
    2.5
    ```
    """
    m = _moments(moments)
    require_whole(depth=depth)
    require_within("[0, inf)", duration=duration)
    policy_bias(policy, m, weight)
    w, time = numbers(m, weight=weight, duration=duration)
    h = time / depth

    def layer(m, _):
        m = affine_moments(m, 1 + h * w, h * policy_bias(policy, m, w))
        return m, m

    _, kept = jax.lax.scan(layer, m, None, length=depth)
    return jnp.concatenate([m[None], kept])
