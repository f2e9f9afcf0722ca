r"""Staggered grids for densities in motion, and the proximal map of kinetic energy.

The box of sides $\ell_1, \dots, \ell_d$ has $N_i$ cells a side, and time $[0, 1]$ has
$n$ steps. Densities live at the $n + 1$ times (the first and the last are given),
fluxes in the middle of a step on the faces between cells (no flux leaves the box), and
the continuity equation

$$ \frac{\rho^{k+1} - \rho^k}{\Delta t}
   + \sum_i \frac{m_i^+ - m_i^-}{\Delta x_i} = 0 $$

holds in every cell and step. Fields on the grid are tuples: the density, then the
fluxes of all axes, with time as the first axis of each. Source: `papadakis2014`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checks import as_floats, as_scalar, require_shape

Fields = tuple[Array, ...]


def kinetic_root(
    density: Float[Array, "..."],
    square: Float[Array, "..."],
    gamma: float | Float[Array, ""],
) -> Float[Array, "..."]:
    r"""The density of `kinetic_prox` at $r$ and $|q|^2$: the largest root of

    $$ (\rho - r)(\rho + 2\gamma)^2 = \gamma |q|^2, $$

    or 0 where that is negative, $4 \gamma r + |q|^2 \le 0$.

    By Newton's method from above, where the cubic is convex, so that each step falls
    towards the root. It starts at the least of three bounds, each of which is near the
    root where the others are not: six steps leave only rounding.

    `density` and `square` are floats of one shape, and $\gamma$ one number. Derivatives
    are those of the implicit function; on the edge, $4 \gamma r + |q|^2 = 0$, where
    there is a kink, they are 0, those of the side of no density. A negative `square`,
    which is none of a flux, counts as 0. NaN gives NaN. Raises `ValueError` for other
    shapes, and for a $\gamma$ that is not positive.
    """
    r, q2 = as_floats("density", density), as_floats("square", square)
    require_shape("square", q2, r.shape)
    g = as_scalar("gamma", gamma, r.dtype, within="(0, inf)")
    return _root_of(r, jnp.maximum(q2, 0).astype(r.dtype), g)


@jax.custom_jvp
def _root_of(r: Array, q2: Array, g: Array) -> Array:
    s = g * q2
    tiny = jnp.finfo(r.dtype).tiny
    start = jnp.where(
        r > 0, r + s / (r + 2 * g) ** 2, jnp.sqrt(s / jnp.maximum(-r, tiny)) - 2 * g
    )
    rho = jnp.minimum(start, jnp.maximum(r, 0) + jnp.cbrt(s))
    for _ in range(6):
        e = rho + 2 * g
        rho = rho - ((rho - r) * e**2 - s) / (e * (3 * rho - 2 * r + 2 * g))
    return jnp.where(~(4 * g * r + q2 <= 0), jnp.maximum(rho, 0), 0)


@_root_of.defjvp
def _slopes_of_root(primals, tangents):
    """Of the root of the cubic, as an implicit function."""
    (r, q2, g), (dr, dq2, dg) = primals, tangents
    rho = _root_of(r, q2, g)
    e = rho + 2 * g
    moved = e**2 * dr + g * dq2 + (q2 - 4 * (rho - r) * e) * dg
    slope = moved / (e * (3 * rho - 2 * r + 2 * g))
    return rho, jnp.where(4 * g * r + q2 > 0, slope, 0)


def kinetic_prox(
    density: Float[Array, "..."],
    fluxes: tuple[Float[Array, "..."], ...],
    gamma: float | Float[Array, ""],
) -> Fields:
    r"""The proximal map of kinetic energy, in each cell the minimiser of

    $$ \gamma \frac{|m|^2}{\rho} + \tfrac12 (\rho - r)^2 + \tfrac12 |m - q|^2 $$

    over $\rho > 0$ or $\rho = |m| = 0$: the density is that of `kinetic_root`, and the
    flux $m = q \rho / (\rho + 2 \gamma)$. For $|m|^2 / (2\rho)$ halve $\gamma$.
    Derivatives and errors are as in `kinetic_root`; `fluxes` is a tuple, one of the
    shape of `density` an axis.
    """
    fluxes = tuple(as_floats("fluxes", q) for q in fluxes)
    for q in fluxes:
        require_shape("fluxes", q, np.shape(density))
    square = jnp.stack([q**2 for q in fluxes]).sum(0)
    rho = kinetic_root(density, square, gamma)
    slowed = rho / (rho + 2 * jnp.asarray(gamma, rho.dtype))
    return rho, *(slowed * q for q in fluxes)


def cosines(size: int) -> Float[np.ndarray, "size size"]:
    r"""The orthogonal matrix of the discrete cosine transform, of type II:
    $C_{kj} = \sqrt{2 / N} \cos(\pi k (j + \frac12) / N)$, and $1 / \sqrt N$ for
    $k = 0$."""
    k, j = np.arange(size)[:, None], np.arange(size)[None]
    matrix = math.sqrt(2 / size) * np.cos(np.pi * k * (j + 0.5) / size)
    matrix[0] = 1 / math.sqrt(size)
    return matrix


class Staggered(eqx.Module):
    r"""A grid between two densities, `start` and `end`, of `steps` steps in time.

    `spacings` are $\Delta t, \Delta x_1, \dots, \Delta x_d$. A field is what is
    unknown: the density at the inner times, and the fluxes on the inner faces.

    ```pycon
    >>> left, right = jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0])
    >>> grid = Staggered(left, right, (jnp.array(0.5), jnp.array(0.5)), 2)
    >>> density, flux = grid.project(grid.linear())  # all mass, 1, through one face
    >>> density.round(3).tolist(), flux.round(3).tolist()
    ([[1.0, 1.0]], [[1.0], [1.0]])
    ```
    """

    start: Float[Array, "..."]
    end: Float[Array, "..."]
    spacings: tuple[Float[Array, ""], ...]
    steps: int = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of steps, then that of cells on each side."""
        return self.steps, *self.start.shape

    def linear(self) -> Fields:
        """The density that goes straight from start to end in each cell, with no flux:
        a field to begin with, which is no flow yet."""
        d, dtype = self.start.ndim, self.start.dtype
        t = jnp.arange(1, self.steps, dtype=dtype) / self.steps
        t = t.reshape(-1, *[1] * d)
        density = (1 - t) * self.start[None] + t * self.end[None]
        sizes = [
            tuple(n - (axis == i) for axis, n in enumerate(self.shape))
            for i in range(1, d + 1)
        ]
        return density, *(jnp.zeros(size, dtype) for size in sizes)

    def whole(self, fields: Fields) -> Fields:
        """With the given densities at both ends of time, and no flux at the walls."""
        density = jnp.concatenate([self.start[None], fields[0], self.end[None]])
        return density, *(_walled(m, i + 1) for i, m in enumerate(fields[1:]))

    def centred(self, fields: Fields) -> Fields:
        """Means of the two neighbours, at the centre of each cell and step."""
        return tuple(_means(u, axis) for axis, u in enumerate(self.whole(fields)))

    def spread(self, centred: Fields) -> Fields:
        """The transpose of the linear part of `centred`."""
        return tuple(_means(y, axis) for axis, y in enumerate(centred))

    def defect(self, fields: Fields) -> Float[Array, "..."]:
        """The left side of the continuity equation in each cell and step."""
        parts = zip(self.whole(fields), self.spacings, strict=True)
        rises = [jnp.diff(u, axis=i) / step for i, (u, step) in enumerate(parts)]
        return jnp.stack(rises).sum(0)

    def project(self, fields: Fields) -> Fields:
        """The nearest fields that satisfy the continuity equation."""
        phi = apart(self.potential(apart(self.defect(fields))))
        return tuple(
            u + jnp.diff(phi, axis=i) / step
            for i, (u, step) in enumerate(zip(fields, self.spacings, strict=True))
        )

    def potential(self, source: Float[Array, "..."]) -> Float[Array, "..."]:
        r"""The solution of mean 0 of $-\Delta \varphi = f$ with zero slope at the walls
        and at both ends of time, by cosine transforms.

        They are products with matrices: for up to about a hundred cells a side that is
        several times as fast as by Fourier transforms.
        """
        matrices = [jnp.asarray(cosines(n), source.dtype) for n in self.shape]
        spectrum = _transformed(source, matrices)
        scaled = spectrum * self._inverse(source.dtype)
        return _transformed(scaled, [matrix.T for matrix in matrices])

    def _inverse(self, dtype) -> Float[Array, "..."]:
        """One over the eigenvalues of the Laplacian, and 0 for the constants."""
        total = jnp.zeros(self.shape, dtype)
        for axis, (n, step) in enumerate(zip(self.shape, self.spacings, strict=True)):
            values = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
            sizes = [n if i == axis else 1 for i in range(total.ndim)]
            total = total + (jnp.asarray(values, dtype) / step**2).reshape(sizes)
        first = (0,) * total.ndim
        return (1 / total.at[first].set(1)).at[first].set(0)


def apart(fields: Any) -> Any:
    """The same, computed before what follows: of all stages of an iteration XLA would
    make one loop, and take several times as long to compile it.

    ```pycon
    >>> apart(jnp.array([1.0, 2.0])).tolist()
    [1.0, 2.0]
    >>> float(jax.grad(lambda x: apart(x) ** 2)(3.0))  # derivatives go through it
    6.0
    ```
    """
    return jax.lax.optimization_barrier(fields)


def _walled(array: Array, axis: int) -> Array:
    return jnp.pad(array, [(int(i == axis),) * 2 for i in range(array.ndim)])


def _means(array: Array, axis: int) -> Array:
    size = array.shape[axis]
    low = jax.lax.slice_in_dim(array, 0, size - 1, axis=axis)
    high = jax.lax.slice_in_dim(array, 1, size, axis=axis)
    return (low + high) / 2


def _transformed(array: Array, matrices: list[Array]) -> Array:
    for matrix in matrices:  # each takes the first axis and leaves it as the last
        array = jnp.tensordot(array, matrix, ((0,), (1,)))
    return array
