r"""One measured number with its bounds, and by name what these bounds are.

Arithmetic is that of sets, endpoint by endpoint: for $X = [\underline x, \overline x]$
and $Y = [\underline y, \overline y]$,

$$ X \circ Y = \{x \circ y : x \in X,\ y \in Y\}, \qquad
   \circ \in \{+, -, \times, \div\}. $$

With a number this is exact. With two intervals nothing is assumed about how they depend
on one another: where $X$ and $Y$ hold the truth with probability $1 - a$ and $1 - b$,
the result holds it with probability $1 - a - b$ at least. Where the two move together
(the same seeds, say), combine the samples first and take the interval of what comes
out: it is narrower, and right at its own level.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import SupportsFloat

import numpy as np
from numpy.typing import ArrayLike

from .checks import as_number


class Kind(StrEnum):
    """What the bounds of an `Interval` are, in the words of cards and of `str`.

    The first four are confidence intervals, if of different things; ranges say only
    what was seen. The page on the claims ledger explains each.

    ```pycon
    >>> Kind("over seeds") is Kind.SEEDS, str(Kind.ONE)
    (True, 'one run')
    ```
    """

    SEEDS = "over seeds"  # Student's: independent seeds, draws, or groups of draws
    CASES = "over cases"  # Student's or binomial: settings, as if drawn at random
    LAYERS = "over layers"  # jackknife over parts of one network
    RESIDUALS = "residuals of one curve"  # how straight it is, not how it would vary
    RANGE_SEEDS = "range over seeds"
    RANGE_DEPTHS = "range over depths"
    RANGE_CASES = "range over cases"
    RANGE_ITERATIONS = "range over iterations"
    ONE = "one run"  # a single number: low and high are the value

    @classmethod
    def _missing_(cls, value):
        raise ValueError(f"unknown kind {value!r}; known: {', '.join(cls)}.")


@dataclass(frozen=True)
class Interval:
    r"""A number, the bounds between which it lies, and their `kind`.

    `halves` are the same measurement in the lower and in the upper half of the depths,
    for a `Slope`; empty, if there are too few depths for them, and None for what is no
    slope. They go through arithmetic with the whole. A number that could not be
    measured is NaN between $-\infty$ and $\infty$. Printed by `f"{interval:.2f}"` as
    `-1.00 [-1.02, -0.98]`, and by `str` with its kind.

    Raises `ValueError` unless `low <= value <= high`, and for an unknown kind.

    ```pycon
    >>> slope = Interval(-1.0, -1.02, -0.98, Kind.SEEDS)
    >>> f"{slope:.2f}", str(2 * slope)
    ('-1.00 [-1.02, -0.98]', '-2 [-2.04, -1.96], over seeds')
    ```
    """

    value: float
    low: float
    high: float
    kind: Kind
    halves: "tuple[Interval, ...] | None" = None

    def __post_init__(self):
        for name in ("value", "low", "high"):
            # also from NumPy, JAX and xarray; the fields of a frozen class are set so
            object.__setattr__(self, name, as_number(name, getattr(self, name)))
        object.__setattr__(self, "kind", Kind(self.kind))
        # a NaN among the bounds fails here, a NaN for a value does not
        if not self.low <= self.high or self.value < self.low or self.value > self.high:
            raise ValueError(f"low <= value <= high is needed: got {self.numbers}.")

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Value, low and high."""
        return self.value, self.low, self.high

    def __contains__(self, number: SupportsFloat) -> bool:
        return self.low <= float(number) <= self.high

    def __neg__(self) -> "Interval":
        return self * -1

    def __add__(self, other: "Interval | SupportsFloat") -> "Interval":
        return self._combine(operator.add, other)

    def __sub__(self, other: "Interval | SupportsFloat") -> "Interval":
        return self._combine(operator.sub, other)

    def __rsub__(self, other: SupportsFloat) -> "Interval":
        return -self + other

    def __mul__(self, other: "Interval | SupportsFloat") -> "Interval":
        return self._combine(operator.mul, other)

    def __truediv__(self, other: "Interval | SupportsFloat") -> "Interval":
        """`ValueError` where zero lies in the divisor, or in one of its halves."""
        return self._combine(operator.truediv, other)

    __radd__, __rmul__ = __add__, __mul__

    def _combine(
        self,
        operation: Callable[[float, float], float],
        other: "Interval | SupportsFloat",
    ) -> "Interval":
        given = other
        if not isinstance(other, Interval):
            other = _point(other, self.kind)
        if self.kind != other.kind:
            raise ValueError(
                f"two intervals of one kind are needed: {self.kind}, {other.kind}."
            )
        if operation is operator.truediv and 0 in other:
            raise ValueError(f"the divisor holds zero: {other}.")
        # a number is one in each half, of whichever kind that is
        number = not isinstance(given, Interval)
        halves = _halves(
            lambda a, b: a._combine(operation, given if number else b), self, other
        )
        # each operation is monotone in each number: the extremes are at the corners
        x, y = (self.low, self.high), (other.low, other.high)
        corners = [operation(p, q) for p in x for q in y]
        # zero times an infinite end is zero, which other corners may be as well
        corners = [c for c in corners if not math.isnan(c)] or [0.0]
        value = operation(self.value, other.value)
        if math.isnan(value):  # nothing is known, as in each of them
            corners = [-math.inf, math.inf]
        return Interval(value, min(corners), max(corners), self.kind, halves)

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        value, low, high = (format(x, spec) for x in self.numbers)
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return f"{self:.4g}, {self.kind}"


def _halves(
    combine: Callable[..., Interval], *parts: Interval
) -> tuple[Interval, ...] | None:
    """`combine` of what all have in the lower half, and in the upper: what is no slope
    stands for itself in each. None where all are such; empty where one has too few
    depths."""
    if all(part.halves is None for part in parts):
        return None
    each = [(part, part) if part.halves is None else part.halves for part in parts]
    return tuple(map(combine, *each)) if all(each) else ()


def _point(number: SupportsFloat, kind: Kind, name: str = "operands") -> Interval:
    if not math.isfinite(x := as_number(name, number)):
        raise ValueError(f"{name} must be finite numbers: got {x}.")
    return Interval(x, x, x, kind)


def hull(
    parts: ArrayLike | Sequence[Interval],
    kind: Kind,
    *,
    value: Callable[[np.ndarray], float] = np.mean,
) -> Interval:
    """The smallest interval that holds all `parts`, intervals or numbers.

    `value` makes its value of theirs: their mean, `np.median`, or another that lies
    between them. It has halves where a part has them. Raises `ValueError` where
    there is nothing to hold, and for numbers that are not finite.

    ```pycon
    >>> str(hull([1.0, 2.0, 6.0], Kind.RANGE_SEEDS))
    '3 [1, 6], range over seeds'
    ```
    """
    each = [
        part if isinstance(part, Interval) else _point(part, kind, "parts")
        for part in np.ravel(np.asarray(parts, object))
    ]
    if not each:
        raise ValueError("parts is empty: there is nothing to take the hull of.")
    halves = _halves(lambda *half: hull(half, kind, value=value), *each)
    low, high = min(part.low for part in each), max(part.high for part in each)
    found = float(value(np.array([part.value for part in each])))
    # the mean of equal numbers may be rounded to one beside them
    nearest = min(max(found, low), high)
    if math.isclose(found, nearest, rel_tol=1e-12):
        found = nearest
    return Interval(found, low, high, kind, halves)
