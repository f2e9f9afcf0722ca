r"""Transport between normal laws in closed form: the distance of Bures, Wasserstein.

With $A = R R$, $B = S S$ (symmetric roots) and the singular values $R S = P D Q^\top$
the matrix $S' = S Q P^\top$ is the root $S' S'^\top = B$ nearest to $R$, and

$$ \begin{aligned}
   W_2^2 &= |m - m'|^2 + \|R - S'\|_F^2 \\
   &= |m - m'|^2 + \operatorname{tr}\bigl(A + B - 2 (A^{1/2} B A^{1/2})^{1/2}\bigr).
   \end{aligned} $$

The first form loses no digits where the laws are close, and holds for singular
covariances. Source: `peyre2019`, `bhatia2019`.
"""

from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checks import holds, require_within
from ..measures.laws import Affine, Gaussian


def bures(mu: Gaussian, nu: Gaussian) -> Float[Array, ""]:
    r"""$W_2(\mu, \nu)$ of two normal laws.

    May be compiled. Its gradient is that of the formula,
    $\partial_A W_2^2 = I - M$ with the optimal map of `bures_map`, repeated eigenvalues
    or not; where the distance is 0, and has a kink, it is 0 here; where a covariance is
    singular it is infinite or NaN, as the root has no slope there. Second derivatives
    want simple eigenvalues. Raises `ValueError` for other laws, and for normal laws in
    different dimensions.

    ```pycon
    >>> from deeplimits.measures import laws
    >>> a = laws.Gaussian(jnp.zeros(1), jnp.eye(1))
    >>> b = laws.Gaussian(jnp.ones(1), 4 * jnp.eye(1))
    >>> round(float(bures(a, b)), 4)
    1.4142
    ```
    """
    _require_pair(mu, nu)
    squared = jnp.sum((mu.mean - nu.mean) ** 2) + _gap(mu.covariance, nu.covariance)
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0 * squared)


@jax.custom_jvp
def _gap(A: Array, B: Array) -> Array:
    first, second = _aligned(A, B)
    return jnp.sum((first - second) ** 2)


@_gap.defjvp
def _slope_of_gap(primals, tangents):
    """By the optimal maps, as the roots have slopes for simple eigenvalues alone."""
    first, second = _aligned(*primals)
    maps = _map(first, second), _map(second.T, first)
    value = jnp.sum((first - second) ** 2)
    identity = jnp.eye(len(first), dtype=first.dtype)
    pairs = zip(maps, tangents, strict=True)
    return value, jnp.stack([jnp.sum((identity - M) * d) for M, d in pairs]).sum()


def bures_geodesic(
    mu: Gaussian, nu: Gaussian, time: SupportsFloat | Float[Array, ""]
) -> Gaussian:
    r"""The normal law $\mu_t$ on a shortest path from $\mu$ to $\nu$, at a `time` $t$
    between 0 and 1:

    $$ m_t = (1 - t)\, m + t\, m', \qquad \Sigma_t = R_t R_t^\top, \quad
       R_t = (1 - t) R + t S'. $$

    $W_2(\mu_s, \mu_t) = |t - s|\, W_2(\mu, \nu)$. Raises `ValueError` for a time
    outside $[0, 1]$, and as `bures` does. Derivatives want simple eigenvalues.
    """
    require_within("[0, 1]", time=time)
    first, second = _roots(mu, nu)
    t = jnp.asarray(time, first.dtype)
    root = (1 - t) * first + t * second
    covariance = root @ root.T
    return Gaussian((1 - t) * mu.mean + t * nu.mean, (covariance + covariance.T) / 2)


def bures_map(mu: Gaussian, nu: Gaussian) -> Affine:
    r"""The optimal map of $\mu$ to $\nu$,

    $$ x \mapsto m' + M (x - m), \qquad
       M = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}. $$

    Raises `ValueError` where $A$, the covariance of $\mu$, is singular, and as `bures`
    does. Derivatives want simple eigenvalues.
    """
    first, second = _roots(mu, nu)
    if not holds(_regular, mu.covariance):
        raise ValueError(
            "mu must have a covariance that is not singular: got "
            f"{np.asarray(mu.covariance).tolist()}."
        )
    matrix = _map(first, second)
    return Affine(matrix, nu.mean - matrix @ mu.mean)


def _map(first: Array, second: Array) -> Array:
    matrix = jnp.linalg.solve(first, second.T)
    return (matrix + matrix.T) / 2


def _regular(matrix: np.ndarray) -> bool:
    values = np.linalg.eigvalsh(matrix)
    return bool(values[0] > len(values) * np.finfo(matrix.dtype).eps * values[-1])


def _roots(mu: Any, nu: Any) -> tuple[Float[Array, "d d"], Float[Array, "d d"]]:
    """The symmetric root of the first covariance, the nearest root of the second."""
    _require_pair(mu, nu)
    return _aligned(mu.covariance, nu.covariance)


def _require_pair(mu: Any, nu: Any) -> None:
    for name, law in (("mu", mu), ("nu", nu)):
        if not isinstance(law, Gaussian):
            raise ValueError(f"{name} must be Gaussian: got {type(law).__name__}.")
    if mu.mean.shape != nu.mean.shape:
        raise ValueError(
            "mu and nu must lie in one space: got dimensions "
            f"{mu.mean.size} and {nu.mean.size}."
        )


@jax.jit
def _aligned(A: Array, B: Array) -> tuple[Array, Array]:
    first, second = _root(A), _root(B)
    left, _, right = jnp.linalg.svd(first @ second)
    return first, second @ right.T @ left.T


def _root(matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T
