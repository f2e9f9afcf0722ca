r"""Linear fields: where the optimal control is a formula.

For $\dot x = A x + B u$ what can be reached is read off the Gramian, and the cost
$\frac12 \int x^\top Q x + u^\top R u\,\mathrm{d}t + \frac12 x(T)^\top S x(T)$ has the
minimum $\frac12 x_0^\top P(0) x_0$. Everything is computed in float64. A network
$\dot x = w x + b$ with trained $w$ is *not* of this kind, but bilinear.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import linalg

from ..checks import (
    as_doubles,
    require_finite,
    require_known,
    require_whole,
    require_within,
)

TIMES = ("continuous", "layers")
EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Riccati:
    r"""$P$ at the times $kT/n$, $k = 0, \dots, n$, and the feedback $u = -K x$: the
    `gains` are $K$ at these times, or those of the $n$ layers.

    ```pycon
    >>> costs = {"state": [[1.0]], "control": [[1.0]], "terminal": [[0.0]]}
    >>> found = riccati([[0.0]], [[1.0]], **costs, steps=50)
    >>> found.matrices.shape, found.gains.shape
    ((51, 1, 1), (51, 1, 1))
    ```
    """

    matrices: Float[np.ndarray, "times d d"]
    gains: Float[np.ndarray, "steps p d"]

    def value(self, start: ArrayLike) -> float:
        r"""The least cost from there, $\frac12 x_0^\top P(0) x_0$."""
        x = as_doubles("start", start, shape=self.matrices.shape[1:2])
        require_finite("start", x)
        return float(x @ self.matrices[0] @ x / 2)


def riccati(
    A: ArrayLike,
    B: ArrayLike,
    *,
    state: ArrayLike,
    control: ArrayLike,
    terminal: ArrayLike,
    duration: float = 1.0,
    steps: int = 100,
    times: str = "continuous",
) -> Riccati:
    r"""The solution of the linear–quadratic problem with $Q$ = `state`,
    $R$ = `control` and $S$ = `terminal`.

    "continuous": $-\dot P = A^\top P + P A - P B R^{-1} B^\top P + Q$, $P(T) = S$, at
    `steps` + 1 times, exactly: by the exponential of the Hamiltonian matrix. "layers":
    the network $x_{k+1} = x_k + h (A x_k + B u_k)$ with the cost as a sum over layers,

    $$ \begin{gathered}
       P_k = h Q + \hat A^\top P_{k+1} (\hat A - h B K_k), \\
       K_k = (h R + h^2 B^\top P_{k+1} B)^{-1} h B^\top P_{k+1} \hat A,
       \end{gathered} $$

    $\hat A = I + h A$. Raises `ValueError` unless $Q$ and $S$ are symmetric and
    positive semidefinite and $R$ is symmetric and positive definite.

    ```pycon
    >>> costs = {"state": [[1.0]], "control": [[1.0]], "terminal": [[0.0]]}
    >>> found = riccati([[0.0]], [[1.0]], **costs, steps=200)
    >>> found.matrices.shape, round(found.matrices[0].item(), 3)  # tanh 1
    ((201, 1, 1), 0.762)
    ```
    """
    A, B = _system(A, B)
    Q = _form("state", state, len(A))
    R = _form("control", control, B.shape[1], strictly=True)
    S = _form("terminal", terminal, len(A))
    require_within("(0, inf)", duration=duration)
    require_whole(steps=steps)
    require_known("times", times, TIMES)
    h = duration / steps
    if times == "layers":
        return _by_layers(A, B, Q, R, S, h, steps)
    feedback = np.linalg.solve(R, B.T)
    field = h * np.block([[A, -B @ feedback], [-Q, -A.T]])
    parts = _parts(field)
    back, matrices = linalg.expm(-field / parts), [S]
    for _ in range(steps):
        P = matrices[-1]
        for _ in range(parts):
            P = _moved_back(back, P)
        matrices.append(P)
    found = np.stack(matrices[::-1])
    return Riccati(found, feedback @ found)


def _parts(matrix: np.ndarray) -> int:
    """So many parts of a time that none multiplies by more than $e$: in one step, what
    grows and what decays would be lost in each other's rounding."""
    return max(1, int(np.ceil(np.abs(matrix).sum(0).max())))


def _moved_back(back: np.ndarray, P: np.ndarray) -> np.ndarray:
    d = len(P)
    pair = back @ np.concatenate([np.eye(d), P])
    return _symmetric(np.linalg.solve(pair[:d].T, pair[d:].T).T)


def _by_layers(A, B, Q, R, S, h, steps):
    one, matrices, gains = np.eye(len(A)) + h * A, [S], []
    for _ in range(steps):
        P = matrices[-1]
        K = np.linalg.solve(h * R + h**2 * B.T @ P @ B, h * B.T @ P @ one)
        gains.append(K)
        matrices.append(_symmetric(h * Q + one.T @ P @ (one - h * B @ K)))
    return Riccati(np.stack(matrices[::-1]), np.stack(gains[::-1]))


def gramian(
    A: ArrayLike, B: ArrayLike, *, duration: float = 1.0
) -> Float[np.ndarray, "d d"]:
    r"""The Gramian of controllability,

    $$ G = \int_0^T e^{A s} B B^\top e^{A^\top s}\,\mathrm{d}s, $$

    from the exponential of a block matrix over a short time, which is then doubled:
    $G(2t) = G(t) + e^{A t} G(t) e^{A^\top t}$. Every state can be reached from every
    other iff it is invertible, iff $(B, AB, \dots, A^{d-1}B)$ has rank $d$.
    """
    A, B = _system(A, B)
    require_within("(0, inf)", duration=duration)
    d, blank = len(A), np.zeros_like(A)
    doublings = int(np.ceil(np.log2(_parts(duration * A))))
    field = np.block([[-A, B @ B.T], [blank, A.T]])
    both = linalg.expm(duration / 2**doublings * field)
    flow = both[d:, d:].T
    G = flow @ both[:d, d:]
    for _ in range(doublings):
        G, flow = G + flow @ G @ flow.T, flow @ flow
    return _symmetric(G)


@dataclass(frozen=True)
class LeastEnergy:
    r"""The control from one state to another with the least $\frac12 \int |u|^2$: its
    values at the `times`, and that `energy`.

    ```pycon
    >>> found = least_energy([[0.0]], [[1.0]], [0.0], [3.0])
    >>> round(found.energy, 4), found.control.shape  # u = 3 throughout
    (4.5, (101, 1))
    ```
    """

    times: Float[np.ndarray, " times"]
    control: Float[np.ndarray, "times p"]
    energy: float


def least_energy(
    A: ArrayLike,
    B: ArrayLike,
    start: ArrayLike,
    end: ArrayLike,
    *,
    duration: float = 1.0,
    steps: int = 100,
) -> LeastEnergy:
    r"""$u(t) = B^\top e^{A^\top (T - t)} \lambda$ with
    $G \lambda = x_1 - e^{AT} x_0$, of energy $\frac12 \lambda^\top G \lambda$.

    Raises `ValueError` where the Gramian, in units that make its diagonal one, is
    singular to rounding and the end is out of reach.
    """
    A, B = _system(A, B)
    x, y = (
        as_doubles(name, point, shape=(len(A),))
        for name, point in (("start", start), ("end", end))
    )
    require_finite("start", x)
    require_finite("end", y)
    require_whole(steps=steps)
    G = gramian(A, B, duration=duration)
    alone = linalg.expm(duration * A) @ x
    size = float(np.linalg.norm(y) + np.linalg.norm(alone))
    multiplier = _solved(G, y - alone, size)
    times = np.linspace(0, duration, steps + 1)
    onward = np.stack([linalg.expm((duration - t) * A.T) @ multiplier for t in times])
    return LeastEnergy(times, onward @ B, float(multiplier @ G @ multiplier / 2))


def _solved(G: np.ndarray, gap: np.ndarray, size: float) -> np.ndarray:
    r"""The least solution of $G \lambda$ = `gap`, a difference of vectors of that
    `size`."""
    diagonal = np.diag(G)
    units = np.sqrt(np.maximum(diagonal, EPSILON * diagonal.max()))
    units = np.where(units > 0, units, 1)
    scaled = G / np.outer(units, units)
    multiplier = np.linalg.lstsq(scaled, gap / units, rcond=1e-12)[0] / units
    missed = np.linalg.norm(G @ multiplier - gap)
    if missed > 1e-8 * np.linalg.norm(gap) + 16 * EPSILON * size:
        spectrum = np.linalg.eigvalsh(G)
        raise ValueError(
            "the end cannot be reached: the Gramian is singular to rounding, with "
            f"eigenvalues from {spectrum[0]:.2g} to {spectrum[-1]:.2g}."
        )
    return multiplier


@dataclass(frozen=True)
class SharedBias:
    r"""The least cost of a bias shared by all points, that bias at the `times`, and
    what of the cost no bias changes.

    ```pycon
    >>> found = shared_bias([[0.0], [1.0]], [[1.0], [2.0]], [[0.0]], penalty=1e-9)
    >>> found.bias.shape, round(found.bias.mean().item(), 4), round(found.value, 4)
    ((101, 1), 1.0, 0.0)
    ```
    """

    value: float
    times: Float[np.ndarray, " times"]
    bias: Float[np.ndarray, "times d"]
    unmoved: float


def shared_bias(
    inputs: ArrayLike,
    labels: ArrayLike,
    weight: ArrayLike,
    *,
    penalty: float,
    duration: float = 1.0,
    steps: int = 100,
) -> SharedBias:
    r"""The bias $b(t)$ that steers all points at once, $\dot x = w x + b(t)$ with $w$
    fixed, at the least $\frac12 \mathrm{E}|x(T) - y|^2
    + \frac\gamma2 \int |b|^2 \,\mathrm{d}t$, $\gamma$ = `penalty`:

    $$ \tfrac12 \operatorname{tr} \operatorname{Cov}(e^{wT} x - y)
       + \tfrac\gamma2\, m^\top (\gamma I + G)^{-1} m, \qquad
       m = e^{wT} \mathrm{E} x - \mathrm{E} y, $$

    with the `gramian` $G$ of $(w, I)$, and
    $b(t) = -e^{w^\top (T - t)} (\gamma I + G)^{-1} m$. The mean alone is steered.

    ```pycon
    >>> found = shared_bias([[1.0], [3.0]], [[0.0], [0.0]], [[0.0]], penalty=1.0)
    >>> round(found.value, 4), found.unmoved  # the mean goes from 2 to 1
    (1.5, 0.5)
    >>> found.bias[::50].round(4).ravel().tolist()
    [-1.0, -1.0, -1.0]
    ```
    """
    x = as_doubles("inputs", inputs, shape=(None, None))
    y = as_doubles("labels", labels, shape=x.shape)
    w = as_doubles("weight", weight, shape=(x.shape[1],) * 2)
    for name, array in (("inputs", x), ("labels", y), ("weight", w)):
        require_finite(name, array)
    require_within("(0, inf)", penalty=penalty)
    require_whole(steps=steps)
    d = len(w)
    G = gramian(w, np.eye(d), duration=duration)
    gaps = x @ linalg.expm(duration * w).T - y
    m = gaps.mean(0)
    multiplier = np.linalg.solve(penalty * np.eye(d) + G, m)
    unmoved = float(((gaps - m) ** 2).sum(1).mean() / 2)
    times = np.linspace(0, duration, steps + 1)
    bias = np.stack([-linalg.expm((duration - t) * w.T) @ multiplier for t in times])
    value = unmoved + penalty / 2 * float(m @ multiplier)
    return SharedBias(value, times, bias, unmoved)


def _system(A: ArrayLike, B: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    A = as_doubles("A", A, shape=(None, None))
    B = as_doubles("B", B, shape=(len(A), None))
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be square: got {A.shape}.")
    require_finite("A", A)
    require_finite("B", B)
    return A, B


def _form(
    name: str, matrix: ArrayLike, size: int, *, strictly: bool = False
) -> np.ndarray:
    M = as_doubles(name, matrix, shape=(size, size))
    require_finite(name, M)
    scale = 1e-6 * (1 + float(np.abs(M).max()))
    symmetric = np.abs(M - M.T).max() <= scale
    least = float(np.linalg.eigvalsh(_symmetric(M)).min())
    if not symmetric or not (least > 0 if strictly else least >= -scale):
        kind = "definite" if strictly else "semidefinite"
        raise ValueError(
            f"{name} must be symmetric and positive {kind}: got an eigenvalue "
            f"{least:.2g}, off symmetry by {np.abs(M - M.T).max():.2g}."
        )
    return M


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return (matrix + matrix.T) / 2
