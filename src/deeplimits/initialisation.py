"""Weights as functions of depth: stacked arrays, and the paths that they sample.

A *path* is a callable from depth-time $s \\in [0, 1]$ to an array. Sampled by
`along_path`, the same path serves every depth: layer $k$ of the network of depth $L$
is layer $2k$ of the network of depth $2L$.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from .checks import (
    as_floats,
    as_real,
    as_singles,
    is_whole,
    require_finite,
    require_sizes,
    require_whole,
    require_within,
)

Path = Callable[[Any], Any]
Shape = Sequence[int]
_MOST_LEVELS = 100  # of a lacunary path: 2^100 is a number in single precision


def _check(depth: int, shape: Shape) -> tuple[int, ...]:
    require_whole(depth=depth)
    require_sizes(shape=shape)
    return tuple(shape)


def _drawn(
    sampler: Callable[..., Array], key: PRNGKeyArray, shape: Shape, **options
) -> Float[Array, "..."]:
    """The numbers of `sampler(key, shape)`: drawn flat, they are the same, and the
    program that draws them compiles up to ten times faster."""
    return sampler(key, shape=(math.prod(shape),), **options).reshape(shape)


def independent(
    depth: int, shape: Shape, *, std: float = 1.0, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    r"""Independent layers, $Z_k \sim \mathcal{N}(0, \mathrm{std}^2)$ entrywise.

    ```pycon
    >>> weights = independent(1000, (3, 3), std=0.5, key=jr.key(0))
    >>> weights.shape, round(float(weights.std()), 2)
    ((1000, 3, 3), 0.51)
    ```
    """
    require_within("[0, inf)", std=std)
    return std * _drawn(jr.normal, key, (depth, *_check(depth, shape)))


def tied(
    depth: int, shape: Shape, *, std: float = 1.0, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    r"""One draw for all layers, $Z_k = Z \sim \mathcal{N}(0, \mathrm{std}^2)$.

    ```pycon
    >>> weights = tied(4, (2, 2), key=jr.key(0))
    >>> weights.shape, bool((weights == weights[0]).all())
    ((4, 2, 2), True)
    ```
    """
    require_within("[0, inf)", std=std)
    layer = std * _drawn(jr.normal, key, _check(depth, shape))
    return jnp.broadcast_to(layer, (depth, *layer.shape))


def smooth(
    depth: int,
    shape: Shape,
    *,
    length_scale: float,
    std: float = 1.0,
    key: PRNGKeyArray,
) -> Float[Array, "depth ..."]:
    """Samples of a smooth Gaussian process along depth: `SmoothPath` at $s = k/L$.

    ```pycon
    >>> weights = smooth(100, (3, 3), length_scale=0.3, key=jr.key(0))
    >>> weights.shape, bool(abs(jnp.diff(weights, axis=0)).max() < 0.2)
    ((100, 3, 3), True)
    ```
    """
    _check(depth, shape)
    return along_path(SmoothPath(shape, length_scale, std=std, key=key), depth)


def uniform(
    depth: int, shape: Shape, *, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    r"""Independent entries, uniform on $\pm\sqrt{3/\text{fan-in}}$.

    Their variance is $1/\text{fan-in}$, and the fan-in is the last size of `shape`.
    Source: `marion2025`.

    ```pycon
    >>> weights = uniform(100, (2, 27), key=jr.key(0))
    >>> weights.shape, round(float(abs(weights).max()), 2)
    ((100, 2, 27), 0.33)
    ```
    """
    if not _check(depth, shape):
        raise ValueError("uniform takes the fan-in from shape: got ().")
    bound = (3 / shape[-1]) ** 0.5
    return _drawn(jr.uniform, key, (depth, *shape), minval=-bound, maxval=bound)


def fractional_noise(
    depth: int, shape: Shape, *, hurst: float, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    r"""Fractional Gaussian noise: the increments of fractional Brownian motion $B^H$,

    $$ \begin{gathered} X_k = L^{H} \bigl(B^H_{(k+1)/L} - B^H_{k/L}\bigr), \\
       \mathbb{E} X_j X_{j+n}
       = \tfrac12 \bigl(|n+1|^{2H} - 2|n|^{2H} + |n-1|^{2H}\bigr), \end{gathered} $$

    normal of variance one, with independent entries. Exact for every $0 < H < 1$: the
    covariance is embedded in a circulant matrix, whose symmetric root is taken by
    Fourier transform. Source: `davies1987`.

    ```pycon
    >>> noise = fractional_noise(1000, (4,), hurst=0.8, key=jr.key(0))
    >>> noise.shape, bool((noise[1:] * noise[:-1]).mean() > 0)
    ((1000, 4), True)
    ```
    """
    require_within("(0, 1)", hurst=hurst)
    shape = _check(depth, shape)
    white = _drawn(jr.normal, key, (2 * depth, *shape))
    spectrum = jnp.fft.rfft(white, axis=0)
    root = jnp.asarray(_circulant_root(depth, hurst), spectrum.dtype)
    spectrum *= root.reshape(-1, *[1] * len(shape))
    return jnp.fft.irfft(spectrum, 2 * depth, axis=0)[:depth]


def _circulant_root(depth: int, hurst: float) -> Float[np.ndarray, " half"]:
    """The roots of the circulant's eigenvalues; rounding may push them below zero."""
    n = np.arange(depth + 1.0)
    powers = (np.abs(n - 1) ** (2 * hurst), n ** (2 * hurst), (n + 1) ** (2 * hurst))
    covariance = (powers[0] - 2 * powers[1] + powers[2]) / 2
    circulant = np.concatenate([covariance, covariance[-2:0:-1]])
    return np.sqrt(np.maximum(np.fft.rfft(circulant).real, 0.0))


def coarsened(
    noise: Float[Array, "depth ..."], factor: int, *, hurst: float = 0.5
) -> Float[Array, "coarse ..."]:
    r"""The noise of depth $L/r$ that belongs to the same path as a noise of depth $L$:

    $$ X'_j = r^{-H} \sum_{i < r} X_{rj + i}, $$

    again of variance one. It couples networks of different depth.

    ```pycon
    >>> noise = independent(8, (3,), key=jr.key(0))
    >>> coarse = coarsened(noise, 4)
    >>> ends = 8**-0.5 * noise.sum(0), 2**-0.5 * coarse.sum(0)  # of the same path
    >>> coarse.shape, bool(jnp.allclose(*ends, atol=1e-5))
    ((2, 3), True)
    ```
    """
    noise = as_floats("noise", noise)
    if not noise.ndim:
        raise ValueError("noise needs the depth as leading axis: got one number.")
    require_within("[0, 1)", hurst=hurst)  # 0: the sums, as they are
    depth = noise.shape[0]
    if not is_whole(factor) or depth % factor:
        raise ValueError(f"factor must divide the depth {depth}: got {factor}.")
    blocks = noise.reshape(depth // factor, factor, *noise.shape[1:])
    return blocks.sum(1) / factor**hurst


def smooth_increments(
    depth: int, shape: Shape, *, length_scale: float, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    r"""The increments $\mathcal{Z}((k+1)/L) - \mathcal{Z}(k/L)$ of a `SmoothPath` over
    their standard deviation $(2 - 2 \mathrm{e}^{-1/(2 L^2 \ell^2)})^{1/2}$.

    Of variance one; as $L$ grows they tend to samples of $\ell \mathcal{Z}'$. The same
    key gives the same path at every depth.
    """
    import scipy.special  # needed here alone, and slow to load

    path = SmoothPath(_check(depth, shape), length_scale, key=key)
    terms = np.arange(len(path.coefficients))
    u = (np.arange(depth + 1)[:, None] / depth - 0.5) / length_scale
    # The nodes are known before any draw: in float64, whatever the path's precision.
    # Differences of a float32 path keep no digit from some thousand layers on.
    gaps = np.diff(_poisson_roots(u, terms, np, scipy.special), axis=0)
    gaps /= (-2 * np.expm1(-1 / (2 * depth**2 * length_scale**2))) ** 0.5
    return _combined(jnp.asarray(gaps, path.coefficients.dtype), path.coefficients)


def along_path(path: Path, depth: int) -> PyTree[Shaped[Array, "depth ..."]]:
    r"""The samples $Z_{k+1} = \mathcal{Z}(k/L)$, $k = 0, \dots, L - 1$, of a path.

    Raises `ValueError` for a depth under 1 and for a path that is not finite.

    ```pycon
    >>> along_path(lambda s: s**2, 4).tolist()
    [0.0, 0.0625, 0.25, 0.5625]
    ```
    """
    _check(depth, ())
    samples = jax.vmap(path)(jnp.arange(depth) / depth)
    require_finite(f"path at depth {depth}", samples)
    return samples


class SmoothPath(eqx.Module):
    r"""A Gaussian process with independent entries and covariance
    $\mathrm{std}^2 \exp(-(s - s')^2 / 2\ell^2)$, as a function of $s \in [0, 1]$.

    The series $\mathrm{e}^{-u^2/2} \sum_n \xi_n u^n / \sqrt{n!}$ with
    $u = (s - \frac12)/\ell$ and independent standard normal $\xi_n$ has exactly this
    covariance. Its squared coefficients are the weights of a Poisson law of mean
    $u^2$; it is cut where the tail of that law is below $10^{-17}$.

    ```pycon
    >>> path = SmoothPath((2, 2), 0.3, key=jr.key(0))
    >>> path(0.5).shape, bool(abs(path(0.5) - path(0.5001)).max() < 0.01)
    ((2, 2), True)
    ```
    """

    coefficients: Float[Array, "terms ..."]
    length_scale: float = eqx.field(static=True)

    def __init__(
        self, shape: Shape, length_scale: float, *, std: float = 1.0, key: PRNGKeyArray
    ):
        require_within("[0.01, inf)", length_scale=length_scale)
        require_within("[0, inf)", std=std)
        mean = (0.5 / length_scale) ** 2
        terms = int(mean + 9 * mean**0.5 + 30)
        self.coefficients = std * _drawn(jr.normal, key, (terms, *_check(1, shape)))
        self.length_scale = length_scale

    def __call__(self, s: Float[Array, ""]) -> Float[Array, "..."]:
        u = (_time(s) - 0.5) / self.length_scale
        n = jnp.arange(self.coefficients.shape[0], dtype=u.dtype)
        return _combined(_differentiable_roots(u, n), self.coefficients)


def _poisson_roots(u: Any, n: Any, numpy: ModuleType, special: ModuleType) -> Any:
    r"""$\mathrm{e}^{-u^2/2} u^n / \sqrt{n!}$, by NumPy or by JAX."""
    logarithm = special.xlogy(n, abs(u)) - (u**2 + special.gammaln(n + 1)) / 2
    sign = numpy.where((u < 0) & (n % 2 == 1), -1.0, 1.0)
    return sign * numpy.exp(logarithm)


@jax.custom_jvp
def _differentiable_roots(u: Any, n: Any) -> Any:
    return _poisson_roots(u, n, jnp, jax.scipy.special)


@_differentiable_roots.defjvp
def _derivative_of_roots(primals: Any, tangents: Any) -> Any:
    r"""$\phi_n' = \sqrt n\, \phi_{n-1} - u \phi_n$: by way of $\log |u|$ it would be
    NaN at $u = 0$."""
    (u, n), (du, _) = primals, tangents
    roots = _differentiable_roots(u, n)
    below = _differentiable_roots(u, jnp.maximum(n - 1, 0))
    return roots, (jnp.sqrt(n) * below - u * roots) * du


def _combined(
    functions: Float[Array, "*times terms"], coefficients: Float[Array, "terms ..."]
) -> Float[Array, "..."]:
    # A GPU that multiplies in three digits would leave nothing smooth.
    return jnp.tensordot(functions, coefficients, axes=1, precision="highest")


def _time(s: Any) -> Float[Array, ""]:
    s = as_singles("s", s, shape=())
    require_within("[0, 1]", s=s)
    return s


class LacunaryPath(eqx.Module):
    r"""The dyadic Weierstrass function
    $s \mapsto \sum_{j < J} 2^{-\gamma j} \cos(2\pi 2^j s)$ times a fixed array.

    As $J \to \infty$ it is $\gamma$-Hölder and no better at any point. Its terms are
    in phase with every dyadic grid, the worst case for the Euler scheme.

    ```pycon
    >>> path = LacunaryPath(jnp.ones(2), 0.5, levels=10)
    >>> path(0.25).shape, bool(jnp.allclose(path(0.0), path(1.0), atol=1e-3))
    ((2,), True)
    ```
    """

    direction: Float[Array, "..."]
    gamma: float = eqx.field(static=True)
    levels: int = eqx.field(static=True)

    def __init__(self, direction: Float[Array, "..."], gamma: float, levels: int = 20):
        require_within("(0, 1]", gamma=gamma)
        require_whole(levels=levels)
        if levels > _MOST_LEVELS:
            raise ValueError(f"levels are at most {_MOST_LEVELS}: got {levels}.")
        self.direction = as_floats("direction", direction)
        self.gamma, self.levels = gamma, levels

    def __call__(self, s: Float[Array, ""]) -> Float[Array, "..."]:
        s = _time(s)
        scale = 2.0 ** jnp.arange(self.levels, dtype=s.dtype)
        # cos has period one in `s * scale`: reduced first, it loses no digits
        phase = jnp.mod(s * scale, 1.0)
        return self.direction * jnp.sum(
            scale**-self.gamma * jnp.cos(2 * jnp.pi * phase)
        )


class PiecewiseConstant(eqx.Module):
    r"""The step function $s \mapsto Z_{\lfloor L s \rfloor + 1}$ of stacked layers.

    ```pycon
    >>> path = PiecewiseConstant(jnp.array([1.0, 2.0, 4.0, 8.0]))
    >>> float(path(0.3)), float(path(0.8))
    (2.0, 8.0)
    ```
    """

    layers: PyTree[Shaped[Array, "depth ..."]]

    def __check_init__(self):
        _check_depths(self.layers)

    def __call__(self, s: Float[Array, ""]) -> PyTree:
        index, _ = _cell(self.layers, s)
        return jax.tree.map(lambda z: jnp.asarray(z)[index], self.layers)


class PiecewiseLinear(eqx.Module):
    r"""The continuous function that is $Z_{k+1}$ at $s = k/L$ and linear between.

    After the last node, $s = (L - 1)/L$, it is constant.

    ```pycon
    >>> path = PiecewiseLinear(jnp.array([1.0, 2.0, 4.0, 8.0]))
    >>> float(path(0.25)), float(path(0.375))
    (2.0, 3.0)
    ```
    """

    layers: PyTree[Shaped[Array, "depth ..."]]

    def __check_init__(self):
        _check_depths(self.layers)

    def __call__(self, s: Float[Array, ""]) -> PyTree:
        index, fraction = _cell(self.layers, s)

        def between(z):
            z = as_singles("layers", z) if jnp.size(z) else jnp.asarray(z)
            following = z[jnp.minimum(index + 1, z.shape[0] - 1)]
            return z[index] + fraction * (following - z[index])

        return jax.tree.map(between, self.layers)


def _check_depths(layers: PyTree) -> None:
    leaves = [as_real("layers", z, jnp.asarray) for z in jax.tree.leaves(layers)]
    depths = {leaf.shape[:1] for leaf in leaves}
    if len(depths) != 1 or not any(min(depths)):
        raise ValueError(
            "layers need one common depth of at least 1 as leading axis: got "
            f"{sorted(depths)}."
        )


def _cell(layers: PyTree, s: Float[Array, ""]) -> tuple[Array, Array]:
    """The index of the cell of depth that holds `s`, and how far `s` is along it."""
    depth = jax.tree.leaves(layers)[0].shape[0]
    position = _time(s) * depth
    # s = k/L is rounded: without the slack, L * s may fall just below k
    slack = min(2 * depth * jnp.finfo(position.dtype).eps, 0.5)
    index = jnp.clip(jnp.floor(position + slack), 0, depth - 1)
    return index.astype(int), jnp.clip(position - index, 0, 1)
