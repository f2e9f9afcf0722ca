"""Laws of measures: their moments, push-forwards, and distances."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import TOLERANCE, assert_mean
from scipy import stats

from deeplimits import measures
from deeplimits.intervals import Kind
from deeplimits.measures import Affine, Empirical, Gaussian, Histogram, entropic
from deeplimits.residual import OneLayer, ResNet

RNG = np.random.default_rng(0)
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])
NILPOTENT = np.array([[0.0, 2.0], [0.0, 0.0]])  # singular, not zero
GENERAL = np.array([[0.3, -1.0], [0.5, -0.7]])
BIAS = np.array([0.4, -1.1])


def cloud(seed, count=6, d=2):
    return Empirical(np.random.default_rng(seed).normal(size=(count, d)))


def weighted(seed, count=6, d=2):
    rng = np.random.default_rng(seed)
    masses = rng.uniform(size=count)
    return Empirical(rng.normal(size=(count, d)), masses / masses.sum())


def histogram(seed, cells=5):
    rng = np.random.default_rng(seed)
    masses = rng.uniform(size=cells)
    return Histogram(np.sort(rng.normal(size=cells + 1)), masses / masses.sum())


UNIFORM = Histogram(np.array([0.0, 1.0]), np.array([1.0]))
# two bumps with a gap between them, where there is no mass
BUMPS = Histogram(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.5, 0.0, 0.5]))


# ------------------------------------------------------------ flows and push-forwards


@pytest.mark.parametrize("matrix", [0 * TURN, NILPOTENT, TURN, GENERAL])
def test_an_affine_flow_starts_along_its_field(matrix):
    """From the identity; also for matrices that have no inverse."""
    x = jnp.asarray([0.7, -0.2])
    flow = [measures.affine_flow(matrix, BIAS, t)(x) for t in (-1e-5, 0.0, 1e-5)]
    np.testing.assert_array_equal(flow[1], x)
    velocity = (flow[2] - flow[0]) / 2e-5
    np.testing.assert_allclose(velocity, matrix @ x + BIAS, rtol=1e-9)


@pytest.mark.parametrize("matrix", [NILPOTENT, GENERAL])
def test_an_affine_flow_goes_on_and_back(matrix, dtype):
    A, b, x = (np.asarray(z, dtype) for z in (matrix, BIAS, [0.7, -0.2]))
    flows = [measures.affine_flow(A, b, t) for t in (0.5, 0.8, 1.3, -1.3)]
    half, rest, whole, back = flows
    x = jnp.asarray(x)
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(rest(half(x)), whole(x), rtol=tolerance)
    np.testing.assert_allclose(back(whole(x)), x, rtol=tolerance)
    volume = np.exp(1.3 * np.trace(A))
    assert np.linalg.det(whole.matrix) == pytest.approx(volume, rel=tolerance)
    assert whole.matrix.dtype == whole.offset.dtype == dtype


def test_singular_flows_have_their_closed_forms():
    x = jnp.asarray([0.7, -0.2])
    still = measures.affine_flow(0 * TURN, BIAS, 2.0)
    np.testing.assert_allclose(still(x), x + 2 * BIAS, rtol=1e-14)
    # x_2 moves with b_2, x_1 with 2 x_2 + b_1
    expected = [
        x[0] + 2 * (2 * x[1] + BIAS[0]) + 4 * BIAS[1],
        x[1] + 2 * BIAS[1],
    ]
    np.testing.assert_allclose(
        measures.affine_flow(NILPOTENT, BIAS, 2.0)(x), expected, rtol=1e-14
    )


def test_push_forwards_compose_and_keep_the_weights():
    mu, expected = weighted(1), np.array(weighted(1).points)
    for key in jr.split(jr.key(0), 2):
        layers = jr.normal(key, (4, 2, 2)) / 2
        mu = mu.push_forward(ResNet(OneLayer(layers)))
        for W in np.asarray(layers):
            expected += np.tanh(expected @ W.T) / 4
    np.testing.assert_allclose(mu.points, expected, rtol=1e-12)
    np.testing.assert_array_equal(mu.weights, weighted(1).weights)
    assert cloud(1).push_forward(jnp.tanh).weights is None


@pytest.mark.parametrize(
    "mu", [cloud(2), weighted(2), Gaussian(BIAS, np.diag([1.0, 2]))]
)
def test_an_affine_map_carries_mean_and_covariance(mu):
    """Also to another dimension."""
    M, c = RNG.normal(size=(3, 2)), RNG.normal(size=3)
    image = mu.push_forward(Affine(M, c))
    np.testing.assert_allclose(image.mean, M @ mu.mean + c, rtol=1e-12)
    np.testing.assert_allclose(image.covariance, M @ mu.covariance @ M.T, rtol=1e-12)


def test_a_histogram_keeps_its_masses_between_images_of_its_edges():
    """At an edge the distribution function of the image is that of the law."""
    mu = histogram(3)
    image = mu.push_forward(lambda x: jnp.sinh(x) + 1)
    np.testing.assert_allclose(image.edges, np.sinh(mu.edges) + 1, rtol=1e-14)
    np.testing.assert_array_equal(image.masses, mu.masses)
    with pytest.raises(ValueError, match="edges must increase"):
        mu.push_forward(jnp.negative)


# --------------------------------------------------------------------------- moments


@pytest.mark.parametrize("order", [0, 1, 2, 5])
def test_moments_of_points_are_sums(order, dtype):
    mu = weighted(4)
    mu = Empirical(mu.points.astype(dtype), mu.weights.astype(dtype))
    found = mu.moment(order)
    assert found.dtype == dtype
    points, weights = (np.asarray(z, float) for z in (mu.points, mu.weights))
    expected = sum(w * x**order for x, w in zip(points, weights, strict=True))
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("order", range(7))
def test_moments_of_a_normal_law_and_of_a_histogram_are_integrals(order):
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    points = BIAS + nodes[:, None] * np.sqrt([1.0, 2.0])
    expected = weights @ points**order / np.sqrt(2 * np.pi)
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])
    np.testing.assert_allclose(Gaussian(BIAS, covariance).moment(order), expected)
    mu = histogram(5)
    left, right = mu.edges[:-1], mu.edges[1:]
    cells = (right ** (order + 1) - left ** (order + 1)) / (right - left)
    expected = np.sum(mu.masses * cells) / (order + 1)
    np.testing.assert_allclose(mu.moment(order), expected[None], rtol=1e-12)


def test_covariances_are_those_of_the_measure():
    mu = weighted(6)
    expected = np.cov(mu.points.T, aweights=mu.weights, ddof=0)
    np.testing.assert_allclose(mu.covariance, expected, rtol=1e-12)
    # far from 0 the square of the mean would take all digits
    for law in (UNIFORM, cloud(6, d=1)):
        moved = law.push_forward(lambda x: x + 1e6)
        np.testing.assert_allclose(moved.covariance, law.covariance, rtol=1e-9)
    np.testing.assert_allclose(UNIFORM.covariance, [[1 / 12]], rtol=1e-12)


@pytest.mark.parametrize("equal", [True, False])
def test_a_million_floats_are_added_to_their_precision(equal):
    points = np.random.default_rng(7).uniform(size=(10**6, 2)).astype("float32")
    weights = None if equal else np.full(10**6, 1e-6, "float32")
    mu = Empirical(points, weights)
    exact = points.astype(float)
    np.testing.assert_allclose(mu.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(mu.covariance, np.cov(exact.T), atol=1e-6)


def test_samples_have_the_law_they_are_drawn_from():
    root = np.array([[1.0, 0.0], [0.7, 0.4]])
    law = Gaussian(BIAS, root @ root.T)
    draws = np.asarray(law.sample(4000, key=jr.key(0)).points)
    centred = draws - BIAS
    for j, k in [(0, 0), (0, 1), (1, 1)]:
        assert_mean(draws[:, j], BIAS[j])
        assert_mean(centred[:, j] * centred[:, k], law.covariance[j, k])
    on_a_line = Gaussian(BIAS, np.ones((2, 2))).sample(5, key=jr.key(1))
    x, y = (np.asarray(on_a_line.points) - BIAS).T
    np.testing.assert_allclose(x, y, rtol=1e-6)


# ------------------------------------------------------------------- exact distances


def test_on_the_line_the_distance_is_scipys():
    pairs = itertools.product([cloud(1, 7, 1), weighted(1, 4, 1)], [weighted(2, 9, 1)])
    for mu, nu in pairs:
        x, y = mu.points[:, 0], nu.points[:, 0]
        expected = stats.wasserstein_distance(x, y, mu.masses, nu.masses)
        assert measures.wasserstein(mu, nu) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [1, 2])
def test_a_matching_is_the_best_of_all(p):
    mu, nu = cloud(3, 5), cloud(4, 5)
    costs = np.linalg.norm(mu.points[:, None] - nu.points[None], axis=2) ** p
    orders = itertools.permutations(range(5))
    best = min(costs[range(5), order].mean() for order in orders)
    found = measures.wasserstein(mu, nu, p=p)
    assert found**p == pytest.approx(best, rel=1e-13)


@pytest.mark.parametrize("p", [1, 2])
def test_weights_count_points(p):
    """A point of weight k/12 is k points of weight 1/12: a programme and a matching."""
    counts = (1, 4, 2, 5), (3, 3, 6)
    rng = np.random.default_rng(5)
    points = [rng.normal(size=(len(each), 2)) for each in counts]
    some = [Empirical(x, np.divide(k, 12)) for x, k in zip(points, counts, strict=True)]
    many = [Empirical(np.repeat(x, k, 0)) for x, k in zip(points, counts, strict=True)]
    expected = measures.wasserstein(*many, p=p)
    assert measures.wasserstein(*some, p=p) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_the_line_is_a_line_in_the_plane(p):
    mu, nu = weighted(6, 5, 1), weighted(7, 8, 1)
    plane = [m.push_forward(Affine(np.array([[0.6], [0.8]]), BIAS)) for m in (mu, nu)]
    found = measures.wasserstein(mu, nu, p=p)
    assert found == pytest.approx(measures.wasserstein(*plane, p=p), rel=1e-9)


def test_distances_of_constant_densities_by_hand():
    middle = Empirical(np.array([0.5]))
    assert measures.wasserstein(UNIFORM, middle) == pytest.approx(1 / 4, rel=1e-14)
    found = measures.wasserstein(middle, UNIFORM, p=2) ** 2
    assert found == pytest.approx(1 / 12, rel=1e-14)
    twice = UNIFORM.push_forward(lambda x: 2 * x)
    found = [measures.wasserstein(UNIFORM, twice, p=p) ** p for p in (1, 2)]
    np.testing.assert_allclose(found, [1 / 2, 1 / 3], rtol=1e-14)
    # an atom, as a cell without length and as a point
    atom = Histogram(np.array([0.5, 0.5]), np.array([1.0]))
    assert measures.wasserstein(atom, middle, p=2) == 0
    # the gap of the two bumps: half of the mass goes 2 further
    assert measures.wasserstein(UNIFORM, BUMPS) == pytest.approx(1, rel=1e-14)


def test_a_distance_on_the_line_is_the_area_between_distribution_functions():
    mu, nu = histogram(8), histogram(9, 8)
    x = np.linspace(-4, 4, 200_001)
    areas = [np.interp(x, m.edges, np.append(0, np.cumsum(m.masses))) for m in (mu, nu)]
    expected = np.trapezoid(np.abs(areas[0] - areas[1]), x)
    assert measures.wasserstein(mu, nu) == pytest.approx(expected, rel=1e-7)


TRIPLES = {
    "line": [cloud(1, 5, 1), weighted(2, 7, 1), histogram(3)],
    "matched": [cloud(1), cloud(2), cloud(3)],
    "programmed": [weighted(1), weighted(2, 4), cloud(3, 5)],
}


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("name", TRIPLES)
def test_it_is_a_metric(name, p):
    measured = TRIPLES[name]

    def distance(i, j):
        return measures.wasserstein(measured[i], measured[j], p=p)

    for i, j, k in itertools.permutations(range(3)):
        assert distance(i, j) == pytest.approx(distance(j, i), rel=1e-9)
        assert distance(i, k) <= distance(i, j) + distance(j, k) + 1e-12
        assert distance(i, j) > 0.1
        assert measures.wasserstein(measured[i], measured[j], p=1) <= distance(i, j)
    assert distance(0, 0) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("mu", [cloud(1), weighted(1), weighted(1, 6, 1), histogram(1)])
def test_a_translation_goes_its_length(mu, p):
    step = np.array([0.6, -0.8])[: len(mu.mean)]
    moved = mu.push_forward(lambda x: x + step)
    length = np.linalg.norm(step)
    assert measures.wasserstein(mu, moved, p=p) == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("matrix", [TURN, NILPOTENT, GENERAL, -np.eye(2)])
def test_an_affine_flow_stretches_by_its_one_sided_constant_at_most(matrix, p):
    """Between the exponentials of the eigenvalues of the symmetric part, which for a
    turn are 1: its norm would allow e. For a contraction both are attained."""
    mu, nu = cloud(1), cloud(2)
    flow = measures.affine_flow(matrix, BIAS, 1.0)
    before = measures.wasserstein(mu, nu, p=p)
    after = measures.wasserstein(mu.push_forward(flow), nu.push_forward(flow), p=p)
    least, most = np.exp(np.linalg.eigvalsh((matrix + matrix.T) / 2))
    assert least - 1e-12 <= after / before <= most + 1e-12


# ------------------------------------------------------------- samples of a law


def test_sliced_distances_by_hand():
    mu, nu = weighted(1, 5, 1), cloud(2, 7, 1)
    for p in (1, 2):
        found = measures.sliced(mu, nu, p=p, directions=3, key=jr.key(0))
        expected = measures.wasserstein(mu, nu, p=p)
        np.testing.assert_allclose(found.numbers, expected, rtol=1e-9)
    mu, step = weighted(1), np.array([3.0, 4.0])
    moved = mu.push_forward(lambda x: x + step)
    # the mean of |cos| is 2/pi, that of its square 1/2
    for p, expected in ((1, 5 * 2 / np.pi), (2, 5 / np.sqrt(2))):
        options = {"p": p, "directions": 400, "level": 0.999}
        found = measures.sliced(mu, moved, key=jr.key(1), **options)
        assert expected in found
        assert found.high - found.low < 0.2 * expected
        assert found.kind == Kind.SEEDS


def test_the_interval_between_laws_holds_their_distance():
    """That of two normal laws at distance 1, and of one from itself; larger samples
    tell them apart."""
    hits, laws = 0, (0.0, 0.0, 1.0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x, y, z = (Empirical(rng.normal(m, 1, 160)) for m in laws)
        hits += 1.0 in measures.between_laws(x, z)
        hits += 0.0 in measures.between_laws(x, y)
    # at the level of 0.95: fewer have a chance of 0.003
    assert hits >= 34
    found = measures.between_laws(*(Empirical(rng.normal(m, 1, 3200)) for m in (0, 1)))
    assert 0.5 < found.low < 0.9 < found.value < found.high < 1.2


def test_another_distance_between_laws():
    rng = np.random.default_rng(0)
    mu, nu = Empirical(rng.normal(size=64)), Empirical(rng.normal(2, 1, 64))

    def doubled(x, y):
        return 2 * measures.wasserstein(x, y)

    once, twice = (
        measures.between_laws(mu, nu, groups=4, distance=each)
        for each in (measures.wasserstein, doubled)
    )
    np.testing.assert_allclose(twice.numbers, np.multiply(2, once.numbers), rtol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_de_moivres_deviation_is_the_sum(count):
    u = np.append(np.linspace(0, 1, 13), np.arange(count) / count)
    k = np.arange(count + 1)[:, None]
    likely = stats.binom.pmf(k, count, u)
    expected = np.sum(likely * np.abs(k / count - u), axis=0)
    found = measures.binomial_deviation(u, count)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-16)


def test_the_mean_distance_to_a_sample_by_hand():
    """One draw is at distance |X - X'| in the mean: 1/3 on the unit interval; between
    bumps it is 2 half of the time. Large samples follow the normal law."""
    assert measures.expected_w1(UNIFORM, 1) == pytest.approx(1 / 3, rel=1e-14)
    assert measures.expected_w1(BUMPS, 1) == pytest.approx(7 / 6, rel=1e-14)
    # two draws: the integral of E|Bin(2, u)/2 - u|, which is 2 u (1 - u)^2 to 1/2
    assert measures.expected_w1(UNIFORM, 2) == pytest.approx(11 / 48, rel=1e-14)
    limit = np.sqrt(2 * np.pi) / 8
    found = 100 * measures.expected_w1(UNIFORM, 10**4)
    assert found == pytest.approx(limit, rel=1e-4)


def normal_law(edges):
    return Histogram(edges, np.diff(stats.norm.cdf(edges)))


def tanh_flow(t, w, b=0.3):
    """The flow of $x' = tanh(w x + b)$: sinh(w x + b) grows by exp(w t)."""
    return lambda x: (jnp.arcsinh(np.exp(w * t) * jnp.sinh(w * x + b)) - b) / w


NORMAL = normal_law(np.linspace(-8, 8, 1601))


@pytest.mark.parametrize("w", [-1.0, 1.0])
def test_samples_are_as_far_as_de_moivre_says_at_every_depth(w):
    """No interaction: the flow of a sample is a sample of the flow."""
    expected = []
    for t in (0.0, 1.0, 2.0):
        law, flow = NORMAL.push_forward(tanh_flow(t, w)), tanh_flow(t, w)
        expected.append(measures.expected_w1(law, 50))
        draws = np.random.default_rng(int(t)).normal(size=(100, 50))
        moved = np.asarray(flow(jnp.asarray(draws)))
        distances = [measures.wasserstein(Empirical(x), law) for x in moved]
        assert_mean(distances, expected[-1])
    ordered = sorted(expected, reverse=w < 0)
    assert expected == ordered  # the error shrinks with depth, or grows


def test_the_table_of_a_law_is_exact_to_second_order():
    coarse, fine = (normal_law(np.linspace(-8, 8, n)) for n in (201, 401))
    exact = measures.expected_w1(NORMAL, 30)
    errors = [measures.expected_w1(each, 30) - exact for each in (coarse, fine)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)


def test_squared_distances_of_uniform_samples():
    """E W_2^2 is 1/(6 N) to the law, and 1/(3 (N + 1)) between two samples; that of
    W_1 between two lies between once and twice that to the law."""
    x, y = np.random.default_rng(3).uniform(size=(2, 300, 9))
    pairs = [(Empirical(a), Empirical(b)) for a, b in zip(x, y, strict=True)]
    to_law = [measures.wasserstein(a, UNIFORM, p=2) ** 2 for a, _ in pairs]
    assert_mean(to_law, 1 / 54)
    assert_mean([measures.wasserstein(*pair, p=2) ** 2 for pair in pairs], 1 / 30)
    mean = np.mean([measures.wasserstein(*pair) for pair in pairs])
    assert 1.05 < mean / measures.expected_w1(UNIFORM, 9) < 1.95


# --------------------------------------------------------------- entropic transport


def test_two_points_have_a_closed_form():
    """The share s that stays solves s / (1/2 - s) = exp(1/epsilon)."""
    mu = Empirical(np.array(3 * [[0.0, 0.0], [1.0, 0.0]]))  # each three times
    for epsilon in (0.3, 2.0):
        stay = 0.5 / (1 + np.exp(-1 / epsilon))
        plan = np.array([stay, 0.5 - stay])
        expected = 2 * plan[1] + epsilon * 2 * np.sum(plan * np.log(plan / 0.25))
        for p in (1, 2):
            found = measures.sinkhorn(mu, mu, epsilon=epsilon, p=p, tolerance=1e-12)
            assert found.value == pytest.approx(expected, rel=1e-10)


MU = cloud(1)
TWICE = np.array([0.2, 0.2, 0.2, 0.2, 0.1, 0.1])
# not far, so that the best matching leaves each point its own
NU = Empirical(np.asarray(MU.points) + np.random.default_rng(2).normal(size=(6, 2)) / 4)


@pytest.mark.parametrize("p", [1, 2])
def test_small_regularisation_tends_to_the_exact_value(p):
    """A matching of N points has entropy log N. What is left falls faster than any
    power; the divergence needs no correction."""
    exact, entropy = measures.wasserstein(MU, NU, p=p) ** p, np.log(6)
    gaps = []
    for epsilon in (1.0, 0.3, 0.1, 0.03):
        found = measures.sinkhorn(MU, NU, epsilon=epsilon, p=p)
        assert exact < found.value < exact + epsilon * entropy
        gaps.append(float(exact + epsilon * entropy - found.value))
        assert found.residual <= 1e-3  # moves the value by its product with the gap
        divergence = measures.sinkhorn_divergence(MU, NU, epsilon=epsilon, p=p)
    assert gaps[-1] < min(1e-3, gaps[-2] / 20)
    assert divergence.value == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 10.0])
def test_the_divergence_of_a_translation_is_its_square(epsilon):
    """For p = 2 and every epsilon: the squared norm splits off the step."""
    step = np.array([0.6, -0.8])
    moved = MU.push_forward(lambda x: x + 2 * step)
    found = measures.sinkhorn_divergence(MU, moved, epsilon=epsilon)
    assert found.value == pytest.approx(4, rel=1e-5)
    itself = measures.sinkhorn_divergence(MU, MU, epsilon=epsilon)
    assert itself.value == pytest.approx(0, abs=1e-5)
    assert measures.sinkhorn_divergence(MU, NU, epsilon=epsilon).value > 0.01


def test_large_regularisation_sees_means_alone():
    found = measures.sinkhorn_divergence(MU, NU, epsilon=1e6)
    expected = jnp.sum((MU.mean - NU.mean) ** 2)
    assert found.value == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("p", [1, 2])
def test_gradients_are_differences(p):
    """In points, in weights (which keep their sum) and in epsilon."""
    rng = np.random.default_rng(9)
    ways = rng.normal(size=(6, 2)), rng.normal(size=6)
    ways = ways[0], ways[1] - ways[1].mean()

    @jax.jit
    @jax.value_and_grad
    def value(h):
        mu = Empirical(MU.points + h[0] * ways[0], 1 / 6 + h[1] * ways[1])
        options = {"epsilon": 2 + h[2], "p": p, "tolerance": 1e-12}
        return measures.sinkhorn_divergence(mu, NU, **options).value

    for found, way in zip(value(jnp.zeros(3))[1], 1e-5 * jnp.eye(3), strict=True):
        expected = (value(way)[0] - value(-way)[0]) / 2e-5
        assert found == pytest.approx(float(expected), rel=1e-6)
        assert abs(found) > 1e-3


def test_gradients_are_finite_where_points_meet():
    def value(x):
        return measures.sinkhorn(Empirical(x), MU, epsilon=2.0, p=1).value

    assert np.isfinite(jax.grad(value)(MU.points)).all()


def test_it_says_what_it_did():
    done = measures.sinkhorn(MU, NU, epsilon=1.0, tolerance=1e-7)
    assert done.residual <= 1e-7
    assert 10 < done.steps < 10_000
    # potentials make a coupling whose marginals are the weights, to the residual
    costs = jnp.sum((MU.points[:, None] - NU.points[None]) ** 2, axis=2)
    plan = np.exp(done.f[:, None] + done.g[None] - costs) / 36
    np.testing.assert_allclose(plan.sum(0), 1 / 6, rtol=1e-12)
    np.testing.assert_allclose(plan.sum(1), 1 / 6, rtol=2e-7)
    entropy = np.sum(plan * np.log(36 * plan))
    expected = np.sum(plan * costs) + entropy
    assert done.value == pytest.approx(float(expected), rel=1e-6)
    short = measures.sinkhorn(MU, NU, epsilon=1.0, steps=7)
    assert short.steps == 7
    assert short.residual > 1e-5
    divergence = measures.sinkhorn_divergence(MU, NU, epsilon=1.0, steps=7)
    assert divergence.steps == 21
    assert divergence.residual >= short.residual


def test_one_compilation_serves_every_option():
    found = [float(measures.sinkhorn(MU, NU, epsilon=1.0).value)]
    compiled = entropic._entropic._cache_size()
    found.append(float(measures.sinkhorn(MU, NU, epsilon=3.0).value))
    measures.sinkhorn(MU, NU, epsilon=0.1, tolerance=1e-3, steps=5)
    assert entropic._entropic._cache_size() == compiled
    batch = jax.vmap(lambda e: measures.sinkhorn(MU, NU, epsilon=e).value)
    np.testing.assert_allclose(batch(jnp.asarray([1.0, 3.0])), found, rtol=1e-9)


def test_single_precision_is_near_double():
    single = [Empirical(m.points.astype("float32")) for m in (MU, NU)]
    found = measures.sinkhorn(*single, epsilon=1.0)
    expected = measures.sinkhorn(MU, NU, epsilon=1.0)
    assert found.value.dtype == "float32"
    assert found.residual <= 1e-5
    assert found.value == pytest.approx(float(expected.value), rel=1e-5)


def test_points_without_weight_count_for_nothing():
    """Five points and a far one without weight, or the fifth twice with half of it."""
    points = np.concatenate([MU.points[:5], [[9.0, 9.0]]])
    more = Empirical(points, np.append(np.full(5, 0.2), 0.0))
    twice = Empirical(np.concatenate([points[:5], points[4:5]]), TWICE)
    for p in (1, 2):
        found, expected = (measures.wasserstein(m, NU, p=p) for m in (more, twice))
        assert found == pytest.approx(expected, rel=1e-9)
        found, expected = (
            float(measures.sinkhorn(m, NU, epsilon=1.0, p=p, tolerance=1e-10).value)
            for m in (more, twice)
        )
        assert found == pytest.approx(expected, rel=1e-9)

    def value(x):
        return measures.sinkhorn(Empirical(x, more.weights), NU, epsilon=2.0, p=1).value

    gradient = jax.grad(value)(more.points)
    np.testing.assert_array_equal(gradient[-1], 0)
    assert np.isfinite(gradient).all()


# ----------------------------------------------------------------------- wrong input

SQUARE = np.ones((3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Empirical(SQUARE * np.nan), "points holds NaN"),
        (lambda: Empirical(np.ones((1, 2, 3))), r"points must have shape \(any, any\)"),
        (lambda: Empirical(SQUARE[:0]), "points is empty"),
        (lambda: Empirical(SQUARE, np.full(3, 0.3)), "weights must sum to 1: got 0.9"),
        (lambda: Empirical(SQUARE, np.array([2, -0.5, -0.5])), "must not be negative"),
        (lambda: Empirical(SQUARE, np.full(2, 0.5)), r"weights must have shape \(3\)"),
        (lambda: Histogram(np.array([0.0, 2, 1]), np.full(2, 0.5)), "edges must incr"),
        (lambda: Histogram(np.array([0.0, 1]), np.array([0.7])), "masses must sum"),
        (lambda: Gaussian(BIAS, TURN), "covariance must be symmetric and positive"),
        (lambda: Gaussian(BIAS, -np.eye(2)), "symmetric and positive semi-definite"),
        (lambda: Gaussian(BIAS, np.eye(2)).push_forward(jnp.tanh), "must be Affine"),
        (lambda: measures.affine_flow(TURN, np.ones(3)), r"shape \(3, 3\).*\(2, 2\)"),
        (lambda: measures.wasserstein(MU, cloud(1, 6, 3)), "dimensions 2 and 3"),
        (lambda: measures.wasserstein(MU, NU, p=3), "p must be 1 or 2: got 3"),
        (lambda: measures.wasserstein(cloud(1, 600), cloud(1, 599)), "600 and 599"),
        (lambda: measures.wasserstein(cloud(1, 9000), cloud(1, 9000)), "9000 points"),
        (lambda: measures.sinkhorn(MU, NU, epsilon=0.0), r"epsilon must lie in \(0"),
        (lambda: measures.sinkhorn(MU, UNIFORM, epsilon=1.0), "nu must be Empirical"),
        (lambda: measures.between_laws(MU, NU), "6 points: fewer than groups"),
        (lambda: measures.between_laws(MU, NU, groups=5), "groups must be even"),
        (
            lambda: measures.between_laws(MU, weighted(1), groups=4),
            "nu must be .* equal w",
        ),
        (lambda: measures.binomial_deviation(np.array([1.2]), 3), r"u must lie in"),
        (lambda: measures.expected_w1(UNIFORM, 0), "count must be a whole number"),
        (lambda: measures.expected_w1(MU, 3), "law must be a Histogram"),
    ],
)
def test_wrong_input_is_refused(make, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        make()


def test_laws_in_half_precision_are_computed_in_single():
    """A hundred thousand points: 1e-5 each is no number with digits in float16."""
    law = measures.Empirical(jnp.full((100_000, 1), 300, jnp.float16))
    assert law.mean.tolist() == pytest.approx([300], rel=1e-4)
    assert law.moment(2).tolist() == pytest.approx([90_000], rel=1e-4)
    normal = measures.Gaussian(jnp.zeros(2, jnp.float16), jnp.eye(2, dtype="float16"))
    assert normal.sample(3, key=jr.key(0)).points.dtype == jnp.float32


def test_an_epsilon_that_the_precision_does_not_have_is_refused(as_in_use):
    law = measures.Empirical(jnp.arange(3, dtype=jnp.float32))
    with pytest.raises(ValueError, match=r"epsilon must lie in .* got 1e-50"):
        measures.sinkhorn(law, law, epsilon=1e-50)
