r"""The transport equation of the mean field, by conservative finite volumes.

$$ \partial_t g + \nabla \cdot \bigl(\sigma(w(t) x + b(t))\, g\bigr) = 0 $$

in one dimension or two, on equal cells. Nothing flows in; what flows out is counted.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ..checks import (
    as_doubles,
    as_floats,
    holds,
    require_finite,
    require_known,
    require_whole,
    require_within,
)
from ..residual import Activation, OneLayer
from .controls import pieces_of

Edges = Any  # an array of edges, or one for each axis


def as_edges(edges: Edges) -> tuple[Array, ...]:
    """The edges of the cells along each axis, one more than cells.

    Raises `ValueError` for edges that do not increase.
    """
    axes = edges if isinstance(edges, tuple) else (edges,)
    arrays = tuple(as_floats("edges", each, shape=(None,)) for each in axes)
    for each in arrays:
        if each.size < 3 or not holds(lambda e: (np.diff(e) > 0).all(), each):
            raise ValueError(
                f"edges must increase, from two cells on: got {np.asarray(each)!s:.80}."
            )
        require_finite("edges", each)
    return arrays


def as_density(
    density: Any, edges: tuple[Array, ...], name: str = "density", slack: float = 0.0
) -> Array:
    """A density by its averages in cells, in the type of the edges.

    Raises `ValueError` for another number of cells, and where it is not finite, or
    negative by more than `slack` times its largest value; warns of another mass than 1.
    """
    cells = tuple(each.size - 1 for each in edges)
    g = as_floats(name, density, shape=cells).astype(edges[0].dtype)
    require_finite(name, g)
    if not holds(lambda g: (g >= -slack * g.max()).all(), g):
        raise ValueError(f"{name} must not be negative: its least value is {g.min()}.")
    if not any(isinstance(array, Tracer) for array in (g, *edges)):
        total = np.asarray(g, np.float64)
        for each in edges:
            total = np.tensordot(np.diff(each), total, axes=1)
        if abs(total - 1) > 1e-3:
            warnings.warn(f"the {name} has mass {total:.4g}, not 1.", stacklevel=3)
    return g


def cell_averages(
    cdf: Callable[[Any], Any],
    edges: Any,
    survival: Callable[[Any], Any] | None = None,
) -> Float[np.ndarray, " cells"]:
    """The averages of a density in cells on the line, from its distribution function:
    exact, where values in the middle of the cells are not. With the survival function,
    1 less the other, the upper tail keeps its digits, too.

    ```pycon
    >>> cell_averages(lambda x: np.clip(x, 0, 1), np.linspace(0, 2, 5)).tolist()
    [1.0, 1.0, 0.0, 0.0]
    ```
    """
    edges = as_doubles("edges", edges, shape=(None,))
    if edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(f"edges must increase, from one cell on: got {edges!s:.80}.")
    values = np.asarray(cdf(edges), np.float64)
    masses = np.diff(values)
    if survival is not None:
        above = -np.diff(np.asarray(survival(edges), np.float64))
        masses = np.where(values[:-1] < 0.5, masses, above)
    return masses / np.diff(edges)


class Transported(eqx.Module):
    """What became of a density, and what the scheme did.

    `courant` is the largest Courant number, at most 1; `lost` what flowed out through
    the walls; `defect` by how much mass and loss together differ from the start's mass,
    by rounding; `least` the smallest value of the density; `history` the densities at
    the start and after each piece, where they were asked for.

    ```pycon
    >>> from deeplimits.meanfield.controls import line_control
    >>> control = line_control(0.0, 1.0, activation="identity")
    >>> edges = jnp.linspace(0, 1, 9)
    >>> moved = transport(jnp.ones(8), edges, control, duration=0.5, order=1)
    >>> moved.steps, round(float(moved.lost), 4)  # half flows out on the right
    (4, 0.5)
    ```
    """

    density: Float[Array, "..."]
    steps: int = eqx.field(static=True)
    courant: Float[Array, ""]
    lost: Float[Array, ""]
    defect: Float[Array, ""]
    least: Float[Array, ""]
    history: Float[Array, "..."] | None

    def require_kept(self, most: float = 1e-6) -> "Transported":
        """The same; `ValueError` if more than `most` was lost: the box is too small."""
        require_within("[0, inf)", most=most)
        if abs(self.lost) > most:
            raise ValueError(
                f"the box is too small: mass {self.lost:.3g} left it, more than {most}."
            )
        return self


def transport(
    density: Float[Array | np.ndarray, "..."],
    edges: Edges,
    control: OneLayer,
    *,
    duration: float = 1.0,
    steps: int | None = None,
    order: int = 2,
    keep: bool = False,
    spread: bool = False,
) -> Transported:
    r"""The density after time $T$, from its averages in equal cells, in one dimension
    or two: `density` is $(n)$ or $(n_1, n_2)$, and `edges` an array or a pair of them.

    Order 1 is upwind, $F_{i+1/2} = a^+ g_i + a^- g_{i+1}$ with $a$ in the middle of a
    face, and order 2 takes the values at both sides of it from slopes with the MC
    limiter, in two-stage steps that preserve positivity. `steps` are those in each
    piece of the control; by default the fewest that the Courant number allows:

    $$ \begin{gathered}
       \Delta t \max \sum_{\mathrm{axes}} \frac{a^+_{i+1/2} - a^-_{i-1/2}}{\Delta x}
       \le 1, \\
       2 \Delta t \max \sum_{\mathrm{axes}}
       \frac{\max(a^+_{i+1/2}, -a^-_{i-1/2})}{\Delta x} \le 1
       \end{gathered} $$

    for order 1 and 2; then no value becomes negative. Derivatives go forwards through
    it (`jax.jvp`, `jax.jacfwd`). `keep` also returns the density after each piece.
    With `spread` each device of `over_devices` has a strip of cells across the first
    axis, and gets the cells beside it from its neighbours.

    Raises `ValueError` for more than that, with the longest admissible step, for cells
    that are not equal or that the devices do not divide, and for a density that is
    negative, not finite or of another shape; warns of a mass that is not 1.

    ```pycon
    >>> from deeplimits.meanfield import controls
    >>> control = controls.line_control(0.0, 1.0, activation="identity")
    >>> density = jnp.array([0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    >>> moved = transport(density, jnp.linspace(0, 2, 9), control, duration=1.0)
    >>> moved.density.shape, round(float(moved.density.sum() / 4), 4)  # mass
    ((8,), 0.9916)
    ```
    """
    edges = _equal(as_edges(edges))
    g = as_density(density, edges)
    pieces, _ = pieces_of(control, len(edges))
    require_within("[0, inf)", duration=duration)
    require_known("order", str(order), ("1", "2"))
    spread = spread and _divided(len(g), order)
    h = duration / pieces
    rate = _fastest(edges, control.weight, control.bias, control.activation, order)
    steps = _admissible(rate, h, steps)
    dt = jnp.asarray(h / steps, g.dtype)
    if isinstance(rate, Tracer):
        g = eqx.error_if(g, dt * rate > 1 + 1e-6, "the Courant number exceeds 1.")
    arrays = g, edges, control.weight, control.bias, dt, steps
    found, *numbers = _march(*arrays, control.activation, order, keep, spread)
    return Transported(found, steps * pieces, dt * rate, *numbers)


def _equal(edges: tuple[Array, ...]) -> tuple[Array, ...]:
    def equal(e):
        return np.ptp(np.diff(e)) < 1e-3 * np.diff(e).mean()

    if len(edges) > 2 or not all(holds(equal, each) for each in edges):
        raise ValueError("edges must be those of equal cells, along one axis or two.")
    return edges


def _divided(cells: int, order: int) -> bool:
    """Whether there are several devices; `ValueError` if they do not divide them."""
    devices = len(jax.devices())
    if cells % devices or cells < order * devices:
        raise ValueError(
            f"{cells} cells do not divide over {devices} devices, {order} or more each."
        )
    return devices > 1


def _admissible(rate: Array, h: float, steps: int | None) -> int:
    """The number of steps in a piece; `ValueError` for too few."""
    if steps is not None:
        require_whole(steps=steps)
    if isinstance(rate, Tracer):
        if steps is None:
            raise ValueError("steps must be given where the control has no values yet.")
        return steps
    least = max(1, math.ceil(float(rate) * h * (1 - 1e-9)))
    if steps is not None and steps < least:
        raise ValueError(
            f"steps={steps} a piece makes the Courant number "
            f"{float(rate) * h / steps:.3g}: the longest step is "
            f"{1 / float(rate):.3g}, so that it takes at least {least}."
        )
    return least if steps is None else steps


def _faces(
    edges: tuple[Array, ...],
    axis: int,
    layer: tuple[Array, Array],
    activation: Activation,
) -> Array:
    """The velocity along one axis in the middle of the faces across it."""
    weight, bias = layer
    z = bias[axis]
    for j, each in enumerate(edges):
        x = each if j == axis else (each[1:] + each[:-1]) / 2
        shape = tuple(x.size if k == j else 1 for k in range(len(edges)))
        z = z + weight[axis, j] * x.reshape(shape)
    return activation(z)


@partial(jax.jit, static_argnames=("activation", "order"))
def _fastest(edges, weight, bias, activation, order):
    """The reciprocal of the longest admissible step, over all pieces and cells."""

    def piece(layer):
        rates = jnp.zeros(())
        for axis, each in enumerate(edges):
            a = _faces(edges, axis, layer, activation)
            right = jnp.maximum(_cut(a, axis, 1, None), 0)
            left = jnp.maximum(-_cut(a, axis, 0, -1), 0)
            both = right + left if order == 1 else 2 * jnp.maximum(right, left)
            rates = rates + both / (each[1] - each[0])
        return rates.max()

    return jax.lax.map(piece, (weight, bias)).max()


def _cut(g: Array, axis: int, start: int, stop: int | None) -> Array:
    index: Sequence[Any] = [slice(None)] * g.ndim
    index = [*index[:axis], slice(start, stop), *index[axis + 1 :]]
    return g[tuple(index)]


def _pad(g: Array, axis: int, cells: int, spread: bool) -> Array:
    """With the cells beside: those of the neighbours, or none, where nothing is."""
    if not (spread and axis == 0):
        return jnp.pad(g, [(cells * (k == axis),) * 2 for k in range(g.ndim)])
    up = [(i, i + 1) for i in range(jax.lax.axis_size("strips") - 1)]
    down = [(j, i) for i, j in up]
    before = jax.lax.ppermute(g[-cells:], "strips", up)  # zero for the first
    behind = jax.lax.ppermute(g[:cells], "strips", down)
    return jnp.concatenate([before, g, behind])


def _limited(g: Array, axis: int) -> Array:
    """Half of the MC slope of all cells but the first and the last."""
    d = _cut(g, axis, 1, None) - _cut(g, axis, 0, -1)
    left, right = _cut(d, axis, 0, -1), _cut(d, axis, 1, None)
    size = jnp.minimum(jnp.abs(left), jnp.abs(right))
    size = jnp.minimum(size, jnp.abs(left + right) / 4)
    return jnp.where(left * right > 0, jnp.sign(left) * size, 0)


def _flux(g: Array, a: Array, axis: int, order: int, spread: bool) -> Array:
    """What flows through the faces across one axis; outside there is nothing."""
    if order == 1:
        g = _pad(g, axis, 1, spread)
        left, right = _cut(g, axis, 0, -1), _cut(g, axis, 1, None)
    else:
        g = _pad(g, axis, 2, spread)
        half = _limited(g, axis)
        g = _cut(g, axis, 1, -1)
        left = _cut(g + half, axis, 0, -1)
        right = _cut(g - half, axis, 1, None)
    return jnp.maximum(a, 0) * left + jnp.minimum(a, 0) * right


@partial(jax.jit, static_argnames=("activation", "order", "keep", "spread"))
def _march(g, edges, weight, bias, dt, steps, activation, order, keep, spread):
    widths = [(each[-1] - each[0]) / (each.size - 1) for each in edges]
    settings = {"activation": activation, "order": order, "keep": keep}
    arrays = g, edges, widths, weight, bias, dt, steps
    if not spread:
        return _strip(*arrays, **settings, spread=False)
    one, all_ = PartitionSpec("strips"), PartitionSpec()
    return jax.shard_map(
        partial(_strip, **settings, spread=True),
        mesh=Mesh(jax.devices(), ("strips",)),
        in_specs=(one, *[all_] * 6),
        out_specs=(one, all_, all_, all_, PartitionSpec(None, "strips")),
        check_vma=False,
    )(*arrays)


def _strip(
    g, edges, widths, weight, bias, dt, steps, *, activation, order, keep, spread
):
    """All steps in the cells of one device. Its sums are over all of them."""

    def over_strips(sum_or_least, number):
        return sum_or_least(number, "strips") if spread else number

    if spread:
        first = jax.lax.axis_index("strips") * len(g)
        here = jax.lax.dynamic_slice(edges[0], (first,), (len(g) + 1,))
        edges = here, *edges[1:]

    def change(g, faces):
        """What a step of Euler's scheme adds, and what flows out of each wall's cells:
        their sum would be a kernel of its own in every step."""
        total, walls = jnp.zeros_like(g), []
        for axis, (a, dx) in enumerate(zip(faces, widths, strict=True)):
            F = _flux(g, a, axis, order, spread) * (dt / dx)
            total = total + _cut(F, axis, 0, -1) - _cut(F, axis, 1, None)
            walls += [_cut(F, axis, -1, None), -_cut(F, axis, 0, 1)]
        return total, jnp.concatenate([wall.ravel() for wall in walls])

    def step(start, faces):
        def stage(n, carry):
            g, lost = carry
            moved, out = change(g, faces)
            n = jnp.asarray(n, g.dtype)
            end = (n * start[0] + g + moved) / (1 + n)
            return end, lost + out / order

        if order == 1:
            return stage(0, start)
        # a loop: XLA would compute the first again for each use in the second
        return jax.lax.fori_loop(0, 2, stage, start)

    def piece(carry, layer):
        faces = [_faces(edges, axis, layer, activation) for axis in range(len(edges))]
        carry = jax.lax.fori_loop(0, steps, lambda _, start: step(start, faces), carry)
        return carry, carry[0] if keep else None

    start = g, jnp.zeros(2 * sum(g.size // n for n in g.shape), g.dtype)
    (end, lost), history = jax.lax.scan(piece, start, (weight, bias))
    volume = math.prod(widths)
    lost = over_strips(jax.lax.psum, lost.sum()) * volume
    defect = over_strips(jax.lax.psum, end.sum() - g.sum()) * volume + lost
    if history is not None:
        history = jnp.concatenate([g[None], history])
    return end, lost, defect, over_strips(jax.lax.pmin, end.min()), history
