r"""The Fokker–Planck equation on the line, by exponentially fitted fluxes.

$$ \partial_t g = -\partial_x\bigl(\sigma(wx + b)\, g\bigr)
   + \tfrac12 \partial_{xx}\bigl(K^2 g\bigr), $$

the law of $\mathrm{d}x = \sigma(wx + b)\,\mathrm{d}t + K(x)\,\mathrm{d}B$ (Itô), in
cells of any sizes, with no flux through the ends. With $D = \frac12 K^2$ and
$\Delta_{i+1/2} = \log g_\infty(x_{i+1}) - \log g_\infty(x_i)$ the flux is

$$ F_{i+1/2} = -\frac{D_{i+1/2}}{x_{i+1} - x_i}
   \bigl(B(\Delta) g_{i+1} - B(-\Delta) g_i\bigr), \qquad B(z) = \frac{z}{e^z - 1}, $$

which vanishes on $g_\infty$ by construction.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.linalg import eigh_tridiagonal

from ..checks import (
    as_floats,
    holds,
    require_known,
    require_whole,
    require_within,
)
from ..residual import Activation, OneLayer, named_activation
from .closed_forms import divided, numbers
from .controls import Noise, pieces_of
from .steady import log_ratio
from .volumes import as_density, as_edges

SCHEMES = {"implicit": 1.0, "crank-nicolson": 0.5}  # the weight of the later time


def bernoulli(z: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""$B(z) = z/(e^z - 1)$, with $B(-z) = e^z B(z)$, for $z$ of any size.

    ```pycon
    >>> z = jnp.log(jnp.array([2.0, 0.5]))
    >>> (bernoulli(z) / jnp.log(2.0)).round(3).tolist()  # z/(2 - 1), -z/(1/2 - 1)
    [1.0, 2.0]
    ```
    """
    # by the larger of B(z) and B(-z), so that nothing overflows
    return jnp.exp(-jnp.maximum(z, 0)) / divided(jnp.expm1, -jnp.abs(z))


class Generator(NamedTuple):
    r"""The matrix $A$ of $\dot p = A p$ for the masses $p_i$ in the cells: its entries
    below, on and above the diagonal. Columns sum to 0.

    ```pycon
    >>> A = generator(jnp.arange(4.0), 0.0, 0.0, Noise(1.0))  # diffusion alone
    >>> (A @ jnp.array([1.0, 0.0, 0.0])).tolist()
    [-0.5, 0.5, 0.0]
    ```
    """

    lower: Float[Array, " cells"]  # the first is 0
    diagonal: Float[Array, " cells"]
    upper: Float[Array, " cells"]  # the last is 0

    def __matmul__(self, p: Float[Array, " cells"]) -> Float[Array, " cells"]:
        below = self.lower[1:] * p[:-1]
        above = self.upper[:-1] * p[1:]
        return self.diagonal * p + jnp.pad(below, (1, 0)) + jnp.pad(above, (0, 1))

    def resolve(
        self, h: Float[Array, ""], p: Float[Array, " cells"]
    ) -> Float[Array, " cells"]:
        r"""$(I - hA)^{-1} p$, by one tridiagonal solve. The matrix has entries that are
        not negative, and columns that sum to 1."""
        bands = -h * self.lower, 1 - h * self.diagonal, -h * self.upper
        return jax.lax.linalg.tridiagonal_solve(*bands, p[:, None])[:, 0]


def generator(
    edges: Any,
    weight: float | Array,
    bias: float | Array,
    noise: Noise,
    *,
    activation: str | Activation = "tanh",
    averages: Float[Array | np.ndarray, " cells"] | None = None,
) -> Generator:
    r"""The generator of one piece in the cells with these `edges`.

    `averages` of a steady law in the cells replace its values in their middles: needed
    where it is singular at an end, as the Gamma law is for $2b < \kappa^2$.

    Raises `ValueError` for edges that do not increase, and for edges under 0 unless the
    noise is constant.

    ```pycon
    >>> A = generator(jnp.arange(4.0), 0.0, 0.0, Noise(1.0))
    >>> A.diagonal.tolist(), (A @ jnp.ones(3)).tolist()  # constants are steady
    ([-0.5, -1.0, -0.5], [0.0, 0.0, 0.0])
    ```
    """
    edges = _line(edges, noise)
    named_activation(activation)
    w, b, kappa = numbers(edges, weight=weight, bias=bias, kappa=noise.kappa)
    steady = None if averages is None else _averages(averages, edges)
    return _generator(edges, w, b, Noise(kappa, noise.kind), activation, steady)


def _line(edges: Any, noise: Noise) -> Array:
    arrays = as_edges(edges)
    if len(arrays) != 1:
        raise ValueError(f"edges must be those on the line: got {len(arrays)} axes.")
    if noise.kind != "constant" and not holds(lambda e: e[0] >= 0, arrays[0]):
        raise ValueError(
            f"edges must not be negative with noise of the kind {noise.kind!r}, which "
            f"vanishes at 0: the first is {arrays[0][0]}."
        )
    return arrays[0]


def _averages(averages: Any, edges: Array) -> Array:
    steady = as_floats("averages", averages, shape=(edges.size - 1,))
    if not holds(lambda g: (np.isfinite(g) & (g > 0)).all(), steady):
        raise ValueError("averages of a steady law must be positive and finite.")
    return steady.astype(edges.dtype)


@partial(jax.jit, static_argnames="activation")
def _generator(edges, w, b, noise, activation, averages) -> Generator:
    middles = (edges[1:] + edges[:-1]) / 2
    if averages is None:
        left, right = middles[:-1], middles[1:]
        logs = log_ratio(left, right, w, b, noise, activation)
    else:
        logs = jnp.diff(jnp.log(averages))
    speed = noise.diffusion(edges[1:-1]) / jnp.diff(middles)
    widths = jnp.diff(edges)
    to_left = speed * bernoulli(logs) / widths[1:]
    to_right = speed * bernoulli(-logs) / widths[:-1]
    leaving = jnp.pad(to_right, (0, 1)) + jnp.pad(to_left, (1, 0))
    return Generator(jnp.pad(to_right, (1, 0)), -leaving, jnp.pad(to_left, (0, 1)))


def slowest_rates(
    edges: Any,
    weight: float,
    bias: float,
    noise: Noise,
    *,
    activation: str | Activation = "tanh",
    count: int = 4,
) -> np.ndarray:
    r"""The `count` smallest positive eigenvalues of $-A$, from the symmetric matrix
    that $A$ is in the space weighted by $1/g_\infty$.

    They are those of the equation in a box: a continuum shows as eigenvalues that come
    close to it like the square of one over the size of the box.

    ```pycon
    >>> edges, noise = jnp.linspace(-6, 6, 121), Noise(2**0.5)
    >>> rates = slowest_rates(edges, -1.0, 0.0, noise, activation="identity")
    >>> rates[:3].round(1).tolist()  # of Ornstein and Uhlenbeck
    [1.0, 2.0, 3.0]
    ```
    """
    require_whole(count=count)
    bands = generator(edges, weight, bias, noise, activation=activation)
    lower, diagonal, upper = (np.asarray(band, np.float64) for band in bands)
    if not count < diagonal.size:
        raise ValueError(
            f"count must be under {diagonal.size}, the cells: got {count}."
        )
    beside = np.sqrt(lower[1:] * upper[:-1])
    low, high = diagonal.size - count - 1, diagonal.size - 2
    values = eigh_tridiagonal(
        diagonal, beside, eigvals_only=True, select="i", select_range=(low, high)
    )
    return -np.asarray(values)[::-1]


class Evolved(eqx.Module):
    r"""What became of a density, and what the scheme did.

    `defect` is how much the mass has changed, by rounding; `least` the smallest value
    of the density; `at_ends` the mass in the first and the last cell; `residual` is
    $\sum_i |(A p)_i|$ in the last piece, 0 for a steady law; `step_diffusion` the most
    that implicit steps added to $\kappa^2/2$, $\frac12 \Delta t\, E[\sigma^2]$;
    `history` the densities at the start and after each piece, where asked for.

    ```pycon
    >>> from deeplimits.meanfield.controls import line_control
    >>> control = line_control(-1.0, 0.0, activation="identity")
    >>> edges, start = jnp.linspace(-4, 4, 33), jnp.zeros(32).at[20].set(4.0)
    >>> end = evolve(start, edges, control, Noise(2**0.5), duration=20.0, steps=20)
    >>> bool(end.residual < 1e-3), bool(abs(end.defect) < 1e-4), bool(end.least > 0)
    (True, True, True)
    ```
    """

    density: Float[Array, " cells"]
    steps: int = eqx.field(static=True)
    defect: Float[Array, ""]
    least: Float[Array, ""]
    at_ends: Float[Array, ""]
    residual: Float[Array, ""]
    step_diffusion: Float[Array, ""]
    history: Float[Array, "times cells"] | None

    def require_inside(self, most: float = 1e-6) -> "Evolved":
        """The same; `ValueError` if more than `most` is in the cells at the ends: the
        box is too small, and its walls hold what would have gone on."""
        require_within("[0, inf)", most=most)
        if self.at_ends > most:
            raise ValueError(
                f"the box is too small: mass {self.at_ends:.3g} is in the cells at its "
                f"ends, more than {most}."
            )
        return self


def evolve(
    density: Float[Array | np.ndarray, " cells"],
    edges: Any,
    control: OneLayer,
    noise: Noise,
    *,
    duration: float = 1.0,
    steps: int,
    scheme: str = "implicit",
    averages: Float[Array | np.ndarray, " cells"] | None = None,
    keep: bool = False,
) -> Evolved:
    r"""The density after time $T$, from its averages in the cells, with so many `steps`
    in each piece of the control.

    $$ (I - \theta \Delta t A)\, p' = (I + (1 - \theta) \Delta t A)\, p $$

    With "implicit", $\theta = 1$, every step is a Markov matrix: nothing becomes
    negative, mass stays, and relative entropy falls, for steps of any length; their
    error is of first order in $\Delta t$. "crank-nicolson", $\theta = \frac12$, is of
    second order, and promises no sign. One solve a step; `jax.grad` goes through it.
    `averages` are those of `generator`, for all pieces; `keep` also returns the density
    after each.

    Raises `ValueError` as `generator` does, and for a density that is negative, not
    finite or of another shape; warns of a mass that is not 1.

    ```pycon
    >>> from deeplimits.meanfield.controls import line_control
    >>> edges, start = jnp.linspace(-8, 8, 66), jnp.zeros(65).at[32].set(65 / 16)
    >>> control, noise = line_control(0.0, 0.0), Noise(1.0)
    >>> end = evolve(start, edges, control, noise, duration=2.0, steps=20)
    >>> middles = (edges[1:] + edges[:-1]) / 2
    >>> round(float(end.density @ middles**2 * 16 / 65), 2)  # of a Brownian path: time
    2.0
    ```
    """
    edges = _line(edges, noise)
    g = as_density(density, (edges,))
    pieces, _ = pieces_of(control, 1)
    require_whole(steps=steps)
    require_within("[0, inf)", duration=duration)
    require_known("scheme", scheme, SCHEMES)
    noise = noise.in_pieces(pieces)
    arrays = control.weight[:, 0, 0], control.bias[:, 0], noise.kappa
    arrays = tuple(array.astype(g.dtype) for array in arrays)
    dt = jnp.asarray(duration / (pieces * steps), g.dtype)
    steady = None if averages is None else _averages(averages, edges)
    settings = noise.kind, control.activation, SCHEMES[scheme], steps, keep
    end, *numbers = _march(g, edges, *arrays, dt, steady, *settings)
    return Evolved(end, steps * pieces, *numbers)


@partial(jax.jit, static_argnames=("kind", "activation", "theta", "steps", "keep"))
def _march(g, edges, w, b, kappa, dt, steady, kind, activation, theta, steps, keep):
    middles, widths = (edges[1:] + edges[:-1]) / 2, jnp.diff(edges)

    def piece(carry, layer):
        w, b, kappa = layer
        A = _generator(edges, w, b, Noise(kappa, kind), activation, steady)
        squares = activation(w * middles + b) ** 2

        def step(carry, _):
            p, added = carry
            known = p if theta == 1 else p + (1 - theta) * dt * (A @ p)
            added = jnp.maximum(added, (theta - 0.5) * dt * (squares @ p))
            return (A.resolve(theta * dt, known), added), None

        carry, _ = jax.lax.scan(step, carry, None, length=steps)
        return carry, (jnp.abs(A @ carry[0]).sum(), carry[0] if keep else None)

    start = g * widths
    carry = start, jnp.zeros((), g.dtype)
    (p, added), (rest, history) = jax.lax.scan(piece, carry, (w, b, kappa))
    end, defect = p / widths, p.sum() - start.sum()
    if history is not None:
        history = jnp.concatenate([g[None], history / widths[None]])
    return end, defect, end.min(), p[0] + p[-1], rest[-1], added, history


def _pair(density: Any, other: Any, edges: Any) -> tuple[Array, Array, Array]:
    axes = as_edges(edges)[:1]
    p = as_density(density, axes, "density", slack=1e-9)
    return p, as_density(other, axes, "other", slack=1e-9), axes[0]


@jax.jit
def _entropy(p, q, edges):
    # what Crank-Nicolson's rounding left under 0 counts as 0
    inside = p > 0
    safe = jnp.where(inside, p, 1)
    logs = jnp.log(safe) - jnp.log(jnp.maximum(q, 0))
    return jnp.sum(jnp.where(inside, safe * logs, 0) * jnp.diff(edges))


@jax.jit
def _chi_square(p, q, edges):
    differ = p != q
    safe = jnp.where(differ, jnp.maximum(q, 0), 1)
    return jnp.sum(jnp.where(differ, (p - q) ** 2 / safe, 0) * jnp.diff(edges))


def relative_entropy(
    density: Float[Array | np.ndarray, " cells"],
    other: Float[Array | np.ndarray, " cells"],
    edges: Any,
) -> Float[Array, ""]:
    r"""$H(p \mid q) = \int p \log(p/q)$ of two densities by their averages in cells:
    infinite where $q$ vanishes and $p$ does not.

    ```pycon
    >>> edges = jnp.array([0.0, 0.5, 1.0])
    >>> entropy = relative_entropy(jnp.array([2.0, 0.0]), jnp.array([1.0, 1.0]), edges)
    >>> round(float(entropy), 4)  # log 2
    0.6931
    ```
    """
    return _entropy(*_pair(density, other, edges))


def chi_square(
    density: Float[Array | np.ndarray, " cells"],
    other: Float[Array | np.ndarray, " cells"],
    edges: Any,
) -> Float[Array, ""]:
    r"""$\chi^2(p \mid q) = \int (p - q)^2/q$ of two densities by their averages."""
    return _chi_square(*_pair(density, other, edges))
