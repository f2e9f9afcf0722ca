"""Laws of the diagnosis: exact exponents, known regimes, abstention, and bad files."""

import functools
import json

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jax import Array

from deeplimits import cli, diagnosis, initialisation, statistics, variation
from deeplimits.diagnosis import ABSTAIN, BETWEEN, EXPLOSIVE, IDENTITY, ROUGH, SMOOTH
from deeplimits.residual import AbstractBlock, OuterLayer, ResNet, TwoLayer


@functools.cache
def noise(depth, shape=(8, 8), *, hurst=0.5, seed=0):
    key = jr.fold_in(jr.key(seed), depth)
    return np.asarray(
        initialisation.fractional_noise(depth, shape, hurst=hurst, key=key)
    )


@functools.cache
def smooth(depth, shape=(8, 8), *, seed=0):
    key = jr.key(seed)
    return np.asarray(initialisation.smooth(depth, shape, length_scale=0.3, key=key))


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
    for weights, expected in ((noise(64), ROUGH), (smooth(64), SMOOTH)):
        assert verdict(scale * weights.astype(float)) == expected
    found = diagnosis.examine(scale * noise(64).astype(float))
    plain = diagnosis.examine(noise(64).astype(float))
    for name, norm in plain.norms.items():
        assert found.norms[name] == pytest.approx(scale * norm), name
    many = [{"w": 1e307 * noise(n).astype(float)} for n in (64, 128, 256)]
    assert diagnosis.overall(diagnosis.diagnose(many)) == ROUGH


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
        variation.regularity(noise(128, (3, 3), hurst=hurst, seed=s)) for s in range(40)
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
        (lambda: smooth(64), SMOOTH),
        (lambda: smooth(64).astype(np.float16), SMOOTH),
        (lambda: np.ones((64, 3, 2)) / 3, SMOOTH),
        (lambda: 1 + 2.0**-52 * (noise(64) > 0), SMOOTH),
        (lambda: np.zeros((64, 3, 2)), IDENTITY),
        (lambda: 10 + noise(256), BETWEEN),
        (lambda: 0.1 * smooth(256) + noise(256), ROUGH),
        (lambda: noise(12), ABSTAIN),
        (lambda: noise(32, (1,)), ABSTAIN),
    ],
)
def test_verdicts_on_one_network(weights, expected):
    assert verdict(weights()) == expected


class Gates(AbstractBlock):
    w1: Array
    w2: Array

    def __call__(self, h):
        return self.w1 * h + self.w2


def test_a_live_network_may_number_its_parts():
    network = ResNet(Gates(*map(jnp.asarray, (noise(256), smooth(256)))))
    found = {z.name: z.verdict for z in diagnosis.diagnose([network])}
    assert found == {"w1": ROUGH, "w2": SMOOTH}


def test_kernels_with_one_smooth_place_in_twenty_five_are_noise():
    """Every 25th entry, as the size suggests, would be that place of each kernel."""
    kernels = np.random.default_rng(1).normal(size=(64, 50, 80, 5, 5))
    kernels[..., 0, 0] = smooth(64, (50, 80))
    assert -(-kernels[0].size // 4096) == 25
    found = diagnosis.examine(kernels)
    assert found.verdict == ROUGH
    assert diagnosis.examine(kernels) == found


def test_short_memory_is_no_smooth_limit():
    """Correlated over ten layers whatever the depth: smooth near, white from afar."""
    weights, white = np.zeros((1024, 64)), noise(1024, (64,))
    for k in range(1, 1024):
        weights[k] = 0.9 * weights[k - 1] + white[k]
    assert verdict(weights) == ABSTAIN


@pytest.mark.parametrize(
    ("beta", "rough", "even"),
    [
        (0.0, EXPLOSIVE, EXPLOSIVE),
        (0.5, ROUGH, EXPLOSIVE),
        (1.0, IDENTITY, SMOOTH),
        (1.5, IDENTITY, IDENTITY),
    ],
)
def test_with_beta_the_size_is_judged_too(beta, rough, even):
    depths = (64, 128, 256, 512)
    assert verdict(*(noise(depth) for depth in depths), beta=beta) == rough
    assert verdict(*(smooth(depth) for depth in depths), beta=beta) == even
    assert verdict(noise(64), noise(128), beta=beta) == ABSTAIN


def test_depths_that_disagree_give_no_verdict():
    assert verdict(smooth(64), noise(128)) == ABSTAIN


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        # one period to 16 layers at every depth: smooth, yet without a limit
        (lambda n: np.sin(2 * np.pi * np.arange(n) / 16)[:, None], "too slow"),
        # noise that vanishes beside a trend: at every depth the two are seen
        (lambda n: 1 + noise(n) / n**0.5, "too fast"),
    ],
)
def test_increments_over_depths_may_contradict_what_each_depth_says(weights, reason):
    networks = [{"weight": weights(n)} for n in (64, 96, 128)]
    [parameter] = diagnosis.diagnose(networks)
    assert ABSTAIN not in {network.verdict for network in parameter.networks}
    assert parameter.verdict == ABSTAIN
    assert reason in parameter.reason


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


def test_the_roughest_parameter_decides():
    networks = [{"v": noise(256), "w": smooth(256), "gain": np.ones((256, 8))}]
    assert diagnosis.overall(diagnosis.diagnose(networks)) == ROUGH
    networks[0]["bias"] = noise(256, (1,), hurst=0.4)
    found = {z.name: z.verdict for z in diagnosis.diagnose(networks)}
    assert diagnosis.overall(diagnosis.diagnose(networks)) in (ABSTAIN, BETWEEN), found


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
    block = TwoLayer(jnp.asarray(noise(64)), jnp.asarray(smooth(64)))
    found = diagnosis.diagnose([ResNet(block, scale=jnp.asarray(0.5))])
    arrays = {"outer": noise(64), "inner": smooth(64)}
    assert repr(found) == repr(diagnosis.diagnose([arrays]))
    assert {z.name: z.verdict for z in found} == {"outer": ROUGH, "inner": SMOOTH}
    scaled = ResNet(block, scale=jnp.linspace(1.0, 2.0, 64))
    assert [z.name for z in diagnosis.diagnose([scaled])] == ["outer", "inner", "scale"]
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
    assert "=> rough: SDE (H = 0." in text
    assert "=> identity (every weight is zero)" in text
    assert "increment over weight" in text
    [line] = [line for line in text.splitlines() if line.startswith("The network:")]
    assert line == "The network: rough: SDE"
    assert "in another order" in text  # what it cannot see, said each time
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
    text = diagnosis.table(diagnosis.diagnose([{name: noise(64), "b": noise(64)}]))
    header, first, _, second, *_ = text.splitlines()
    assert first.startswith(f"{name} ")
    assert header.index("verdict") == first.index(ROUGH) == second.index(ROUGH)


def test_what_is_infinite_is_null():
    found = diagnosis.diagnose([{"w": np.eye(20)[:, :1]}])
    assert json.loads(diagnosis.to_json(found))["verdict"] == ABSTAIN
