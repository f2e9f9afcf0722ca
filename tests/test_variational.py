"""Training as a variational problem: exact identities, two solvers, and the limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from deeplimits import datasets, variational
from deeplimits.residual import OneLayer, TwoLayer
from deeplimits.variational import descent, minima
from deeplimits.variational.functional import PENALTIES
from deeplimits.variational.whitening import value_and_gradient

X, Y = datasets.rings()
Problem = variational.Problem
RINGS = Problem(X, Y, alpha=0.01)
LOW, HIGH = 3, 31  # keys of starts that lead to the two branches of the landscape


energy, fit = Problem.energy, Problem.data_loss


def found(key, problem=RINGS, **options):
    like = variational.one_layer(16, 2)
    start = variational.random_start(problem, like, key=jr.key(key))
    return variational.minimise(problem, start, **options)


@pytest.fixture(scope="module")
def low():
    """The lowest branch that 60 starts find at depth 16, along depth."""
    return variational.continue_in_depth(RINGS, found(LOW), [16, 32, 64])


def asymmetric(kind, nodes=5, key=0, **settings):
    """Unequal sizes, a penalty for each part, two outputs: no accident of symmetry."""
    draws = iter(0.7 * np.asarray(jr.normal(jr.key(key), (999,))))

    def draw(*shape):
        numbers = [next(draws) for _ in range(np.prod(shape))]
        return jnp.asarray(np.reshape(numbers, shape))

    if kind is OneLayer:
        block = OneLayer(draw(nodes, 3, 3), draw(nodes, 3))
    else:
        block = TwoLayer(draw(nodes, 3, 4), draw(nodes, 4, 3))
    parameters = variational.Parameters(block, variational.Affine(draw(2, 3), draw(2)))
    labels = jnp.sign(draw(7, 2))
    alpha, tau = jnp.array([0.3, 0.2, 0.7, 0.11]), jnp.array([1.3, 0.4])
    problem = Problem(draw(7, 3), labels, alpha=alpha, tau=tau, **settings)
    return problem, parameters


def plain(problem, parameters):
    """$E_n$ by loops of NumPy, for a one-layer block."""
    K, b = np.asarray(parameters.block.weight), np.asarray(parameters.block.bias)
    W, c = np.asarray(parameters.readout.weight), np.asarray(parameters.readout.bias)
    n, total = len(K), 0.0
    for x, y in zip(
        np.asarray(problem.inputs), np.asarray(problem.labels), strict=False
    ):
        for i in range(n):
            x = x + np.tanh(K[i] @ x + b[i]) / n
        total += np.sum((np.tanh(W @ x + c) - y) ** 2)
    for a, t, z in zip(problem.alpha, problem.tau, (K, b), strict=False):
        rises = sum(np.sum((z[i] - z[i - 1]) ** 2) for i in range(1, n))
        start = np.sum(z[0] ** 2)
        total += (
            a
            * {
                "sobolev": n * rises + t * start,
                "no factor": rises + t * start,
                "no tau": n * rises,
                "weight decay": np.sum(z**2) / n,
            }[problem.penalty]
        )
    return total + problem.alpha[2] * np.sum(W**2) + problem.alpha[3] * np.sum(c**2)


# --------------------------------------------------------------- the functional


def test_the_energy_is_that_of_a_plain_loop():
    problem, parameters = asymmetric(OneLayer)
    loss = fit(problem, parameters)
    for penalty in PENALTIES:
        other = problem.but(penalty=penalty)
        found = loss + other.alphas(parameters) @ other.roughness(parameters)
        np.testing.assert_allclose(found, plain(other, parameters), rtol=1e-13)
    expected = plain(problem, parameters)
    np.testing.assert_allclose(energy(problem, parameters), expected, rtol=1e-13)


@pytest.mark.parametrize("kind", [OneLayer, TwoLayer])
def test_the_outputs_are_those_of_the_network(kind):
    problem, parameters = asymmetric(kind)
    expected = jax.vmap(parameters.network)(problem.inputs)
    np.testing.assert_allclose(problem.outputs(parameters), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("kind", "scheme"), [(OneLayer, "euler"), (TwoLayer, "heun"), (OneLayer, "ode")]
)
def test_the_discrete_adjoint_is_the_gradient(kind, scheme):
    problem, parameters = asymmetric(kind, scheme=scheme)

    def loss(parameters, x):
        return problem.but(inputs=x).data_loss(parameters)

    expected = jax.jit(jax.grad(loss, argnums=(0, 1)))(parameters, problem.inputs)
    hand = jax.jit(variational.adjoint)(problem, parameters)
    found = hand.gradient, hand.costates[0]
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_without_the_factor_it_is_the_same_functional_elsewhere():
    r"""$E_n^{\text{no factor}}(\alpha, \tau) = E_n(\alpha/n, n\tau)$, whatever $n$."""
    for n in (2, 5):
        problem, parameters = asymmetric(OneLayer, n)
        alpha = problem.alpha / jnp.array([n, n, 1.0, 1.0])
        other = problem.but(alpha=alpha, tau=n * problem.tau)
        np.testing.assert_allclose(
            energy(problem.but(penalty="no factor"), parameters),
            energy(other, parameters),
            rtol=1e-15,
        )


def test_the_rings_have_their_symmetries(low):
    r"""Copies of weights under $x \mapsto -x$ and a reflection have their energy, to
    the last digits."""
    np.testing.assert_allclose([Y.sum(), *(Y[:, None] * X).sum(0)], 0, atol=1e-14)
    p = low[0].parameters
    K, b, W, c = (*jax.tree.leaves(p.block), *jax.tree.leaves(p.readout))
    R = jnp.diag(jnp.array([1.0, -1.0]))
    copies = [(K, -b, -W, c), (R @ K @ R, b @ R, W @ R, c)]
    for K, b, W, c in copies:
        copy = variational.Parameters(OneLayer(K, b), variational.Affine(W, c))
        difference = energy(RINGS, copy) - energy(RINGS, p)
        assert abs(difference) < 1e-14
        assert abs(K - p.block.weight).max() + abs(b - p.block.bias).max() > 0.1


def test_trapezoids_and_the_network_lead_to_one_flow():
    """At the nodes of one smooth path: second order, first order."""
    settings = {"tau": 1.0, "alpha": 0.1}
    problem = asymmetric(OneLayer)[0].but(**settings)
    draws = np.asarray(jr.normal(jr.key(5), (2, 12)))
    readout = asymmetric(OneLayer)[1].readout

    def at(times):
        rows = np.stack([np.ones_like(times), np.sin(2 * times)], axis=1) @ draws
        matrices = jnp.asarray(rows[:, :9].reshape(-1, 3, 3))
        block = OneLayer(matrices, jnp.asarray(rows[:, 9:]))
        return variational.Parameters(block, readout)

    def ratio(scheme, ends):
        by = problem.but(scheme=scheme)
        found = [fit(by, at(np.arange(n + ends) / n)) for n in (32, 64)]
        gaps = abs(np.array(found) - exact)
        return gaps[0] / gaps[1]

    exact = fit(problem.but(scheme="ode"), at(np.linspace(0, 1, 257)))
    assert 1.9 < ratio("euler", 0) < 2.1
    assert 3.8 < ratio("heun", 1) < 4.2


# ------------------------------------------------------------------- whitening


@pytest.mark.parametrize("kind", [OneLayer, TwoLayer])
def test_whitened_increments_have_the_penalty_for_their_square(kind):
    problem, parameters = asymmetric(kind)
    flat = variational.whitened(problem, parameters)
    roughness = problem.roughness(parameters).sum()
    np.testing.assert_allclose(jnp.sum(flat**2), roughness, rtol=1e-13)
    back = variational.coloured(problem, flat, parameters)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


def test_whitening_leaves_the_minimum_unchanged(low):
    raw = variational.minimise(RINGS, low[0].parameters, variables="raw")
    np.testing.assert_allclose(raw.value, low[0].value, rtol=1e-12)
    problem = RINGS.but(tau=2.5)
    a = found(LOW, problem)
    b = variational.minimise(problem, a.parameters, variables="raw", tolerance=1e-6)
    np.testing.assert_allclose(a.value, b.value, rtol=1e-10)
    assert a.value > low[0].value  # another tau is another problem


# --------------------------------------------------------------------- solvers


def beside(minimum, distance):
    """Parameters near a minimum's."""
    return eqx.tree_at(
        lambda p: p.readout.bias,
        minimum.parameters,
        replace_fn=lambda c: c + distance,
    )


def test_two_solvers_find_the_same_minimum(low):
    first = variational.minimise(RINGS, beside(low[0], 1e-2), polish=False)
    second = variational.newton(RINGS, beside(low[0], 1e-3))
    assert second.flags == ()
    assert second.gradient_norm < 1e-10
    assert abs(second.value - first.value) < 1e-10


def test_a_stall_of_the_first_solver_is_mended_by_the_second_or_said(low):
    start = beside(low[0], 1e-2)
    stalled = variational.minimise(RINGS, start, tolerance=1e-10, polish=False)
    mended = variational.minimise(RINGS, start, tolerance=1e-10)
    assert stalled.flags == ("residual above tolerance", "no descent")
    assert mended.flags == ()
    assert mended.gradient_norm < 1e-10


def test_no_step_of_newton_raises_the_energy(low, monkeypatch):
    """Not even along a direction that is far too long, as at the kinks of a ReLU; all
    values and gradients are counted."""
    calls = []

    def counted(*given):
        calls.append(None)
        return value_and_gradient(*given)

    monkeypatch.setattr(minima, "value_and_gradient", counted)
    start = beside(low[0], 1e-2)
    found = variational.minimise(RINGS, start, tolerance=1e-10)
    assert found.evaluations == len(calls)
    monkeypatch.setattr(descent, "_conjugate_gradients", lambda _, g: (10 * g, True))
    found = variational.newton(RINGS, start, max_steps=1)
    assert low[0].value < found.value < energy(RINGS, start)
    at, worse = (1.0, np.ones(2)), np.full(2, 2.0)
    assert descent._is_descent(at, (0.9, worse), 1e-16)
    assert descent._is_descent(at, (1.0, at[1] / 2), 1e-16)
    assert not descent._is_descent(at, (1.1, at[1] / 2), 1e-16)
    assert not descent._is_descent(at, (1.0, worse), 1e-16)


def test_halved_steps_reach_the_minimum_that_whole_ones_fly_from():
    """Of the root of 1 + x^2 a whole step leads from x to -x^3. An exact product counts
    as much as one by differences."""

    def bowl(x):
        root = np.sqrt(1 + x @ x)
        return root, x / root

    def product(x, v):
        return v / (1 + x @ x) ** 1.5

    calls = []
    for exact in (product, None):
        landscape = descent.Landscape(bowl, "float64", exact)
        found = descent.newton_steps(
            landscape, np.array([2.0]), tolerance=1e-9, max_steps=20
        )
        assert abs(found[0][0]) < 1e-9
        assert found[2] == ()
        calls.append(landscape.calls)
    assert calls[0] == calls[1]


def test_a_second_call_compiles_nothing():
    problem, parameters = asymmetric(OneLayer)
    for function in (Problem.energy, variational.states, variational.adjoint):
        function(problem, parameters)
        before = function._cache_size()
        function(problem, parameters)
        assert function._cache_size() == before


def test_starts_are_many_and_minima_are_few():
    like = variational.one_layer(16, 2)
    search = variational.multi_start(RINGS, like, starts=5, key=jr.key(1), same=1e-6)
    values = [m.value for m in search.minima]
    assert sum(search.counts) + search.unsolved == search.starts == 5
    assert values == sorted(values)
    assert search.lowest.value == values[0]
    assert all(m.solved for m in search.minima)
    cut = variational.multi_start(
        RINGS, like, starts=2, key=jr.key(1), max_iterations=2
    )
    assert (cut.unsolved, cut.minima) == (2, ())
    with pytest.raises(ValueError, match="none of 2 starts"):
        _ = cut.lowest


def test_smooth_starts_are_cosines_on_the_nodes_of_each_scheme():
    r"""$\xi_0 + \xi_1 \cos \pi t$ is $\xi_0$ in the middle."""
    for scheme, nodes in (("heun", 5), ("euler", 4)):
        problem, like = RINGS.but(scheme=scheme), variational.one_layer(nodes, 2)
        start = variational.random_start(problem, like, modes=2, key=jr.key(0))
        first, z, middle = (start.block.bias[i] for i in (0, 1, 2))
        quarter = middle + (first - middle) * np.cos(np.pi / 4)
        np.testing.assert_allclose(z, quarter, atol=1e-14)


def test_one_program_for_all_starts():
    found(LOW, max_iterations=2)
    before = value_and_gradient._cache_size()
    for problem in (RINGS, RINGS.but(alpha=0.3)):
        found(HIGH, problem, max_iterations=2)
    assert value_and_gradient._cache_size() == before


# ----------------------------------------------------------------------- flags


def test_flags_say_what_went_wrong():
    small = variational.random_start(
        RINGS, variational.one_layer(16, 2), scale=0.01, key=jr.key(0)
    )
    trivial = variational.minimise(RINGS.but(alpha=1.0), small)
    assert trivial.flags == ("trivial",)
    np.testing.assert_allclose(trivial.value, 20.0, rtol=1e-12)  # one a point
    cut = found(LOW, max_iterations=3)
    assert cut.flags == ("residual above tolerance", "iterations exhausted")
    assert not cut.solved
    loose = found(LOW, RINGS.but(penalty="no tau"), max_iterations=3)
    assert "not coercive" in loose.flags


def test_single_precision_stalls_and_says_so():
    single = Problem(X.astype("float32"), Y.astype("float32"), alpha=jnp.float32(0.01))
    like = variational.one_layer(16, 2, dtype="float32")
    start = variational.random_start(single, like, key=jr.key(LOW))
    stalled = variational.minimise(single, start)
    assert stalled.flags == ("residual above tolerance", "float32")
    assert stalled.gradient_norm > 1e-6
    assert jax.tree.leaves(stalled.parameters)[0].dtype == "float32"


def test_the_trivial_network_is_a_strict_minimum_of_the_rings():
    """Labels, and points times labels, sum to zero: the second variation is positive
    for every alpha."""
    problem, zero = RINGS.but(alpha=1e-3), variational.one_layer(4, 2)
    eigenvalues = np.linalg.eigvalsh(variational.hessian(problem, zero))
    assert eigenvalues[0] > 2e-3 * 0.999
    assert eigenvalues[-1] > 1  # of the data


# -------------------------------------------------------- laws of the minimum


def test_the_minimum_is_concave_in_alpha_with_slope_roughness(low):
    def minimum(alpha):
        problem = RINGS.but(alpha=alpha)
        near = variational.minimise(problem, low[0].parameters)
        return variational.newton(problem, near)

    step = 1e-4
    below, here, above = (minimum(0.01 + d) for d in (-step, 0.0, step))
    slope = (above.value - below.value) / (2 * step)
    roughness = float(RINGS.roughness(here.parameters).sum())
    np.testing.assert_allclose(slope, roughness, rtol=1e-3)
    assert below.value + above.value < 2 * here.value


def test_the_euler_lagrange_system_holds_to_the_last_digits(low):
    found = [variational.newton(RINGS, m) for m in low[1:]]
    systems = [variational.euler_lagrange(RINGS, m.parameters) for m in found]
    assert max(system.residual for system in systems) < 1e-9
    for name in ("natural_start", "natural_end"):
        natural = [getattr(system, name) for system in systems]
        assert 1.6 < natural[0] / natural[1] < 2.3  # of first order
    rough = variational.euler_lagrange(RINGS, asymmetric_rings())
    assert rough.residual > 0.1


def asymmetric_rings():
    return variational.random_start(
        RINGS, variational.one_layer(64, 2), key=jr.key(4), modes=3
    )


def test_the_hamiltonian_is_constant_along_depth_at_second_order(low):
    pairs = [variational.hamiltonian(RINGS, m.parameters) for m in low[1:]]
    spreads = [np.std(total) for total, _ in pairs]
    assert 3.7 < spreads[0] / spreads[1] < 4.3  # of second order
    assert spreads[-1] < 0.01 * np.std(pairs[-1][1])  # of the first term alone
    total, _ = variational.hamiltonian(RINGS, asymmetric_rings())
    assert np.ptp(total) > 1  # of weights that are not critical it is not


# -------------------------------------------------------------------- the limit


def smooth_path(key, terms=4):
    """Sums of cosines, with their Dirichlet integrals and squares at 0."""
    coefficients = (
        jr.normal(key, (terms, 12)) / jnp.arange(1.0, terms + 1)[:, None] ** 2
    )

    def path(t):
        rows = jnp.cos(jnp.pi * t * jnp.arange(float(terms))) @ coefficients
        return OneLayer(rows[:9].reshape(3, 3), rows[9:])

    squares = (np.pi * np.arange(terms)) ** 2 @ np.asarray(coefficients) ** 2 / 2
    starts = np.asarray(coefficients).sum(0) ** 2
    return path, [
        (squares[s].sum(), starts[s].sum()) for s in (slice(9), slice(9, None))
    ]


def test_recovery_sequences_cost_no_more_than_their_limit():
    """Exactly, at every depth; and no less in the end."""
    problem, parameters = asymmetric(OneLayer)
    for key in jr.split(jr.key(0), 3):
        path, parts = smooth_path(key)
        limit = [d + float(t) * s for (d, s), t in zip(parts, problem.tau, strict=True)]
        for n in (3, 256):
            sampled = variational.recovered(path, parameters.readout, n)
            rough = problem.roughness(sampled)[:2]
            assert (rough <= np.array(limit) * (1 + 1e-12)).all()
        np.testing.assert_allclose(rough, limit, rtol=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_energies_of_sequences_are_no_less_than_their_limit(seed):
    r"""$\theta_n = \Pi_n \theta$ plus an oscillation that dies out in $L^2$, not in
    $H^1$: it costs $\frac12 a^2 \pi^2$ of each entry, however fast it is."""
    problem, parameters = asymmetric(OneLayer)
    path, parts = smooth_path(jr.key(7 + seed))
    limit = [d + float(t) * s for (d, s), t in zip(parts, problem.tau, strict=True)]
    rng = np.random.default_rng(seed)
    n, a, m = 8192, rng.uniform(0.2, 2), int(rng.integers(128, 256))
    sampled = variational.recovered(path, parameters.readout, n)
    wave = jnp.asarray(a * np.sin(np.pi * m * np.arange(n) / n) / m)
    block = jax.tree.map(
        lambda z: z + wave.reshape(n, *[1] * (z.ndim - 1)), sampled.block
    )
    excess = problem.roughness(variational.Parameters(block, sampled.readout))[:2]
    excess = excess - np.array(limit)
    np.testing.assert_allclose(excess, a**2 * np.pi**2 / 2 * np.array([9, 3]), rtol=0.1)


def test_interpolants_have_the_energy_of_their_nodes():
    problem, parameters = asymmetric(OneLayer)
    ode = problem.but(scheme="ode")
    closed = variational.closed(parameters)
    np.testing.assert_allclose(
        ode.roughness(closed), problem.roughness(parameters), rtol=1e-14
    )
    finer = variational.refined(ode, closed, 40)
    np.testing.assert_allclose(
        ode.roughness(finer), problem.roughness(parameters), rtol=1e-13
    )
    np.testing.assert_allclose(
        variational.limit_energy(problem, parameters), ode.energy(finer), rtol=1e-5
    )
    exact = [variational.refined(problem, parameters, 5), parameters]
    for a, b in zip(*map(jax.tree.leaves, exact), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-15)


def test_the_loss_of_a_recovery_sequence_has_its_rate_constant():
    """On a path that is critical for nothing, the first form alone is the constant."""
    problem, parameters = asymmetric(OneLayer)
    path, _ = smooth_path(jr.key(2))
    fine = variational.recovered(path, parameters.readout, 512)
    last = path(jnp.ones(()))
    block = jax.tree.map(lambda z, e: jnp.concatenate([z, e[None]]), fine.block, last)
    nodes, ode = variational.Parameters(block, fine.readout), problem.but(scheme="ode")
    constant = variational.rate_constant(ode, nodes)
    gap = fit(problem, fine) - fit(ode, nodes)
    np.testing.assert_allclose(512 * gap, constant.general, rtol=0.02)
    assert abs(constant.critical - constant.general) > 0.1


def test_minima_converge_at_the_rate_with_its_constant(low):
    depths, values = np.array([16.0, 32, 64]), [m.value for m in low]
    _, measured, _ = np.linalg.solve(np.vander(1 / depths, increasing=True), values)
    heun = RINGS.but(scheme="heun")
    start = variational.closed(low[2].parameters)
    found = variational.minimise(heun, start)
    constant = variational.rate_constant(heun, found.parameters)
    np.testing.assert_allclose(constant.general, constant.critical, rtol=5e-3)
    np.testing.assert_allclose(constant.critical, measured, rtol=0.04)
    limit = variational.extrapolated(depths, values)
    np.testing.assert_allclose(found.value, limit, rtol=1e-3)


def test_the_constant_by_hand():
    r"""$\dot X = b(t)$ alone, with $K = 0$ held: $C = \frac12 \alpha \tau^2 |b(0)|^2$
    at a critical point, and in general $-\frac12 P \cdot (b(1) - b(0))$."""
    problem = Problem(
        jnp.zeros((1, 1)), jnp.ones((1, 1)), alpha=0.3, tau=0.8,
        loss=variational.square, scheme="ode",
    )  # fmt: skip
    b = jnp.linspace(1.0, 0.4, 9)[:, None]
    block = OneLayer(jnp.zeros((9, 1, 1)), b, activation="identity")
    readout = variational.Affine(jnp.full((1, 1), 2.0), jnp.zeros(1))
    found = variational.rate_constant(problem, variational.Parameters(block, readout))
    costate = 2 * (2 * 0.7 - 1) * 2
    np.testing.assert_allclose(found.general, -costate * (0.4 - 1) / 2, rtol=1e-13)
    np.testing.assert_allclose(found.critical, 0.3 * 0.8**2 / 2, rtol=1e-13)


def test_distances_are_those_of_a_fine_grid():
    first, second = (asymmetric(OneLayer, n, key=n)[1] for n in (3, 5))
    t = (np.arange(60_000) + 0.5) / 60_000

    def rows(parameters, held=False):
        n = parameters.nodes
        z = np.concatenate(
            [np.reshape(z, (n, -1)) for z in jax.tree.leaves(parameters.block)], 1
        )
        if held:
            return z[(t * n).astype(int)]
        return np.stack([np.interp(t * n, np.arange(n), row) for row in z.T], 1)

    gap = np.sum((rows(first) - rows(second)) ** 2, 1)
    l2, largest = variational.distances(first, second)
    np.testing.assert_allclose(l2, gap.mean() ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(largest, gap.max() ** 0.5, rtol=1e-4)
    held = np.sum((rows(first, held=True) - rows(second)) ** 2, 1)
    moved = (t - np.floor(3 * t) / 3) ** 2
    np.testing.assert_allclose(
        variational.tl2_distance(first, second), (held + moved).mean() ** 0.5, rtol=1e-4
    )


def test_extrapolation_is_exact_for_its_model():
    depths = np.array([16.0, 32, 64, 128])
    values = 5 - 3 / depths + 7 / depths**2
    np.testing.assert_allclose(variational.extrapolated(depths, values), 5, rtol=1e-13)


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha": jnp.array([1.0, -1.0])}, "not coercive"),
        ({"tau": 0.0}, "tau must be positive"),
        ({"labels": Y * 0.5}, "labels must be -1 or 1"),
        ({"labels": Y[:3]}, "labels must have shape"),
        ({"inputs": X * jnp.nan}, "inputs holds NaN"),
        ({"penalty": "ridge"}, "unknown penalty"),
        ({"scheme": "leapfrog"}, "unknown scheme"),
        ({"lr": 1.0}, "unknown setting"),
    ],
)
def test_problems_refuse_what_makes_no_sense(as_in_use, change, message):
    with pytest.raises(ValueError, match=message):
        RINGS.but(**change)


def test_solvers_refuse_what_makes_no_sense(as_in_use):
    like = variational.one_layer(1, 2)
    with pytest.raises(ValueError, match="depth of at least 2"):
        variational.minimise(RINGS, like)
    like = variational.one_layer(4, 2)
    with pytest.raises(ValueError, match="alpha must be one number or 4"):
        variational.minimise(RINGS.but(alpha=jnp.ones(3)), like)
    with pytest.raises(ValueError, match="unknown variables"):
        variational.minimise(RINGS, like, variables="rotated")
    with pytest.raises(ValueError, match="parameters holds NaN"):
        variational.minimise(RINGS, jax.tree.map(lambda z: z * jnp.nan, like))
    with pytest.raises(ValueError, match="labels must have the outputs' shape"):
        variational.minimise(RINGS, variational.one_layer(4, 2, outputs=2))
    with pytest.raises(ValueError, match="unknown scheme"):
        variational.hamiltonian(RINGS.but(scheme="heun"), like)
    with pytest.raises(ValueError, match="unknown penalty"):
        variational.hamiltonian(RINGS.but(penalty="no factor"), like)
    with pytest.raises(ValueError, match="parameters holds NaN"):
        variational.euler_lagrange(RINGS, jax.tree.map(lambda z: z * jnp.nan, like))
    with pytest.raises(ValueError, match="one precision"):
        variational.states(RINGS, variational.one_layer(4, 2, dtype="float32"))
    with pytest.raises(ValueError, match="three positive depths are needed"):
        variational.extrapolated(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="weights of one width"):
        variational.distances(like, variational.one_layer(4, 3))
