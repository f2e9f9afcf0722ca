"""The idealised minimum, and networks of a few units."""

import jax.random as jr
import numpy as np
import pytest

from deeplimits import experiments
from deeplimits.experiments.isobe2024.width import Width, excess, quadrature


def test_the_quadrature_is_that_of_the_uniform_law():
    x, w = quadrature()
    for power, moment in ((0, 1), (1, 0), (2, 1 / 3), (6, 1 / 7)):
        assert np.sum(w * x**power) == pytest.approx(moment, abs=1e-12)


@pytest.mark.parametrize("steep", [200.0, 2000.0])
def test_two_units_come_near_at_the_rate_of_their_steepness(steep, as_in_use):
    """A steep unit for the jump, a flat one for the line."""
    units = 2 / 3 * np.array([[1, -steep], [1.5 * steep, 1.5 / steep], [0, 0]])
    constant = 6 * (2 * np.log(2) - 1)
    assert float(excess(units)) * steep == pytest.approx(constant, rel=1e-3)


def test_one_steep_unit_stops_at_one_half(as_in_use):
    units = np.array([[1 / 3], [1e5], [0.0]])
    assert float(excess(units)) == pytest.approx(0.5, abs=1e-4)


def test_more_iterations_do_no_harm():
    found = experiments.run("isobe2024/width", "smoke", key=jr.key(3))
    assert (np.diff(found.excess.values, axis=-1) <= 1e-12).all()
    assert (found.excess > 0).all()


def test_budgets_increase():
    with pytest.raises(ValueError, match="budgets must increase"):
        Width(budgets=(20, 10))
    with pytest.raises(ValueError, match="budgets must be at most"):
        Width(budgets=(20, 10**7))
