r"""The idealised problem: any field at all, paid for by its kinetic energy.

$$ \min_v\; \int \tfrac12 |x_T - y|^2\, \mathrm{d}\mu_0(x_0, y)
   + \frac\lambda2 \int_0^T\!\!\int |v|^2\, \mathrm{d}\mu_t\, \mathrm{d}t,
   \qquad \dot x = v, $$

has its minimum in closed form, and networks approach it or do not. The lines are
straight, so that one step of Euler's method is exact: depth is irrelevant here.
Source: `isobe2024` for the problem; the closed forms are ours.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize

from ..checks import (
    as_floats,
    as_scalar,
    require_finite,
    require_shape,
)
from ..measures.laws import as_shares


class Lines(NamedTuple):
    r"""Straight lines at constant speed: where each point ends, and what it costs.

    `costs` are $\frac12 |z - y|^2 + \frac{\lambda}{2T} |z - x|^2$ of each point, for
    its end $z$; `value` is their mean.

    ```pycon
    >>> lines = straight_lines(jnp.zeros((5, 2)), jnp.ones((5, 2)), decay=1.0)
    >>> lines.ends.shape, lines.costs.tolist()
    ((5, 2), [0.5, 0.5, 0.5, 0.5, 0.5])
    ```
    """

    ends: Float[Array, "points d"]
    costs: Float[Array, " points"]
    value: Float[Array, ""]


def straight_lines(
    inputs: Float[Array | np.ndarray, "points ..."],
    labels: Float[Array | np.ndarray, "points ..."],
    weights: Float[Array | np.ndarray, " points"] | None = None,
    *,
    decay: float | Float[Array, ""],
    duration: float | Float[Array, ""] = 1.0,
) -> Lines:
    r"""The minimum over fields $v(t, x, y)$ that may see the label:

    $$ z = \frac{\lambda x + T y}{\lambda + T}, \qquad
       \frac{\lambda}{2 (\lambda + T)} \int |x - y|^2\, \mathrm{d}\mu_0. $$

    For fields $v(t, x)$ that do not see it this is a lower bound, which is attained
    where the lines do not cross. `decay` is $\lambda$ and `duration` $T$. Points on the
    line may be `(points,)`. Raises `ValueError` for inputs and labels of different
    shapes or that are not finite, for weights that are negative or do not sum to 1, and
    for a $\lambda$ or $T$ that is not positive. May be compiled and differentiated.

    ```pycon
    >>> lines = straight_lines(jnp.array([0.0]), jnp.array([1.0]), decay=1.0)
    >>> lines.ends.tolist(), float(lines.value)
    ([[0.5]], 0.25)
    ```
    """
    x, y, w = _data(inputs, labels, weights)
    q = _ratio(decay, duration, x.dtype)
    return _lines(x, y, w, _ends(x, y, q), q)


def ordered_lines(
    inputs: Float[Array | np.ndarray, "points ..."],
    labels: Float[Array | np.ndarray, "points ..."],
    weights: Float[Array | np.ndarray, " points"] | None = None,
    *,
    decay: float,
    duration: float = 1.0,
) -> Lines:
    r"""The infimum on the line over fields $v(t, x)$ that do not see the label.

    Flows keep the order of points: $z$ is the projection of the ends of
    `straight_lines` to non-decreasing functions of $x$ (isotonic regression), and the
    value is that of `straight_lines` and $\frac{\lambda + T}{2 T}$ times the squared
    distance of the projection. Where $z$ is constant over several points the infimum is
    approached by flows and attained by none. Points at one place keep together. Raises
    `ValueError` as `straight_lines` does, and for points that are not on the line. On
    the host (SciPy): not inside `jax.jit`.

    ```pycon
    >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [0.0]])
    >>> ordered = ordered_lines(x, y, decay=0.25)
    >>> free = straight_lines(x, y, decay=0.25)
    >>> ordered.ends.ravel().round(2).tolist(), bool(ordered.value > free.value)
    ([0.5, 0.5], True)
    ```
    """
    x, y, w = _data(inputs, labels, weights)
    require_shape("inputs", x, (None, 1))
    q = _ratio(decay, duration, x.dtype)
    wanted = np.asarray(_ends(x, y, q), float)[:, 0]
    masses = np.asarray(w, float)
    places, where = np.unique(np.asarray(x)[:, 0], return_inverse=True)
    total = np.bincount(where, masses)
    held = total > 0
    means = np.bincount(where, masses * wanted)[held] / total[held]
    fitted = optimize.isotonic_regression(means, weights=total[held]).x
    ends = np.interp(places, places[held], fitted)[where]  # without weight: in between
    return _lines(x, y, w, jnp.asarray(ends[:, None], x.dtype), q)


def _ratio(decay: Any, duration: Any, dtype: Any) -> Float[Array, ""]:
    r"""$\lambda / T$, and at most one over the rounding: where it is larger no point
    moves, to rounding, and the value is the same."""
    scales = {"decay": decay, "duration": duration}
    a, b = (as_scalar(k, v, dtype, within="(0, inf)") for k, v in scales.items())
    return jnp.minimum(a / b, 1 / jnp.finfo(dtype).eps)


def _ends(x: Array, y: Array, q: Array) -> Array:
    return x + (y - x) / (1 + q)


def _data(inputs: Any, labels: Any, weights: Any) -> tuple[Array, Array, Array]:
    x, y = as_floats("inputs", inputs), as_floats("labels", labels)
    x, y = (a[:, None] if a.ndim == 1 else a for a in (x, y))
    require_shape("inputs", x, (None, None))
    require_shape("labels", y, x.shape)
    require_finite("inputs", x)
    require_finite("labels", y)
    return x, y.astype(x.dtype), as_shares(weights, x)


@jax.jit
def _lines(x: Array, y: Array, w: Array, ends: Array, q: Array) -> Lines:
    misses, ways = (jnp.sum((ends - a) ** 2, axis=1) for a in (y, x))
    costs = misses / 2 + q / 2 * ways
    return Lines(ends, costs, jnp.sum(w * costs))
