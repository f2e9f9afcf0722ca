"""Laws of the experiments on particles and their mean field."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy import stats

from deeplimits import control, experiments, measures
from deeplimits.experiments.herty2022 import sampling, training

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


# ------------------------------------------------------------------- training

FEW = training.Training(
    decays=(0.1,), points=(320,), groups=8, draws=32, layers=6, nodes=12
)


@pytest.fixture(scope="module")
def trained():
    return experiments.find("herty2022/training").run(FEW, key=jr.key(5))


def test_the_system_of_a_sample_has_the_weights_that_the_cost_has(trained):
    """From the population's derivative, against L-BFGS, with asymmetric data."""
    with jax.enable_x64(True):
        optimum = jnp.asarray(trained.weights.values[0])
        population = training._problem(control.bumps(12), 0.1)
        slopes = jax.jacfwd(lambda z: training.stationarity(population, z))(optimum)
        inverse = jnp.linalg.inv(slopes.reshape(12, 12))
        sample = training._problem(control.sample_bumps(80, key=jr.key(1)), 0.1)
        theta, left = training.chord(sample, optimum, inverse, (60, 1e-11))
        found = control.direct(sample, optimum)
        assert float(left) <= 1e-11
        np.testing.assert_allclose(theta, found.theta, atol=1e-7)
        assert float(jnp.abs(theta[:, 1]).max()) > 1e-3  # b is not that of the law


def test_weights_and_values_of_samples_follow_their_laws(trained):
    """Within five standard errors and a term of relative order 1/M."""
    assert trained.solved.values.min() == 1
    M, law = 320, trained.isel(decay=0, points=0)
    groups = [
        M * law.control.mean("layer").values / (law.deviation**2).mean("layer").values,
        M * law.value.values[:, None] / float(law.spread) ** 2,
        M * law.gained.values[:, None] / -float(law.bias),
        M * law.lost.values[:, None] / -float(law.bias),
    ]
    for each in groups:
        error = each.std(0, ddof=1) / len(each) ** 0.5
        assert (np.abs(each.mean(0) - 1) < 5 * error + 10 / M).all()
        assert (error < 0.2).all()  # or it says nothing


def test_what_a_chord_does_not_solve_is_counted():
    config = dataclasses.replace(FEW, points=(20,), iterations=1, groups=1, draws=4)
    found = experiments.find("herty2022/training").run(config, key=jr.key(0))
    assert found.solved.values.max() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_million_particles_take_less_than_two_gigabytes(tmp_path):
    """Pieces come one after another, so that three need as much as a hundred; and so
    do twenty layers, of a thousand."""
    program = """
from pathlib import Path
import sys
from deeplimits.cli import main
assert not main(sys.argv[1:])
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(int(peak) / 2**20)
"""
    command = ["run", "herty2022/sampling", "--profile", "paper"]
    sizes = [
        f"--set={name}={n}" for name, n in (("particles", 3 * 10**6), ("depth", 20))
    ]
    output = ["--output", str(tmp_path / "found.nc")]
    done = subprocess.run(
        [sys.executable, "-c", program, *command, *sizes, *output],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.1 < float(done.stdout.splitlines()[-1]) < 2
