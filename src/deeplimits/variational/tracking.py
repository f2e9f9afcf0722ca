r"""A training problem without a minimiser, which every network of it has.

A point starts at $0$ and is to follow $u_0 t$, at the least

$$ J(\theta) = \int_0^1 (x - u_0 t)^2 + \lambda \theta^2\,\mathrm{d}t, \qquad
   \dot x = v(\theta), \quad x(0) = 0. $$

With $v = \tanh^3$ a velocity $u$ costs $c(u) = \operatorname{artanh}^2 |u|^{1/3}$,
which lies above its convex envelope for $0 < |u| < u_*$: to switch fast between $0$ and
$u_*$ is cheaper than to go slowly. A network has $n$ layers of constant $\theta_i$; its
path is broken, and both integrals are exact. All in float64, by NumPy.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import optimize

from ..checks import (
    as_doubles,
    require_finite,
    require_known,
    require_whole,
    require_within,
)
from .descent import Landscape, descend, unsolved

FIELDS = ("tanh cubed", "tanh")


class Envelope(NamedTuple):
    r"""Where the convex envelope of $c$ leaves $c$: at the velocity $u_*$, which the
    control $\theta_*$ has; below it is the line of `slope` $\kappa = c(u_*)/u_*$.

    ```pycon
    >>> found = envelope()
    >>> [round(x, 4) for x in (found.velocity, found.control, found.slope)]
    [0.301, 0.8111, 2.1855]
    ```
    """

    velocity: float
    control: float
    slope: float


def velocity_cost(u: ArrayLike) -> Float[np.ndarray, "..."]:
    r"""$c(u) = \operatorname{artanh}^2 |u|^{1/3}$, the least $\theta^2$ with
    $\tanh^3 \theta = u$. Raises `ValueError` unless $|u| < 1$.

    ```pycon
    >>> round(velocity_cost(np.tanh(0.7) ** 3).item(), 6)  # 0.7²
    0.49
    ```
    """
    u = as_doubles("u", u)
    if not np.all(np.abs(u) < 1):
        raise ValueError(f"u must lie in (-1, 1): got up to {np.abs(u).max():g}.")
    return np.arctanh(np.cbrt(np.abs(u))) ** 2


def envelope() -> Envelope:
    r"""Where $\theta^2 / \tanh^3 \theta$ is least:
    $2 \tanh\theta = 3 \theta (1 - \tanh^2 \theta)$, that is
    $\sinh 2\theta = 3\theta$.

    ```pycon
    >>> found = envelope()
    >>> abs(found.velocity - np.tanh(found.control) ** 3).item() < 1e-6
    True
    ```
    """
    found = optimize.root_scalar(
        lambda z: np.sinh(2 * z) - 3 * z, bracket=(0.5, 2.0), xtol=1e-15
    )
    control = float(found.root)
    velocity = float(np.tanh(control) ** 3)
    return Envelope(velocity, control, control**2 / velocity)


@dataclass(frozen=True)
class Tracking:
    r"""The problem: $u_0$ is `speed`, $\lambda$ is `decay`, and the `field` $v$ is
    "tanh cubed" or "tanh". `smoothing` is the factor $\alpha$ of a penalty
    $\int \dot\theta^2$, for networks $n \sum_i (\theta_i - \theta_{i-1})^2$.

    Raises `ValueError` unless $0 < u_0 < u_*$ and $0 < \lambda < u_0/\kappa$ (for a
    larger $\lambda$ it is best to rest), for $\alpha < 0$ and an unknown field.

    ```pycon
    >>> problem = Tracking(speed=0.2, decay=0.05)
    >>> problem.speed, problem.field
    (0.2, 'tanh cubed')
    ```
    """

    speed: float = 0.15
    decay: float = 0.005
    field: str = "tanh cubed"
    smoothing: float = 0.0

    def __post_init__(self):
        velocity, _, slope = envelope()
        require_known("field", self.field, FIELDS)
        require_within(f"(0, {velocity:.6f})", speed=self.speed)
        require_within(f"(0, {self.speed / slope:.6g})", decay=self.decay)
        require_within("[0, inf)", smoothing=self.smoothing)

    # ------------------------------------------------------------ the limit, tanh^3

    @property
    def stop(self) -> float:
        r"""$\tau = 1 - (\lambda\kappa/u_0)^{1/2}$, where it is best to stop."""
        return 1 - (self.decay * envelope().slope / self.speed) ** 0.5

    @property
    def infimum(self) -> float:
        r"""$\inf J = \lambda\kappa u_0 \tau + \frac13 u_0^2 (1 - \tau)^3$ for
        $\tanh^3$, without smoothing. Raises `ValueError` for other problems."""
        self._require_plain()
        rest = self.speed**2 * (1 - self.stop) ** 3 / 3
        return self.decay * envelope().slope * self.speed * self.stop + rest

    def target(self, t: ArrayLike) -> Float[np.ndarray, "..."]:
        r"""$x_*(t) = u_0 \min(t, \tau)$, the path that minimising sequences tend to."""
        t = as_doubles("t", t)
        require_finite("t", t)
        return self.speed * np.minimum(t, self.stop)

    def excess_parts(self, theta: Float[np.ndarray, " n"]) -> tuple[float, float]:
        r"""$J - \inf J$ of a network, in two parts of which neither is negative,

        $$ \int_0^1 (x - x_*)^2\,\mathrm{d}t, \qquad
           \int_0^1 \lambda c(u) + p u\,\mathrm{d}t, $$

        with $p = -\lambda\kappa$ before $\tau$, and
        $-\lambda\kappa + u_0 (t - \tau)^2$ after. Raises `ValueError` for other
        problems than $\tanh^3$ without smoothing.
        """
        self._require_plain()
        theta = _control(theta)
        n, x = len(theta), self.path(theta)
        t = np.linspace(0, 1, n + 1)
        both = np.union1d(t, [self.stop])  # the target has its kink there
        apart = np.interp(both, t, x) - self.target(both)
        a, b = apart[:-1], apart[1:]
        deviation = np.sum(np.diff(both) * (a**2 + a * b + b**2)) / 3
        late = np.maximum(t - self.stop, 0) ** 3 / 3
        p = np.diff(-self.decay * envelope().slope * t + self.speed * late)
        switching = self.decay * np.mean(theta**2) + p @ np.tanh(theta) ** 3
        return float(deviation), float(switching)

    def _require_plain(self) -> None:
        if self.field != "tanh cubed" or self.smoothing:
            raise ValueError(
                "must be of tanh cubed without smoothing: got "
                f"field {self.field!r}, smoothing {self.smoothing:g}."
            )

    # ------------------------------------------------------------ networks

    def path(self, theta: Float[np.ndarray, " n"]) -> Float[np.ndarray, " times"]:
        r"""$x_0, \dots, x_n$, with $x_{i+1} = x_i + v(\theta_i)/n$."""
        theta = _control(theta)
        u = np.tanh(theta) ** self._power
        return np.concatenate([[0.0], np.cumsum(u) / len(u)])

    @property
    def _power(self) -> int:
        return 3 if self.field == "tanh cubed" else 1

    def value(self, theta: Float[np.ndarray, " n"]) -> float:
        r"""$J$ of the layers, with the penalty if there is one."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(
        self, theta: Float[np.ndarray, " n"]
    ) -> tuple[float, Float[np.ndarray, " n"]]:
        r"""$J$ and its derivatives in $\theta_0, \dots, \theta_{n-1}$."""
        theta = _control(theta)
        n, x = len(theta), self.path(theta)
        e = x - self.speed * np.linspace(0, 1, n + 1)
        a, b = e[:-1], e[1:]
        value = np.mean((a**2 + a * b + b**2) / 3 + self.decay * theta**2)
        pull = (np.append(2 * a + b, 0) + np.append(0, a + 2 * b)) / (3 * n)
        onward = np.cumsum(pull[::-1])[::-1][1:] / n  # all later nodes move along
        power, u = self._power, np.tanh(theta)
        slopes = power * u ** (power - 1) * (1 - u**2)
        gradient = onward * slopes + 2 * self.decay * theta / n
        if self.smoothing:
            steps = np.diff(theta)
            value += self.smoothing * n * np.sum(steps**2)
            bend = np.append(0, steps) - np.append(steps, 0)
            gradient += 2 * self.smoothing * n * bend
        return float(value), gradient

    def descend(
        self, start: Float[np.ndarray, " n"], *, tolerance: float = 1e-8
    ) -> "Found":
        r"""The critical point that L-BFGS comes to, in $\sqrt h\,\theta$.
        As $\tanh^3$ is flat at $0$, a layer with $\theta_i = 0$ never moves."""
        start = _control(start)
        require_within("(0, inf)", tolerance=tolerance)
        root = len(start) ** 0.5

        def scaled(z):
            value, gradient = self.value_and_gradient(root * z)
            return value, root * gradient

        landscape = Landscape(scaled, np.float64)
        found = descend(landscape, start / root, tolerance=tolerance)
        flags = unsolved(found.norm, tolerance, np.float64, found.exhausted)
        theta = root * found.point
        return Found(theta, self.value(theta), found.norm, flags)


class Found(NamedTuple):
    """Layers, their value, the $L^2$ norm of the gradient, and words where it is not
    small.

    ```pycon
    >>> problem = Tracking(speed=0.2, decay=0.05)
    >>> found = problem.descend(constant(problem, 16, 0.8))
    >>> found.value < problem.value(constant(problem, 16, 0.8)), found.flags
    (True, ())
    >>> found.value > problem.infimum
    True
    ```
    """

    theta: Float[np.ndarray, " n"]
    value: float
    residual: float
    flags: tuple[str, ...]


def constant(
    problem: Tracking, depth: int, control: float
) -> Float[np.ndarray, " depth"]:
    r"""Layers that are all alike up to $\tau$, and at rest after.

    ```pycon
    >>> constant(Tracking(speed=0.2, decay=0.05), 8, 0.5).shape
    (8,)
    ```
    """
    require_whole(depth=depth)
    require_within("(-inf, inf)", control=control)
    return np.where((np.arange(depth) + 0.5) / depth < problem.stop, control, 0.0)


def switching(
    problem: Tracking, depth: int, periods: int
) -> Float[np.ndarray, " depth"]:
    r"""Layers that switch between $0$ and $\theta_*$ in so many `periods` up to $\tau$,
    each of which starts and ends with half of its on-phase; their share is $u_0/u_*$,
    to whole layers.

    ```pycon
    >>> problem = Tracking(speed=0.2, decay=0.005)
    >>> theta = switching(problem, 1000, periods=4)
    >>> share = np.mean(theta > 0) / problem.stop
    >>> abs(share - 0.2 / envelope().velocity).item() < 0.01, phases(theta)
    (True, 5)
    ```
    """
    require_whole(depth=depth, periods=periods)
    velocity, control, _ = envelope()
    t = (np.arange(depth) + 0.5) / depth
    place = np.mod(t * periods / problem.stop + 0.5, 1.0) - 0.5
    on = (np.abs(place) < problem.speed / velocity / 2) & (t < problem.stop)
    return np.where(on, control, 0.0)


def periodic_excess(problem: Tracking, periods: int) -> float:
    r"""What `switching` costs above the infimum in the limit of depth,
    $\tau^3 u_0^2 (1 - u_0/u_*)^2 / (12 N^2)$ for $N$ periods.

    ```pycon
    >>> problem = Tracking(speed=0.2, decay=0.005)
    >>> round(periodic_excess(problem, 2) / periodic_excess(problem, 4), 6)
    4.0
    >>> excess = problem.value(switching(problem, 4000, 2)) - problem.infimum
    >>> round(excess / periodic_excess(problem, 2), 1)
    1.0
    ```
    """
    require_whole(periods=periods)
    swing = problem.speed * (1 - problem.speed / envelope().velocity)
    return problem.stop**3 * swing**2 / (12 * periods**2)


def phases(theta: Float[np.ndarray, " n"]) -> int:
    r"""The number of on-phases: runs of layers above $\theta_*/2$.

    ```pycon
    >>> theta = np.array([0.0, 2.0, 2.0, 0.0, 2.0])
    >>> phases(theta)
    2
    ```
    """
    on = np.append(False, _control(theta) > envelope().control / 2)
    return int(np.sum(on[1:] & ~on[:-1]))


# ------------------------------------------------------------ dynamic programming


def programmed(
    problem: Tracking,
    depth: int,
    *,
    levels: int = 32,
    reach: float = 2.0,
    variation: float = 0.0,
) -> Found:
    r"""The best of all networks whose velocities are multiples of $u_*/m$, up to
    $\frac54 u_*$, and whose path stays near $x_*$: a global search, by dynamic
    programming backwards in depth. For $\tanh^3$, without smoothing.

    $m$ is `levels`; the path lives on a grid of spacing $u_*/(nm)$ and stays within
    `reach` times $u_*/n$ of $x_*$. `variation` adds that factor times
    $\sum_i |\theta_i - \theta_{i-1}|$. The residual is not computed, NaN.

    ```pycon
    >>> problem = Tracking(speed=0.2, decay=0.05)
    >>> best = programmed(problem, 8)
    >>> problem.infimum < best.value < problem.value(switching(problem, 8, 1))
    True
    ```
    """
    problem._require_plain()
    require_whole(depth=depth, levels=levels)
    require_within("[1, inf)", reach=reach)
    require_within("[0, inf)", variation=variation)
    step = envelope().velocity / (levels * depth)
    choices = np.arange(levels + levels // 4 + 1)
    theta = np.arctanh(np.cbrt(choices * step * depth))
    span = int(np.ceil(reach * levels))
    offsets = np.arange(-span, span + 1)
    base = np.rint(problem.target(np.arange(depth + 1) / depth) / step).astype(int)
    turn = variation * np.abs(theta - theta[:, None])  # [before, now]
    if not variation:
        turn = turn[:1]
    value = np.zeros((len(offsets), len(turn)))
    kept = []
    for i in reversed(range(depth)):
        a = (base[i] + offsets[:, None]) * step - problem.speed * i / depth
        b = a + choices * step - problem.speed / depth
        running = ((a**2 + a * b + b**2) / 3 + problem.decay * theta**2) / depth
        place = offsets[:, None] + choices + base[i] - base[i + 1] + span
        inside = (place >= 0) & (place < len(offsets))
        memory = choices if variation else np.zeros_like(choices)
        later = value[np.clip(place, 0, len(offsets) - 1), memory]
        total = np.where(inside, running + later, np.inf)
        both = total[:, None] + turn  # [state, before, now]
        kept.append(both.argmin(axis=2))
        value = np.take_along_axis(both, kept[-1][..., None], axis=2)[..., 0]
    chosen = _forwards(kept[::-1], base, span, bool(variation), value)
    return _of_levels(problem, theta[chosen], variation)


def _forwards(
    kept: list[np.ndarray],
    base: np.ndarray,
    span: int,
    remembers: bool,
    value: np.ndarray,
) -> np.ndarray:
    """The choices along the best path; the first layer turns from nothing."""
    state = -base[0]
    before = int(value[state + span].argmin()) if remembers else 0
    chosen, position = [], 0
    for i, best in enumerate(kept):
        k = int(best[position - base[i] + span, before])
        chosen.append(k)
        position, before = position + k, k if remembers else 0
    return np.array(chosen)


def _of_levels(problem: Tracking, theta: np.ndarray, variation: float) -> Found:
    turns = variation * float(np.sum(np.abs(np.diff(theta))))
    return Found(theta, problem.value(theta) + turns, float("nan"), ())


def _control(theta) -> np.ndarray:
    array = as_doubles("theta", theta, shape=(None,))
    require_finite("theta", array)
    return array
