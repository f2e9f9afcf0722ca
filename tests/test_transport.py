"""Transport of least energy: closed forms, exact distances, honest residuals."""

import itertools

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import TOLERANCE
from scipy import optimize, stats

from deeplimits import control, transport
from deeplimits.control.problem import hamiltonian_slopes
from deeplimits.measures import Gaussian, Histogram, wasserstein
from deeplimits.statistics import loglog_slope
from deeplimits.transport.dynamic import EVERY, LOOKS, MOST
from deeplimits.transport.staggered import cosines

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
WEIGHTS = WEIGHTS / 2  # of the uniform law on [-1, 1]

# ------------------------------------------------------------------ kinetic energy


def test_kinetic_energy_of_a_linear_flow_is_a_geometric_sum(dtype):
    a, T, n = -0.7, 1.5, 12
    h = T / n
    x = np.random.default_rng(0).normal(size=(5, 2))
    w = np.arange(1, 6) / 15
    paths = np.stack([(1 + h * a) ** k * x for k in range(n + 1)])
    found = transport.kinetic_energy(paths.astype(dtype), w.astype(dtype), duration=T)
    square = w @ (x**2).sum(1)
    ratio = (1 + h * a) ** 2
    energy = h * a**2 * square * (1 - ratio**n) / (1 - ratio)
    straight = square * ((1 + h * a) ** n - 1) ** 2 / T
    np.testing.assert_allclose(found.energy, energy, rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(found.straight, straight, rtol=TOLERANCE[dtype])
    assert found.energy.dtype == dtype


def test_kinetic_energy_of_a_turn_and_of_straight_lines():
    """Half a turn costs (pi/2)^2 times what the straight line costs; there and back is
    all excess; at a constant speed on a line there is none."""
    angles = np.linspace(0, np.pi, 2001)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]
    found = transport.kinetic_energy(circle, duration=2.0)
    np.testing.assert_allclose(found.energy, np.pi**2 / 2, rtol=1e-6)
    np.testing.assert_allclose(found.straight, 4 / 2, rtol=1e-12)
    back = transport.kinetic_energy(np.array([[0.0], [1.0], [0.0]]))
    assert back.share == 1
    line = transport.kinetic_energy(np.linspace(0, 1, 5)[:, None])
    assert line.excess < 1e-30
    np.testing.assert_allclose(line.energy, 1)


def test_kinetic_energy_of_a_network_is_that_of_its_field():
    problem = control.ControlProblem(*control.bumps(), decay=0.0, duration=1.3)
    theta = jnp.linspace(1.2, 0.5, 6)
    path = jax.jit(lambda theta: problem.states(theta))(theta)
    found = transport.kinetic_energy(path, problem.weights, duration=1.3)
    fields = np.tanh(np.asarray(theta)[:, None] * np.asarray(path)[:-1, :, 0])
    expected = 1.3 / 6 * (fields**2 @ np.asarray(problem.weights)).sum()
    np.testing.assert_allclose(found.energy, expected, rtol=1e-12)


# ------------------------------------------------------------------- normal laws


def normal(seed, d=3, dtype="float64"):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    return Gaussian(rng.normal(size=d).astype(dtype), (root @ root.T).astype(dtype))


def test_bures_on_the_line_and_for_translations(dtype):
    a = Gaussian(np.array([0.5], dtype), np.array([[4.0]], dtype))
    b = Gaussian(np.array([-1.0], dtype), np.array([[0.25]], dtype))
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        transport.bures(a, b) ** 2, 1.5**2 + 1.5**2, rtol=tolerance
    )
    law = normal(0, dtype=dtype)
    moved = Gaussian(law.mean + jnp.asarray([3, 4, 0], dtype), law.covariance)
    np.testing.assert_allclose(transport.bures(law, moved), 5, rtol=tolerance)
    # where the difference of traces would leave 1e-8, or 1e-4 in float32
    assert transport.bures(law, law) < 100 * float(jnp.finfo(dtype).eps)


def test_bures_is_the_trace_formula_and_that_of_singular_laws():
    a, b = normal(1), normal(2)
    A, B = np.asarray(a.covariance), np.asarray(b.covariance)
    # the trace of the root of A^(1/2) B A^(1/2) is that of the root of A B
    trace = np.sqrt(np.linalg.eigvals(A @ B).real).sum()
    squared = np.sum((a.mean - b.mean) ** 2) + np.trace(A) + np.trace(B) - 2 * trace
    np.testing.assert_allclose(transport.bures(a, b) ** 2, squared, rtol=1e-12)
    zero = np.zeros(2)
    flat, other = (Gaussian(zero, np.diag(v)) for v in ([1.0, 0.0], [0.0, 4.0]))
    np.testing.assert_allclose(transport.bures(flat, other) ** 2, 5, rtol=1e-12)


def test_geodesics_have_constant_speed_and_the_given_ends():
    a, b = normal(3), normal(4)
    times = [0.0, 0.25, 0.7, 1.0]
    laws = [transport.bures_geodesic(a, b, t) for t in times]
    whole = float(transport.bures(a, b))
    for (s, mu), (t, nu) in itertools.combinations(zip(times, laws, strict=True), 2):
        np.testing.assert_allclose(transport.bures(mu, nu), (t - s) * whole, rtol=1e-10)
    np.testing.assert_allclose(laws[0].covariance, a.covariance, rtol=1e-10)
    np.testing.assert_allclose(laws[-1].covariance, b.covariance, rtol=1e-10)


def test_the_optimal_map_carries_one_law_to_the_other_along_the_geodesic():
    a, b = normal(5), normal(6)
    best = transport.bures_map(a, b)
    image = a.push_forward(best)
    np.testing.assert_allclose(image.covariance, b.covariance, rtol=1e-10)
    np.testing.assert_allclose(image.mean, b.mean, rtol=1e-10)
    assert np.linalg.eigvalsh(best.matrix).min() > 0  # a gradient of a convex function
    half = (np.eye(3) + np.asarray(best.matrix)) / 2
    middle = transport.bures_geodesic(a, b, 0.5)
    np.testing.assert_allclose(
        half @ a.covariance @ half.T, middle.covariance, rtol=1e-9
    )
    # an affine map is exact for the cost, too
    displacement = np.asarray(best.matrix) - np.eye(3)
    cost = np.trace(displacement @ a.covariance @ displacement.T)
    cost += np.sum((a.mean - b.mean) ** 2)
    np.testing.assert_allclose(transport.bures(a, b) ** 2, cost, rtol=1e-10)


@jax.jit
def slopes_of_bures(mean, covariance, other):
    def squared(mean, covariance, other):
        law = Gaussian(mean, covariance)
        return transport.bures(law, Gaussian(jnp.zeros(len(mean)), other)) ** 2

    return jax.grad(squared, argnums=(0, 1, 2))(mean, covariance, other)


def test_the_slope_of_bures_is_the_map_also_where_eigenvalues_repeat():
    mean, eye = np.array([1.0, 0, -2]), np.eye(3)
    for A, B in (
        (eye, 4 * eye),
        (np.diag([2.0, 2, 1]), np.diag([3.0, 1, 1])),
        (np.asarray(normal(1).covariance), np.asarray(normal(2).covariance)),
    ):
        along, *slopes = slopes_of_bures(mean, A, B)
        np.testing.assert_allclose(along, 2 * mean, rtol=1e-12)
        laws = Gaussian(mean, A), Gaussian(mean * 0, B)
        for slope, pair in zip(slopes, (laws, laws[::-1]), strict=True):
            matrix = np.asarray(transport.bures_map(*pair).matrix)
            np.testing.assert_allclose(slope, eye - matrix, atol=1e-11)
    # the distance has a kink at 0, and its square none
    still = slopes_of_bures(0 * mean, eye, eye)
    assert not any(np.asarray(each).any() for each in still)
    flat = slopes_of_bures(0 * mean, np.diag([1.0, 1, 0]), eye)[1]
    assert not np.isfinite(flat).all()


# ------------------------------------------------------------ the proximal map, grids


root_of = jax.jit(transport.kinetic_root)
prox_of = jax.jit(transport.kinetic_prox)


@pytest.mark.parametrize("gamma", [0.01, 1.0, 30.0])
def test_the_cubic_root_is_exact_from_the_edge_to_far_away(gamma, dtype):
    rng = np.random.default_rng(0)
    r = rng.normal(size=300) * 10 ** rng.uniform(-3, 3, 300)
    q2 = 10 ** rng.uniform(-10, 5, 300)
    found = root_of(jnp.asarray(r, dtype), jnp.asarray(q2, dtype), gamma)
    r, q2 = (np.asarray(jnp.asarray(a, dtype), float) for a in (r, q2))
    roots = []
    for a, b in zip(r, q2, strict=True):
        cubic = [1, 4 * gamma - a, 4 * gamma**2 - 4 * gamma * a,
                 -4 * gamma**2 * a - gamma * b]  # fmt: skip
        each = np.roots(cubic)
        real = each.real[np.abs(each.imag) <= 1e-5 * (1 + np.abs(each))]
        roots.append(max(real.max(initial=0), 0))
    scale = np.abs(r) + np.sqrt(q2) + gamma
    slack = {"float32": 1e-5, "float64": 1e-6}[dtype]  # np.roots has double roots
    assert np.max(np.abs(np.asarray(found) - roots) / scale) < slack
    # as a zero of the cubic, to rounding
    rho = np.asarray(found, float)
    inside = rho > 0
    left = (rho - r) * (rho + 2 * gamma) ** 2 - gamma * q2
    size = (rho + np.abs(r)) * (rho + 2 * gamma) ** 2 + gamma * q2
    assert np.max(np.abs(left / size)[inside]) < 40 * np.finfo(dtype).eps
    assert (inside == (4 * gamma * r + q2 > 0))[np.abs(4 * gamma * r + q2) > 1e-3].all()


def test_the_proximal_map_is_a_minimiser():
    rng = np.random.default_rng(1)
    for _ in range(5):
        r, q, gamma = rng.normal(), rng.normal(size=2), rng.uniform(0.1, 2)

        def cost(z, r=r, q=q, gamma=gamma):
            rho, m = np.exp(z[0]), z[1:]
            near = (rho - r) ** 2 / 2 + ((m - q) ** 2).sum() / 2
            return gamma * (m @ m) / rho + near

        found = prox_of(jnp.asarray(r), tuple(map(jnp.asarray, q)), gamma)
        least = optimize.minimize(cost, np.r_[0, q], tol=1e-10)
        rho, *m = (float(z) for z in found)
        if rho == 0:
            assert m == [0, 0]
            assert least.fun > (r**2 + q @ q) / 2 - 1e-6
        else:
            value = cost(np.r_[np.log(rho), m])
            assert value < least.fun + 1e-9


def test_slopes_of_the_cubic_root_are_finite_and_true():
    """Against differences; at rest and on the edge, too, where they are one-sided."""
    slope_of = jax.jit(jax.jacfwd(transport.kinetic_prox, argnums=(0, 1, 2)))

    def slopes(r, q, gamma=0.7):
        return jax.tree.leaves(slope_of(jnp.asarray(r), (jnp.asarray(q),), gamma))

    for r, q in ((1.0, 0.0), (-0.3, 1.2), (2.0, -0.4), (-1.0, 0.1)):
        by_differences = []
        for each in np.eye(3):
            ends = [np.array([r, q, 0.7]) + s * 1e-6 * each for s in (1, -1)]
            high, low = (prox_of(jnp.asarray(a), (jnp.asarray(b),), c)
                         for a, b, c in ends)  # fmt: skip
            rises = [float(h - k) / 2e-6 for h, k in zip(high, low, strict=True)]
            by_differences.append(rises)
        expected = np.array(by_differences).T.ravel()
        np.testing.assert_allclose(slopes(r, q), expected, atol=1e-8)
    for r, q in ((0.0, 0.0), (-0.7, 1.4)):
        assert not np.any(slopes(r, q))


def grid(shape=(4, 5), steps=3, seed=0):
    rng = np.random.default_rng(seed)
    start, end = (jnp.asarray(rng.uniform(0.5, 1.5, shape)) for _ in range(2))
    start, end = start / start.mean(), end / end.mean()
    spacings = tuple(jnp.asarray(s) for s in (0.3, 0.2, 0.7)[: len(shape) + 1])
    return transport.Staggered(start, end, spacings, steps)


def test_cosines_are_orthogonal():
    for n in (2, 5, 8):
        np.testing.assert_allclose(cosines(n) @ cosines(n).T, np.eye(n), atol=1e-14)


@jax.jit
def projected(g, u):
    flow = g.project(u)
    return flow, g.defect(flow)


@pytest.mark.parametrize("shape", [(6,), (4, 5)])
def test_the_projection_is_one(shape):
    """It satisfies the continuity equation, changes nothing twice, and what it takes
    away is orthogonal to all differences of flows."""
    g = grid(shape)
    rng = np.random.default_rng(3)
    draws = [
        tuple(jnp.asarray(rng.normal(size=u.shape)) for u in g.linear())
        for _ in range(3)
    ]
    flows, defects = zip(*(projected(g, u) for u in draws), strict=True)
    assert np.abs(defects).max() < 1e-12
    again, _ = projected(g, flows[0])
    taken = [a - b for a, b in zip(draws[0], flows[0], strict=True)]
    along = [a - b for a, b in zip(flows[1], flows[2], strict=True)]
    inner = sum(np.vdot(a, b) for a, b in zip(taken, along, strict=True))
    assert abs(inner) < 1e-12
    for a, b in zip(again, flows[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)


def test_spread_is_the_transpose_of_centred():
    g = grid()
    zero = tuple(0 * u for u in g.linear())
    rng = np.random.default_rng(4)
    u = tuple(jnp.asarray(rng.normal(size=z.shape)) for z in zero)
    y = tuple(jnp.asarray(rng.normal(size=g.shape)) for _ in g.shape)
    linear = [a - b for a, b in zip(g.centred(u), g.centred(zero), strict=True)]
    left = sum(np.vdot(a, b) for a, b in zip(linear, y, strict=True))
    right = sum(np.vdot(a, b) for a, b in zip(u, g.spread(y), strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-12)


# ----------------------------------------------------------------- Benamou-Brenier


def waves(n):
    """Two laws with positive smooth densities on [0, 1], and W_2^2 of the cells."""
    e = np.linspace(0, 1, n + 1)
    bump = np.sin(np.pi * e) / (2 * np.pi)
    mu, nu = np.diff(e + bump), np.diff(e - bump)
    laws = (Histogram(jnp.asarray(e), jnp.asarray(m)) for m in (mu, nu))
    return mu, nu, wasserstein(*laws, p=2) ** 2


def bells(n, first=(0.35, 0.08), second=(0.65, 0.08), dtype="float64"):
    e = np.linspace(0, 1, n + 1)
    masses = [np.diff(stats.norm.cdf(e, *each)) for each in (first, second)]
    mu, nu = ((m / m.sum()).astype(dtype) for m in masses)
    laws = (Histogram(jnp.asarray(e, dtype), jnp.asarray(m)) for m in (mu, nu))
    return mu, nu, wasserstein(*laws, p=2) ** 2


def test_benamou_brenier_on_the_line_is_of_second_order():
    """Against the exact distance of the laws with constant density in each cell."""
    sizes, errors = [8, 16, 32], []
    for n in sizes:
        mu, nu, exact = waves(n)
        found = transport.benamou_brenier(mu, nu, steps=n // 2, tolerance=1e-7)
        assert found.solved
        errors.append(abs(found.value - exact))
        # the densities are positive, and so the flow itself is as cheap
        np.testing.assert_allclose(found.feasible_value, found.value, rtol=1e-6)
    assert errors[-1] < 1e-3 * exact
    slope = loglog_slope(sizes, errors)
    assert -2.2 < slope.value < -1.9


@pytest.fixture(scope="module")
def moved():
    mu, nu, exact = bells(32)
    return mu, nu, exact, transport.benamou_brenier(mu, nu, steps=16)


def test_a_translation_costs_the_square_of_its_length(moved):
    """Over empty cells, where the feasible flow has no finite energy."""
    *_, exact, found = moved
    assert found.solved
    assert found.residual < 1e-4
    np.testing.assert_allclose(exact, 0.3**2, rtol=1e-3)  # the cut tails
    np.testing.assert_allclose(found.value, exact, rtol=3e-4)
    assert found.centred_density.min() >= 0
    assert found.negative > 0
    assert found.feasible_value == np.inf
    # empty cells alone do not make it infinite: where nothing moves it is 0
    corner = np.array([0.5, 0.5, 0.0, 0.0])
    still = transport.benamou_brenier(corner, corner, steps=2)
    assert still.negative == 0.5
    assert still.feasible_value == 0


def test_mass_is_conserved_and_the_ends_are_given(moved):
    mu, nu, _, found = moved
    masses = found.density / 32
    np.testing.assert_allclose(masses.sum(1), 1, rtol=1e-13)
    np.testing.assert_allclose(masses[0], mu, rtol=1e-13)
    np.testing.assert_allclose(masses[-1], nu, rtol=1e-13)
    (flux,) = found.fluxes
    assert flux.shape == (16, 33)
    assert not flux[:, [0, -1]].any()
    defect = np.diff(found.density, axis=0) * 16 + np.diff(flux, axis=1) * 32
    assert np.abs(defect).max() < 1e-11
    assert found.defect < 1e-14


def test_the_flow_is_a_translation(moved):
    """Half-way the bell is in the middle, as wide as ever, and as fast as ever."""
    *_, found = moved
    x = (np.arange(32) + 0.5) / 32
    middle = found.density[8] / 32
    mean = middle @ x
    np.testing.assert_allclose(mean, 0.5, atol=1e-6)
    np.testing.assert_allclose(middle @ (x - mean) ** 2, 0.08**2, rtol=0.05)
    flux, density = found.centred_flux[0], found.centred_density
    full = density > 0.5
    assert np.abs(flux[full] / density[full] - 0.3).max() < 0.03


def test_what_has_not_converged_says_so():
    mu, nu, exact = bells(32)
    found = transport.benamou_brenier(mu, nu, steps=16, max_iterations=40)
    assert not found.solved
    assert found.flags == ("residual above tolerance", "iterations exhausted")
    assert found.iterations == 40
    assert found.residual > 1e-4
    assert abs(found.value / exact - 1) > 3e-4
    assert found.seen.tolist() == [10, 20, 30, 40]
    assert found.values[-1] == found.value
    assert found.residuals[-1] == found.residual
    # the continuity equation holds all the same
    assert found.defect < 1e-14


def test_on_a_short_way_the_fluxes_have_converged_too():
    """There the densities hardly move, and agree long before the value is right."""
    mu, nu, exact = bells(32, second=(0.38, 0.08))
    found = transport.benamou_brenier(mu, nu, steps=16)
    assert found.solved
    np.testing.assert_allclose(found.value, exact, rtol=1e-3)


def test_the_unit_of_length_does_not_matter(moved):
    mu, nu, _, found = moved
    scaled = transport.benamou_brenier(mu, nu, steps=16, lengths=20.0)
    assert scaled.iterations == found.iterations
    np.testing.assert_allclose(scaled.value, 400 * found.value, rtol=1e-12)
    np.testing.assert_allclose(20 * scaled.density, found.density, rtol=1e-9)
    np.testing.assert_allclose(scaled.fluxes[0], found.fluxes[0], atol=1e-12)


def test_when_it_looks_does_not_depend_on_how_long_it_may_run(moved):
    mu, nu, _, found = moved
    longer = transport.benamou_brenier(mu, nu, steps=16, max_iterations=10**30)
    assert longer.iterations == found.iterations
    np.testing.assert_array_equal(longer.seen, found.seen)
    looks, count = 0, 0
    while count < MOST:
        looks, count = looks + 1, count + max(EVERY, count // 20)
    assert looks <= LOOKS


def test_a_box_too_thin_for_its_digits_is_not_solved():
    x = (np.arange(4) + 0.5) / 4
    one, other = (np.exp(-((x - c) ** 2) / 0.05) for c in (0.3, 0.7))
    mu, nu = np.outer(one, other), np.outer(other, one)
    mu, nu = mu / mu.sum(), nu / nu.sum()
    options = {"steps": 8, "tolerance": 1e-2}
    for side, flags in ((1e-3, ()), (1e-8, ("mass not conserved",))):
        found = transport.benamou_brenier(mu, nu, lengths=(1.0, side), **options)
        assert found.flags == flags
        assert found.solved == (not flags)
        assert (found.defect > 1e-3) == bool(flags)


def test_equal_laws_stay_where_they_are():
    mu, _, _ = bells(32)
    found = transport.benamou_brenier(mu, mu, steps=16)
    assert found.solved
    assert found.value < 1e-20
    np.testing.assert_allclose(found.density, 32 * np.stack([mu] * 17), 0, 1e-12)


def test_float32_comes_as_far_as_its_tolerance(moved):
    mu, nu, exact = bells(32, dtype="float32")
    found = transport.benamou_brenier(mu, nu, steps=16, tolerance=1e-3)
    assert found.solved
    assert found.density.dtype == "float32"
    np.testing.assert_allclose(found.value, exact, rtol=2e-3)


def plane(n, mean, covariance):
    x = (np.arange(n) + 0.5) / n
    points = np.stack(np.meshgrid(x, x, indexing="ij"), -1) - np.asarray(mean)
    powers = np.einsum("...i,ij,...j", points, np.linalg.inv(covariance), points)
    density = np.exp(-powers / 2)
    return density / density.sum()


def test_in_the_plane_it_is_the_distance_of_bures():
    """And the flow passes by the geodesic; a box with unequal sides and cells."""
    laws = (
        Gaussian(np.array([0.35, 0.4]), np.diag([0.1, 0.07]) ** 2),
        Gaussian(np.array([0.65, 0.55]), np.array([[0.006, 0.003], [0.003, 0.008]])),
    )
    masses = [plane(20, law.mean, law.covariance) for law in laws]
    found = transport.benamou_brenier(
        *masses, steps=12, tolerance=1e-3, max_iterations=1000
    )
    assert found.solved
    exact = float(transport.bures(*laws)) ** 2
    np.testing.assert_allclose(found.value, exact, rtol=0.01)
    x = (np.arange(20) + 0.5) / 20
    middle = found.density[6] / 400
    mean = np.array([middle.sum(1) @ x, middle.sum(0) @ x])
    geodesic = transport.bures_geodesic(*laws, 0.5)
    np.testing.assert_allclose(mean, geodesic.mean, atol=2e-3)
    correlated = (x - mean[0]) @ middle @ (x - mean[1])
    np.testing.assert_allclose(correlated, geodesic.covariance[0, 1], rtol=0.15)


# ---------------------------------------------------------- the idealised problem


def test_straight_lines_are_the_least_of_each_point():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6, 2))
    w = np.arange(1, 7) / 21
    found = transport.straight_lines(x, y, w, decay=0.3, duration=2.0)

    def cost(z):
        z = z.reshape(6, 2)
        return w @ ((z - y) ** 2 / 2 + 0.3 / 4 * (z - x) ** 2).sum(1)

    least = optimize.minimize(cost, np.zeros(12), tol=1e-12)
    np.testing.assert_allclose(found.ends.ravel(), least.x, atol=1e-6)
    np.testing.assert_allclose(found.value, least.fun, rtol=1e-10)
    closed = 0.3 / (2 * 2.3) * w @ ((x - y) ** 2).sum(1)
    np.testing.assert_allclose(found.value, closed, rtol=1e-12)


def test_ordered_lines_of_reversed_labels():
    """x uniform on [-1, 1] and y = -x: 1/9 with sight of the label and 1/5 without."""
    options = {"decay": 0.2}
    aware = transport.straight_lines(NODES, -NODES, WEIGHTS, **options)
    blind = transport.ordered_lines(NODES, -NODES, WEIGHTS, **options)
    np.testing.assert_allclose(aware.value, 1 / 9, rtol=1e-12)
    np.testing.assert_allclose(blind.value, 1 / 5, rtol=1e-12)
    assert np.abs(blind.ends).max() < 1e-12
    # above 1 the lines keep their order, and nothing is lost
    options = {"decay": 1.5}
    aware = transport.straight_lines(NODES, -NODES, WEIGHTS, **options)
    blind = transport.ordered_lines(NODES, -NODES, WEIGHTS, **options)
    np.testing.assert_allclose(blind.ends, aware.ends, atol=1e-14)
    np.testing.assert_allclose(blind.ends[:, 0], NODES * 0.2, atol=1e-14)


def test_points_at_one_place_keep_together():
    x, y = np.array([0.0, 0.0, 1.0]), np.array([-1.0, 2.0, 3.0])
    found = transport.ordered_lines(x, y, np.array([0.5, 0.25, 0.25]), decay=1.0)
    np.testing.assert_allclose(found.ends[:, 0], [0, 0, 2], atol=1e-14)
    assert found.value > transport.straight_lines(x, y, decay=1.0).value


def test_one_layer_attains_the_infimum_where_its_field_can():
    """Depth is irrelevant: x -> -x by one step, and the continuum cannot."""

    def linear(x, theta):
        return theta * x

    problem = transport.KineticProblem(
        NODES[:, None], -NODES, WEIGHTS, kinetic=0.2, field=linear
    )
    found = control.direct(problem, jnp.array([0.3]), tolerance=1e-10)
    np.testing.assert_allclose(found.value, 1 / 9, rtol=1e-10)
    np.testing.assert_allclose(found.theta, [-2 / 1.2], rtol=1e-8)


def test_lines_of_a_huge_penalty_stand_still():
    """The ratio of penalty and time may be beyond all numbers."""
    x, y = np.array([0.1, 0.1, 1.0]), np.array([0.0, 0.3, 3.0])
    law, mass = (x, y, np.array([0.3, 0.3, 0.4])), np.array([0.3, 0.3, 0.4])
    unmoved = mass @ (x - y) ** 2 / 2
    for scales in ({"decay": 1e17}, {"decay": 1e40}, {"decay": 1e308, "duration": 0.1}):
        for lines in (transport.straight_lines, transport.ordered_lines):
            found = lines(*law, **scales)
            np.testing.assert_allclose(found.value, unmoved, rtol=1e-12)
            np.testing.assert_allclose(found.ends[:, 0], x, rtol=1e-12)
    quick = transport.straight_lines(*law, decay=1e-300)
    np.testing.assert_allclose(quick.ends[:, 0], y, atol=1e-15)
    compiled = jax.jit(lambda lam: transport.straight_lines(*law, decay=lam).value)
    np.testing.assert_allclose(compiled(0.5), mass @ (x - y) ** 2 / 6, rtol=1e-12)


# --------------------------------------------------------- networks that pay for it


def tracking(t, x, y):
    return jnp.sum((x - t * y) ** 2)


def test_the_adjoint_of_a_kinetic_problem_is_its_gradient():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 7, 2))
    w = rng.uniform(0.1, 1, 7)
    problem = transport.KineticProblem(
        x, y, w / w.sum(), kinetic=0.7, decay=0.1, duration=1.7, running=tracking
    )
    theta = transport.hidden_start(4, 3, 2, key=jr.key(0), size=1.5)

    plain = control.ControlProblem(
        x, y, w / w.sum(), decay=0.1, duration=1.7, running=tracking,
        field=control.of_block, loss=control.half_square,
    )  # fmt: skip

    @jax.jit
    def both(theta):
        value, automatic = jax.value_and_grad(lambda t: problem.value(t))(theta)
        others = plain.value(theta), problem.states(theta)
        return value, automatic, problem.gradient(theta), others

    value, automatic, by_hand, (rest, path) = both(theta)
    for a, b in zip(*map(jax.tree.leaves, (by_hand, automatic)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13)
    kinetic = transport.kinetic_energy(path, problem.weights, duration=1.7).energy
    np.testing.assert_allclose(value, rest + 0.35 * kinetic, rtol=1e-12)


def test_a_sweep_solves_a_kinetic_problem_as_descent_does():
    problem = transport.KineticProblem(
        *control.bumps(), kinetic=0.5, decay=0.1, field=control.gain
    )
    start = jnp.ones(5)
    one = control.direct(problem, start, tolerance=1e-10)
    other = control.sweep(problem, start)
    assert one.solved
    assert other.solved
    np.testing.assert_allclose(one.value, other.value, rtol=1e-10)
    np.testing.assert_allclose(one.theta, other.theta, atol=1e-7)
    dearer = problem.but(kinetic=1.0)
    assert isinstance(dearer, transport.KineticProblem)
    assert dearer.kinetic == 1


def test_a_kinetic_problem_counts_its_energy_everywhere():
    """On a grid of densities, in the losses of single points, in extended MSA."""
    problem = transport.KineticProblem(
        *control.bumps(8), kinetic=0.5, decay=0.1, field=control.gain
    )
    form = control.DensityForm(problem, np.linspace(-4, 4, 81))

    @jax.jit
    def found(theta):
        value, slopes = jax.value_and_grad(lambda theta: form.value(theta))(theta)
        at, h = form.pontryagin(theta), form.step(theta)
        by_hand = h * hamiltonian_slopes(form, at, theta)
        exact, losses = problem.value(theta), problem.losses(theta)
        rest = exact - problem.effort(theta)
        return value, slopes, at.value, by_hand, exact, losses, rest

    theta = jnp.linspace(1.2, 0.5, 5)
    value, slopes, same, by_hand, exact, losses, rest = found(theta)
    np.testing.assert_allclose(value, exact, rtol=1e-4)
    np.testing.assert_allclose(same, value, rtol=1e-13)
    np.testing.assert_allclose(by_hand, slopes, atol=1e-12)
    np.testing.assert_allclose(problem.weights @ losses, rest, rtol=1e-13)
    best = control.extended_msa(problem, jnp.ones(2), rho=0.5, max_sweeps=30)
    assert best.solved


def drift(x, theta):
    return theta * jnp.ones_like(x)


def test_sampling_constants_of_a_kinetic_drift_by_hand():
    r"""All points move by $a = \int\theta$ at a constant speed: with the mean $m$ and
    the variance of $g = x - y$, $a = -m/(1 + \lambda/T)$."""
    x = np.random.default_rng(4).normal(size=(9, 1))
    problem = transport.KineticProblem(x, x * 0, kinetic=0.6, duration=1.5, field=drift)
    m, variance = x.mean(), x.var()
    found = control.direct(problem, jnp.ones(2))
    a = -m / (1 + 0.4)
    np.testing.assert_allclose(found.theta, a / 1.5, rtol=1e-7)
    constants = control.sampling_constants(problem, found.theta)
    np.testing.assert_allclose(constants.bias, -variance / 1.4 / 2, rtol=1e-7)
    costs = (x[:, 0] + a) ** 2 / 2 + 0.2 * a**2
    np.testing.assert_allclose(constants.value, costs.std(), rtol=1e-7)


def test_what_overflows_is_no_number_for_either_problem():
    law = np.full((2, 1), 1e200), np.zeros((2, 1))
    plain = control.ControlProblem(*law, decay=0.0, field=drift)
    kinetic = transport.KineticProblem(*law, kinetic=1.0, field=drift)
    for problem in (plain, kinetic):
        assert not np.isfinite(problem.value(jnp.full(2, 1e308)))


def test_a_wide_network_comes_near_the_closed_form_from_a_narrow_one():
    """A jump of the labels: no network attains the value, and wider ones come nearer
    when each begins where the narrower ended."""
    x, y = NODES[::2], np.sign(NODES[::2])
    w = WEIGHTS[::2] / WEIGHTS[::2].sum()
    least = float(transport.straight_lines(x, y, w, decay=0.5).value)
    problem = transport.KineticProblem(x[:, None], y, w, kinetic=0.5)
    theta, gaps = transport.hidden_start(4, 1, key=jr.key(0)), []
    for width in (1, 2):
        theta = transport.widened(theta, width, key=jr.key(width))
        found = control.direct(problem, theta, tolerance=1e-4, max_iterations=300)
        theta = found.theta
        gaps.append(found.value / least - 1)
    assert 0 < gaps[1] < gaps[0] / 2
    assert gaps[1] < 0.1


def test_widening_changes_no_field():
    block = transport.hidden_start(3, 2, 2, key=jr.key(0), dtype="float32")
    wide = transport.widened(block, 5, key=jr.key(1))
    assert wide.width == 5
    assert wide.outer.dtype == "float32"
    x = jnp.array([0.3, -0.7], "float32")
    each = jax.jit(jax.vmap(lambda layer: layer(x)))
    np.testing.assert_allclose(each(block), each(wide), rtol=1e-5)
    assert transport.widened(block, 2, key=jr.key(1)) is block


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nu": np.full(5, 0.2)}, "nu must have shape"),
        ({"mu": np.full((2, 2, 2), 1 / 8)}, "line or in a plane"),
        ({"mu": np.array([1.0])}, "two a side"),
        ({"mu": np.full(4, 0.3)}, "mu must sum to 1"),
        ({"nu": np.array([-0.5, 0.5, 0.5, 0.5])}, "nu must not be negative"),
        ({"lengths": (1.0, 1.0)}, "lengths must have shape"),
        ({"lengths": -1.0}, "lengths must lie"),
        ({"lengths": 1e155}, "lengths must lie"),
        ({"steps": 1}, "steps must be"),
        ({"sigma": 0.0}, "sigma must lie"),
    ],
)
@pytest.mark.usefixtures("as_in_use")
def test_benamou_brenier_says_what_is_wrong(changed, message):
    given = {"mu": np.full(4, 0.25), "nu": np.full(4, 0.25)}
    with pytest.raises(ValueError, match=message):
        transport.benamou_brenier(**given | changed)


LAYERS = transport.hidden_start(1, 3, key=jr.key(0), dtype="float32")


@pytest.mark.usefixtures("as_in_use")
def test_the_others_say_what_is_wrong():
    a, b = normal(0), normal(0, d=2)
    with pytest.raises(ValueError, match="dimensions 3 and 2"):
        transport.bures(a, b)
    with pytest.raises(ValueError, match="not singular"):
        transport.bures_map(Gaussian(np.zeros(2), np.diag([1.0, 0.0])), b)
    with pytest.raises(ValueError, match="time must lie"):
        transport.bures_geodesic(a, a, 1.5)
    with pytest.raises(ValueError, match="two times at least"):
        transport.kinetic_energy(np.ones((1, 3, 2)))
    with pytest.raises(ValueError, match="inputs must have shape"):
        transport.ordered_lines(np.ones((3, 2)), np.ones((3, 2)), decay=1.0)
    with pytest.raises(ValueError, match="decay must lie"):
        transport.straight_lines(np.ones(3), np.ones(3), decay=0.0)
    with pytest.raises(ValueError, match="gamma must lie"):
        transport.kinetic_root(np.ones(2), np.ones(2), -1.0)
    with pytest.raises(ValueError, match="square must have shape"):
        transport.kinetic_root(np.ones(2), np.ones(3), 1.0)
    assert transport.kinetic_root([1, -1], [0, -2], 1).tolist() == [1, 0]
    for block in ("layers", jax.tree.map(lambda z: z[0], LAYERS)):
        with pytest.raises(ValueError, match="block must be a HiddenLayer"):
            transport.widened(block, 4, key=jr.key(1))
    plane, line = np.ones((3, 2), "float32"), np.ones((3, 1), "float32")
    with pytest.raises(ValueError, match="labels must be as wide"):
        transport.KineticProblem(plane, line, kinetic=1.0)
    with pytest.raises(ValueError, match=r"kinetic must lie in .* in float32"):
        transport.KineticProblem(line, line, kinetic=1e300)
    with pytest.raises(ValueError, match="at least 3"):
        transport.widened(LAYERS, 2, key=jr.key(1))
