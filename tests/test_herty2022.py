"""Laws of the experiments on particles and their mean field."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from deeplimits import experiments, measures
from deeplimits.experiments.herty2022 import sampling

SMALL = sampling.Sampling(
    particles=20_000, piece=1000, blocks=4, depth=8, bins=512, duration=1.0
)


@pytest.fixture(scope="module")
def found():
    return experiments.find("herty2022/sampling").run(SMALL, key=jr.key(3))


def test_samples_have_all_sizes(found):
    sizes, repeats = np.unique(found.particles, return_counts=True)
    assert sizes.tolist() == [100, 1000, 10_000]
    assert repeats.tolist() == [20, 20, 2]
    assert sampling.sizes(5000) == [500, 5000]


def test_the_distance_is_that_of_the_particles_by_a_plain_loop(found):
    """The first piece, layer by layer in NumPy, and SciPy's distance to its law."""
    x = np.asarray(jr.normal(jr.fold_in(jr.key(3), 0), (4, 1, 250))).ravel()
    edges = np.linspace(-6, 6, 20_001)
    heights = stats.norm.cdf(edges)
    for _ in range(SMALL.depth):
        x, edges = (z + 0.125 * np.tanh(0.3 - z) for z in (x, edges))
    law = measures.Histogram(
        jnp.asarray(edges), jnp.diff(heights) / (heights[-1] - heights[0])
    )
    for size in (100, 1000):
        first = found.to_network.values[found.particles == size][0]
        plain = measures.wasserstein(measures.Empirical(jnp.asarray(x[:size])), law)
        assert first == pytest.approx(float(plain), rel=0.02)  # cells of 1/40


def test_samples_are_as_far_from_their_law_as_de_moivre_says(found):
    """And pieces are independent: the mean over 20 within five standard errors."""
    edges = np.linspace(-6, 6, 513)
    heights = stats.norm.cdf(edges)
    for _ in range(SMALL.depth):
        edges = edges + 0.125 * np.tanh(0.3 - edges)
    masses = np.diff(heights) / (heights[-1] - heights[0])
    law = measures.Histogram(jnp.asarray(edges), jnp.asarray(masses))
    for size in (100, 1000):
        draws = found.to_network.values[found.particles == size]
        expected = measures.expected_w1(law, size)
        assert abs(draws.mean() - expected) < 5 * draws.std(ddof=1) / 20**0.5
        assert expected == pytest.approx(float(found.constant) / size**0.5, rel=0.03)


def test_moments_are_those_of_the_law(found):
    mean, square = found.law_moments.values
    deviation = ((square - mean**2) / SMALL.particles) ** 0.5
    assert abs(found.moments.values[0] - mean) < 5 * deviation
    assert found.moments.values[1] == pytest.approx(square, rel=0.05)


def test_the_law_of_the_network_comes_near_the_limit_at_rate_one():
    laws = (
        sampling._law(dataclasses.replace(SMALL, depth=L, bins=2048), None, jr.key(0))
        for L in (32, 64)
    )
    coarse, fine = (
        np.trapezoid(np.abs(law["network"] - law["limit"]), law["image"])
        for law in laws
    )
    assert coarse / fine == pytest.approx(2, abs=0.1)


def test_far_from_the_limit_a_sample_sees_only_the_bias(found):
    large = found.to_limit.values[found.particles == 10_000]
    noise = found.to_network.values[found.particles == 10_000]
    assert (abs(large - float(found.bias)) <= noise).all()
    assert (noise < large).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"weight": -8.0}, "depth must exceed 8, or a layer changes the order"),
        ({"particles": 1500}, "particles must be a multiple of piece"),
        ({"piece": 50}, "piece must be at least 100"),
    ],
)
def test_what_is_no_experiment_is_refused(change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(SMALL, **change)
