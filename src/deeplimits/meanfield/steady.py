r"""Steady laws of $\mathrm{d}x = \sigma(wx + b)\,\mathrm{d}t + K(x)\,\mathrm{d}B$ on
the line, and how fast others come near.

Where no mass flows, with $D = \frac12 K^2$,

$$ \frac{\mathrm{d}}{\mathrm{d}x} \log g_\infty = \frac{\sigma(wx + b) - D'}{D}. $$
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special, stats

from ..checks import (
    as_doubles,
    as_floats,
    as_number,
    holds,
    require_known,
    require_whole,
    require_within,
)
from ..residual import ACTIVATIONS, Activation, named_activation
from .closed_forms import divided
from .controls import Given, Noise
from .volumes import cell_averages

# Gauss–Legendre on [-1, 1], where no closed form is known
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)


def mean_activation(
    left: Float[Array, "..."], right: Float[Array, "..."], activation: str | Activation
) -> Float[Array, "..."]:
    r"""The mean of $\sigma$ between two numbers, $\frac{1}{r - l}\int_l^r \sigma$, with
    no loss where they are close: in closed form for the identity, tanh, the logistic
    function and ReLU, else by Gauss–Legendre quadrature with eight nodes."""
    left, right = as_floats("left", left), as_floats("right", right)
    middle, half = (left + right) / 2, (right - left) / 2
    activation = _by_name(activation)
    if activation == "identity":
        return middle
    if activation == "tanh":
        return _mean_tanh(middle, half)
    if activation == "sigmoid":
        return (1 + _mean_tanh(middle / 2, half / 2)) / 2
    if activation == "relu":
        low, high = jnp.minimum(left, right), jnp.maximum(left, right)
        through = (low < 0) & (high > 0)
        wide = jnp.where(through, high - low, 1)
        flat = jnp.maximum(middle, 0)
        return jnp.where(through, jnp.maximum(high, 0) ** 2 / (2 * wide), flat)
    sigma = named_activation(activation)
    parts = [c / 2 * sigma(middle + half * s) for s, c in _rule(middle)]
    return sum(parts[1:], start=parts[0])


def _by_name(activation: str | Activation) -> str | Activation:
    names = (name for name, known in ACTIVATIONS.items() if known is activation)
    return next(names, activation)


def _mean_tanh(middle: Array, half: Array) -> Array:
    # log cosh(m + h) - log cosh(m - h) = 2 artanh(tanh m tanh h)
    product = jnp.tanh(middle) * jnp.tanh(half)
    return jnp.tanh(middle) * divided(jnp.tanh, half) * divided(jnp.arctanh, product)


def _rule(like: Array) -> list[tuple[Array, Array]]:
    pairs = zip(NODES, WEIGHTS, strict=True)
    return [(jnp.asarray(s, like.dtype), jnp.asarray(c, like.dtype)) for s, c in pairs]


def log_ratio(
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    weight: Array,
    bias: Array,
    noise: Noise,
    activation: str | Activation,
) -> Float[Array, "..."]:
    r"""$\log g_\infty(r) - \log g_\infty(l)$, also where $g_\infty$ has infinite mass:
    in closed form for constant noise with the activations of `mean_activation`, and for
    the identity with every noise; else by Gauss–Legendre quadrature. Points are
    positive unless the noise is constant.

    ```pycon
    >>> left, right, weight = jnp.array(0.0), jnp.array(2.0), jnp.array(-1.0)
    >>> found = log_ratio(left, right, weight, left, Noise(1.0), "identity")
    >>> round(float(found), 4)  # of exp(-x²)
    -4.0
    ```
    """
    left, right = as_floats("left", left), as_floats("right", right)
    w, b = as_floats("weight", weight), as_floats("bias", bias)
    if noise.kind != "constant":
        for name, points in (("left", left), ("right", right)):
            if not holds(lambda x: (x > 0).all(), points):
                raise ValueError(f"{name} must be positive: the noise is {noise.kind}.")
    width = right - left
    if noise.kind == "constant":
        mean = mean_activation(w * left + b, w * right + b, activation)
        return 2 * width * mean / noise.kappa**2
    if _by_name(activation) != "identity":
        return width * _mean_slope(
            (left + right) / 2, width / 2, w, b, noise, activation
        )
    twice, log = 2 / noise.kappa**2, jnp.log(right / left)
    if noise.kind == "root":
        return twice * w * width + (twice * b - 1) * log
    return (twice * w - 2) * log + twice * b * width / (left * right)


def _mean_slope(
    middle: Array,
    half: Array,
    w: Array,
    b: Array,
    noise: Noise,
    activation: str | Activation,
) -> Array:
    sigma, total = named_activation(activation), jnp.zeros_like(middle)
    for s, c in _rule(middle):
        x = middle + half * s
        D = noise.diffusion(x)
        slope = D / x if noise.kind == "root" else 2 * D / x  # D'
        total = total + c / 2 * (sigma(w * x + b) - slope) / D
    return total


@dataclass(frozen=True)
class SteadyLaw:
    r"""A steady law: its mean, its variance (infinite where there is none) and the law
    $Z$ with $X = (Z - \mathrm{shift})/\mathrm{scale}$, a frozen one of SciPy.

    ```pycon
    >>> from deeplimits.meanfield.controls import Noise
    >>> law = steady_law(-1.0, 3.0, Noise(1.0, "root"), activation="identity")
    >>> law.name, law.mean, round(law.variance, 4)
    ('Gamma', 3.0, 1.5)
    ```
    """

    name: str
    mean: float
    variance: float
    distribution: Any
    logit: tuple[float, float] | None = None

    def log_density(self, x: Given) -> np.ndarray:
        r"""$\log g_\infty(x)$."""
        x = as_doubles("x", x)
        if self.logit is None:
            return self.distribution.logpdf(x)
        w, b = self.logit
        p = 2 * self.distribution.args[0]
        z = np.abs(w * x + b)
        log_cosh = z + np.log1p(np.exp(-2 * z)) - math.log(2)
        return math.log(abs(w)) - special.betaln(0.5, p / 2) - p * log_cosh

    def cdf(self, x: Given) -> np.ndarray:
        """The distribution function."""
        x = as_doubles("x", x)
        if self.logit is None:
            return self.distribution.cdf(x)
        w, b = self.logit  # w < 0: z falls as x rises
        return self.distribution.cdf(special.expit(-2 * (w * x + b)))

    def survival(self, x: Given) -> np.ndarray:
        """1 less the distribution function, with all digits where that is near 1."""
        x = as_doubles("x", x)
        if self.logit is None:
            return self.distribution.sf(x)
        w, b = self.logit
        return self.distribution.cdf(special.expit(2 * (w * x + b)))

    def averages(self, edges: Given) -> np.ndarray:
        """The averages of the density in cells with these edges."""
        return cell_averages(self.cdf, edges, self.survival)

    def quantile(self, u: Given) -> np.ndarray:
        """The inverse of the distribution function."""
        u = as_doubles("u", u)
        if not ((u > 0) & (u < 1)).all():
            raise ValueError(f"u must lie in (0, 1): got {u}.")
        if self.logit is None:
            return self.distribution.ppf(u)
        w, b = self.logit
        return (-special.logit(self.distribution.ppf(u)) / 2 - b) / w


def steady_law(
    weight: float, bias: float, noise: Noise, *, activation: str = "tanh"
) -> SteadyLaw:
    r"""The steady law with no flux, where there is one in closed form ($w < 0$):

    - identity, constant noise: normal, mean $-b/w$, variance $\kappa^2/(2|w|)$;
    - identity, "root", $b > 0$: Gamma, shape $2b/\kappa^2$, rate $2|w|/\kappa^2$;
    - identity, "linear", $b > 0$: inverse Gamma, shape $1 + 2|w|/\kappa^2$,
      scale $2b/\kappa^2$;
    - tanh, constant noise: $g_\infty \propto \cosh(wx + b)^{-p}$ with
      $p = 2/(|w|\kappa^2)$, mean $-b/w$ and variance $\psi'(p/2)/(2w^2)$.

    Raises `ValueError`, with the reason, where there is none: for $w \ge 0$ the
    variance grows for ever, and an activation that is never negative pushes to the
    right for ever.
    Source: `herty2022meanfield`.

    ```pycon
    >>> from deeplimits.meanfield.controls import Noise
    >>> law = steady_law(-2.0, 1.0, Noise(0.5), activation="identity")
    >>> law.name, law.mean, law.variance
    ('normal', 0.5, 0.0625)
    ```
    """
    w, b, kappa = as_number("weight", weight), as_number("bias", bias), _kappa(noise)
    require_within("(-inf, inf)", weight=w, bias=b)
    _refuse(w, b, noise.kind, activation)
    if activation == "tanh":
        p = 2 / (-w * kappa**2)
        variance = float(special.polygamma(1, p / 2)) / (2 * w**2)
        law = stats.beta(p / 2, p / 2)
        return SteadyLaw("logit of a symmetric beta", -b / w, variance, law, (w, b))
    if noise.kind == "constant":
        law = stats.norm(-b / w, kappa / math.sqrt(-2 * w))
        return SteadyLaw("normal", -b / w, kappa**2 / (-2 * w), law)
    if noise.kind == "root":
        law = stats.gamma(2 * b / kappa**2, scale=kappa**2 / (-2 * w))
        return SteadyLaw("Gamma", -b / w, float(law.var()), law)
    law = stats.invgamma(1 - 2 * w / kappa**2, scale=2 * b / kappa**2)
    finite = kappa**2 < -2 * w
    return SteadyLaw("inverse Gamma", -b / w, law.var() if finite else math.inf, law)


def _kappa(noise: Noise) -> float:
    if noise.kappa.ndim:
        raise ValueError("noise must have one kappa for a steady law, not a row.")
    return float(noise.kappa)


def _refuse(w: float, b: float, kind: str, activation: str) -> None:
    """Raise `ValueError` where no steady law is known, with the reason."""
    if activation in ("relu", "sigmoid", "softplus"):
        raise ValueError(
            f"activation {activation} is never negative: no steady law, since mass "
            "only drifts to the right, or diffuses where the drift has died away."
        )
    require_known(
        "activation with a steady law in closed form", activation, ("identity", "tanh")
    )
    if w >= 0:
        raise ValueError(
            f"weight must be negative for a steady law: with {w} nothing holds the "
            "mass together, and its variance grows for ever."
        )
    if kind == "constant":
        return
    if activation != "identity":
        raise ValueError(
            f"activation {activation} with noise of the kind {kind!r}: no closed form "
            "is known of its steady law; for the identity it is."
        )
    if b == 0:
        raise ValueError(
            f"bias 0 with noise of the kind {kind!r}: no density, all mass goes to 0."
        )
    if b < 0:
        where = {
            "root": "leaves the domain x > 0, where the root is defined",
            "linear": "crosses 0 and settles on x < 0: mirror x and b",
        }
        raise ValueError(f"bias must be positive: with {b} the mass {where[kind]}.")


@dataclass(frozen=True)
class Relaxation:
    r"""How fast laws come near the steady one: $\chi^2$ falls like $e^{-2 \lambda t}$
    with the `gap` $\lambda$, the least of the `rates` and of what begins at `continuum`
    (infinite where there is none).

    ```pycon
    >>> from deeplimits.meanfield.controls import Noise
    >>> found = relaxation(-1.0, Noise(0.5))
    >>> found.gap, found.continuum
    (0.875, 2.0)
    ```
    """

    gap: float
    rates: tuple[float, ...]
    continuum: float


def relaxation(
    weight: float, noise: Noise, *, activation: str = "tanh", count: int = 4
) -> Relaxation:
    r"""The spectrum around the laws of `steady_law`, whatever $b$, with
    $D = \kappa^2/2$:

    - identity, constant noise or "root": $\lambda_n = n|w|$;
    - identity, "linear": $\lambda_n = n|w| - n(n-1)D$ for $n < (1 + |w|/D)/2$, and all
      from $(|w| + D)^2/(4D)$ on;
    - tanh, constant noise: $\lambda_n = n|w| - n^2 D w^2$ for $n < 1/(2D|w|)$, and all
      from $1/(4D)$ on. The gap is $|w| - \frac12\kappa^2w^2$ while $\kappa^2|w| < 1$,
      and $1/(2\kappa^2)$ from there on.

    `rates` are the first `count` of the single ones. Raises `ValueError` as
    `steady_law` does.

    ```pycon
    >>> from deeplimits.meanfield.controls import Noise
    >>> relaxation(-2.0, Noise(0.5), activation="identity").rates
    (2.0, 4.0, 6.0, 8.0)
    ```
    """
    w, D = as_number("weight", weight), _kappa(noise) ** 2 / 2
    require_within("(-inf, inf)", weight=w)
    require_whole(count=count)
    _refuse(w, 1.0, noise.kind, activation)
    w = abs(w)
    if activation == "tanh":
        last, continuum = 1 / (2 * D * w), 1 / (4 * D)
        values = [n * w - n**2 * D * w**2 for n in range(1, count + 1)]
    elif noise.kind == "linear":
        last, continuum = (1 + w / D) / 2, (w + D) ** 2 / (4 * D)
        values = [n * w - n * (n - 1) * D for n in range(1, count + 1)]
    else:
        last = continuum = math.inf
        values = [n * w for n in range(1, count + 1)]
    rates = tuple(v for n, v in enumerate(values, 1) if n < last)
    return Relaxation(min((*rates, continuum)), rates, continuum)
