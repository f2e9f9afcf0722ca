r"""Laws of data: points, histograms and normal laws, their moments and push-forwards.

At a fixed control the law of the data at depth-time $t$ is the push-forward
$\mu_t = (\Phi_t)_\# \mu_0$ by the flow.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, SupportsFloat

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..checks import (
    as_floats,
    as_singles,
    holds,
    require_finite,
    require_shape,
    require_whole,
    require_within,
)
from ..continuous import linear_flow


class AbstractMeasure(eqx.Module):
    r"""A law of data in $\mathbb{R}^d$ with a `mean` and a `covariance`.

    ```pycon
    >>> law = Empirical(jnp.array([[0.0, 0.0], [2.0, 0.0]]))
    >>> isinstance(law, AbstractMeasure), law.covariance.diagonal().tolist()
    (True, [1.0, 0.0])
    ```
    """

    mean: eqx.AbstractVar[Float[Array, " d"]]
    covariance: eqx.AbstractVar[Float[Array, "d d"]]

    @abc.abstractmethod
    def moment(self, order: int) -> Float[Array, " d"]:
        r"""$\int x_j^k\, \mathrm{d}\mu$ of each coordinate $j$, for the `order` $k$."""

    @abc.abstractmethod
    def push_forward(self, function: Any) -> "AbstractMeasure":
        """The law of the images under a map of one example."""


class Empirical(AbstractMeasure):
    r"""Points with weights, equal ones by default,

    $$ \mu = \sum_{i=1}^N w_i\, \delta_{x_i}, \qquad w_i \ge 0, \quad
       \sum_i w_i = 1. $$

    Points on the line may be given as $(N,)$; they are kept as $(N, 1)$. Raises
    `ValueError` for points that are not finite, and for weights that are negative or do
    not sum to 1, to half the digits of their precision.

    ```pycon
    >>> law = Empirical(jnp.array([0.0, 1.0]), jnp.array([0.25, 0.75]))
    >>> law.mean.tolist(), law.covariance.tolist()
    ([0.75], [[0.1875]])
    ```
    """

    points: Float[Array, "N d"]
    weights: Float[Array, " N"] | None

    def __init__(
        self,
        points: Float[Array | np.ndarray, "N d"] | Float[Array | np.ndarray, " N"],
        weights: Float[Array | np.ndarray, " N"] | None = None,
    ):
        rows = as_singles("points", points)
        rows = rows[:, None] if rows.ndim == 1 else rows
        require_shape("points", rows, (None, None))
        self.points = rows
        require_finite("points", self.points)
        self.weights = None if weights is None else as_shares(weights, rows)

    @property
    def masses(self) -> Float[Array, " N"]:
        """The weights, also where they are equal."""
        return as_shares(None, self.points) if self.weights is None else self.weights

    @property
    def mean(self) -> Float[Array, " d"]:
        r"""$\int x\, \mathrm{d}\mu$."""
        return self.moment(1)

    @property
    def covariance(self) -> Float[Array, "d d"]:
        """That of the measure: nothing is corrected for the size of a sample."""
        centred = self.points - self.mean[None]
        return self._integral(centred[:, :, None] * centred[:, None, :])

    def moment(self, order: int) -> Float[Array, " d"]:
        r"""$\int x_j^k\, \mathrm{d}\mu$ of each coordinate, for the `order` $k$."""
        require_whole(0, order=order)
        return self._integral(self.points**order)

    def _integral(self, values: Float[Array, "N ..."]) -> Float[Array, "..."]:
        # A sum, no product of matrices: XLA adds a million floats in single precision
        # to six digits in the one, and to four in the other.
        masses = self.masses.reshape((-1,) + (1,) * (values.ndim - 1))
        return jnp.sum(masses * values, axis=0)

    def push_forward(self, function: Callable[[Array], Array]) -> "Empirical":
        """The law of the images under a map of one example: a network, a flow."""
        return Empirical(_images(function, self.points), self.weights)


class Histogram(AbstractMeasure):
    r"""A law on the line with constant density in each cell between two `edges`.

    Its distribution function is linear in between: a table of one, $(x_j, F(x_j))$, is
    `Histogram(x, np.diff(F))`. A cell without length is an atom. Raises `ValueError`
    for fewer than two edges, for edges that decrease, and for masses that are negative
    or do not sum to 1, to half the digits of their precision.

    ```pycon
    >>> law = Histogram(jnp.array([0.0, 1.0, 3.0]), jnp.array([0.5, 0.5]))
    >>> law.mean.tolist()
    [1.25]
    ```
    """

    edges: Float[Array, " cells+1"]
    masses: Float[Array, " cells"]

    def __init__(
        self,
        edges: Float[Array | np.ndarray, " edges"],
        masses: Float[Array | np.ndarray, " cells"],
    ):
        self.edges = as_singles("edges", edges, shape=(None,))
        require_finite("edges", self.edges)
        if not holds(lambda x: x.size > 1 and (np.diff(x) >= 0).all(), self.edges):
            raise ValueError(f"edges must increase, two at least: {np.shape(edges)}.")
        self.masses = as_masses("masses", masses, (self.edges.size - 1,))

    @property
    def mean(self) -> Float[Array, " 1"]:
        r"""$\int x\, \mathrm{d}\mu$."""
        return self.moment(1)

    @property
    def covariance(self) -> Float[Array, "1 1"]:
        """The variance, as a matrix."""
        return Histogram(self.edges - self.mean, self.masses).moment(2)[None]

    def moment(self, order: int) -> Float[Array, " 1"]:
        r"""$\int x^k\, \mathrm{d}\mu$ for the `order` $k$."""
        require_whole(0, order=order)
        left, right = self.edges[:-1], self.edges[1:]
        # the mean of x^k over a cell, without a difference of powers
        powers = sum(left**i * right ** (order - i) for i in range(order + 1))
        return jnp.sum(self.masses * powers / (order + 1), keepdims=True)

    def push_forward(self, function: Callable[[Array], Array]) -> "Histogram":
        """The law with the same masses between the images of the edges.

        These masses are exact for every increasing map; within a cell the density is
        taken as constant again. Raises `ValueError` for a map that decreases.
        """
        return Histogram(_images(function, self.edges[:, None])[:, 0], self.masses)


class Gaussian(AbstractMeasure):
    r"""The normal law $\mathcal{N}(m, \Sigma)$; $\Sigma$ may be singular.

    Raises `ValueError` unless the covariance is symmetric and positive semi-definite.

    ```pycon
    >>> law = Gaussian(jnp.zeros(2), jnp.eye(2))
    >>> law.mean.shape, law.covariance.shape, float(law.covariance.trace())
    ((2,), (2, 2), 2.0)
    ```
    """

    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]

    def __init__(
        self,
        mean: Float[Array | np.ndarray, " d"],
        covariance: Float[Array | np.ndarray, "d d"],
    ):
        self.mean = as_singles("mean", mean, shape=(None,))
        size = self.mean.size
        self.covariance = as_singles("covariance", covariance, shape=(size, size))
        require_finite("mean or the covariance", (self.mean, self.covariance))
        if not holds(_semi_definite, self.covariance):
            raise ValueError(
                f"covariance must be symmetric and positive semi-definite: got "
                f"{np.asarray(self.covariance).tolist()}."
            )

    def moment(self, order: int) -> Float[Array, " d"]:
        r"""$\int x_j^k\, \mathrm{d}\mu$ of each coordinate, by the recursion
        $m_k = m\, m_{k-1} + (k - 1)\, \Sigma_{jj}\, m_{k-2}$."""
        require_whole(0, order=order)
        before, moment = jnp.zeros_like(self.mean), jnp.ones_like(self.mean)
        for k in range(order):
            step = self.mean * moment + k * jnp.diag(self.covariance) * before
            before, moment = moment, step
        return moment

    def push_forward(self, function: "Affine") -> "Gaussian":
        r"""$\mathcal{N}(M m + c, M \Sigma M^\top)$.

        Raises `ValueError` for a map that is not `Affine`: the image is no normal law.
        """
        if not isinstance(function, Affine):
            raise ValueError(
                f"function must be Affine for a normal law to stay one: got "
                f"{type(function).__name__}; push samples forward instead."
            )
        spread = function.matrix @ self.covariance @ function.matrix.T
        return Gaussian(function(self.mean), (spread + spread.T) / 2)

    def sample(self, count: int, *, key: PRNGKeyArray) -> Empirical:
        """The empirical measure of `count` independent draws."""
        require_whole(count=count)
        values, vectors = jnp.linalg.eigh(self.covariance)
        root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None]
        noise = jr.normal(key, (count, self.mean.size), self.mean.dtype)
        return Empirical(self.mean[None] + noise @ root.T)


@eqx.filter_jit
def _images(
    function: Callable[[Array], Array], points: Float[Array, "N d"]
) -> Float[Array, "N e"]:
    return jax.vmap(function)(points)


def as_masses(name: str, values: Any, shape: tuple[int | None, ...]) -> Array:
    """Floats of that shape; `ValueError` where they are not finite, negative, or do
    not sum to 1, to half the digits of their precision."""
    masses = as_singles(name, values, shape=shape)
    require_finite(name, masses)
    if not holds(lambda w: (w >= 0).all(), masses):
        raise ValueError(f"{name} must not be negative: least {np.min(masses):.3g}.")
    slack = float(jnp.finfo(masses.dtype).eps) ** 0.5
    if not holds(lambda w: abs(w.sum(dtype=float) - 1) <= slack, masses):
        total = np.asarray(masses).sum(dtype=float)
        raise ValueError(f"{name} must sum to 1: got {total:.9g}.")
    return masses


def as_shares(weights: Any, points: Array) -> Float[Array, " points"]:
    """The weights of so many points, in their precision: equal ones for None, and else
    with the errors of `as_masses`."""
    if weights is None:
        return jnp.full(len(points), 1 / len(points), points.dtype)
    return as_masses("weights", weights, points.shape[:1]).astype(points.dtype)


def _semi_definite(matrix: np.ndarray) -> bool:
    slack = 100 * np.finfo(matrix.dtype).eps * np.abs(matrix).max()
    symmetric = np.abs(matrix - matrix.T).max() <= slack
    return bool(symmetric and np.linalg.eigvalsh(matrix).min() >= -slack)


class Affine(eqx.Module):
    r"""The map $x \mapsto M x + c$ of one example.

    Raises `ValueError` unless `matrix` is $(m, d)$ and `offset` $(m,)$.

    ```pycon
    >>> Affine(2 * jnp.eye(2), jnp.ones(2))(jnp.array([1.0, 2.0])).tolist()
    [3.0, 5.0]
    ```
    """

    matrix: Float[Array, "m d"]
    offset: Float[Array, " m"]

    def __init__(
        self,
        matrix: Float[Array | np.ndarray, "m d"],
        offset: Float[Array | np.ndarray, " m"],
    ):
        self.matrix = as_floats("matrix", matrix, shape=(None, None))
        rows = self.matrix.shape[0]
        self.offset = as_floats("offset", offset, shape=(rows,))

    def __call__(self, x: Float[Array, " d"]) -> Float[Array, " m"]:
        x = as_floats("x", x, shape=(self.matrix.shape[1],))
        return self.matrix @ x + self.offset


def affine_flow(
    matrix: Float[Array | np.ndarray, "d d"],
    bias: Float[Array | np.ndarray, " d"],
    time: SupportsFloat | Float[Array, ""] = 1.0,
) -> Affine:
    r"""The flow of $\dot x = \bar A x + \bar b$ over a `time`, which may be negative:

    $$ \Phi_t(x) = e^{t \bar A} x + \int_0^t e^{s \bar A}\, \mathrm{d}s\; \bar b, $$

    by `linear_flow`: nothing is divided by $\bar A$, which may be singular. Raises
    `ValueError` for other shapes, and for a time that is not finite.
    """
    require_within("(-inf, inf)", time=time)
    bias = as_singles("bias", bias, shape=(None,))
    matrix = as_singles("matrix", matrix, shape=(bias.size, bias.size))
    return Affine(*_flow_parts(matrix, bias, jnp.asarray(time, bias.dtype)))


@jax.jit
def _flow_parts(
    matrix: Float[Array, "d d"], bias: Float[Array, " d"], time: Float[Array, ""]
) -> tuple[Float[Array, "d d"], Float[Array, " d"]]:
    flow = functools.partial(linear_flow, time * matrix, time * bias)
    origin = jnp.zeros_like(bias)
    return jax.jacfwd(flow)(origin), flow(origin)
