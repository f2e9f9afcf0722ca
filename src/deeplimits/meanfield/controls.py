r"""Controls: the weights that all particles share, the noise, and what they stretch.

A control in $K$ pieces is a stacked `OneLayer`, $(w_k, b_k)$ with $w_k \in
\mathbb{R}^{d \times d}$, each for an equal share of the time:

$$ \dot x = \sigma(w(t) x + b(t)). $$
"""

import itertools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ..checks import (
    as_doubles,
    as_floats,
    holds,
    require_finite,
    require_known,
    require_whole,
)
from ..residual import Activation, OneLayer

# Numbers of Python, NumPy or JAX, alone or in a row.
Given = float | ArrayLike | Array

KINDS = ("constant", "root", "linear")

_GELU_LEAST = 0.5 * math.erfc(1) - math.exp(-1) / math.sqrt(math.pi)  # at -sqrt(2)
# the least and the largest slope of each activation
SLOPES = {
    "identity": (1.0, 1.0),
    "tanh": (0.0, 1.0),
    "relu": (0.0, 1.0),
    "gelu": (_GELU_LEAST, 1 - _GELU_LEAST),
    "softplus": (0.0, 1.0),
    "centred softplus": (0.0, 2.0),
    "sigmoid": (0.0, 0.25),
    "sin": (-1.0, 1.0),
}


def growing_cosine(z: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""The growing cosine unit $\sigma(z) = z \cos z$, which is not Lipschitz: its
    slopes grow like $|z|$. Source: `herty2022continuous`.

    ```pycon
    >>> [round(float(growing_cosine(z)), 4) for z in (0.0, jnp.pi, -jnp.pi)]
    [0.0, -3.1416, 3.1416]
    ```
    """
    return z * jnp.cos(z)


def line_control(
    weight: Given,
    bias: Given,
    *,
    activation: str | Activation = "tanh",
) -> OneLayer:
    """The control on the line with these numbers, or these in turn: two numbers, or two
    rows of $K$, or one of each.

    ```pycon
    >>> control = line_control([1.0, 2.0], [0.0, 0.5])
    >>> control.weight.shape, control.bias.shape
    ((2, 1, 1), (2, 1))
    ```
    """
    w, b = as_floats("weight", weight), as_floats("bias", bias)
    require_finite("weight or the bias", (w, b))
    sizes = {row.size for row in (w, b) if row.ndim}
    if max(w.ndim, b.ndim) > 1 or len(sizes) > 1:
        raise ValueError(
            f"weight and bias must be numbers or rows of one length: {w.shape}, "
            f"{b.shape}."
        )
    pieces = sizes.pop() if sizes else 1
    w, b = jnp.broadcast_to(w, pieces), jnp.broadcast_to(b, pieces)
    return OneLayer(w[:, None, None], b[:, None], activation=activation)


def pieces_of(control: OneLayer, d: int | None = None) -> tuple[int, int]:
    """How many pieces a control has, and in how many dimensions.

    Raises `ValueError` for a control that is not stacked, or for other dimensions.
    """
    if not isinstance(control, OneLayer) or control.weight.ndim != 3:
        raise ValueError(
            "control must be a OneLayer with weight (pieces, d, d): got "
            f"{getattr(control, 'weight', control)!s:.60}."
        )
    require_finite("control", control)
    pieces, size, _ = control.weight.shape
    if d not in (None, size):
        raise ValueError(f"control acts in {size} dimensions, the state in {d}.")
    return pieces, size


class Noise(eqx.Module):
    r"""The factor $K$ of the noise in $\mathrm{d}x = \sigma(wx + b)\,\mathrm{d}t +
    K(x)\,\mathrm{d}B$, in the sense of Itô:

    $K = \kappa$ ("constant"), $K = \kappa\sqrt{x}$ ("root") or $K = \kappa x$
    ("linear"), the last two for $x > 0$. `kappa` is a number, or one a piece of the
    control. Raises `ValueError` unless $\kappa > 0$.

    ```pycon
    >>> float(Noise(0.5, "linear").factor(jnp.array(2.0)))
    1.0
    ```
    """

    kappa: Float[Array, ""] | Float[Array, " pieces"]
    kind: str = eqx.field(static=True)

    def __init__(self, kappa: Given, kind: str = "constant"):
        floats = as_floats("kappa", kappa)
        if floats.ndim > 1:
            raise ValueError(f"kappa must be a number or a row: got {floats.shape}.")
        if not holds(lambda k: (np.isfinite(k) & (k > 0)).all(), floats):
            raise ValueError(f"kappa must be positive and finite: got {kappa}.")
        require_known("kind of noise", kind, KINDS)
        self.kappa, self.kind = floats, kind

    def in_pieces(self, pieces: int) -> "Noise":
        """The same with one $\\kappa$ for each of so many pieces."""
        require_whole(pieces=pieces)
        if self.kappa.ndim and self.kappa.size != pieces:
            raise ValueError(
                f"kappa must be a number or have {pieces} entries, one a piece of the "
                f"control: got {self.kappa.size}."
            )
        return Noise(jnp.broadcast_to(self.kappa, pieces), self.kind)

    def factor(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """$K(x)$; a root is that of the positive part."""
        x = as_floats("x", x)
        if self.kind == "root":
            return self.kappa * jnp.sqrt(jnp.maximum(x, 0))
        return self.kappa * (x if self.kind == "linear" else jnp.ones_like(x))

    def diffusion(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""$D(x) = \frac12 K(x)^2$."""
        x = as_floats("x", x)
        root = jnp.maximum(x, 0)
        powers = {"constant": jnp.ones_like(x), "root": root, "linear": x**2}
        return self.kappa**2 / 2 * powers[self.kind]


def growth_bounds(weight: Given, *, activation: str = "tanh") -> tuple[float, float]:
    r"""The one-sided constants $m$ and $M$ of $x \mapsto \sigma(wx + b)$:

    $$ \begin{gathered}
       m = \min_D \lambda_{\min}\bigl(\tfrac12(Dw + w^\top D)\bigr), \\
       M = \max_D \lambda_{\max}\bigl(\tfrac12(Dw + w^\top D)\bigr),
       \end{gathered} $$

    over the diagonal matrices $D$ whose entries are the least or the largest slope of
    $\sigma$. Two particles under one control are apart, at time $t$, by $e^{mt}$ to
    $e^{Mt}$ times their distance at the start, and so are two laws, in any
    $W_p$. `weight` is $w$, $(d, d)$ with $d \le 12$.

    ```pycon
    >>> rotation = [[0.0, 1.0], [-1.0, 0.0]]
    >>> growth_bounds(rotation)  # tanh turns a rotation into stretching
    (-0.5, 0.5)
    >>> max(map(abs, growth_bounds(rotation, activation="identity")))
    0.0
    ```
    """
    w = as_doubles("weight", weight, shape=(None, None))
    require_known("activation", activation, SLOPES)
    if w.shape[0] != w.shape[1] or len(w) > 12 or not np.isfinite(w).all():
        raise ValueError(
            f"weight must be square, finite and at most 12 by 12: got {w.shape}."
        )
    vertices = np.array(list(itertools.product(set(SLOPES[activation]), repeat=len(w))))
    stretched = vertices[:, :, None] * w
    values = np.linalg.eigvalsh((stretched + stretched.swapaxes(1, 2)) / 2)
    return float(values.min()), float(values.max())
