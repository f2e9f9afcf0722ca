"""Laws of the small functionals whose Γ-limits are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from deeplimits.variational import gamma

RNG = np.random.default_rng(0)
KAPPA = 4 / 3  # for tau = 1
positive = st.lists(st.floats(0.1, 10), min_size=2, max_size=12)


# ------------------------------------------------------------------ strings


@settings(deadline=None)
@given(positive, st.floats(-3, 3))
def test_springs_in_series_have_the_harmonic_mean(stiffness, end):
    a = np.array(stiffness)
    u = gamma.string_at_rest(a, end=end)
    np.testing.assert_allclose([u[0], u[-1]], [0, end], atol=1e-12)
    energy = gamma.string_energy(u, a)
    np.testing.assert_allclose(energy, end**2 / np.mean(1 / a), rtol=1e-10)


@pytest.mark.parametrize("periods", [1, 2, 7])
def test_whole_periods_cost_the_square_root_of_three(periods):
    """And the straight line costs the mean, 2: the pointwise limit is another."""
    a = gamma.layered(periods, 32)
    energy = gamma.string_energy(gamma.string_at_rest(a), a)
    np.testing.assert_allclose(energy, 3**0.5, rtol=1e-13)
    line = np.linspace(0, 1, len(a) + 1)
    np.testing.assert_allclose(gamma.string_energy(line, a), 2, rtol=1e-13)


def test_few_pieces_miss_the_square_root_of_three():
    a = gamma.layered(5, 4)
    assert abs(gamma.string_energy(gamma.string_at_rest(a), a) - 3**0.5) > 1e-3


def test_a_loaded_string_is_a_minimiser():
    """Its gradient vanishes inside, by the energy's own differences."""
    a, load, h = RNG.uniform(0.5, 4, 9), 0.7, 1e-4
    u = gamma.string_at_rest(a, end=0.4, load=load)

    def energy(v):
        return gamma.string_energy(v, a) - 2 * load * np.sum(v[1:-1]) / len(a)

    for i in range(1, 9):
        step = h * np.eye(10)[i]
        assert abs(energy(u + step) - energy(u - step)) / (2 * h) < 1e-9
        assert energy(u + step) > energy(u)


def test_a_homogeneous_string_hangs_in_a_parabola():
    s = np.linspace(0, 1, 65)
    u = gamma.string_at_rest(np.full(64, 2.0), end=0.0, load=3.0)
    np.testing.assert_allclose(u, 3 * s * (1 - s) / 4, atol=1e-14)


# ---------------------------------------------------------------- penalties


@settings(deadline=None)
@given(positive, st.floats(0.1, 5))
def test_without_the_factor_it_is_the_same_penalty_with_other_constants(weights, tau):
    g = np.array(weights)
    n = len(g)
    squares = gamma.depth_penalty(g, tau=n * tau) / n
    without = gamma.depth_penalty(g, tau=tau, kind="no factor")
    np.testing.assert_allclose(without, squares, rtol=1e-12)


@pytest.mark.parametrize("depth", [4, 16, 64])
def test_a_recovery_sequence_costs_no_more_than_the_limit(depth):
    """Samples of g(s) = sin 3s + 0.4, whose penalty is an integral."""
    tau = 0.7
    g = np.sin(3 * np.arange(depth) / depth) + 0.4
    limit = 4.5 * (1 + np.sin(6) / 6) + tau * 0.4**2
    cost = gamma.depth_penalty(g, tau=tau)
    assert limit - 30 / depth < cost < limit


def test_variation_of_a_monotone_path_is_its_rise():
    g = np.array([0.5, 0.5, 2.0, 2.25])
    assert gamma.depth_penalty(g, tau=2.0, kind="variation") == 1.75 + 0.5


@settings(deadline=None)
@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_a_relaxed_start_is_the_best_first_layer(value, tau):
    a = np.linspace(-4, 4, 8001)
    brute = np.min(abs(value - a) + tau * a**2)
    found = gamma.relaxed_start(value, tau)
    assert found - 1e-12 <= brute <= found + 2e-3
    assert found <= tau * value**2 + 1e-12


# ------------------------------------------------------- a scalar network


def test_the_network_is_its_loop():
    g, h = RNG.normal(size=7), 1.0
    for weight in g:
        h = h + weight * h / 7
    np.testing.assert_allclose(gamma.scalar_network(g), h, rtol=1e-14)


@pytest.mark.parametrize("target", [0.4, 1.3, 2.0])
def test_at_a_minimiser_the_gradient_vanishes(target):
    n, alpha, tau = 11, 0.3, 1.7
    options = {"target": target, "alpha": alpha, "tau": tau}

    def energy(g):
        rises = n * jnp.sum(jnp.diff(g) ** 2) + tau * g[0] ** 2
        return (jnp.prod(1 + g / n) - target) ** 2 + alpha * rises

    g = gamma.scalar_minimiser(n, **options)
    np.testing.assert_allclose(gamma.scalar_energy(g, **options), energy(g), rtol=1e-13)
    assert np.abs(jax.grad(energy)(jnp.asarray(g))).max() < 1e-12
    for seed in range(5):
        other = g + np.random.default_rng(seed).normal(scale=0.1, size=n)
        assert gamma.scalar_energy(other, **options) > energy(g)


@pytest.mark.parametrize(("n", "tau"), [(2, 0.01), (4, 1.0), (9, 9.0)])
def test_no_start_leads_lower(n, tau):
    """There are other local minima: with n = 4 one where all 1 + g/n are negative."""

    def energy(g):
        rises = n * jnp.sum(jnp.diff(g) ** 2) + tau * g[0] ** 2
        return (jnp.prod(1 + g / n) - 2) ** 2 + 0.1 * rises

    both, rng = jax.jit(jax.value_and_grad(energy)), np.random.default_rng(n)
    least = gamma.scalar_energy(gamma.scalar_minimiser(n, tau=tau), tau=tau)
    starts = [*rng.normal(scale=4, size=(8, n)), np.full(n, -2.0 * n)]
    for start in starts:
        found = optimize.minimize(both, start, jac=True, method="L-BFGS-B")
        assert found.fun > least - 1e-9


def test_the_best_profile_of_a_mean():
    """Its mean and its penalty, and no smooth change of mean zero makes it cheaper."""
    m, tau = 0.6, 2.5
    kappa = 1 / tau + 1 / 3
    s = (np.arange(10**4) + 0.5) / 10**4
    g = gamma.scalar_profile(s, mean=m, tau=tau)
    np.testing.assert_allclose(np.mean(g), m, rtol=1e-8)
    start = gamma.scalar_profile(np.zeros(1), mean=m, tau=tau)[0]
    slope = np.gradient(g, s, edge_order=2)
    penalty = np.mean(slope**2) + tau * start**2
    np.testing.assert_allclose(penalty, m**2 / kappa, rtol=1e-7)
    for k in (1, 2, 3):  # g + cos(k pi s): stationary
        product = np.mean(slope * -np.pi * k * np.sin(np.pi * k * s))
        assert abs(product + tau * start) < 1e-6


@pytest.mark.parametrize("target", [0.3, 1.0, 2.0])
def test_the_limit_is_the_least_of_all_means(target):
    m = np.linspace(-2, 2, 40001)
    brute = np.min((np.exp(m) - target) ** 2 + 0.1 * m**2 / KAPPA)
    mean, value = gamma.scalar_limit(target=target)
    assert value <= brute < value + 1e-7
    assert (mean > 0) == (target > 1)


def test_minima_and_minimisers_tend_to_the_limit_at_first_order():
    """With the constant that the minimiser of the limit gives."""
    mean, value = gamma.scalar_limit()
    s = (np.arange(4000) + 0.5) / 4000
    ends = gamma.scalar_profile(np.array([0.0, 1.0]), mean=mean)
    square = np.mean(gamma.scalar_profile(s, mean=mean) ** 2)
    constant = (2 - np.exp(mean)) * np.exp(mean) * (ends[1] - ends[0] + square)
    for n in (64, 256):
        g = gamma.scalar_minimiser(n)
        scaled = n * (gamma.scalar_energy(g) - value)
        assert abs(scaled - constant) < 0.03 / n**0.5
        gap = np.abs(g - gamma.scalar_profile(np.arange(n) / n, mean=mean)).max()
        assert 0.3 < n * gap < 0.4


# -------------------------------------------------------------- interfaces


@pytest.mark.parametrize("centre", gamma.CENTRES)
@pytest.mark.parametrize("spacing", [0.1, 1.0, 4.0])
def test_an_interface_is_odd_and_at_rest(spacing, centre):
    u = gamma.lattice_interface(spacing, centre=centre)
    np.testing.assert_array_equal(u, -u[::-1])
    assert np.all(np.diff(u) >= 0)
    assert u[-1] > 1 - 1e-12
    assert len(u) % 2 == (centre == "site")
    assert np.abs(gamma.lattice_force(u, spacing=spacing)).max() < 1e-10


def test_the_force_is_minus_the_gradient():
    u = jnp.asarray(RNG.normal(size=8))

    def energy(u):
        return jnp.sum(jnp.diff(u) ** 2) / 0.3 + 0.3 * jnp.sum((1 - u**2) ** 2)

    np.testing.assert_allclose(
        gamma.lattice_energy(np.asarray(u), spacing=0.3), energy(u), rtol=1e-13
    )
    force = gamma.lattice_force(np.asarray(u), spacing=0.3)
    np.testing.assert_allclose(force, -jax.grad(energy)(u), rtol=1e-12)


def price(spacing, centre="bond"):
    u = gamma.lattice_interface(spacing, centre=centre)
    return gamma.lattice_energy(u, spacing=spacing)


@pytest.mark.parametrize("spacing", [0.0625, 0.125])
def test_a_fine_lattice_saves_the_second_order(spacing):
    saved = (gamma.INTERFACE - price(spacing)) / spacing**2
    assert abs(saved - 4 / 45) < 0.02 * spacing**2
    assert saved > 4 / 45


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0, 4.0])
def test_a_lattice_is_cheaper_than_the_line_and_than_a_sharp_jump(spacing):
    assert price(spacing) < min(gamma.INTERFACE, 4 / spacing)
    assert price(spacing) < price(spacing, "site")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**20))
def test_no_other_way_across_is_cheaper(seed):
    rng = np.random.default_rng(seed)
    steps = np.append(0, np.cumsum(rng.uniform(size=6)))
    u = 2 * steps / steps[-1] - 1  # a monotone way from -1 to 1
    assert gamma.lattice_energy(u, spacing=1.5) >= price(1.5) - 1e-12


@pytest.mark.parametrize("spacing", [1.0, 1.5, 4.0])
def test_no_way_across_over_a_grid_of_values_is_cheaper(spacing):
    """A shortest path from -1 to 1, over all sequences of values on the grid."""
    values = np.linspace(-1.2, 1.2, 361)
    first, last = np.argmin(abs(values + 1)), np.argmin(abs(values - 1))
    bonds = (values[:, None] - values) ** 2 / spacing
    wells = spacing * (1 - values**2) ** 2
    costs, before = np.full(len(values), np.inf), None
    costs[first] = wells[first]
    while before is None or costs[last] < before:
        before = costs[last]
        for _ in range(8):
            costs = np.minimum(costs, np.min(costs[:, None] + bonds, axis=0) + wells)
    # values rounded to the grid cost at most this
    assert price(spacing) - 1e-10 < costs[last] < price(spacing) + 5e-4
    assert costs[last] < price(spacing, "site")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gamma.layered(0, 4), "periods"),
        (lambda: gamma.string_at_rest([1.0, 0.0]), "stiffness must be positive"),
        (lambda: gamma.string_energy([0.0, 1.0], [1.0, 2.0]), "u must have shape"),
        (lambda: gamma.depth_penalty([1.0], kind="cubes"), "unknown kind 'cubes'"),
        (lambda: gamma.depth_penalty([np.nan, 1.0]), "weights holds NaN"),
        (lambda: gamma.scalar_minimiser(1), "depth"),
        (lambda: gamma.scalar_limit(target=2.5), "target must lie in"),
        (lambda: gamma.scalar_limit(alpha=0.0), "alpha"),
        (lambda: gamma.scalar_minimiser(4, tau=-1.0), "tau"),
        (lambda: gamma.lattice_interface(0.0), "spacing"),
        (lambda: gamma.lattice_interface(1.0, centre="middle"), "unknown centre"),
        (lambda: gamma.relaxed_start(1.0, 0.0), "tau"),
    ],
)
def test_bad_input_is_named(call, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        call()
