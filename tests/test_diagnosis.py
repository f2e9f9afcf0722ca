"""Laws of the diagnosis: exact exponents, known regimes, abstention, and bad files."""

import functools
import json
import warnings

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np
import pytest
from jax import Array
from scipy.linalg import cholesky, toeplitz

from deeplimits import cli, diagnosis, statistics, variation
from deeplimits.diagnosis import (
    ABSTAIN,
    AVERAGED,
    BETWEEN,
    DRIFT,
    EXPLOSIVE,
    IDENTITY,
    MIXED,
    ROUGH,
    SMOOTH,
    trend,
)
from deeplimits.diagnosis import noise as roughness
from deeplimits.residual import AbstractBlock, OuterLayer, ResNet, TwoLayer


@functools.cache
def noise(depth, shape=(16, 16), *, hurst=0.5, seed=2):
    rng = np.random.default_rng([seed, depth])
    white = rng.standard_normal((depth, int(np.prod(shape))))
    if hurst != 0.5:
        root = cholesky(toeplitz(roughness.covariance(depth, hurst)), lower=True)
        white = root @ white
    return white.reshape(depth, *shape)


@functools.cache
def smooth(depth, shape=(16, 16), *, seed=0):
    """A random series of cosines, the same for all depths."""
    rng = np.random.default_rng(seed)
    modes = np.arange(8)
    sizes = np.exp(-((0.3 * np.pi * modes) ** 2) / 4)
    drawn = rng.standard_normal((8, int(np.prod(shape)))) * sizes[:, None]
    series = np.cos(np.pi * modes * np.arange(depth)[:, None] / depth)
    return (series @ drawn).reshape(depth, *shape)


def verdict(*arrays, beta=None):
    networks = [{"weight": array} for array in arrays]
    [parameter] = diagnosis.diagnose(networks, beta=beta)
    return parameter.verdict


# Exact at finite depth.


def test_second_differences_are_those_of_the_plain_loop():
    weights = np.random.default_rng(0).normal(size=(12, 2, 3))
    sums = [np.zeros((2, 3))]
    for layer in weights:
        sums.append(sums[-1] + layer)
    for lag in (1, 3):
        expected = [
            (sums[k + 2 * lag] - 2 * sums[k + lag] + sums[k]) ** 2
            for k in range(13 - 2 * lag)
        ]
        found = variation.second_differences(weights, lag)
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 6)), atol=1e-12)


def test_the_longest_lag_leaves_one_difference():
    found = variation.second_differences(np.arange(8.0), 4)
    np.testing.assert_allclose(found, [[16.0**2]])  # 4 + 5 + 6 + 7 less 0 + 1 + 2 + 3


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_the_variogram_of_fractional_noise_is_its_formula(hurst):
    lags = np.array([1, 2, 4, 8])
    found = variation.variogram(noise(1024, (16, 16), hurst=hurst), lags.tolist())
    expected = (4 - 2 ** (2 * hurst)) * lags ** (2 * hurst)
    # of 250,000 dependent squares: a few parts in a hundred at the longest lag
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_parabola_has_exponent_two_and_a_constant_part_drops_out():
    ramp = np.arange(64.0)[:, None]
    found = variation.regularity(ramp)
    np.testing.assert_allclose(found.numbers, (2, 2, 2), rtol=1e-10)
    shifted, plain = (variation.regularity(z) for z in (noise(64) + 100, noise(64)))
    np.testing.assert_allclose(shifted.numbers, plain.numbers, rtol=1e-8)


def test_the_exponent_knows_no_size():
    for scale in (1e-12, 1e12):
        scaled = variation.regularity(scale * noise(64))
        plain = variation.regularity(noise(64))
        np.testing.assert_allclose(scaled.numbers, plain.numbers)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_the_verdict_knows_no_size_where_squares_overflow(scale):
    for weights, expected in ((noise(128), ROUGH), (smooth(64), SMOOTH)):
        assert verdict(scale * weights.astype(float)) == expected
    found = diagnosis.examine(scale * noise(64).astype(float))
    plain = diagnosis.examine(noise(64).astype(float))
    for name, norm in plain.norms.items():
        assert found.norms[name] == pytest.approx(scale * norm), name
    many = [{"w": 1e307 * noise(n).astype(float)} for n in (64, 128, 256)]
    assert diagnosis.overall(diagnosis.diagnose(many)) == ROUGH
    with pytest.raises(ValueError, match="w is too large: its mean square"):
        diagnosis.diagnose([{"w": np.full((64, 5, 5), 1.7e308)}])


def test_brownian_weights_have_the_variogram_of_a_random_walk():
    """$V(m) = (2 m^3 + m)/3$: their sum has exponent 3/2, less at the smallest lags."""
    path, lags = np.cumsum(noise(1024, (16, 16)), axis=0), np.array([1, 2, 4, 8])
    found = variation.variogram(path, lags.tolist())
    np.testing.assert_allclose(found, (2 * lags**3 + lags) / 3, rtol=0.05)
    assert verdict(path) == SMOOTH


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_intervals_cover_the_index(hurst):
    """Of 40 intervals at 95 % at least 34 cover: fewer has probability 0.003."""
    found = [
        variation.regularity(noise(64, (3, 3), hurst=hurst, seed=s)) for s in range(40)
    ]
    assert sum(hurst in z for z in found) >= 34


def test_entries_that_move_together_do_not_narrow_the_interval():
    one = noise(128, (1,))
    copies = np.repeat(one, 64, axis=1)
    alone, together = variation.regularity(one), variation.regularity(copies)
    np.testing.assert_allclose(together.numbers, alone.numbers)


# Verdicts of known regimes.


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (lambda: noise(256), ROUGH),
        (lambda: noise(256, hurst=0.2), BETWEEN),
        (lambda: noise(256, hurst=0.8), BETWEEN),
        (lambda: noise(256, hurst=0.58), BETWEEN),
        (lambda: smooth(64), SMOOTH),
        (lambda: smooth(64).astype(np.float16), SMOOTH),
        (lambda: smooth(64).astype(ml_dtypes.bfloat16), SMOOTH),
        (lambda: np.ones((64, 3, 2)) / 3, SMOOTH),
        (lambda: 1 + 2.0**-52 * (noise(64) > 0), SMOOTH),
        (lambda: np.zeros((64, 3, 2)), IDENTITY),
        (lambda: 10 + noise(256), MIXED),
        (lambda: 0.1 * smooth(256) + noise(256), MIXED),
        (lambda: noise(6), ABSTAIN),
        (lambda: noise(32, (1,)), ABSTAIN),
        # constant on four pieces; of sixteen, one depth cannot tell what they are
        (lambda: np.repeat(noise(4), 32, axis=0), SMOOTH),
        (lambda: np.repeat(noise(32), 8, axis=0), ABSTAIN),
    ],
)
def test_verdicts_on_one_network(weights, expected):
    assert verdict(weights()) == expected


@pytest.mark.parametrize(("depth", "width"), [(12, 256), (24, 80), (48, 48)])
def test_many_entries_make_up_for_few_layers(depth, width):
    shape = (width, width)
    white, path, tied = noise(depth, shape), smooth(depth, shape), noise(2, shape)[:1]
    assert verdict(white) == ROUGH
    assert verdict(path) == SMOOTH
    expected = BETWEEN if depth >= 48 else ABSTAIN  # or memory over some layers
    assert verdict(noise(depth, shape, hurst=0.8)) == expected
    assert verdict(noise(depth, shape, hurst=0.2)) == BETWEEN
    assert verdict(autoregressive(depth, 0.9, shape)) == ABSTAIN
    for size in (1, 5):
        assert verdict(white + size * tied) == MIXED
        assert verdict(white + size * path) in (MIXED, ABSTAIN)


@pytest.mark.parametrize("ratio", [0.2, 1, 20])
def test_a_trend_is_seen_in_the_sum_at_every_depth(ratio):
    """At a fifth of the noise it is four parts in a hundred of the mean square."""
    for depth in (64, 512):
        tied = ratio * noise(2)[:1]
        found = diagnosis.examine(tied + noise(depth))
        assert found.verdict == MIXED
        assert 0.5 in found.regularity
        # the sum of the trend is L times itself, that of the noise its root
        expected = (1 + depth * np.mean(tied**2)) ** 0.5
        assert found.sums.value == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize(
    ("order", "limits"),
    [
        (0, {0.5: EXPLOSIVE, 0.75: EXPLOSIVE, 1.0: AVERAGED, 1.5: IDENTITY}),
        (-0.5, {0.25: EXPLOSIVE, 0.5: DRIFT, 0.75: IDENTITY, 1.0: IDENTITY}),
    ],
)
def test_the_factor_decides_what_trend_and_noise_become(order, limits):
    networks = [
        {"w": 2.0 * n**order * smooth(n) + noise(n)} for n in (32, 64, 128, 256)
    ]
    [parameter] = diagnosis.diagnose(networks)
    assert parameter.verdict == MIXED
    for name, expected in (("trend of a layer", order), ("noise of a layer", 0)):
        assert parameter.exponents[name].value == pytest.approx(expected, abs=0.1)
    assert parameter.limits["1/L"] == limits[1.0]
    assert parameter.limits["1/sqrt(L)"] == limits[0.5]
    for beta, expected in limits.items():
        assert diagnosis.overall(diagnosis.diagnose(networks, beta=beta)) == expected


def autoregressive(depth, phi, shape=(16, 16)):
    weights = noise(depth, shape).copy()
    weights[1:] *= (1 - phi**2) ** 0.5
    for k in range(1, depth):
        weights[k] += phi * weights[k - 1]
    return weights


@pytest.mark.parametrize("depth", [64, 1024])
def test_one_depth_cannot_tell_memory_in_layers(depth):
    """Correlated over ten layers: smooth near, white from afar."""
    [found] = diagnosis.diagnose([{"w": autoregressive(depth, 0.9)}])
    assert found.verdict == ABSTAIN
    assert "memory in layers" in found.reason


def test_three_depths_tell_memory_in_layers_from_depth_time():
    depths = (64, 128, 256)
    assert verdict(*(autoregressive(n, 0.9) for n in depths)) == ROUGH
    assert verdict(*(autoregressive(n, np.exp(-4 / n)) for n in depths)) == SMOOTH


def test_two_kinds_of_layers_in_turn_are_given_apart():
    weights = smooth(96).copy()
    weights[1::2] = 2 + smooth(96, seed=1)[1::2]
    assert "alternate" in diagnosis.examine(weights).reason
    found = diagnosis.diagnose([{"w": weights}])
    assert [p.name for p in found] == [
        "w (layers 1, 3, 5, ...)",
        "w (layers 2, 4, 6, ...)",
    ]
    assert [p.verdict for p in found] == [SMOOTH, SMOOTH]
    weights[1::2] = 2 + noise(96)[1::2]
    found = diagnosis.diagnose([{"w": weights}])
    assert [p.verdict for p in found] == [SMOOTH, MIXED]
    assert not diagnosis.examine(noise(96)).alternates


@pytest.mark.parametrize("place", [0, 20, 95])
def test_one_exceptional_layer_is_left_out_and_named(place):
    for weights, expected in ((smooth(96), SMOOTH), (noise(96), ROUGH)):
        weights = weights.copy()
        weights[place] *= 10
        found = diagnosis.examine(weights)
        assert found.verdict == expected
        assert found.exceptional == [place + 1]
        assert f"layer {place + 1}" in found.reason


def test_heavy_tails_and_low_rank_are_noise():
    rng = np.random.default_rng(3)
    assert verdict(rng.standard_t(3, (256, 32, 32))) == ROUGH
    tall, flat = rng.standard_normal((2, 128, 32, 2))
    assert verdict(np.einsum("kir,kjr->kij", tall, flat)) == ROUGH


# What a verdict may depend on.


def shuffled(depth, change, width=24, units=40):
    """A smooth two-layer block, its hidden units changed in each layer."""
    rng = np.random.default_rng(1)
    outer = smooth(depth, (width, units)).copy()
    inner = smooth(depth, (units, width), seed=1).copy()
    for k in range(depth):
        if change == "order":
            order = rng.permutation(units)
            outer[k], inner[k] = outer[k][:, order], inner[k][order]
        else:
            factor = np.exp(rng.standard_normal(units))
            factor = factor if change == "scale" else rng.choice([-1, 1], units)
            outer[k], inner[k] = outer[k] / factor, inner[k] * factor[:, None]
    return {"outer": outer, "inner": inner}


@pytest.mark.parametrize("change", ["order", "scale", "sign"])
@pytest.mark.parametrize("names", [("outer", "inner"), ("fc2.kernel", "x")])
def test_the_names_of_hidden_units_do_not_matter(change, names):
    weights = dict(zip(names, shuffled(64, change).values(), strict=True))
    found = {p.name: p for p in diagnosis.diagnose([weights])}
    product = found[f"{names[0]} @ {names[1]}"]
    assert found[names[0]].verdict != SMOOTH
    assert product.verdict == SMOOTH
    assert "another order, sign or scale" in product.reason
    assert diagnosis.overall(list(found.values())) == SMOOTH


def norm(z):
    """Layer norm with neither gain nor bias."""
    z = z - z.mean()
    return z / z.std()


@pytest.mark.parametrize(
    ("activation", "free"),
    [
        (jax.nn.relu, {"order", "scale"}),
        (jnp.tanh, {"order", "sign"}),
        (jax.nn.gelu, {"order"}),
        (lambda z: norm(jax.nn.relu(z)), {"order"}),
    ],
)
def test_which_changes_of_hidden_units_leave_a_block(activation, free):
    """As the page says it: with the bias of the inner matrix, and one product."""
    rng = np.random.default_rng(0)
    outer, inner = rng.standard_normal((2, 6, 8))
    inner, bias, h = inner.reshape(8, 6), *rng.standard_normal((2, 8))
    changes = {
        "order": np.eye(8)[rng.permutation(8)],
        "scale": np.diag(np.exp(rng.standard_normal(8))),
        "sign": np.diag([-1.0, 1.0] * 4),
    }
    for name, change in changes.items():
        other = outer @ np.linalg.inv(change)
        same = outer @ activation(inner @ h[:6] + bias)
        found = other @ activation(change @ (inner @ h[:6] + bias))
        assert np.allclose(found, same, atol=1e-4) == (name in free)
        np.testing.assert_allclose(other @ change @ inner, outer @ inner, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_product_of_rounded_matrices_is_smooth_as_they_are(dtype):
    rounded = {k: z.astype(dtype) for k, z in shuffled(64, "order").items()}
    assert diagnosis.overall(diagnosis.diagnose([rounded])) == SMOOTH
    mixed = {  # layers of two types are stacked as doubles
        f"blocks.{k}.weight": z.astype(dtype if k % 2 else np.float32)
        for k, z in enumerate(smooth(64))
    }
    [found] = diagnosis.diagnose([diagnosis.of(mixed)])
    assert found.verdict == SMOOTH
    noisy = {"outer": noise(128, (40, 48)), "inner": noise(128, (48, 40), seed=1)}
    noisy = {k: z.astype(dtype) for k, z in noisy.items()}
    assert diagnosis.overall(diagnosis.diagnose([noisy])) == ROUGH


def test_trend_and_noise_with_units_in_another_order_are_that_still():
    weights, rng = shuffled(128, "none", 16, 24), np.random.default_rng(2)
    weights = {k: z + rng.standard_normal(z.shape) for k, z in weights.items()}
    for k in range(128):
        order = rng.permutation(24)
        weights["outer"][k] = weights["outer"][k][:, order]
        weights["inner"][k] = weights["inner"][k][order]
    assert diagnosis.overall(diagnosis.diagnose([weights])) == MIXED
    noisy = {"outer": noise(128, (40, 48)), "inner": noise(128, (48, 40), seed=1)}
    assert diagnosis.overall(diagnosis.diagnose([noisy])) == ROUGH


def test_values_and_the_map_out_of_an_encoder_are_a_pair():
    start = "encoder.layer.#.attention"
    names = [f"{start}.{part}.weight" for part in ("output.dense", "self.value")]
    weights = shuffled(32, "order", 16, 16)
    arrays = dict(zip(names, weights.values(), strict=True))
    found = diagnosis.diagnose([diagnosis.of(arrays)])
    assert [(p.name, p.verdict) for p in found if p.votes] == [
        (" @ ".join(names), SMOOTH)
    ]


def test_attention_is_read_by_its_products():
    """Every layer has a basis of its own for queries and keys, and one for values."""
    rng = np.random.default_rng(0)
    maps = {
        f"attn.{name}_proj.weight": smooth(32, (16, 16), seed=seed).copy()
        for seed, name in enumerate("qkvo")
    }
    q, k, v, o = maps.values()
    for layer in range(32):
        for first, second, last in ((q, k, False), (v, o, True)):
            turn = np.linalg.qr(rng.standard_normal((16, 16)))[0]
            first[layer] = turn @ first[layer]
            second[layer] = second[layer] @ turn.T if last else turn @ second[layer]
    fused = {
        "attn.in_proj_weight": np.concatenate([q, k, v], axis=1),
        "attn.out_proj.weight": o,
    }
    for weights in (maps, fused):
        found = diagnosis.diagnose([weights])
        assert [p.verdict for p in found if p.votes] == [SMOOTH, SMOOTH]
        assert diagnosis.overall(found) == SMOOTH


def test_a_lone_matrix_that_only_its_gram_shows_smooth_has_no_verdict():
    found = diagnosis.diagnose([{"w": shuffled(64, "order")["inner"]}])
    assert found[0].verdict == ABSTAIN
    assert "another order" in found[0].reason


def test_matrices_decide_and_by_what_they_move():
    weights = {
        "weight": noise(64, (32, 32)),
        "bias": smooth(64, (16,)),
        "gain": 1 + 0.02 * noise(64, (16,)),
        "gate": np.ones(64),
    }
    found = diagnosis.diagnose([weights])
    assert diagnosis.overall(found) == ROUGH
    assert [p.name for p in found if p.votes] == ["weight"]
    text = " ".join(diagnosis.table(found).split())
    assert text.count("(does not vote)") == 3
    small = {"large": noise(64, (32, 32)), "small": 0.01 * smooth(64, (12, 12))}
    assert diagnosis.overall(diagnosis.diagnose([small])) == ROUGH
    even = {"a": noise(64, (32, 32)), "b": smooth(64, (24, 24))}
    assert diagnosis.overall(diagnosis.diagnose([even])) == MIXED


# Intervals in few layers.


def test_intervals_cover_in_twelve_layers():
    """$H$ and the relative sum, of 40 draws, where entries are mixed; and of copies.

    Fewer than 34 of 40 at 95 % has probability 0.003.
    """
    rng, scales = np.random.default_rng(0), roughness.fine_scales(12)
    mixing = rng.standard_normal((40, 80))
    for mix in (np.eye(40), mixing, np.repeat(np.eye(5), 16, axis=1)):
        covered, sums = 0, 0
        for _ in range(40):
            rows = rng.standard_normal((12, len(mix))) @ mix
            independent = roughness.independent_entries(rows)
            layers = roughness.Layers(rows)
            found = roughness.exponent(layers, scales, independent)
            relative = trend.sums(layers, found, scales.order, independent).relative
            covered, sums = covered + (0.5 in found), sums + (1 in relative)
        assert covered >= 34
        assert sums >= 34


def test_independent_entries_are_counted():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, 10))
    assert roughness.independent_entries(np.repeat(rows, 40, axis=1)) == pytest.approx(
        10, rel=0.3
    )
    assert roughness.independent_entries(rng.standard_normal((64, 400))) > 300


@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_differences_of_noise_have_the_constant_of_the_docstring(hurst, order):
    """The mean of the squares is a trace with the exact covariance."""
    taps = np.ones(1)
    for _ in range(order - 1):
        taps = np.convolve(taps, [-1, 0, 0, 1])
    taps = np.convolve(taps, np.ones(3))
    gamma = toeplitz(roughness.covariance(len(taps), hurst))
    expected = roughness.constant(order, hurst) * 3 ** (2 * hurst)
    assert taps @ gamma @ taps == pytest.approx(expected)
    layers = roughness.Layers(noise(40).reshape(40, -1))
    for lag in (1, 3):
        squares = variation.second_differences(noise(40), lag, order=order)
        assert layers.mean(order, lag) == pytest.approx(squares.mean())


def test_the_sums_of_noise_are_those_of_its_covariance():
    basis = trend.polynomials(20)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-12)
    for hurst in (0.3, 0.8):
        gamma = toeplitz(roughness.covariance(20, hurst))
        expected = np.diagonal(basis.T @ gamma @ basis)
        np.testing.assert_allclose(trend.spectrum(basis, hurst), expected)


def test_the_noise_of_stages_is_pooled():
    weights = {f"w.{c}": noise(12, (12, 12), seed=n) for n, c in enumerate("abcdef")}
    found = diagnosis.diagnose([weights])
    together = diagnosis.pooled(found)
    assert 0.5 in together
    widths = [p.networks[0].regularity for p in found]
    assert together.high - together.low < 0.8 * min(h.high - h.low for h in widths)


class Gates(AbstractBlock):
    w1: Array
    w2: Array

    def __call__(self, h):
        return self.w1 * h + self.w2


def test_a_live_network_may_number_its_parts():
    network = ResNet(Gates(*map(jnp.asarray, (noise(256), smooth(256)))))
    found = {z.name: z.verdict for z in diagnosis.diagnose([network])}
    assert found.pop("w2 @ w1") in (ROUGH, ABSTAIN)
    assert found == {"w1": ROUGH, "w2": SMOOTH}


def test_kernels_with_one_smooth_place_in_twenty_five_are_noise():
    """Every 25th entry, as the size suggests, would be that place of each kernel."""
    kernels = np.random.default_rng(1).normal(size=(64, 50, 80, 5, 5))
    kernels[..., 0, 0] = smooth(64, (50, 80))
    assert -(-kernels[0].size // 4096) == 25
    found = diagnosis.examine(kernels)
    assert found.regularity.value == pytest.approx(0.5, abs=0.05)
    assert diagnosis.examine(kernels) == found


@pytest.mark.parametrize(
    ("beta", "rough", "even", "two"),
    [
        (0.0, EXPLOSIVE, EXPLOSIVE, ABSTAIN),
        (0.5, ROUGH, EXPLOSIVE, ROUGH),
        (1.0, IDENTITY, SMOOTH, ABSTAIN),
        (1.5, IDENTITY, IDENTITY, ABSTAIN),
    ],
)
def test_with_beta_the_size_is_judged_too(beta, rough, even, two):
    depths = (64, 128, 256, 512)
    assert verdict(*(noise(depth) for depth in depths), beta=beta) == rough
    assert verdict(*(smooth(depth) for depth in depths), beta=beta) == even
    wide = (24, 24)  # 24 x 24 entries at two depths leave no room for a drift
    assert verdict(noise(64, wide), noise(128, wide), beta=beta) == two


def test_a_drift_that_may_hide_in_noise_is_not_denied():
    """Of half the noise, summed: no depth by itself shows it in so few entries."""
    said = []
    for seed in range(6):
        trend = np.random.default_rng(seed).standard_normal((1, 10, 10))
        networks = [
            {"w": noise(L, (10, 10), seed=10 + seed) + 0.5 * trend / L**0.5}
            for L in (64, 128, 256)
        ]
        [alone] = diagnosis.diagnose(networks)
        [sized] = diagnosis.diagnose(networks, beta=0.5)
        said.append((alone.verdict, sized.verdict))
    assert (ROUGH, ABSTAIN) in said
    assert ROUGH not in [sized for _, sized in said]


@pytest.mark.parametrize(("depth", "width"), [(12, 64), (24, 16)])
def test_a_tenth_of_a_trend_in_few_layers_is_not_denied(depth, width):
    """Smaller than the bound on what may hide in them."""
    shape = (width, width)
    for seed in range(6):
        trend = 0.1 * smooth(depth, shape, seed=seed)
        assert verdict(noise(depth, shape, seed=seed) + trend) != ROUGH


def test_beside_noise_of_any_exponent_no_trend_is_seen():
    """In twelve layers of a few independent entries, whatever the sums say."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        mixed = rng.standard_normal((12, 6)) @ rng.standard_normal((6, 64))
        found = diagnosis.examine(mixed)
        if found.regularity and np.ptp(found.regularity.numbers[1:]) > 0.5:
            assert found.verdict == ABSTAIN


def test_depths_that_disagree_give_no_verdict():
    assert verdict(smooth(64), noise(128)) == ABSTAIN


def test_increments_over_depths_may_contradict_what_each_depth_says():
    """A path that is drawn out with the depth: smooth at each, yet without a limit."""
    networks = [{"weight": smooth(512)[:n]} for n in (64, 96, 128)]
    [parameter] = diagnosis.diagnose(networks)
    assert {network.verdict for network in parameter.networks} == {SMOOTH}
    assert parameter.verdict == ABSTAIN
    assert "in layers" in parameter.reason


def test_noise_that_vanishes_beside_a_trend_is_measured():
    networks = [{"weight": 1 + noise(n) / n**0.5} for n in (64, 96, 128)]
    [parameter] = diagnosis.diagnose(networks)
    assert parameter.verdict == MIXED
    for name, order in (("trend of a layer", 0), ("noise of a layer", -0.5)):
        assert parameter.exponents[name].value == pytest.approx(order, abs=0.05)
    assert parameter.limits == {"1/L": AVERAGED, "1/sqrt(L)": EXPLOSIVE}


def test_exponents_over_depths_are_those_of_the_scaling():
    networks = [{"weight": smooth(n) / n**0.3} for n in (128, 64, 256, 512)]
    [parameter] = diagnosis.diagnose(networks)
    assert [n.depth for n in parameter.networks] == [64, 128, 256, 512]
    expected = {
        "largest norm": -0.3,
        "largest increment": -1.3,
        "norm of the sum": 0.7,
        "root sum of squares": 0.2,
        "increment over weight": -1.0,
    }
    for name, value in expected.items():
        assert abs(parameter.exponents[name].value - value) < 0.1, name


def test_networks_must_agree():
    with pytest.raises(ValueError, match="no network"):
        diagnosis.diagnose([])
    with pytest.raises(ValueError, match="differ in layers"):
        diagnosis.diagnose([{"w": noise(64)}, {"w": noise(64, (3, 3))}])
    with pytest.raises(ValueError, match="differ in layers"):
        diagnosis.diagnose([{"w": noise(64)}, {"v": noise(64)}])
    for beta in (np.nan, np.inf):
        with pytest.raises(ValueError, match="beta must lie in"):
            diagnosis.diagnose([{"w": noise(64)}], beta=beta)


def test_one_network_stands_in_a_list_too(as_in_use):
    with pytest.raises(ValueError, match=r"write \[weights\] for one"):
        diagnosis.diagnose({"w": noise(64)})


def test_a_network_of_the_library_is_diagnosed_by_its_arrays():
    """As a dictionary of them would be; a scale only where each layer has its own."""
    block = TwoLayer(
        jnp.asarray(noise(64, (32, 32))), jnp.asarray(smooth(64, (32, 32)))
    )
    found = diagnosis.diagnose([ResNet(block, scale=jnp.asarray(0.5))])
    arrays = {"outer": noise(64, (32, 32)), "inner": smooth(64, (32, 32))}
    assert repr(found) == repr(diagnosis.diagnose([arrays]))
    assert {z.name: z.verdict for z in found[:2]} == {"outer": ROUGH, "inner": SMOOTH}
    assert [z.votes for z in found] == [False, False, True]
    scaled = ResNet(block, scale=jnp.linspace(1.0, 2.0, 64))
    names = [z.name for z in diagnosis.diagnose([scaled])]
    assert names == ["outer", "inner", "scale", "outer @ inner"]
    assert diagnosis.figure([scaled]).axes[0].get_title("left") == "outer"
    plt.close("all")


def test_one_network_of_the_library_stands_in_a_list_too(as_in_use):
    network = ResNet(OuterLayer(jnp.asarray(noise(64))))
    with pytest.raises(ValueError, match=r"write \[weights\] for one"):
        diagnosis.diagnose(network)


def test_the_norms_are_those_of_statistics_in_double_precision():
    """Of weights so nearly constant that float32 would see no increments."""
    weights = 1 + 1e-12 * smooth(64)
    found = diagnosis.examine(weights).norms
    with jax.enable_x64(False):
        measured = statistics.scaling_norms(weights)
    assert list(found.values()) == pytest.approx(list(measured.values()), rel=1e-6)
    rows = np.diff(weights, axis=0).reshape(63, -1)
    largest = np.sqrt((rows**2).sum(1)).max()
    assert found["largest increment"] == pytest.approx(largest, rel=1e-3)


# The command.


def test_the_command_prints_a_table_json_and_a_figure(tmp_path, capsys):
    files = []
    for depth in (64, 128, 256, 512):
        files.append(str(tmp_path / f"depth-{depth}.npz"))
        np.savez(files[-1], weight=noise(depth), bias=np.zeros((depth, 4)))
    picture = tmp_path / "figure.png"
    assert cli.main(["diagnose", *files, "--figure", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "=> rough: SDE (noise, H = 0." in text
    assert "=> identity (every weight is zero)" in text
    assert "increment over weight" in text
    [line] = [line for line in text.splitlines() if line.startswith("The network:")]
    assert line == "The network: rough: SDE"
    assert "Not told from one depth: memory" in " ".join(text.split())
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["diagnose", *files, "--json", "--beta", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == ROUGH
    assert [p["name"] for p in found["parameters"]] == ["weight", "bias"]
    first = found["parameters"][0]["networks"][0]
    assert first["depth"] == 64
    assert set(first["regularity"]) == {"value", "low", "high", "kind", "halves"}
    (tmp_path / "file").write_text("")
    for name, message in (
        ("x.txt", "x.txt must end in one of"),
        (str(tmp_path / "file" / "x.png"), "x.png cannot be written"),
    ):
        assert cli.main(["diagnose", *files, "--figure", name]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_long_names_are_not_cut():
    name = "blocks.attention.projection.weight"
    networks = [{name: noise(128), "b": noise(128)}]
    text = diagnosis.table(diagnosis.diagnose(networks))
    header, first, *rest = text.splitlines()
    [second] = [line for line in rest if line.startswith("b ")]
    assert first.startswith(f"{name} ")
    assert header.index("verdict") == first.index(ROUGH) == second.index(ROUGH)


def test_what_is_infinite_is_null():
    found = diagnosis.diagnose([{"w": np.eye(20)[:, :1]}])
    assert json.loads(diagnosis.to_json(found))["verdict"] == ABSTAIN


def test_a_name_cannot_pass_for_a_line_of_the_report():
    names = "The network: smooth: ODE", "  => smooth", "The network:"
    found = diagnosis.diagnose([dict.fromkeys(names, noise(96))])
    lines = diagnosis.table(found).splitlines()
    assert sum(line.startswith("The network: ") for line in lines) == 1
    assert [line[:1] for line in lines if " 96 " in line] == ["'", "'", "'"]


def test_a_mask_is_not_dropped():
    masked = np.ma.masked_values(noise(96), noise(96)[3, 0, 0])
    for network in ({"w": masked}, {"a": {"w": masked}}):
        with pytest.raises(ValueError, match="is masked, and its mask would be lost"):
            diagnosis.diagnose([network])


def test_names_are_drawn_as_they_are(tmp_path):
    """Neither as formulas nor with a word on letters that the font lacks."""
    networks = [{"$\\frac$ \u4e2d": noise(64)}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diagnosis.save_figure(networks, tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.pgf must end in one of"):
        diagnosis.save_figure(networks, tmp_path / "x.pgf")
