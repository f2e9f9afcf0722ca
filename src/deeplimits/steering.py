r"""Steering: piecewise constant weights that take many points to their targets at once.

A *shear* moves points along vectors that its reading does not see. Where $W V = 0$ the
reading $W x$ of the flow

$$ \dot x = V \sigma(W x + b) $$

does not change, so that the flow over a time $\tau$ is
$x + \tau V \sigma(W x + b)$: one layer, exactly. Every steering here is therefore a
`ResNet` with a layer for each piece, and the flow of its pieces at the same time.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike
from scipy import stats

from .checks import (
    as_doubles,
    as_floats,
    require_finite,
    require_floats,
    require_known,
    require_times,
    require_whole,
    require_within,
)
from .meanfield.closed_forms import divided
from .residual import (
    AbstractBlock,
    Activation,
    OneLayer,
    ResNet,
    named_activation,
)

FLAT = 20.0  # where tanh is 1 to the last digit


class Shears(AbstractBlock):
    r"""The two-layer perceptron with a bias, $f(h, Z) = V \sigma(W h + b)$,

    with $Z = (V, W, b)$, $V \in \mathbb{R}^{d \times p}$ and
    $W \in \mathbb{R}^{p \times d}$. Where $W V = 0$ it is $p$ shears at once.

    ```pycon
    >>> block = Shears(jnp.ones((2, 1)), jnp.array([[1.0, 0.0]]), jnp.array([0.5]))
    >>> block(jnp.array([1.0, 3.0])).tolist()
    [1.5, 1.5]
    ```
    """

    outer: Float[Array, "*depth d p"]
    inner: Float[Array, "*depth p d"]
    bias: Float[Array, "*depth p"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        outer: Float[Array, "*depth d p"],
        inner: Float[Array, "*depth p d"],
        bias: Float[Array, "*depth p"],
        *,
        activation: str | Activation = "relu",
    ):
        for name, weights in (("outer", outer), ("inner", inner), ("bias", bias)):
            require_floats(name, weights)
        turned = (*outer.shape[:-2], *outer.shape[:-3:-1])
        if outer.ndim < 2 or inner.shape != turned or bias.shape != turned[:-1]:
            raise ValueError(
                "outer must be (depth, d, p), inner (depth, p, d) and bias (depth, p): "
                f"got {outer.shape}, {inner.shape} and {bias.shape}."
            )
        self.outer, self.inner, self.bias = outer, inner, bias
        self.activation = named_activation(activation)

    def __call__(self, h: Float[Array, " d"]) -> Float[Array, " d"]:
        h, d = as_floats("h", h), self.inner.shape[-1]
        if h.shape[-1:] != (d,):
            raise ValueError(f"h must have {d} entries: got shape {h.shape}.")
        return self.activation(h @ self.inner.T + self.bias) @ self.outer.T


@dataclass(frozen=True)
class Steering:
    r"""What steers, and what it takes.

    `network` has one layer for each piece, whose step is how long the piece lasts.
    `cost` is $\int \|V\| \|W\| \,\mathrm{d}t$ in operator norms, with $V = I$ where
    there is no outer matrix, and `error` the largest distance, in any coordinate,
    between where a point arrives in the network's precision and its target.

    ```pycon
    >>> found = steer([[0.0, 0.0]], [[1.0, 1.0]])
    >>> found.network(jnp.zeros(2)).round(3)
    Array([1., 1.], dtype=float32)
    ```
    """

    network: ResNet
    durations: np.ndarray
    cost: float
    error: float

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self.durations)

    @property
    def duration(self) -> float:
        """How long all of them last."""
        return float(self.durations.sum())

    def positions(
        self, points: ArrayLike, times: ArrayLike
    ) -> Float[np.ndarray, "times n d"]:
        """Where the flow has the points, `(n, d)`, at these times from 0 to `duration`:
        within a piece they move on straight lines, at constant speed."""
        x = as_floats("points", points, shape=(None, None))
        require_finite("points", x)
        times = as_doubles("times", times, shape=(None,))
        ends = np.append(0.0, np.cumsum(self.durations))
        require_times("times", times, ends[-1])
        nodes = np.asarray(_paths(self.network, x))
        place = np.clip(np.searchsorted(ends, times, "right") - 1, 0, self.pieces - 1)
        length = np.where(self.durations[place] > 0, self.durations[place], 1.0)
        part = np.clip((times - ends[place]) / length, 0, 1)[:, None, None]
        start, end = nodes[:, place].swapaxes(0, 1), nodes[:, place + 1].swapaxes(0, 1)
        return start + part * (end - start)


def hinge_flow(
    x: Float[Array | np.ndarray, "n d"],
    outer: Float[Array | np.ndarray, " d"],
    inner: Float[Array | np.ndarray, " d"],
    bias: float | Float[Array, ""] = 0.0,
) -> Float[Array, "n d"]:
    r"""Where one hinge, a shear or not, has the points after time 1: the flow of

    $$ \begin{gathered} \dot x = v\, \mathrm{ReLU}(\langle a, x \rangle + b)
       \quad \text{is} \\
       x + \varphi(\langle a, v \rangle)\,
       \mathrm{ReLU}(\langle a, x \rangle + b)\, v, \\
       \varphi(\lambda) = (e^\lambda - 1)/\lambda, \quad \varphi(0) = 1,
       \end{gathered} $$

    with $v$ = `outer` and $a$ = `inner`, since what is read, $z = \langle a, x \rangle
    + b$, obeys $\dot z = \langle a, v \rangle \max(z, 0)$. It costs $\|v\| \|a\|$.

    ```pycon
    >>> x, one = jnp.array([[1.0], [-1.0]]), jnp.ones(1)
    >>> moved = hinge_flow(x, one, one)  # by e, and where it reads nothing not at all
    >>> [round(end, 3) for end in moved.ravel().tolist()]
    [2.718, -1.0]
    ```
    """
    x = as_floats("x", x, shape=(None, None))
    v = as_floats("outer", outer, shape=x.shape[1:])
    a = as_floats("inner", inner, shape=x.shape[1:])
    b = as_floats("bias", bias, shape=())
    for name, values in (("x", x), ("outer", v), ("inner", a), ("bias", b)):
        require_finite(name, values)
    push, growth = jnp.outer(jnp.maximum(x @ a + b, 0), v), divided(jnp.expm1, a @ v)
    # what is not pushed stands still, also where others have gone to infinity
    still = (push == 0) & jnp.isinf(growth)
    return jnp.add(x, jnp.where(still, 1, growth) * push)


# ------------------------------------------------------------- with an outer vector


def steer(
    points: ArrayLike,
    targets: ArrayLike,
    *,
    activation: str = "relu",
    width: int = 1,
    slope: float = 4.0,
    directions: int = 720,
) -> Steering:
    r"""At most $2 \lceil n/p \rceil$ pieces of width $p$ that take each $x_i$ to its
    $y_i$: for distinct points and distinct targets in two dimensions or more,

    $$ \dot x = \sum_{j=1}^{p} v_j(t)\, \sigma(\langle a_j(t), x \rangle + b_j(t)). $$

    The first half reads $\langle u, x \rangle$ and gives every point the part of its
    target that is orthogonal to $u$; the second half reads $\langle e, x \rangle$,
    $e \perp u$, and moves along $u$. Each is an interpolation of $n$ values: by hinges
    of "relu", or by steps of "tanh" or "sigmoid", of slope `slope` over the gap
    in which they rise, which must exceed $\log 3$. Of so many `directions`, that $u$ is
    taken where the smallest gap of both readings is largest. The matrix of the $v_j$
    has operator norm 1: a piece lasts as long as it takes at this speed. Hinges throw
    points far out and back: 64 of them need float64, while steps do in float32.

    Raises `ValueError` for what is impossible, with the reason: in one dimension, equal
    points with different targets, different points with one target, an affine flow.

    ```pycon
    >>> points = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    >>> found = steer(points, points[::-1])
    >>> len(found.durations), found.error < 1e-3
    (6, True)
    ```
    """
    points, targets = _checked(points, targets)
    require_whole(width=width, directions=directions)
    _check_slope(slope)
    _refuse_affine(activation)
    require_known("activation for shears", activation, ("relu", "tanh", "sigmoid"))
    if points.shape[1] == 1:
        _refuse_line(points[:, 0], targets[:, 0])
    x, y = _distinct(points, targets)
    u, e = _best_pair(x, y, directions)
    change = y - x
    first = _stage(x @ u, change - np.outer(change @ u, u), u, activation, slope, width)
    # the second reads where the network has arrived, not where it should have
    x = _arrived(_shears(activation, *first)[0], x)
    change = np.outer((y - x) @ u, u)
    second = _stage(x @ e, change, e, activation, slope, width)
    arrays = map(np.concatenate, zip(first, second, strict=True))
    return _report(*_shears(activation, *arrays), points, targets)


class _Ridges(NamedTuple):
    """The function $s \\mapsto \\sum_k c_k \\sigma(\\alpha_k s + \\beta_k)$."""

    alpha: np.ndarray
    beta: np.ndarray
    coefficients: np.ndarray  # (ridges, d)


def _interpolation(
    s: np.ndarray, values: np.ndarray, activation: str, slope: float
) -> _Ridges:
    r"""A constant and $n - 1$ hinges or steps through $n$ values at distinct $s$.

    The differences of neighbouring rows of the steps' matrix are dominated by one
    entry, $2 \tanh(r/2)$ against $2(1 - \tanh(r/2))$ for all others together, where $r$
    is the slope: it is invertible for $r > \log 3$. That of the hinges is triangular.
    """
    order = np.argsort(s)
    s, values = s[order], values[order]
    gaps = np.diff(s)
    if not (gaps > 0).all():
        raise ValueError("points or targets are too close to be told apart.")
    if activation == "relu":
        alpha, beta = np.ones(gaps.size), -s[:-1]
        rises = np.diff(values, axis=0) / gaps[:, None]
        changes = np.diff(rises, axis=0, prepend=np.zeros((1, values.shape[1])))
        coefficients = np.concatenate([values[:1], changes])
        return _Ridges(np.append(0.0, alpha), np.append(1.0, beta), coefficients)
    alpha = np.append(0.0, slope / gaps)
    beta = np.append(FLAT, -alpha[1:] * (s[:-1] + gaps / 2))
    steps = np.tanh(s[:, None] * alpha + beta)
    if activation == "sigmoid":  # it is (1 + tanh(z/2)) / 2
        alpha, beta, steps = 2 * alpha, 2 * beta, (1 + steps) / 2
    return _Ridges(alpha, beta, np.linalg.solve(steps, values))


def _stage(
    s: np.ndarray,
    values: np.ndarray,
    reading: np.ndarray,
    activation: str,
    slope: float,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outer, inner and bias of pieces of that width, the last made up by zeros."""
    shears = _interpolation(s, values, activation, slope)
    pieces = -(-len(shears.alpha) // width)
    spare = pieces * width - len(shears.alpha)

    def pieced(rows):
        rows = np.pad(rows, ((0, spare), (0, 0)))
        return rows.reshape(pieces, width, -1)

    inner = pieced(np.outer(shears.alpha, reading))
    bias = pieced(shears.beta[:, None])[..., 0]
    return pieced(shears.coefficients).swapaxes(1, 2), inner, bias


def _shears(
    activation: str, outer: np.ndarray, inner: np.ndarray, bias: np.ndarray
) -> tuple[ResNet, np.ndarray, float]:
    """The network with outer matrices of norm 1, its durations and its cost."""
    durations = np.linalg.norm(outer, 2, axis=(1, 2))
    outer = outer / np.where(durations > 0, durations, 1.0)[:, None, None]
    block = Shears(*map(jnp.asarray, (outer, inner, bias)), activation=activation)
    cost = durations @ np.linalg.norm(inner, 2, axis=(1, 2))
    return _network(block, durations), durations, cost


def _best_pair(
    x: np.ndarray, y: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal $u$ and $e$ with the largest smallest gap of both readings, which
    rounding on the way must not close."""
    u, e = _orthonormal_pairs(x.shape[1], count)
    gaps = np.minimum(_gap(x @ u.T), _gap(y @ e.T))
    best = int(np.argmax(gaps))
    if not gaps[best] > np.finfo(float).eps * max(np.abs(x).max(), np.abs(y).max()):
        raise ValueError(
            f"points or targets are too close: none of {count} directions tells all "
            "of both apart."
        )
    return u[best], e[best]


def _orthonormal_pairs(d: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    if d == 2:
        angles = np.pi * np.arange(count) / count
        cos, sin = np.cos(angles), np.sin(angles)
        return np.stack([cos, sin], 1), np.stack([-sin, cos], 1)
    even = stats.qmc.Halton(2 * d, scramble=False).random(count + 1)[1:]
    normals = stats.norm.ppf(even).reshape(count, d, 2)
    q, _ = np.linalg.qr(normals)
    return q[..., 0], q[..., 1]


def _gap(values: np.ndarray) -> np.ndarray | np.float64:
    """The smallest gap in each column."""
    return np.diff(np.sort(values, axis=0), axis=0).min(axis=0, initial=math.inf)


# ---------------------------------------------------------- without an outer matrix


def steer_without_outer(
    points: ArrayLike,
    targets: ArrayLike,
    *,
    activation: str = "tanh",
    slope: float = 4.0,
    read: tuple[int, int] | None = None,
) -> Steering:
    r"""At most $dn + 2$ pieces of

    $$ \dot x = \sigma(W(t) x + b(t)), \qquad \sigma = \tanh, $$

    that take each $x_i$ to its $y_i$, in two dimensions or more: one coordinate moves
    at a time, all others rest since their rows of $W$ and $b$ vanish. The steps are
    those of `steer`; a piece lasts as long as the modulus of the coefficient of its
    step, whose sign goes into $W$ and $b$. `read` are the coordinate read first and the
    one read last, by default those with the largest gaps. It takes $dn$ pieces if the
    first tells all points apart and the other all targets, and one more for each that
    does not.
    No duration can be under $\max_i \|x_i - y_i\|_\infty$, as no speed exceeds 1.

    Raises `ValueError` for what is impossible, as `steer` does; without an outer matrix
    also for an activation that is never negative, since no coordinate then decreases.

    ```pycon
    >>> found = steer_without_outer([[0.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 3.0]])
    >>> found.error < 1e-3
    True
    ```
    """
    points, targets = _checked(points, targets)
    _check_slope(slope)
    _refuse_affine(activation)
    _refuse_positive(activation, points, targets)
    require_known("activation without outer matrix", activation, ("tanh",))
    if points.shape[1] == 1:
        _refuse_line(points[:, 0], targets[:, 0])
    x, y = _distinct(points, targets)
    pieces = list(_coordinate_pieces(x, y, slope, _coordinates(x, y, read)))
    weight = np.stack([piece.matrix(x.shape[1]) for piece in pieces])
    bias = np.stack([piece.vector(x.shape[1]) for piece in pieces])
    durations = np.array([abs(piece.coefficient) for piece in pieces])
    block = OneLayer(jnp.asarray(weight), jnp.asarray(bias), activation="tanh")
    cost = durations @ np.linalg.norm(weight, 2, axis=(1, 2))
    return _report(_network(block, durations), durations, cost, points, targets)


class _Step(NamedTuple):
    """One coordinate moves by $c \\tanh(\\langle w, x \\rangle + \\beta)$."""

    moved: int
    reading: np.ndarray
    bias: float
    coefficient: float

    def matrix(self, d: int) -> np.ndarray:
        rows = np.zeros((d, d))
        rows[self.moved] = math.copysign(1, self.coefficient) * self.reading
        return rows

    def vector(self, d: int) -> np.ndarray:
        entries = np.zeros(d)
        entries[self.moved] = math.copysign(1, self.coefficient) * self.bias
        return entries

    def change(self, x: np.ndarray) -> np.ndarray:
        moved = self.coefficient * np.tanh(x @ self.reading + self.bias)
        return np.outer(moved, np.eye(x.shape[1])[self.moved])


def _coordinates(
    x: np.ndarray, y: np.ndarray, read: tuple[int, int] | None
) -> tuple[int, int]:
    def told_apart(pair):
        gaps = float(_gap(x[:, pair[0]])), float(_gap(y[:, pair[1]]))
        return sum(gap > 0 for gap in gaps), min(gaps)

    pairs = list(itertools.permutations(range(x.shape[1]), 2))
    if read is None:
        return max(pairs, key=told_apart)
    if read not in pairs:
        raise ValueError(
            f"read must be two different coordinates under {x.shape[1]}: got {read}."
        )
    return read


def _coordinate_pieces(
    x: np.ndarray, y: np.ndarray, slope: float, read: tuple[int, int]
) -> Iterator[_Step]:
    """Read coordinate $i$ and move all others, then read $j$ and move $i$."""
    d, (i, j) = x.shape[1], read
    last = _parting(y, j, -1.0) if not _gap(y[:, j]) > 0 else None
    if not _gap(x[:, i]) > 0:
        first = _parting(x, i, 1.0)
        yield first
        x = x + first.change(x)
    goal = y if last is None else y - last.change(y)
    others = [k for k in range(d) if k != i]
    for reads, moved in (*((i, k) for k in others), (j, i)):
        change = goal[:, [moved]] - x[:, [moved]]
        steps = _interpolation(x[:, reads], change, "tanh", slope)
        for alpha, beta, (c,) in zip(*steps, strict=True):
            step = _Step(moved, alpha * np.eye(d)[reads], beta, c)
            x = x + step.change(x)
            yield step
    if last is not None:
        yield last


def _parting(x: np.ndarray, moved: int, sign: float) -> _Step:
    """The step, among some, after which that coordinate tells the points best apart;
    with the sign -1, before which."""
    spread = np.ptp(x, axis=0).max()
    even = stats.qmc.Halton(x.shape[1], scramble=False).random(65)[1:]
    readings = (8 * even - 4) / spread
    readings[:, moved] = 0
    steps = [_Step(moved, w, float(-(x @ w).mean()), spread) for w in readings]
    gaps = [_gap((x + sign * step.change(x))[:, moved]) for step in steps]
    return steps[int(np.argmax(gaps))]


# --------------------------------------------------------------------- what is asked


def least_pieces(n: int, d: int, *, width: int = 1, homogeneous: bool = True) -> int:
    r"""The number of pieces without which some $n$ targets in $d$ dimensions cannot be
    reached: $n/(2p)$ for a positively homogeneous activation (ReLU), and
    $dn/((2d + 1)p)$ for any other that is locally Lipschitz.

    A piece of width $p$ has $(2d + 1)p$ parameters $(v, a, b)$, its duration being in
    $v$; for ReLU $\|a\| = 1$ costs nothing. Where all pieces together have fewer than
    $dn$, the points that they reach are of measure zero.

    ```pycon
    >>> least_pieces(10, 2), least_pieces(10, 2, homogeneous=False)  # 20 by 4, by 5
    (5, 4)
    ```
    """
    require_whole(n=n, d=d, width=width)
    parameters = 2 * d if homogeneous else 2 * d + 1
    return -(-n * d // (parameters * width))


def _checked(points: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    points = as_doubles("points", points, shape=(None, None))
    targets = as_doubles("targets", targets, shape=(None, None))
    if points.shape != targets.shape:
        raise ValueError(
            "points and targets must have one shape (n, d): got "
            f"{points.shape} and {targets.shape}."
        )
    for name, values in (("points", points), ("targets", targets)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite: NaN or infinity is among them.")
    return points, targets


def _check_slope(slope: float) -> None:
    require_within(f"({math.log(3)}, inf)", slope=slope)  # see `_interpolation`


def _distinct(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One of each point; what no flow does is refused."""
    both = np.unique(np.hstack([points, targets]), axis=0)
    x, y = np.hsplit(both, 2)
    for values, others, reason in (
        (x, y, "equal points stay equal: {} cannot go to {} and to {}."),
        (y, x, "a flow is one to one: points at {1} and {2} cannot both go to {0}."),
    ):
        unique, first, places = np.unique(
            values, axis=0, return_index=True, return_inverse=True
        )
        if len(unique) < len(values):
            places = places.ravel()
            extra = next(i for i in range(len(values)) if first[places[i]] != i)
            rows = values[extra], others[first[places[extra]]], others[extra]
            raise ValueError(
                f"points and targets: {reason}".format(*(row.tolist() for row in rows))
            )
    return x, y


def _refuse_affine(activation: str) -> None:
    if activation == "identity":
        raise ValueError(
            "activation identity makes every flow affine with positive determinant: "
            "it takes at most d + 1 points to given targets, and these only if their "
            "orientation allows it."
        )


def _refuse_line(points: np.ndarray, targets: np.ndarray) -> None:
    order = np.argsort(points)
    if (np.diff(targets[order]) <= 0).any():
        raise ValueError(
            "points and targets: order cannot change in one dimension, as paths "
            "would have to cross. Add a coordinate that is zero."
        )
    raise ValueError(
        "points and targets need two dimensions: on the line shears move all points "
        "alike. Add a coordinate that is zero."
    )


def _refuse_positive(activation: str, points: np.ndarray, targets: np.ndarray) -> None:
    if activation in ("relu", "sigmoid", "softplus"):
        falls = np.argwhere(targets < points)
        example = ""
        if len(falls):
            i, k = falls[0]
            example = f" Coordinate {k} of point {i} would have to."
        raise ValueError(
            f"activation {activation} is never negative: without an outer matrix no "
            f"coordinate of any point decreases.{example}"
        )


def _network(block: AbstractBlock, durations: np.ndarray) -> ResNet:
    return ResNet(block, beta=0.0, scale=jnp.asarray(durations))


@eqx.filter_jit
def _arrive(network: ResNet, points: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return jax.vmap(network)(points)


@eqx.filter_jit
def _paths(network: ResNet, points: Float[Array, "n d"]) -> Float[Array, "n nodes d"]:
    return jax.vmap(network.trajectory)(points)


def _arrived(network: ResNet, points: np.ndarray) -> np.ndarray:
    return np.asarray(_arrive(network, jnp.asarray(points)), np.float64)


def _report(
    network: ResNet,
    durations: np.ndarray,
    cost: float,
    points: np.ndarray,
    targets: np.ndarray,
) -> Steering:
    error = float(np.abs(_arrived(network, points) - targets).max())
    return Steering(network, durations, float(cost), error)
