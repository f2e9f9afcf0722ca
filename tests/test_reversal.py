"""Turning an interval round: what layers may, and flows may not."""

import numpy as np
import pytest
from scipy import integrate

from deeplimits import control


@pytest.mark.parametrize("kinetic", [0.2, 0.35])
@pytest.mark.parametrize("depth", [1, 3, 17, 64])
def test_straight_slopes_attain_the_bound_of_fields_that_see_the_label(depth, kinetic):
    value = control.reversal_energy(
        control.straight_slopes(depth, kinetic=kinetic), kinetic=kinetic
    )
    assert value == pytest.approx(2 * kinetic / (3 * (1 + kinetic)), rel=1e-12)


def test_the_loop_over_layers_is_the_sum_over_data():
    """By Gauss's rule for the uniform law, through the layers themselves."""
    nodes, weights = np.polynomial.legendre.leggauss(4)
    slopes, x, running = np.array([0.5, -0.25, 4.0]), nodes, 0.0
    for a in slopes:
        running += np.sum(weights / 2 * (0.1 * (a * x) ** 2)) / 3 + 0.15 * a**2 / 3
        x = x - a * x / 3
    value = np.sum(weights / 4 * (x + nodes) ** 2) + running
    found = control.reversal_energy(slopes, kinetic=0.2, price=0.3)
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("price", [0.1, 0.003])
def test_the_least_energies_tend_to_that_of_the_continuum(price):
    value, _ = control.reversal_limit(price=price)
    depths = (64, 128, 256)
    gaps = [value - control.least_reversal(n, price=price).value for n in depths]
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.03)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.03)
    assert value > 0.2  # more than order-preserving maps cost without a price


def test_the_limit_is_its_integral():
    kinetic, price = 0.4, 0.05
    value, end = control.reversal_limit(kinetic=kinetic, price=price)

    def cost(c):
        way = integrate.quad(lambda s: np.sqrt(kinetic / 3 + price / s**2), c, 1)[0]
        return (c + 1) ** 2 / 6 + way**2 / 2

    assert value == pytest.approx(cost(end), rel=1e-9)
    assert cost(end) <= min(cost(0.98 * end), cost(1.02 * end))


def test_the_least_network_is_stationary_and_its_value_is_the_loops():
    found = control.least_reversal(6, price=0.003)
    slopes = 6 * (1 - found.factors[1:] / found.factors[:-1])
    assert found.turns == 3
    assert found.norm < 1e-8
    assert control.reversal_energy(slopes, price=0.003) == pytest.approx(
        found.value, rel=1e-12
    )
    rng = np.random.default_rng(0)
    for _ in range(20):  # no neighbour is better
        other = slopes + 0.01 * rng.normal(size=6)
        assert control.reversal_energy(other, price=0.003) > found.value


@pytest.mark.parametrize("price", [0.03, 0.003])
def test_deep_networks_do_not_pay_for_a_change_of_sign(price):
    """One costs `price * depth / 2` at least, and gains at most what is gained
    without a price."""
    for depth in range(1, 41, 3):
        found = control.least_reversal(depth, price=price)
        if found.turns is not None:
            assert found.value >= 1 / 9 + price * depth / 2
    assert found.turns is None


def test_data_that_meet_between_two_layers_are_refused():
    with pytest.raises(ValueError, match="meet between two layers: got depth=10"):
        control.straight_slopes(10)
    with pytest.raises(ValueError, match="price"):
        control.least_reversal(3, price=0.0)
    with pytest.raises(ValueError, match="kinetic"):
        control.reversal_limit(kinetic=1.0, price=0.1)
    with pytest.raises(ValueError, match="one number a layer"):
        control.reversal_energy([[1.0]])
