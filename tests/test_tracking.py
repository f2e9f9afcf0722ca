"""Laws of the training problem without a minimiser."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from deeplimits.variational import tracking
from deeplimits.variational.tracking import Tracking

HUNT = Tracking()
controls = st.lists(st.floats(-3, 3), min_size=1, max_size=9)


def test_the_line_touches_the_cost_from_below_in_one_speed():
    velocity, control, slope = tracking.envelope()
    u = np.linspace(1e-6, 0.999, 4001)
    gap = tracking.velocity_cost(u) - slope * u
    assert gap.min() > -1e-15
    assert abs(u[gap.argmin()] - velocity) < 3e-4
    np.testing.assert_allclose(
        tracking.velocity_cost([velocity, -velocity]), control**2, rtol=1e-12
    )


@pytest.mark.parametrize("field", ["tanh cubed", "tanh"])
def test_the_value_is_that_of_a_fine_sum(field):
    problem = Tracking(field=field, smoothing=0.01)
    theta = np.array([0.4, -0.2, 0.9])
    power = 3 if field == "tanh cubed" else 1
    fine = np.repeat(np.tanh(theta) ** power, 20_000)
    middle = (np.cumsum(fine) - fine / 2) / len(fine)
    t = (np.arange(len(fine)) + 0.5) / len(fine)
    running = np.mean((middle - 0.15 * t) ** 2) + 0.005 * np.mean(theta**2)
    penalty = 0.01 * 3 * np.sum(np.diff(theta) ** 2)
    np.testing.assert_allclose(problem.value(theta), running + penalty, rtol=1e-8)


@pytest.mark.parametrize("field", ["tanh cubed", "tanh"])
def test_the_gradient_is_that_of_the_value(field):
    problem = Tracking(field=field, smoothing=0.03)
    theta = np.random.default_rng(0).normal(size=7)
    gradient = problem.value_and_gradient(theta)[1]
    assert optimize.check_grad(
        problem.value, lambda z: problem.value_and_gradient(z)[1], theta
    ) < 1e-6 * np.linalg.norm(gradient)


@settings(deadline=None)
@given(controls)
def test_the_excess_is_the_sum_of_two_parts_that_are_not_negative(values):
    theta = np.array(values)
    parts = HUNT.excess_parts(theta)
    assert min(parts) >= -1e-17
    excess = HUNT.value(theta) - HUNT.infimum
    np.testing.assert_allclose(sum(parts), excess, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("variation", [0.0, 1e-4])
def test_dynamic_programming_is_the_best_of_all_sequences(variation):
    """Brute force over the 6^5 networks of six speeds."""
    found = tracking.programmed(HUNT, 5, levels=4, reach=9.0, variation=variation)
    velocity = tracking.envelope().velocity
    levels = np.arctanh(np.cbrt(np.arange(6) * velocity / 4))

    def value(theta):
        turns = variation * np.sum(np.abs(np.diff(theta)))
        return HUNT.value(np.array(theta)) + turns

    best = min(map(value, itertools.product(levels, repeat=5)))
    np.testing.assert_allclose(found.value, value(found.theta), rtol=1e-12)
    np.testing.assert_allclose(found.value, best, rtol=1e-12)


def test_networks_lie_between_the_bounds_of_the_proof():
    """The lower one of layers that are on or off, and the upper one of rounding."""
    velocity = tracking.envelope().velocity
    for n in (32, 128):
        found = HUNT.descend(tracking.programmed(HUNT, n).theta)
        scaled = n**2 * (found.value - HUNT.infimum)
        assert HUNT.stop * 0.14**2 / 12 < scaled < 9 / 4 * velocity**2
        assert found.flags == ()


def test_descent_ends_at_a_critical_point_and_leaves_zeros_alone():
    start = tracking.switching(HUNT, 64, 8)
    found = HUNT.descend(start)
    assert found.flags == ()
    assert found.residual < 1e-8
    assert found.value < HUNT.value(start)
    assert np.all(found.theta[start == 0] == 0)
    assert HUNT.descend(np.zeros(5)).value == HUNT.value(np.zeros(5))


def test_a_convex_cost_leads_all_starts_to_one_minimum():
    problem = Tracking(field="tanh")
    ends = [problem.descend(np.full(16, z)).theta for z in (0.0, 0.3, -0.5)]
    np.testing.assert_allclose(ends[1:], [ends[0]] * 2, atol=1e-5)


def test_the_best_penalised_switching_turns_twice_a_period():
    r"""$3 (A \alpha^2 \theta_*^2)^{1/3}$ at the whole number of periods $N = 4$."""
    A, control = tracking.periodic_excess(HUNT, 1), tracking.envelope().control
    alpha = A / (4**3 * control)
    two = {"levels": 1, "reach": 30.0, "variation": alpha}
    found = tracking.programmed(HUNT, 512, **two)
    expected = 3 * (A * (alpha * control) ** 2) ** (1 / 3)
    np.testing.assert_allclose(found.value - HUNT.infimum, expected, rtol=0.01)
    assert np.count_nonzero(np.diff(found.theta)) == 8


@pytest.mark.parametrize("periods", [1, 3])
def test_switching_costs_what_the_formula_says(periods):
    theta = tracking.switching(HUNT, 20_000, periods)
    excess = HUNT.value(theta) - HUNT.infimum
    expected = tracking.periodic_excess(HUNT, periods)
    np.testing.assert_allclose(excess, expected, rtol=0.01)
    assert tracking.phases(theta) == periods + 1


def test_constant_layers_rest_after_the_stop():
    theta = tracking.constant(HUNT, 100, 0.5)
    assert np.all(theta[:73] == 0.5)
    assert np.all(theta[73:] == 0)
    assert tracking.phases(theta) == 1
    assert tracking.phases(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speed": 0.31}, "speed must lie in"),
        ({"decay": 0.07}, "decay must lie in"),
        ({"field": "relu"}, "unknown field"),
        ({"smoothing": -1.0}, "smoothing must lie in"),
    ],
)
def test_what_has_no_such_limit_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Tracking(**settings)


@pytest.mark.parametrize("other", [{"field": "tanh"}, {"smoothing": 0.1}])
def test_other_problems_have_no_such_infimum(other):
    problem = Tracking(**other)
    with pytest.raises(ValueError, match="tanh cubed"):
        _ = problem.infimum
    with pytest.raises(ValueError, match="tanh cubed"):
        problem.excess_parts(np.zeros(2))
    with pytest.raises(ValueError, match="tanh cubed"):
        tracking.programmed(problem, 4)


def test_a_speed_of_one_or_more_has_no_cost():
    with pytest.raises(ValueError, match=r"\(-1, 1\)"):
        tracking.velocity_cost(np.array([1.0]))
