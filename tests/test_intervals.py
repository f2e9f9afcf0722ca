"""Laws of intervals: arithmetic on them holds every result of arithmetic in them."""

import itertools
import math
import operator

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from deeplimits import ledger
from deeplimits.intervals import Interval, Kind, hull

HALVES = (
    Interval(-1.5, -2.0, -1.0, Kind.SEEDS),
    Interval(-0.5, -0.75, 0.25, Kind.SEEDS),
)
SLOPE = Interval(-1.0, -1.5, -0.25, Kind.SEEDS, HALVES)
SHORT = Interval(-1.0, -1.5, -0.25, Kind.SEEDS, ())  # of too few depths for halves
OTHERS = [
    Interval(2.0, 1.0, 4.0, Kind.SEEDS),
    Interval(-0.5, -3.0, -0.25, Kind.SEEDS),
    Interval(0.1, -1.0, 2.0, Kind.SEEDS),
]
OPERATIONS = [operator.add, operator.sub, operator.mul, operator.truediv]


def grid(interval):
    return np.linspace(interval.low, interval.high, 7)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(OTHERS, 2)))
def test_the_result_holds_all_results_and_no_more(operation, first, second):
    """Whatever ties the two together: every pair of their points is tried."""
    if operation is operator.truediv and 0 in second:
        with pytest.raises(ValueError, match="the divisor holds zero"):
            operation(first, second)
        return
    found = operation(first, second)
    every = operation(grid(first)[:, None], grid(second)[None])
    assert (found.low, found.high) == (every.min(), every.max())
    assert found.value == operation(first.value, second.value)
    assert (found.kind, found.halves) == (Kind.SEEDS, None)


def test_negation_swaps_the_bounds_and_twice_is_the_identity():
    assert (-SLOPE).numbers == (1.0, 0.25, 1.5)
    assert [half.numbers for half in (-SLOPE).halves] == [
        (1.5, 1, 2),
        (0.5, -0.25, 0.75),
    ]
    opposite = -SLOPE
    assert -opposite == SLOPE


def test_a_number_is_exact_and_goes_through_the_halves():
    assert -2 * SLOPE == SLOPE * -2 == -(SLOPE + SLOPE)
    assert (SLOPE / 4).numbers == (-0.25, -0.375, -0.0625)
    assert (SLOPE / 4).halves[1].numbers == (-0.125, -0.1875, 0.0625)
    assert SLOPE + 0.5 == 0.5 + SLOPE == -(-SLOPE - 0.5) == -(-0.5 - SLOPE)
    assert (SLOPE - 0.5).halves[0].numbers == (-2.0, -2.5, -1.5)
    assert sum([SLOPE, SLOPE]) / 2 == SLOPE


def test_the_ratio_of_an_interval_to_itself_is_not_one():
    """Nothing is assumed of how two intervals depend on one another."""
    assert (OTHERS[0] / OTHERS[0]).numbers == (1.0, 0.25, 4.0)
    assert (OTHERS[0] / OTHERS[0]).halves is None
    assert (2 * SHORT - 1).halves == (SLOPE + SHORT).halves == ()
    with pytest.raises(ValueError, match="the divisor holds zero"):
        SLOPE / SLOPE  # in its upper half


def test_a_ratio_holds_the_truth_as_often_as_promised_when_the_two_move_together():
    """Two intervals at 80 % promise 60 % at least, whatever ties them: of 4,000 draws
    five standard errors are 0.04. Errors of opposite sign make no gap between the two.
    """
    rng = np.random.default_rng(0)
    for tie in (1.0, -1.0, 0.0):
        first, other = rng.normal(size=(2, 4000))
        second = tie * first + (1 - tie**2) ** 0.5 * other
        half = 1.2816  # of a normal variable at 80 %
        hits = 0
        for x, y in zip(10 + first, 20 + second, strict=True):
            x, y = (Interval(z, z - half, z + half, Kind.SEEDS) for z in (x, y))
            hits += 0.5 in x / y
        assert hits / 4000 > 0.6 - 0.04, tie


def test_the_bounds_belong_to_the_interval():
    assert [x in SLOPE for x in (-1.6, -1.5, -1, -0.25, 0)] == [0, 1, 1, 1, 0]


def test_numbers_of_all_libraries_become_plain_ones(as_in_use):
    found = Interval(jnp.ones(()), np.float32(0.5), xr.DataArray(2), "over seeds")
    assert found == Interval(1.0, 0.5, 2.0, Kind.SEEDS)
    assert all(type(number) is float for number in found.numbers)
    assert np.float64(2) * found == jnp.asarray(2.0) * found == 2 * found
    assert found / xr.DataArray(2) == found / 2


def test_it_is_printed_with_its_bounds_and_its_kind():
    assert f"{SLOPE:.2f}" == "-1.00 [-1.50, -0.25]"
    assert f"{SLOPE}" == str(SLOPE) == "-1 [-1.5, -0.25], over seeds"


def test_what_could_not_be_measured_lies_anywhere():
    unknown = Interval(math.nan, -math.inf, math.inf, Kind.LAYERS)
    assert 1e9 in unknown
    assert (-unknown).low == -math.inf


def test_the_hull_holds_all_and_no_more():
    found = hull(np.array([[3.0, 1.0], [2.0, 10.0]]), Kind.RANGE_DEPTHS)
    assert found == Interval(4.0, 1.0, 10.0, Kind.RANGE_DEPTHS)
    middle = hull([3.0, 1.0, 2.0, 10.0], Kind.RANGE_DEPTHS, value=np.median)
    assert middle.numbers == (2.5, 1.0, 10.0)
    assert hull([3.0], Kind.ONE).numbers == (3.0, 3.0, 3.0)
    wide = hull([SLOPE, SLOPE + 2], Kind.RANGE_CASES)
    assert wide.numbers == (0.0, -1.5, 1.75)
    assert [half.numbers for half in wide.halves] == [(-0.5, -2, 1), (0.5, -0.75, 2.25)]
    assert hull([0.1] * 3, Kind.ONE).numbers == (0.1, 0.1, 0.1)
    assert hull([SLOPE, SHORT], Kind.RANGE_CASES).halves == ()


def test_every_kind_is_explained_where_verdicts_are():
    """By its last word: ranges over several things share a line."""
    page = (ledger.find_root() / "book" / "ledger.md").read_text("utf-8")
    for kind in Kind:
        start, _, last = kind.rpartition(" ")
        assert start.split()[0] in page, kind
        assert last in page, kind


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Interval(1.0, 2.0, 3.0, Kind.SEEDS), r"needed: got \(1.0, 2.0, 3.0\)"),
        (lambda: Interval(1.0, 0.0, math.nan, Kind.SEEDS), "low <= value <= high"),
        (lambda: Interval(1.0, 0.0, 2.0, "seeds"), "unknown kind 'seeds'; known: over"),
        (lambda: SLOPE + math.inf, "finite numbers: got inf"),
        (lambda: math.nan * SLOPE, "finite numbers: got nan"),
        (lambda: SLOPE / 0, "the divisor holds zero: 0"),
        (
            lambda: SLOPE - Interval(0.0, 0.0, 0.0, Kind.ONE),
            "of one kind are needed: over seeds, one run",
        ),
        (lambda: hull([], Kind.ONE), "nothing to take the hull of"),
        (lambda: hull([1.0, math.nan], Kind.ONE), "finite numbers: got nan"),
        (lambda: hull([1.0, 2.0], Kind.ONE, value=np.sum), "low <= value <= high"),
    ],
)
def test_errors(call, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_unmeasured_stays_so_in_every_operation():
    nothing = Interval(math.nan, -math.inf, math.inf, Kind.LAYERS)
    for found in (0 * nothing, nothing - nothing, nothing + 1, nothing * nothing):
        assert math.isnan(found.value)
        assert (found.low, found.high) == (-math.inf, math.inf)
    half = Interval(1.0, 0.0, math.inf, Kind.LAYERS)
    assert (0 * half).numbers == (0, 0, 0)


def test_a_number_is_added_to_halves_of_any_kind():
    half = Interval(1.0, 0.5, 1.5, Kind.CASES)
    found = Interval(1.0, 0.5, 1.5, Kind.RANGE_CASES, (half, half)) + 1
    assert found.halves == (half + 1, half + 1)


def test_what_is_no_slope_stands_for_itself_in_both_halves():
    """A slope that bends does not come to lie in a range by what is added to it."""
    other = OTHERS[0]
    for operation in OPERATIONS:
        found, opposite = operation(SLOPE, other), operation(other, other)
        assert found.halves == tuple(operation(half, other) for half in SLOPE.halves)
        assert opposite.halves is None
    wide = hull([SLOPE, 1.0, other], Kind.RANGE_CASES)
    assert [h.numbers[1:] for h in wide.halves] == [(-2.0, 4.0), (-0.75, 4.0)]
    assert hull([SHORT, SLOPE, other], Kind.RANGE_CASES).halves == ()
