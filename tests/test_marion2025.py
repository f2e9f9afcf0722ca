"""Laws of networks at initialisation: exact identities, exponents, presets."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from conftest import assert_mean

from deeplimits import datasets, experiments, initialisation, results
from deeplimits.experiments.marion2025 import (
    accuracy,
    critical,
    depth,
    digits,
    drift,
    generator,
    histogram,
    identity,
    limits,
    setting,
    trained,
)
from deeplimits.residual import ResNet, TwoLayer


def laws(name, shape, key):
    if name == "uniform":
        return initialisation.uniform(6, shape, key=key)
    return jr.normal(key, (6, *shape)) / shape[-1] ** 0.5


@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("m", [2, 7])
def test_mean_squares_are_exact_at_finite_depth(law, m):
    """States and gradients of res-3, for an inner width that is not the outer."""
    q, step = 4, 0.6
    h, p = jnp.asarray([1.0, -2.0, 0.5, 3.0]), jnp.asarray([0.3, 1.0, -1.0, 2.0])

    def squares(key):
        outer_key, inner_key = jr.split(key)
        outer, inner = laws(law, (q, m), outer_key), laws(law, (m, q), inner_key)
        block = TwoLayer(outer, inner, activation="relu", width_factors=False)
        last, first = setting.propagate(block, jnp.asarray(step), h, p)
        return [jnp.sum(v**2) for v in (last, last - h, first, first - p)]

    found = jax.jit(jax.vmap(squares))(jr.split(jr.key(0), 20_000))
    growth = (1 + step**2 / 2) ** 6
    for samples, start, change in zip(found, (h, h, p, p), (0, 1, 0, 1), strict=True):
        assert_mean(samples, (growth - change) * float(start @ start))


def test_res1_has_no_identity():
    """A negative state never moves; the growth of a positive one is bounded."""
    config = identity.Identity(depth=8, width=4, draws=4096)
    found = identity.mean_squares.run(config, key=jr.key(1))
    res1 = found["square"].sel(model="res-1", quantity="state")
    assert float(abs(res1.sel(start="negative") - 1).max()) < 1e-6
    mean = float(res1.sel(start="positive").mean())
    assert 1.1 * (1 + 1 / 16) ** 8 < mean < (1 + 1 / 8) ** 8
    chosen = {"model": "res-1", "start": "positive", "quantity": "state"}
    ratio = identity.versus_identity(found, config, **chosen)
    assert ratio.value == pytest.approx(mean / (1 + 1 / 16) ** 8)
    assert ratio.low > 1.1


def test_mean_square_is_what_the_layers_multiply_to():
    for beta in (0.25, 0.5, 1.0):
        found = identity.mean_square([2, 5], beta)
        for L, value in zip((2, 5), found, strict=True):
            product = np.prod(np.full(L, 1 + L ** (-2 * beta) / 2))
            assert value == pytest.approx(product - 1, rel=1e-12)


@pytest.mark.parametrize("quantity", identity.QUANTITIES)
def test_squares_are_compared_with_the_identity_of_their_quantity(quantity):
    """Draws at one half, once and twice the exact mean: their mean is 7/6 of it, and
    Student's interval of five standard errors is symmetric."""
    config = identity.Identity(depth=4, width=3, beta=0.5)
    exact = (1 + 1 / 8) ** 4 - (1 if quantity.endswith("change") else 0)
    dims = ("model", "start", "draw", "quantity")
    values = exact * np.tile([0.5, 1.0, 2.0], 2000).reshape(1, 1, -1, 1)
    labels = {"model": ["res-3"], "start": ["positive"], "quantity": [quantity]}
    dataset = xr.Dataset({"square": (dims, values)}, labels)
    found = identity.versus_identity(
        dataset, config, model="res-3", start="positive", quantity=quantity
    )
    half = 5 * np.std([0.5, 1.0, 2.0]) / 6000**0.5
    np.testing.assert_allclose(found.value, 7 / 6, rtol=1e-10)
    np.testing.assert_allclose(found.low, 7 / 6 - half, rtol=1e-3)
    np.testing.assert_allclose(found.high, 7 / 6 + half, rtol=1e-3)


def test_ratios_are_those_of_a_plain_loop():
    keys = jr.split(jr.key(2), 4)
    V, W = jr.normal(keys[0], (3, 4, 4)), jr.normal(keys[1], (3, 4, 4))
    h0, p = jr.normal(keys[2], (4,)), jr.normal(keys[3], (4,))
    h, jacobian = np.asarray(h0), np.eye(4)
    for k in range(3):
        v, w = np.asarray(V[k]), np.asarray(W[k])
        jacobian = (np.eye(4) + 0.3 * v @ np.diag(w @ h > 0) @ w) @ jacobian
        h = h + 0.3 * v @ np.maximum(w @ h, 0)
    first = jacobian.T @ p
    expected = [
        np.linalg.norm(h - h0) / np.linalg.norm(h0),
        np.linalg.norm(first - p) / np.linalg.norm(p),
    ]
    block = setting.stacked("res-3", V, W)
    found = setting.ratios(block, jnp.asarray(0.3), h0, p)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert float(setting.change(block, jnp.asarray(0.3), h0)) == pytest.approx(
        expected[0]
    )


def test_padded_layers_change_nothing():
    config = depth.Depth(depths=(3, 8), betas=(0.5,), width=4)
    block, steps, h, _ = depth._network(config, 3, jr.key(3))
    short = jax.tree.map(lambda w: w[:3], block)
    full = ResNet(block, beta=0.0, scale=steps[0])(h)
    np.testing.assert_allclose(full, ResNet(short, beta=0.5)(h), rtol=1e-10)


def power_laws(exponent):
    """Ratios of ten repetitions, groups of two of which have one root mean square."""
    depths = np.array([10, 100, 200, 400, 800])
    pairs = np.tile([0.6, 0.8], 5)  # 0.36 + 0.64: the mean of the squares is one half
    values = depths[:, None] ** exponent * pairs
    values[0] = 7.0  # below the window
    quantities = np.stack([values, 2 * values], axis=-1)[:, :, None]
    dims = ("depth", "repetition", "beta", "quantity")
    labels = {"depth": depths, "beta": [0.5], "quantity": list(setting.QUANTITIES)}
    return xr.Dataset({"ratio": (dims, quantities)}, labels)


def test_slope_of_a_power_law():
    dataset = power_laws(-0.75)
    for quantity in setting.QUANTITIES:
        found = depth.slope(dataset, 0.5, quantity)
        np.testing.assert_allclose(found.numbers, -0.75, atol=1e-12)
    root = depth.root_mean_square(dataset, "gradient").sel(beta=0.5, depth=400)
    np.testing.assert_allclose(root, 2 * 400**-0.75 * 0.5**0.5)


def test_slope_has_an_interval_over_groups():
    """One group has another exponent: by hand, Student's interval of five slopes."""
    dataset = power_laws(-1.0)
    other = dataset["depth"] ** 1.0
    dataset["ratio"][:, :2] = dataset["ratio"][:, :2] * other
    found = depth.slope(dataset, 0.5, "state")
    half = 2.7764451 * np.std([0, -1, -1, -1, -1], ddof=1) / 5**0.5
    expected = [-0.8, -0.8 - half, -0.8 + half]
    np.testing.assert_allclose(found.numbers, expected, rtol=1e-6)


def test_groups_are_of_equal_size_and_in_order():
    samples = np.array([[1.0], [3.0], [5.0], [7.0], [0.0], [2.0]])
    means = setting.group_means(samples, 3)
    np.testing.assert_array_equal(means, [[2.0], [6.0], [1.0]])


def test_errors_of_the_limits_are_root_mean_squares_of_groups():
    values = np.array([[3.0, 4.0, 1.0, 7.0], [6.0, 8.0, 0.0, 2.0]])[:, :, None]
    labels = {"limit": ["sde", "ode"], "depth": [8]}
    dataset = xr.Dataset({"error": (("limit", "draw", "depth"), values)}, labels)
    found = limits.root_mean_squares(dataset, groups=2)
    np.testing.assert_allclose(found["sde"], [[12.5**0.5], [5.0]])
    np.testing.assert_allclose(found["ode"], [[50**0.5], [2**0.5]])


def test_a_deep_histogram_is_drawn_in_blocks_of_the_same_numbers(monkeypatch, capsys):
    config = histogram.Histogram(width=4, depth=8, draws=12, batch=6, inputs=4)
    compute = histogram.growth_histogram.run
    whole = compute(config, key=jr.key(4))
    for layers, size in ((20, 2), (1, 1)):
        monkeypatch.setattr(histogram, "LAYERS", layers)
        assert histogram._block(config) == size
        found = compute(config, key=jr.key(4), progress=True)
        assert found.identical(whole)
        bars = re.findall(r"(\w+): +\d+%", capsys.readouterr().err)
        assert set(bars) == {"growth"}  # that of the runner alone


def test_the_critical_law_is_lognormal():
    config = histogram.Histogram(width=5, depth=400, draws=2000)
    found = histogram.growth_histogram.run(config, key=jr.key(4))
    mean, variance = histogram.lognormal(5)
    logs = 2 * np.log(found["state"].values)
    assert_mean(logs, mean)
    assert_mean((logs - logs.mean()) ** 2, variance)
    assert 1 in histogram.spread(found["state"], 5)


def test_spread_of_a_law_that_is_twice_as_wide():
    q = 8  # of variance 2/q = 1/4: logarithms of the square at 1/2 from their mean
    logs = 3.0 + 2 * np.tile([-0.5, 0.5], 100)
    found = histogram.spread(np.exp(logs / 2), q)
    np.testing.assert_allclose(found.numbers, 4.0)


@pytest.mark.parametrize("model", setting.MODELS)
@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_first_order_is_the_mean_square_of_the_sum(model, hurst):
    """The sum itself, drawn: `V_k` times a fixed or a random vector."""
    h = jnp.asarray([2.0, 1.0, 0.5])

    def square(key):
        v_key, w_key = jr.split(key)
        V, W = (
            initialisation.fractional_noise(9, (3, 3), hurst=hurst, key=k) / 3**0.5
            for k in (v_key, w_key)
        )
        inside = jax.nn.relu(jnp.einsum("kij,j->ki", W, h))
        inside = inside if model == "res-3" else jnp.broadcast_to(h, (9, 3)) / 2**0.5
        return jnp.sum(jnp.einsum("kij,kj->i", V, inside) ** 2)

    samples = jax.vmap(square)(jr.split(jr.key(5), 20_000))
    assert_mean(samples, critical.first_order(model, hurst, 9) * float(h @ h))


@pytest.mark.parametrize(
    ("model", "hurst", "expected"),
    [
        ("res-1", 0.3, 0.3),
        ("res-3", 0.2, 0.5),
        ("res-3", 0.5, 0.5),
        ("res-3", 0.9, 0.9),
    ],
)
def test_first_order_exponents(model, hurst, expected):
    found = critical.first_order_exponent(model, hurst, (2**14, 2**16))
    assert found == pytest.approx(expected, abs=0.03)


def test_crossing_of_two_power_laws():
    """Curves that are straight in beta cross at the exponent of their growth."""
    betas = np.linspace(0.0, 1.3, 27)
    rows = np.stack([(0.7 - betas) * np.log10(L) for L in (16, 64)])
    labels = {"hurst": [0.7], "depth": [16, 64], "beta": betas}
    values = np.broadcast_to(rows, (1, 8, 2, 27))
    dataset = xr.Dataset(
        {"log_ratio": (("hurst", "network", "depth", "beta"), values)}, labels
    )
    [found] = critical.crossing(dataset)
    np.testing.assert_allclose(found.numbers, 0.7, atol=1e-12)


def gaps(curves):
    """Networks of depths 4 and 16, the deeper ones farther by `curves`."""
    rows = np.stack([np.zeros_like(curves), curves], axis=2)
    labels = {
        "hurst": [0.3],
        "depth": [4, 16],
        "beta": np.arange(1.0 * curves.shape[2]),
    }
    return xr.Dataset(
        {"log_ratio": (("hurst", "network", "depth", "beta"), rows)}, labels
    )


def test_all_sign_changes_count_each_with_its_direction():
    curve = np.array([1.0, -1.0, -3.0, 1.0, 0.5, -0.5])
    dataset = gaps(np.broadcast_to(curve, (1, 8, 6)))
    [found] = critical.all_roots(dataset)
    assert [direction for _, direction in found] == [-1, 1, -1]
    np.testing.assert_allclose([root for root, _ in found], [0.5, 2.75, 4.5])
    [border] = critical.crossing(dataset)  # of the identity: the last that falls
    np.testing.assert_allclose(border.numbers, 4.5)


def test_roots_among_what_overflowed_do_not_count():
    """Both depths count 16 there, or one, and their difference is none."""
    curve = np.array([-20.0, 0.0, 3.0, 1.0, -1.0])
    dataset = gaps(np.broadcast_to(curve, (1, 8, 5)))
    overflown = dataset["log_ratio"].copy()
    overflown[:, 0, :, :2] = [[16.0, 36.0], [16.0, 16.0]]
    for ratio, count in ((dataset["log_ratio"], 2), (overflown, 1)):
        [found] = critical.all_roots(xr.Dataset({"log_ratio": ratio}))
        assert len(found) == count
        assert found[-1] == (3.5, -1)


def test_roots_are_those_of_the_mean_and_not_of_networks():
    """One network alone has three roots, the mean of four of them one."""
    wild = [1.0, -1.0, 1.0, -1.0]
    curves = np.array([[wild, [1.0, 1.0, 0.2, -1.0], [1.0, 1.0, 0.2, -1.0]]])
    [found] = critical.all_roots(gaps(curves))
    assert [direction for _, direction in found] == [-1]


def test_a_curve_that_only_rises_has_no_crossing():
    assert critical.roots(np.arange(2.0), np.array([-1.0, 1.0])) == [(0.5, 1)]
    with pytest.raises(ValueError, match="no crossing between 0 and 1"):
        critical.last_root(np.arange(2.0), np.array([-1.0, 1.0]))


@pytest.mark.parametrize("hurst", [0.2, 0.8, 0.97])
def test_the_described_noise_has_the_derived_covariance(hurst):
    draws = generator.described_noise(12, (40_000,), hurst=hurst, key=jr.key(16))
    law = generator.described_covariance(12, hurst)
    for lag in (0, 1, 2, 11):
        assert_mean(
            draws[3 if lag < 9 else 0] * draws[lag + (3 if lag < 9 else 0)], law[lag]
        )


@pytest.mark.parametrize("hurst", [0.3, 0.8, 0.97])
def test_the_derived_covariance_by_a_plain_sum(hurst):
    """Row, alternation, and the share of negative eigenvalues, each by itself."""
    N, rho = 20, critical.covariance(20, hurst)
    row = np.array([*rho, 0.0, *rho[:0:-1]])
    k, n = np.arange(2 * N), np.arange(N)
    waves = np.cos(np.pi * np.outer(n, k) / N)
    values = np.array([np.sum(row * np.cos(np.pi * k * j / N)) for j in k])
    lowest, highest = values[0], values[N]
    lost = np.where(k == N, 0.0, np.maximum(-values, 0.0))
    expected = rho + (-1.0) ** n * (lowest - highest) / (2 * N) + waves @ lost / (2 * N)
    found = generator.described_covariance(N, hurst)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert lowest == pytest.approx(N ** (2 * hurst) - (N - 1) ** (2 * hurst))
    assert (lost.max() > 0) == (hurst == 0.97)
    assert not lost[1::2].any()


def test_the_described_noise_is_exact_at_one_half():
    key, shape = jr.key(17), (3, 2)
    found = generator.described_noise(8, shape, hurst=0.5, key=key)
    exact = initialisation.fractional_noise(8, shape, hurst=0.5, key=key)
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_the_described_sum_is_right_and_its_terms_are_not():
    rho = generator.described_covariance(50, 0.97)
    weights = 50 - np.arange(50)
    total = 2 * np.sum(weights * rho) - 50 * rho[0]
    assert total == pytest.approx(50**1.94, rel=1e-10)
    assert rho[0] > 1.5
    assert critical.growth("res-1", rho) == pytest.approx(total / 2)


def test_borders_that_are_shifted_by_a_tenth():
    betas = np.linspace(0.4, 1.2, 9)
    curves = np.stack([0.75 - betas, 0.85 - betas])
    labels = {"hurst": [0.9], "source": list(generator.SOURCES), "beta": betas}
    values = np.broadcast_to(curves, (1, 8, 2, 9))
    dims = ("hurst", "network", "source", "beta")
    dataset = xr.Dataset({"log_ratio": (dims, values)}, labels)
    np.testing.assert_allclose(generator.border(dataset, 0.9, "exact"), [0.75])
    shift = generator.border_shift(dataset, 0.9)
    np.testing.assert_allclose(shift.numbers, 0.1, atol=1e-12)


def test_the_first_order_shift_is_that_of_networks():
    """Wide ones at a large exponent, where first order is all there is."""
    config = generator.Generator(
        hursts=(0.97,), betas=(2.0,), depth=64, width=24, networks=64, points=2
    )
    found = generator.generator_shift.run(config, key=jr.key(18))["log_ratio"]
    gap = found.sel(source="described") - found.sel(source="exact")
    expected = generator.first_order_shift(64, 0.97) * np.log10(64)
    assert float(gap.mean()) == pytest.approx(expected, rel=0.15)


def test_no_network_stands_still():
    """At width 1 every second normal state is negative: res-1 would not move it."""
    config = critical.Critical(
        model="res-1", hursts=(0.5,), depths=(2, 4), networks=64, width=1, points=2
    )
    found = critical.critical_exponent.run(config, key=jr.key(11))["log_ratio"]
    assert np.isfinite(found).all()


def test_overflow_counts_sixteen():
    ratios = jnp.asarray([100.0, jnp.inf, jnp.nan])
    np.testing.assert_allclose(setting.log10(ratios), [2, 16, 16])


def test_bounds_are_vacuous_for_narrow_networks():
    assert histogram.bounds(40, 0.1)[0] < 0 < histogram.bounds(4000, 0.5)[0]


def test_share_within_bounds_has_its_exact_interval():
    low, high = (bound**0.5 for bound in histogram.bounds(4000, 0.5))
    inside, below, above = (low + high) / 2, 0.99 * low, 1.01 * high
    found = histogram.share_within_bounds([inside] * 50, 4000, 0.5)
    np.testing.assert_allclose(found.numbers, [1, 0.025 ** (1 / 50), 1])
    found = histogram.share_within_bounds([inside, inside, below, above], 4000, 0.5)
    expected = [0.5, 0.0676, 0.9324]  # as tabulated
    np.testing.assert_allclose(found.numbers, expected, atol=1e-4)


def test_the_ends_have_the_variance_of_their_fan_in():
    r"""For $x$ uniform on $[0, 1]^d$, $\mathbb{E} (Ax)_i^2 = \mathbb{E}|x|^2/d$."""
    keys = jr.split(jr.key(12), 4000)
    h, p = jax.vmap(lambda key: setting.ends(3, 7, key=key))(keys)
    for i in range(3):
        assert_mean(h[:, i] ** 2, 1 / 3)
        assert_mean(p[:, i] ** 2, 1 / 3)
    _, p = setting.ends(500, 7, key=jr.key(13))
    np.testing.assert_allclose(jnp.abs(p).max(), (3 / 500) ** 0.5, rtol=0.02)


def test_the_maps_in_and_out_are_uniform_by_their_fan_in():
    r"""All of $\pm\sqrt{3/\text{fan-in}}$ and no more, where no two sizes agree."""
    config = trained.TrainedWeights(data="digits", depth=16, width=300, epochs=1)
    train, _ = digits.handwritten("digits")
    law = setting.law("uniform", length_scale=1.0)
    model = digits.classifier(config, law, 0.5, train, key=jr.key(14))
    for matrix, shape in ((model.encoder, (300, 64)), (model.decoder, (10, 300))):
        assert matrix.weight.shape == shape
        bound = (3 / shape[1]) ** 0.5
        assert 0.99 * bound < jnp.abs(matrix.weight).max() <= bound
        assert_mean(matrix.weight.ravel() ** 2, 1 / shape[1])
        assert_mean(matrix.weight.ravel(), 0)


SMALL = {"data": "digits", "depth": 32, "width": 6, "epochs": 1}


def classifier(config):
    """A classifier at exponent one half, and what it is trained on."""
    train, _ = digits.handwritten("digits")
    law = setting.law("uniform", length_scale=1.0)
    return digits.classifier(config, law, 0.5, train, key=jr.key(8)), train


def test_training_moves_the_matrices_and_not_the_factor():
    config = trained.TrainedWeights(**SMALL)
    model, train = classifier(config)
    assert model.scale is not None
    np.testing.assert_allclose(model.scale, 32**-0.5)
    run = digits.fit(config, model, train, 1e-2, key=jr.key(9)).finished()
    assert run.steps == 10  # 1,437 images in batches of 128, rounded to two halves
    np.testing.assert_array_equal(run.model.scale, model.scale)
    for part in (lambda m: m.block.outer, lambda m: m.encoder.weight):
        # Adam's first steps have the size of the learning rate, whatever the gradient
        moved = float(jnp.abs(part(run.model) - part(model)).max())
        assert 0.02 < moved < 0.1


def test_steps_of_adam_do_not_know_the_size_of_the_gradient():
    """Nor where it is a hundred thousandth: the epsilon is that of the public code."""
    config = trained.TrainedWeights(**SMALL)
    model, train = classifier(config)
    faint = train._replace(images=train.images * 1e-5)
    run = digits.fit(config, model, faint, 1e-2, key=jr.key(9))
    moved = jnp.abs(run.model.encoder.weight - model.encoder.weight)
    assert 0.02 < float(moved.max()) < 0.1


def test_the_learning_rate_falls_to_a_tenth_half_way():
    """Under a gradient that stays the same, Adam's steps have the size of the rate."""
    _, adam = digits._rule(32, 5, 1e-2)
    state, moves = adam.init(one := jnp.ones(())), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(10):
            move, state = adam.update(one, state)
            moves.append(float(move))
    np.testing.assert_allclose(moves, [-1e-2] * 5 + [-1e-3] * 5, rtol=1e-6)


def test_without_a_learning_rate_nothing_changes():
    config = trained.TrainedWeights(**SMALL, rate=0.0)
    found = trained.trained_weights.run(config, key=jr.key(10))
    for name in ("weight", "regularity", "roughness", "accuracy"):
        before, after = (found[name].sel(time=time) for time in ("before", "after"))
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(found["moved"], 0)
    hurst = found["regularity"].sel(time="before", bound="value").values
    assert hurst[0] > 1.5  # smooth, and two independent ones
    np.testing.assert_allclose(hurst[1:], 0.5, atol=0.15)


def test_relative_sums_and_added_means_by_hand():
    """Weights 3 and 1 in two layers, for all four entries; training adds 2 to each."""
    before, after = np.full((2, 2), 4.0), np.full((2, 2), 8.0)
    after[0, 0] = 4.0  # but to one entry
    dataset = xr.Dataset(
        {
            "sum": (("depth", "seed", "time", "row", "column"), [[[before, after]]]),
            "size": (("depth", "seed", "time"), [[[5**0.5, 17**0.5]]]),
        },
        {"depth": [2], "time": ["before", "after"]},
    )
    found = drift.relative_sum(dataset, "before")
    np.testing.assert_allclose(found, [[4 / 10**0.5]])
    found = drift.relative_sum(dataset, "after")
    np.testing.assert_allclose(found, [[52**0.5 / 10**0.5]])
    np.testing.assert_allclose(drift.added_mean(dataset), [[3**0.5]])


def test_independent_weights_have_no_drift_and_training_adds_one():
    config = drift.TrainedDrift(
        data="digits", depths=(128,), seeds=2, width=16, epochs=10, rate=1e-2
    )
    found = drift.trained_drift.run(config, key=jr.key(19))
    before, after = (drift.relative_sum(found, t) for t in ("before", "after"))
    np.testing.assert_allclose(before, 1, atol=0.15)
    assert (after > before + 0.3).all()
    same = drift.trained_drift.run(replace(config, rate=0.0), key=jr.key(19))
    assert not drift.added_mean(same).any()


def test_the_accuracy_gained_is_that_of_the_best_rate_on_either_side():
    axis = [0.1, 0.5, 0.9]
    best = np.array([[0.9, 0.8, 0.7], [0.3, 0.8, 0.6], [0.1, 0.5, 0.8]])
    both = np.stack([best, best - 0.1], axis=-1)
    both[1] = both[1, :, ::-1]  # another rate is the best
    labels = {"hurst": axis, "beta": axis}
    dataset = xr.Dataset({"accuracy": (("hurst", "beta", "rate"), both)}, labels)
    dataset = dataset.transpose("beta", "rate", "hurst")
    cells = accuracy.regions(dataset)
    assert sorted(cells["inside"]) == [0.6, 0.7, 0.8, 0.8, 0.8, 0.9]
    assert sorted(cells["outside"]) == [0.1, 0.3, 0.5]
    assert cells["near"].size == 0
    assert accuracy.regions(dataset, mild=0.5)["near"].tolist() == [0.3, 0.5]
    gain = accuracy.accuracy_gain(dataset)
    # Welch: half-width t(f) (s1/n1 + s2/n2)^1/2, with f by Satterthwaite
    parts = [np.var(cells[k], ddof=1) / len(cells[k]) for k in ("inside", "outside")]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 5 + parts[1] ** 2 / 2)
    assert freedom == pytest.approx(2.5508, abs=1e-3)
    half = 3.5243 * sum(parts) ** 0.5
    expected = 23 / 30 - 0.3 + np.array([0, -half, half])
    np.testing.assert_allclose(gain.numbers, expected, rtol=1e-3)


def test_handwritten_images_are_rows_in_the_unit_interval(monkeypatch):
    pixels = np.arange(2 * 28 * 28).reshape(2, 1, 28, 28) % 256
    whole = datasets.Images(
        pixels.astype(np.uint8),
        np.array([3, 1], np.int32),
        pixels[:1].astype(np.uint8),
        np.array([3], np.int32),
    )
    monkeypatch.setattr(datasets, "mnist", lambda: whole)
    train, test = digits.handwritten("mnist")
    assert train.images.shape == (2, 784)
    assert float(train.images[0, 255]) == 1.0
    np.testing.assert_array_equal(test.images[0], train.images[0])
    assert train.labels.tolist() == [3, 1]


def test_the_sizes_of_the_data_are_those_that_the_check_knows():
    train, test = digits.handwritten("digits")
    assert train.images.shape == digits.SIZES["digits"]
    assert test.images.shape == (360, 64)


def test_points_share_the_data_and_each_precision_has_its_own():
    config = trained.TrainedWeights(**SMALL)
    assert digits.read(config) is digits.read(config)
    with jax.enable_x64(False):
        assert digits.read(config)[0].images.dtype == "float32"
    assert digits.read(config)[0].images.dtype == "float64"


ARCHIVES = Path(__file__).resolve().parents[1] / "results" / "marion2025"


@pytest.mark.parametrize("path", sorted(ARCHIVES.glob("*.nc")), ids=lambda p: p.stem)
def test_archives_are_of_experiments_and_of_sizes_that_are_accepted(path):
    """All but the accuracy map, which is smaller, at the size of `paper`."""
    name = f"marion2025/{path.stem}"
    found = json.loads(experiments.archive(name).attrs["config"])
    paper = experiments.find(name).preset("paper")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}
    config = type(paper)(**fields)
    assert results.config_json(config) == results.config_json(fields)
    assert (config == paper) == (path.stem != "accuracy-map")


def test_heavy_tails_are_those_of_the_outer_matrix_alone():
    """The first layer, which both depths share, by hand."""
    config = critical.Critical(
        hursts=(0.5,), depths=(1, 2), width=3, networks=2, batch=2, tail=1.5
    )
    end_key, outer_key, inner_key = jr.split(jr.split(jr.key(15), 1)[0], 3)
    outer = jr.t(outer_key, 1.5, (2 * 2 * 9,)).reshape(2, 2, 3, 3)[0]
    inner = initialisation.fractional_noise(2, (2, 3, 3), hurst=0.5, key=inner_key)[0]
    h = jr.normal(end_key, (2, 4, 3))
    h = h.at[..., 0].set(jnp.abs(h[..., 0]))
    move = jnp.einsum(
        "nij,npj->npi", outer, jax.nn.relu(jnp.einsum("nij,npj->npi", inner, h)) / 3
    )
    ratio = jnp.linalg.norm(move, axis=-1) / jnp.linalg.norm(h, axis=-1)
    found = critical.critical_exponent.run(config, key=jr.key(15))["log_ratio"]
    found = found.sel(hurst=0.5, depth=1, beta=0.3)
    np.testing.assert_allclose(found, jnp.log10(ratio).mean(1), rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: setting.stacked("res-2", jnp.ones((1, 2, 2))),
            "unknown model 'res-2'",
        ),
        (lambda: setting.law("cauchy", length_scale=1.0), "unknown law 'cauchy'"),
        (
            lambda: setting.group_means(np.zeros((7, 2)), 2),
            "7 samples make no 2 equal groups",
        ),
        (lambda: depth.Depth(law="cauchy"), "unknown law 'cauchy'"),
        (lambda: depth.Depth(depths=(4, 0)), r"depths must be positive.*\(4, 0\)"),
        (lambda: critical.Critical(depths=(3, 4)), r"every depth must divide 4"),
        (lambda: limits.Limits(depths=(48,), finest=64), "every depth must divide 64"),
        (lambda: critical.Critical(hursts=(0.5, 1.0)), "must be below 1"),
        (lambda: generator.Generator(hursts=(0.5, 1.0)), "must be below 1"),
        (lambda: drift.TrainedDrift(depths=(64, 7)), "depth must be at least 8"),
        (lambda: drift.TrainedDrift(seeds=0), "seeds must be positive"),
        (
            lambda: critical.Critical(networks=3, batch=2),
            "networks must be a multiple of batch",
        ),
        (
            lambda: histogram.Histogram(draws=3, batch=2),
            "draws must be a multiple of batch",
        ),
        (lambda: digits.handwritten("svhn"), "unknown data 'svhn'; known: mnist, dig"),
        (lambda: trained.TrainedWeights(betas=(1.0,)), "must pair up"),
        (lambda: trained.TrainedWeights(kept=31), "at most the width 30: got 31"),
        (
            lambda: accuracy.AccuracyMap(data="digits", epochs=1, batch=800),
            "a batch is at most 718, got 800",
        ),
        (lambda: accuracy.AccuracyMap(grid=10**12), r"would take 4e\+25 bytes"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
