"""Learned step sizes: what holds at every stationary point, and bad input."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from deeplimits import datasets, variational

RINGS = variational.Problem(*datasets.rings(), alpha=0.01)


@pytest.fixture(scope="module")
def fixed():
    like = variational.one_layer(16, 2)
    start = variational.random_start(RINGS, like, key=jr.key(3))
    return variational.minimise(RINGS, start)


@pytest.fixture(scope="module")
def learned(fixed):
    return variational.learn_steps(RINGS, fixed.parameters, cap=3.0)


def test_the_value_is_the_energy_of_the_paced_network_and_below_that_of_fixed_steps(
    fixed, learned
):
    loss = RINGS.data_loss(learned.paced)
    parameters = learned.parameters
    penalty = RINGS.alphas(parameters) @ RINGS.roughness(parameters)
    np.testing.assert_allclose(learned.value, loss + penalty, rtol=1e-10)
    assert learned.solved
    assert learned.value < fixed.value - 0.1
    assert float(jnp.mean(learned.pace)) == pytest.approx(1, abs=1e-6)


def test_the_gain_of_each_layer_says_what_its_pace_is(learned):
    pace, gain = np.asarray(learned.pace), variational.gains(RINGS, learned)
    surplus = np.asarray(gain) + learned.multiplier
    idle, running = pace < 1e-9, pace > 3 - 1e-9
    assert idle.any()
    assert running.any()
    assert (surplus[idle] > 0).all()
    assert (surplus[running] < 0).all()
    # the gradient in a pace is the gain over the depth
    np.testing.assert_allclose(surplus[~idle & ~running], 0, atol=16 * 1e-6)


def test_the_gains_are_the_derivatives_of_the_loss(learned):
    def loss(pace):
        block = variational.Paced(learned.parameters.block, pace)
        return RINGS.data_loss(
            variational.Parameters(block, learned.parameters.readout)
        )

    slopes = 16 * jax.grad(loss)(learned.pace)
    np.testing.assert_allclose(variational.gains(RINGS, learned), slopes, rtol=1e-10)


def test_without_room_above_one_all_paces_are_one(fixed):
    found = variational.learn_steps(RINGS, fixed.parameters, cap=1.0)
    np.testing.assert_allclose(found.pace, 1, atol=1e-6)
    assert found.value == pytest.approx(fixed.value, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cap": 0.5}, "cap"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"rounds": 0}, "rounds"),
        ({"pace": np.full(16, 4.0)}, "between 0 and cap=3"),
        ({"pace": np.ones(5)}, "pace"),
    ],
)
def test_bad_input(fixed, options, message):
    with pytest.raises(ValueError, match=message):
        variational.learn_steps(RINGS, fixed.parameters, **options)


def test_only_for_networks(fixed):
    with pytest.raises(ValueError, match="scheme"):
        variational.learn_steps(RINGS.but(scheme="heun"), fixed.parameters)
