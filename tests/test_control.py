"""Training as optimal control: exact adjoints, solvers that agree, closed forms."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import assert_mean
from scipy import integrate, linalg

from deeplimits import control
from deeplimits.control.extended import _augmented
from deeplimits.control.problem import hamiltonian_slopes
from deeplimits.control.solvers import _sweeps
from deeplimits.residual import OneLayer
from deeplimits.statistics import loglog_slope

N = 10
POPULATION = control.ControlProblem(*control.bumps(), decay=0.1)
ONES = jnp.ones(N)
FALLING = jnp.linspace(1.2, 0.5, N)  # optimal for nothing


@pytest.fixture(scope="module")
def optimum():
    return control.direct(POPULATION, ONES, tolerance=1e-11)


@jax.jit
def value_of(problem, theta):
    return problem.value(theta)


@jax.jit
def slopes_of(problem, theta):
    """The maximum principle, and the slopes of the Hamiltonians."""
    at = problem.pontryagin(theta)
    return at, hamiltonian_slopes(problem, at, theta)


@jax.jit
def both_gradients(problem, theta):
    """The value with its gradient by automatic differentiation, and that by hand."""
    automatic = jax.value_and_grad(lambda theta: problem.value(theta))(theta)
    return automatic, problem.gradient(theta)


def worst(a, b):
    """The largest difference, relative where the second has entries over 1."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    pairs = ((np.asarray(a), np.asarray(b)) for a, b in pairs)
    return max(np.abs(a - b).max() / max(1, np.abs(b).max()) for a, b in pairs)


# ----------------------------------------------------------- the maximum principle


def tracking(t, x, y):
    return jnp.sum((x - t * y) ** 2 * jnp.array([1, 2], x.dtype))


def asymmetric(dtype="float64"):
    """Unequal sizes and weights, a running cost in all its arguments, another time."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    w = rng.uniform(0.1, 1, 7)
    w = jnp.asarray(w / w.sum(), dtype)
    theta = OneLayer(draw(5, 2, 2), draw(5, 2))
    problem = control.ControlProblem(
        draw(7, 2), draw(7, 2), w, decay=0.3, duration=1.7, field=control.of_block,
        running=tracking,
    )  # fmt: skip
    return problem, theta


def test_value_is_that_of_a_plain_loop():
    problem, theta = asymmetric()
    x, y, w = (np.asarray(a) for a in (problem.inputs, problem.labels, problem.weights))
    h, total, effort = 1.7 / 5, 0.0, 0.0
    for k in range(5):
        W, b = np.asarray(theta.weight[k]), np.asarray(theta.bias[k])
        total += h * w @ ((x - k * h * y) ** 2 @ [1, 2])
        effort += 0.3 * h * ((W**2).sum() + (b**2).sum())
        x = x + h * np.tanh(x @ W.T + b)
    total += w @ ((x - y) ** 2).sum(1)
    (found, _), _ = both_gradients(problem, theta)
    np.testing.assert_allclose(found, total + effort, rtol=1e-13)
    np.testing.assert_allclose(problem.effort(theta), effort, rtol=1e-13)


def test_the_discrete_adjoint_is_the_gradient(dtype):
    """With the costate at the next layer; to 1e-12 in float64."""
    problem, theta = asymmetric(dtype)
    (_, automatic), by_hand = both_gradients(problem, theta)
    assert worst(by_hand, automatic) < {"float32": 1e-6, "float64": 1e-12}[dtype]
    assert by_hand.weight.dtype == dtype


def test_costates_are_slopes_of_the_cost_that_is_left():
    problem = POPULATION
    at, _ = slopes_of(problem, FALLING)
    value = value_of(problem, FALLING)
    np.testing.assert_allclose(at.value, value, rtol=1e-14)

    def left(x):
        rest = problem.but(inputs=x, duration=(N - 1) / N)
        return rest.losses(FALLING[1:]).sum()

    slopes = jax.jit(jax.grad(left))(at.states[1])
    np.testing.assert_allclose(at.costates[0], slopes, rtol=1e-13)


def test_an_optimal_control_makes_every_hamiltonian_least(optimum):
    at, _ = slopes_of(POPULATION, optimum.theta)
    grid = np.linspace(-8, 8, 1601)
    for x, w, p, theta in zip(*at[1:], optimum.theta, strict=True):
        x, w, p = (np.asarray(a).ravel() for a in (x, w, p))

        def energy(z, x=x, w=w, p=p):
            return np.tanh(np.multiply.outer(z, x)) @ (w * p) + 0.1 * z**2

        least = energy(np.asarray(theta))
        assert least < energy(grid).min() + 1e-12
    last = [part[-1] for part in at[1:]]
    found = POPULATION.hamiltonian(*last, optimum.theta[-1])
    np.testing.assert_allclose(found, least, rtol=1e-12)


# ---------------------------------------------------------------------- solvers


def test_three_solvers_agree(optimum):
    swept = control.sweep(POPULATION, ONES, tolerance=1e-11)
    extended = control.extended_msa(POPULATION, ONES, rho=0.5, tolerance=1e-10, inner=3)
    for found in (swept, extended):
        assert worst(found.theta, optimum.theta) < 1e-8
        assert abs(found.value - optimum.value) < 1e-12
    for found in (optimum, swept, extended):
        assert found.flags == ()
        assert found.solved
        assert found.residual < 1e-10
    assert swept.work > 100 * swept.iterations  # it searches in every layer
    again = control.extended_msa(POPULATION, extended.theta, rho=0.5)
    assert (again.iterations, again.work) == (0, 1)
    assert (np.diff(optimum.theta) < 0).all()  # it decreases along depth


def test_a_plain_sweep_goes_to_and_fro_and_says_so():
    """Where the penalty is small; damped, it converges at once, in one program."""
    small = POPULATION.but(decay=1e-3)
    damped = control.sweep(small, ONES)
    assert damped.flags == ()
    assert damped.iterations < 50
    programs = _sweeps._cache_size()
    plain = control.sweep(small, ONES, damping=1.0)
    assert _sweeps._cache_size() == programs
    assert plain.flags == (
        "residual above tolerance",
        "iterations exhausted",
        "two-cycle",
    )
    assert plain.values[-2:].max() > 10 * plain.values[-2:].min()
    assert plain.values.min() > damped.value
    assert plain.residual > 0.1
    # what creeps does not go to and fro, and nothing does where the penalty is large
    creeping = control.sweep(small, ONES, damping=1e-4)
    assert creeping.flags == plain.flags[:2]
    assert control.sweep(POPULATION.but(decay=1.0), ONES, damping=1.0).flags == ()


def test_a_sweep_leaves_a_stationary_point_for_the_least_of_two_valleys():
    """The gradient vanishes where it starts."""
    problem = control.ControlProblem(
        jnp.zeros((1, 1)), jnp.ones((1, 1)), decay=0.01, field=valleys
    )
    stuck = control.direct(problem, jnp.zeros(2))
    assert stuck.residual == 0
    swept = control.sweep(problem, jnp.zeros(2))
    assert swept.flags == ()
    assert swept.value < stuck.value - 0.5
    narrow = control.sweep(problem, jnp.zeros(2), reach=0.5)
    assert "at the edge of the grid" in narrow.flags
    # a point that is merely stationary is no solution of the maximum principle
    left = control.sweep(problem, jnp.zeros(2), damping=1e-9, tolerance=1e-6)
    assert left.residual < 1e-6
    assert not left.solved


def valleys(x, theta):
    return jnp.tanh(theta) ** 3 * jnp.ones_like(x)


def test_what_is_not_solved_says_so(optimum):
    cut = control.direct(POPULATION, ONES, max_iterations=2)
    assert cut.flags == ("residual above tolerance", "iterations exhausted")
    assert not cut.solved
    extended = control.extended_msa(POPULATION, ONES, rho=0.5, max_sweeps=2)
    assert extended.flags == ("residual above tolerance", "iterations exhausted")
    assert len(extended.values) == 3
    assert extended.values[0] > extended.values[-1] > optimum.value


def test_single_precision_comes_as_near_as_it_can(optimum):
    law = (jnp.asarray(a, "float32") for a in control.bumps())
    single = control.ControlProblem(*law, decay=0.1)
    found = control.direct(single, ONES.astype("float32"))
    assert found.flags == ("residual above tolerance", "float32")
    assert found.theta.dtype == "float32"
    assert worst(found.theta.astype("float64"), optimum.theta) < 1e-3
    # a start of another precision is rounded; a control of another one is refused
    rounded = control.direct(single, ONES)
    np.testing.assert_array_equal(rounded.theta, found.theta)
    with pytest.raises(ValueError, match="data and weights must have one precision"):
        single.value(ONES)


# ----------------------------------------------------------------- extended MSA


def sine(points=10, d=3):
    rng = np.random.default_rng(1)
    x = rng.uniform(-np.pi, np.pi, points)
    problem = control.ControlProblem(
        np.repeat(x[:, None], d, 1), np.sin(x), decay=0.002, duration=5.0,
        field=control.of_block, loss=sum_square,
    )  # fmt: skip
    weight = jnp.asarray(rng.uniform(-0.005, 0.005, (N, d, d)))
    return problem, OneLayer(weight, jnp.zeros((N, d)))


def sum_square(x, y):
    return (jnp.sum(x) - y[0]) ** 2


def test_extended_msa_descends_where_its_penalties_are_large():
    problem, start = sine()
    options = {"max_sweeps": 10}
    rho = control.summed_rho(10.0, 10, 0.5)
    held = control.extended_msa(problem, start, rho=rho, **options)
    assert (np.diff(held.values) < 0).all()
    assert held.values[-1] < held.values[0] / 2
    assert not held.solved
    plain = control.extended_msa(problem, start, rho=0.0, **options)
    assert (np.diff(plain.values) > 1).any()


def test_penalties_do_not_depend_on_how_many_points_there_are():
    problem, start = sine(5)
    twice = problem.but(
        inputs=jnp.concatenate([problem.inputs] * 2),
        labels=jnp.concatenate([problem.labels] * 2),
        weights=None,
    )
    options = {"rho": (50.0, 0.5), "max_sweeps": 2}
    found = [control.extended_msa(p, start, **options) for p in (problem, twice)]
    assert worst(found[1].theta, found[0].theta) < 1e-6


def test_summed_rho_is_that_of_a_sum_over_the_batch():
    """The objective of the public code, written out, is ours times the step."""
    problem, theta = sine(5)
    B, h, rho = 5, 0.5, 0.7
    at, _ = slopes_of(problem, theta)
    old, new = (jax.tree.map(lambda z, k=k: z[k], theta) for k in (3, 4))
    x, p = at.states[3], at.costates[3] / B

    def layer(x, node):
        return x + h * jax.vmap(node)(x)

    def pulled(node):
        return jax.vjp(lambda x: layer(x, node), x)[1](p)[0]

    def public(flat):
        node = OneLayer(flat[:9].reshape(3, 3), flat[9:])
        decay = h * problem.decay * jnp.sum(flat**2)
        moved = jnp.sum((layer(x, node) - layer(x, old)) ** 2)
        turned = jnp.sum((pulled(node) - pulled(old)) ** 2)
        return jnp.sum(p * layer(x, node)) + decay + rho / 2 * (moved + turned)

    flat = jnp.concatenate([z.ravel() for z in jax.tree.leaves(new)])
    penalties = jnp.array(control.summed_rho(rho, B, h))
    parts = [part[3] for part in at[1:]]
    _, ours = _augmented(problem, parts, old, flat, penalties)
    np.testing.assert_allclose(h * ours, jax.jit(jax.grad(public))(flat), rtol=1e-11)


# ------------------------------------------------------- population and samples


def test_a_quadrature_is_the_population():
    """Against another quadrature, of one bump, to 1e-12."""

    def cost(offset, theta):
        x = 1 + offset
        for each in theta:
            x = x + np.tanh(each * x) / len(theta)
        return (x - 2) ** 2 * np.exp(-(offset**2) / 2)

    theta = np.linspace(1.2, 0.5, N)
    options = {"epsabs": 1e-14, "epsrel": 1e-14}
    found = integrate.quad(cost, -0.2, 0.2, args=(theta,), **options)[0]
    mass = integrate.quad(lambda u: np.exp(-(u**2) / 2), -0.2, 0.2, **options)[0]
    expected = found / mass + 0.1 * (theta**2).mean()
    assert abs(float(value_of(POPULATION, FALLING)) - expected) < 1e-12


def test_samples_are_of_the_law_of_the_bumps():
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    sides = {"centres": corners, "labels": corners[:, :1] * 3, "radius": 0.5}
    law, sample = (
        control.Law(*map(np.asarray, drawn))
        for drawn in (
            control.bumps(8, **sides),
            control.sample_bumps(4000, **sides, key=jr.key(3)),
        )
    )
    assert law.inputs.shape == (4 * 64, 2)
    np.testing.assert_allclose(law.weights.sum(), 1, rtol=1e-14)
    for function in (
        lambda x, y: x[:, 0] * y[:, 0],
        lambda x, y: (x[:, 0] ** 2 - 1) * (x[:, 1] + 1) ** 2,
        lambda x, y: x[:, 0] * x[:, 1],
    ):
        expected = law.weights @ function(law.inputs, law.labels)
        assert_mean(function(sample.inputs, sample.labels), expected)
    assert np.abs(np.abs(sample.inputs) - 1).max() < 0.5


def drift(x, theta):
    return theta * jnp.ones_like(x)


def test_sampling_constants_of_a_drift_by_hand():
    r"""$x_n = x + \int\theta$: with $g = x - y$ and its mean $m$ the optimum is
    $\theta = -m/(\lambda + T)$, and $J = \operatorname{Var} g + m^2\lambda/(\lambda
    + T)$, so that the laws are exact for every sample."""
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(9, 1)), rng.uniform(size=9)
    w = w / w.sum()
    T, decay = 1.5, 0.4
    problem = control.ControlProblem(
        x, x * 0 + 1, w, decay=decay, duration=T, field=drift
    )
    found = control.direct(problem, ONES)
    g = np.asarray(x)[:, 0] - 1
    m = float(w @ g)
    variance = float(w @ (g - m) ** 2)
    np.testing.assert_allclose(found.theta, -m / (decay + T), rtol=1e-8)
    constants = control.sampling_constants(problem, found.theta)
    np.testing.assert_allclose(constants.control, variance**0.5 / (decay + T))
    np.testing.assert_allclose(constants.bias, -variance * T / (decay + T))
    np.testing.assert_allclose(constants.each, variance**0.5 / (decay + T))
    losses = (g - T * m / (decay + T)) ** 2
    np.testing.assert_allclose(
        constants.value, float(w @ (losses - w @ losses) ** 2) ** 0.5, rtol=1e-7
    )
    with pytest.raises(ValueError, match="theta must be a minimum"):
        control.sampling_constants(problem, found.theta + 0.01)


# --------------------------------------------------------------------- densities


def on_grid(nodes, **options):
    return control.DensityForm(POPULATION, np.linspace(-4, 4, nodes), **options)


def wandering(t, x, y):
    return jnp.sum((jnp.sin(x) - t * y) ** 2)


def test_the_adjoint_on_the_grid_is_dual_to_the_density():
    """What is still to be paid falls by what each layer costs."""
    problem = POPULATION.but(running=wandering, duration=1.7)
    form = control.DensityForm(problem, np.linspace(-4, 4, 61))
    everything = jax.jit(
        lambda form, z: (
            jax.value_and_grad(lambda z: form.value(z))(z),
            slopes_of(form, z),
            form.masses(z),
            form.adjoint(z),
            form.problem.value(z),
        )
    )
    (value, automatic), (at, slopes), masses, psi, exact = everything(form, FALLING)
    h = 1.7 / N
    assert worst(h * slopes, automatic) < 1e-12
    np.testing.assert_allclose(at.value, value, rtol=1e-14)
    np.testing.assert_allclose(value, exact, rtol=1e-4)
    np.testing.assert_allclose(masses.sum((1, 2)), 1, rtol=1e-13)
    t, x = h * np.arange(N)[:, None, None], np.linspace(-4, 4, 61)
    rates = (np.sin(x) - t * np.array([[-2.0], [2.0]])) ** 2
    paid = h * (np.asarray(masses)[:-1] * rates).sum((1, 2))
    pairings = jnp.sum(masses * psi, axis=(1, 2))
    np.testing.assert_allclose(-np.diff(pairings), paid, rtol=1e-9)


@pytest.mark.parametrize(("degree", "order"), [(3, 4), (1, 2)])
def test_densities_converge_with_their_order(degree, order):
    exact = value_of(POPULATION, FALLING)
    spacings, errors = [], []
    for end in (8.0, 4.0, 2.5):  # of a grid of as many nodes: one program
        grid = np.linspace(-end, end, 81)
        form = control.DensityForm(POPULATION, grid, degree=degree)
        spacings.append(grid[1] - grid[0])
        errors.append(abs(float(value_of(form, FALLING) - exact)))
    slope = loglog_slope(np.array(spacings), np.array(errors)).value
    assert order - 0.5 < slope < order + 0.8
    assert errors[-1] < 0.1 ** (order - 1)


def test_a_control_on_the_grid_is_that_of_the_points(optimum):
    found = control.sweep(on_grid(81), ONES)
    assert found.flags == ()
    assert worst(found.theta, optimum.theta) < 2e-4
    # on a grid that the particles leave there is no value
    short = control.DensityForm(POPULATION, np.linspace(-1.9, 1.9, 81))
    lost = control.sweep(short, ONES)
    assert np.isnan(lost.value)
    assert "off the grid" in lost.flags
    assert not lost.solved


def test_the_adjoint_is_to_be_read_where_a_particle_arrives(optimum):
    """Where it leaves costs more than all errors of the grid."""
    gradients = []
    for costate in ("arriving", "leaving"):
        form = on_grid(81, forward="points", costate=costate)
        at, slopes = slopes_of(form, optimum.theta)
        np.testing.assert_allclose(at.value, optimum.value, rtol=1e-12)
        gradients.append(jnp.abs(slopes).max())
    assert gradients[0] < 1e-4
    assert gradients[1] > 1e-2


# ------------------------------------------------------------------ linear fields

A = np.array([[0.3, 1.0], [-0.7, 0.2]])
B = np.array([[0.5, 0.1], [1.0, -0.8]])
Q, S = np.diag([1.0, 0.5]), np.array([[2.0, 0.3], [0.3, 1.0]])
QUADRATIC = {"state": Q, "control": 0.6 * np.eye(2), "terminal": S}


def linear(x, u):
    return jnp.asarray(A) @ x + jnp.asarray(B) @ u


def half_final(x, y):
    return x @ jnp.asarray(S) @ x / 2


def half_running(t, x, y):
    return x @ jnp.asarray(Q) @ x / 2


def test_the_network_of_a_linear_field_is_solved_by_riccati_in_its_layers():
    start = np.array([1.0, -2.0])
    problem = control.ControlProblem(
        start[None], np.zeros((1, 1)), decay=0.3, duration=1.5, field=linear,
        loss=half_final, running=half_running,
    )  # fmt: skip
    exact = control.riccati(A, B, **QUADRATIC, duration=1.5, steps=8, times="layers")
    found = control.direct(problem, jnp.zeros((8, 2)), tolerance=1e-10)
    np.testing.assert_allclose(found.value, exact.value(start), rtol=1e-8)
    x, controls = start, []
    for K in exact.gains:
        controls.append(-K @ x)
        x = x + 1.5 / 8 * (A @ x + B @ controls[-1])
    assert worst(found.theta, jnp.asarray(np.stack(controls))) < 1e-8


def test_riccati_solves_its_equation():
    exact = control.riccati(A, B, **QUADRATIC, duration=1.5, steps=50)

    def rate(t, flat):
        P = flat.reshape(2, 2)
        return (A.T @ P + P @ A - P @ B @ B.T @ P / 0.6 + Q).ravel()

    options = {"rtol": 1e-11, "atol": 1e-12, "method": "DOP853"}
    end = integrate.solve_ivp(rate, (0, 1.5), S.ravel(), **options).y[:, -1]
    np.testing.assert_allclose(exact.matrices[0].ravel(), end, rtol=1e-9)
    np.testing.assert_allclose(exact.gains[-1], B.T @ S / 0.6, rtol=1e-13)
    # of one number: P = 1 / (1 + T) for x' = u
    zero, unit = np.zeros((1, 1)), np.ones((1, 1))
    scalar = {"state": zero, "control": unit, "terminal": unit}
    one = control.riccati(zero, unit, **scalar, duration=3.0)
    np.testing.assert_allclose(one.matrices[0], 0.25, rtol=1e-13)
    layers = [
        control.riccati(A, B, **QUADRATIC, duration=1.5, steps=n, times="layers")
        for n in (50, 100)
    ]
    gaps = [np.abs(r.matrices[0] - exact.matrices[0]).max() for r in layers]
    assert 1.8 < gaps[0] / gaps[1] < 2.2  # of first order
    # over a long time, in few steps, it settles at the algebraic equation's
    fast = A + np.diag([0, 3.0]), np.eye(2)
    long = control.riccati(*fast, **QUADRATIC, duration=200.0, steps=2)
    settled = linalg.solve_continuous_are(*fast, Q, QUADRATIC["control"])
    np.testing.assert_allclose(long.matrices[0], settled, rtol=1e-12)


def test_a_shared_bias_steers_the_mean_alone():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    found = control.shared_bias(x, y, A, penalty=0.6, duration=1.5)
    quadratic = {"control": 0.6 * np.eye(2), "terminal": np.eye(2)}
    mean = control.riccati(
        A, np.eye(2), state=np.zeros((2, 2)), **quadratic, duration=1.5
    )
    back = linalg.expm(-1.5 * A) @ y.mean(0)
    steered = mean.value(x.mean(0) - back)
    np.testing.assert_allclose(found.value - found.unmoved, steered, rtol=1e-8)
    shift = np.array([3.0, -1.0])
    moved = control.shared_bias(x + shift, y, A, penalty=0.6, duration=1.5)
    np.testing.assert_allclose(moved.unmoved, found.unmoved, rtol=1e-12)
    # one number: m^2 gamma / (gamma + G) / 2, G = (e^(2wT) - 1) / (2w)
    unit = np.ones((1, 1))
    one = control.shared_bias(unit, 3 * unit, 0.4 * unit, penalty=0.2, duration=2.0)
    m, G = np.exp(0.8) - 3, (np.exp(1.6) - 1) / 0.8
    np.testing.assert_allclose(one.value, m**2 * 0.2 / (0.2 + G) / 2, rtol=1e-12)
    np.testing.assert_allclose(one.bias[-1], -m / (0.2 + G), rtol=1e-12)


def test_what_the_gramian_reaches():
    T, one = 1.2, B[:, :1]

    def integrand(s):
        rows = linalg.expm(s * A) @ one
        return (rows @ rows.T).ravel()

    G = control.gramian(A, one, duration=T)
    expected = integrate.quad_vec(integrand, 0, T, epsrel=1e-12)[0]
    np.testing.assert_allclose(G.ravel(), expected, rtol=1e-10)
    start, end = np.array([1.0, 0.5]), np.array([-2.0, 1.0])
    found = control.least_energy(A, one, start, end, duration=T, steps=400)

    def rate(t, x):
        u = np.interp(t, found.times, found.control[:, 0])
        return A @ x + one[:, 0] * u

    reached = integrate.solve_ivp(rate, (0, T), start, rtol=1e-9, atol=1e-9).y[:, -1]
    np.testing.assert_allclose(reached, end, atol=1e-4)
    energy = integrate.simpson((found.control**2).sum(1) / 2, x=found.times)
    np.testing.assert_allclose(found.energy, energy, rtol=1e-8)
    stable = np.array([[-10.0, 1.0], [-1.0, -8.0]])
    still = linalg.solve_continuous_lyapunov(stable, -B @ B.T)
    np.testing.assert_allclose(control.gramian(stable, B, duration=9.0), still, 1e-12)
    # four integrals in a row: in a tenth of the time 10^7 times the energy
    chain = np.diag(np.ones(3), 1), np.eye(4)[:, 3:], np.zeros(4), np.eye(4)[0]
    slow, fast = (control.least_energy(*chain, duration=T).energy for T in (1.0, 0.1))
    np.testing.assert_allclose(fast, 1e7 * slow, rtol=1e-6)
    blind = np.array([[1.0], [1.0]])
    lazy = np.diag([0.5, 0.5])
    assert np.linalg.matrix_rank(control.gramian(lazy, blind), tol=1e-10) == 1
    with pytest.raises(ValueError, match="the end cannot be reached"):
        control.least_energy(lazy, blind, start, end)
    with pytest.raises(ValueError, match="the end cannot be reached"):
        control.least_energy(lazy, blind, start * 0, 1e-9 * start)
    along = control.least_energy(lazy, blind, start * 0, blind[:, 0])
    np.testing.assert_allclose(along.control[-1] > 0, True)


# ------------------------------------------------------------------------ errors

X = np.array([[1.0], [2.0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": -0.1}, "decay must lie in"),
        ({"duration": 0.0}, "duration must lie in"),
        ({"labels": X[:1]}, "labels must have shape"),
        ({"inputs": X * np.nan}, "inputs holds NaN"),
        ({"weights": np.array([0.5, 0.6])}, "weights must sum to 1"),
        ({"weights": np.array([1.5, -0.5])}, "weights must not be negative"),
        ({"labels": np.ones((2, 3))}, "labels must be as wide as the inputs"),
        ({"inputs": X.astype("float32"), "decay": 1e300}, "decay must lie in"),
        ({"loss": lambda x, y: (x - y) ** 2}, "loss must give one number a point"),
        ({"running": lambda t, x, y: x}, "running must give one number a point"),
        ({"lr": 1.0}, "unknown setting"),
    ],
)
def test_problems_refuse_what_makes_no_sense(as_in_use, change, message):
    problem = control.ControlProblem(X, X, decay=0.1)
    with pytest.raises(ValueError, match=message):
        problem.but(**change)


def test_solvers_refuse_what_makes_no_sense(as_in_use):
    problem = control.ControlProblem(X, X, decay=0.1)
    with pytest.raises(ValueError, match="as the leading axis"):
        control.direct(problem, jnp.ones(()))
    with pytest.raises(ValueError, match="start holds NaN"):
        control.direct(problem, ONES * jnp.nan)
    with pytest.raises(ValueError, match="start must have shape"):
        control.sweep(problem, jnp.ones((3, 1, 1)))
    with pytest.raises(ValueError, match="rho must be one number or two"):
        control.extended_msa(problem, ONES, rho=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="field must map"):
        problem.but(field=lambda x, theta: jnp.zeros(3)).value(ONES)
    plane = control.ControlProblem(X * [1, 2], X * [1, 2], decay=0.1)
    with pytest.raises(ValueError, match="problem must be on the line"):
        control.DensityForm(plane, np.linspace(0, 3, 9))
    for grid in (np.linspace(0, 3, 5), np.geomspace(0.1, 3, 9)):
        with pytest.raises(ValueError, match="grid must increase in equal steps"):
            control.DensityForm(problem, grid)
    with pytest.raises(ValueError, match="grid must hold all inputs"):
        control.DensityForm(problem, np.linspace(-1, 1.5, 9))
    with pytest.raises(ValueError, match="control must be symmetric and positive"):
        control.riccati(A, B, **QUADRATIC | {"control": -np.eye(2)})
    with pytest.raises(ValueError, match="A must be square"):
        control.gramian(B[:, :1], B)


def test_gain_of_whole_numbers_does_not_wrap_around(as_in_use):
    found = control.gain(jnp.array([2], jnp.uint8), jnp.array(200, jnp.uint8))
    assert float(found[0]) == 1
