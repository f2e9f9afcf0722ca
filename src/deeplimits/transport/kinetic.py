r"""The kinetic energy of a flow: what it costs to carry a law along paths.

Of a law $\mu_t$ that a field $v$ moves during $[0, T]$ it is

$$ \int_0^T\!\!\int |v(t, x)|^2\, \mathrm{d}\mu_t(x)\, \mathrm{d}t
   = \int \int_0^T |\dot x|^2\, \mathrm{d}t\, \mathrm{d}\mu_0, $$

with no factor $\frac12$. By Cauchy and Schwarz it is no less than that of straight
lines at constant speed with the same ends, hence than $W_2^2(\mu_0, \mu_T) / T$.
Source: `benamou2000`.
"""

from typing import NamedTuple, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..checks import as_floats, as_scalar, require_finite
from ..measures.laws import as_shares


class Kinetic(NamedTuple):
    r"""The kinetic energy $\int\int |\dot x|^2$ of paths, in two parts.

    `straight` is that of straight lines at constant speed with the same ends, and
    `excess` what the paths spend besides, $\int \int |\dot x - \bar v|^2$ with the mean
    velocity $\bar v$ of each path: bends and changes of speed.

    ```pycon
    >>> found = kinetic_energy(jnp.array([[0.0], [2.0], [0.0]]))
    >>> float(found.straight), float(found.excess)
    (0.0, 16.0)
    ```
    """

    straight: Float[Array, ""]
    excess: Float[Array, ""]

    @property
    def energy(self) -> Float[Array, ""]:
        """The whole of it."""
        return self.straight + self.excess

    @property
    def share(self) -> Float[Array, ""]:
        """The share of the excess, between 0 (straight lines) and 1 (back to where
        they began); NaN for paths at rest."""
        return self.excess / self.energy


def kinetic_energy(
    paths: Float[Array | np.ndarray, "times points ..."],
    weights: Float[Array | np.ndarray, " points"] | None = None,
    *,
    duration: SupportsFloat | Float[Array, ""] = 1.0,
) -> Kinetic:
    r"""The kinetic energy of points $x_s$ with weights $w_s$ on paths that are linear
    between $n + 1$ equally spaced times,

    $$ \sum_s w_s \sum_{k<n} \frac{|x_{s,k+1} - x_{s,k}|^2}{h},
       \qquad h = \frac Tn. $$

    The states of a network, $x_{k+1} = x_k + h f(x_k, \theta_k)$, are such paths, and
    this is $h \sum_k \int |f(x, \theta_k)|^2\, \mathrm{d}\mu_k$. Points on the line may
    be `(times, points)`. Raises `ValueError` for fewer than two times, for values that
    are not finite, for weights that are negative or do not sum to 1, and for a
    `duration` that is not positive. May be compiled and differentiated.

    ```pycon
    >>> found = kinetic_energy(jnp.array([[0.0], [1.0], [3.0]]))
    >>> float(found.straight), float(found.excess)
    (9.0, 1.0)
    ```
    """
    x = as_floats("paths", paths)
    x = x[..., None] if x.ndim == 2 else x
    if x.ndim != 3 or len(x) < 2:
        raise ValueError(
            "paths must have shape (times, points, d), of two times at least: got "
            f"{np.shape(paths)}."
        )
    require_finite("paths", x)
    time = as_scalar("duration", duration, x.dtype, within="(0, inf)")
    return Kinetic(*_parts(x, as_shares(weights, x[0]), time))


@jax.jit
def _parts(x: Array, w: Array, duration: Array) -> tuple[Array, Array]:
    n = len(x) - 1
    mean = (x[-1] - x[0]) / n
    straight = n**2 * jnp.sum(mean**2, axis=1) / duration
    strayed = jnp.diff(x, axis=0) - mean[None]
    excess = n * jnp.sum(strayed**2, axis=(0, 2)) / duration
    return jnp.sum(w * straight), jnp.sum(w * excess)
