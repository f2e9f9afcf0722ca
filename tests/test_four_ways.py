"""Laws of chapter 12's experiments: networks, what is read off them, when they tear."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

from deeplimits import diagnosis, experiments
from deeplimits.experiments.ours import digits_ways, four_ways, setting
from deeplimits.experiments.ours.long_training import LongTraining, first_passage
from deeplimits.statistics import loglog_slope


def test_a_network_is_its_plain_loop():
    rows = jr.normal(jr.key(0), (3, 6))
    reading = jnp.array([0.5, -2.0])
    model = setting.network(rows, reading, beta=0.7)
    x, y = setting.data()
    h = np.asarray(x, float)
    for row in np.asarray(rows, float):
        h = h + 3**-0.7 * np.tanh(h @ row[:4].reshape(2, 2).T + row[4:])
    z = h @ np.array([0.5, -2.0])
    wanted = np.sum((np.tanh(z) - np.asarray(y)[:, 0]) ** 2)
    assert float(setting.loss(model, (x, y))) == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_array_equal(setting.layers(model), rows)


def test_layers_of_all_depths_are_increments_of_one_path():
    fine, coarse = (
        setting.layers(setting.independent(L, 12, key=jr.key(1))) for L in (12, 4)
    )
    np.testing.assert_allclose(
        coarse, fine.reshape(4, 3, 6).sum(1), rtol=1e-5, atol=1e-6
    )
    many = setting.layers(setting.independent(4096, 4096, key=jr.key(2)))
    assert float(jnp.mean(many**2)) == pytest.approx(1 / 4096, rel=0.05)
    tied = setting.layers(setting.tied(5, key=jr.key(3)))
    np.testing.assert_array_equal(tied, jnp.broadcast_to(tied[0], (5, 6)))


def test_sum_and_noise_are_those_of_plain_loops():
    rows = np.asarray(jr.normal(jr.key(4), (1, 2, 40, 6)))
    read = four_ways._measured(rows)
    gaps = [np.linalg.norm(rows[0, 1, k + 1] - rows[0, 1, k]) for k in range(39)]
    noise = np.sqrt(sum(gap**2 for gap in gaps) / 2)
    assert read["noise"][1][0, 1] == pytest.approx(noise, rel=1e-5)
    assert read["largest"][1][0, 1] == pytest.approx(max(gaps), rel=1e-5)
    np.testing.assert_allclose(read["total"][1][0, 1], sum(rows[0, 1]), rtol=1e-4)


def test_exponents_are_those_of_sums_and_noise_that_are_known():
    """S ~ L^D and Q ~ L^N with the factor, of two seeds; what Adam starts from is no
    power of the depth, and of flow the start is part of the sum."""
    L = np.array([4.0, 8, 16, 32, 64])
    draws = np.random.default_rng(3).standard_normal((3, 5, 2, 2, 6))
    made = xr.Dataset(
        {
            "total": (("way", "depth", "seed", "time", "entry"), draws),
            "noise": (("way", "depth", "seed", "time"), np.ones(draws.shape[:-1])),
        },
        {"way": list(four_ways.WAYS), "depth": L.astype(int), "time": ["start", "end"]},
    )
    for way, (D, N) in {"flow": (0.25, -1.5), "Adam": (0.5, -0.1)}.items():
        at = {"way": way, "time": "end"}
        size = np.outer(L ** four_ways.BETA[way], [1, 3])  # and two seeds
        total = np.einsum("ds,e->dse", size * L[:, None] ** D, [2, -1, 0, 2, 0, 0])
        begun = made["total"].sel(way=way, time="start").values
        made["total"].loc[at] = total + (0 if way == "flow" else begun)
        made["noise"].loc[at] = size * L[:, None] ** N
        S, Q = four_ways.sum_and_noise(made, way, "end")
        np.testing.assert_allclose(S, np.outer([3, 9], L**D))
        np.testing.assert_allclose(Q, np.outer([1, 3], L**N))
        assert loglog_slope(L, S).value == pytest.approx(D)
        assert loglog_slope(L, Q).value == pytest.approx(N)


def test_rates_know_the_depth_where_they_should():
    config = four_ways.FourWays()
    ones = setting.tied(8, key=jr.key(5))
    ones = jax.tree.map(jnp.ones_like, ones)

    def moved(way):
        rule = config.rule(way, 8)
        return -setting.layers(rule.update(ones, rule.init(ones), ones)[0])

    with jax.numpy_dtype_promotion("standard"):  # Adam raises floats to integers
        np.testing.assert_allclose(moved("flow"), 8 * config.flow_rate, rtol=1e-5)
        np.testing.assert_allclose(moved("Adam"), config.adam_rate / 8, rtol=1e-4)
        np.testing.assert_allclose(
            moved("Adam, fixed rate"), config.fixed_rate, rtol=1e-4
        )


def test_decay_is_the_gradient_of_its_penalty():
    config = LongTraining(alpha=0.25)
    model = setting.tied(8, key=jr.key(6))
    zero = jax.tree.map(jnp.zeros_like, model)
    step = config.rule.update(zero, config.rule.init(model), model)[0]

    def penalty(rows):  # (alpha / L) sum |Z_k|^2, with the factor L of the flow
        return 0.25 / 8 * jnp.sum(rows**2) * 8

    wanted = -config.rate * jax.grad(penalty)(setting.layers(model))
    np.testing.assert_allclose(setting.layers(step), wanted, rtol=1e-5)


def test_first_passage_is_the_first_time_above_the_level():
    rows = np.array([[[0.0, 2, 0.5, 3], [0, 0.5, 0.9, 1.1]], [[0, 1, 1, 1]] * 2])
    found = xr.Dataset(
        {"largest": (("seed", "depth", "time"), rows)},
        {"time": [0.0, 0.5, 1.0, 1.5]},
    )
    np.testing.assert_array_equal(
        first_passage(found, 1.0), [[0.5, 1.5], [np.inf, np.inf]]
    )


def test_networks_of_any_width_start_as_the_planar_ones():
    for way, wanted in (
        ("flow", setting.tied(4, key=jr.key(7))),
        ("Adam", setting.independent(4, 8, key=jr.key(7))),
    ):
        model = digits_ways._start(way, 4, 8, 2, key=jr.key(7))
        assert model.beta == wanted.beta == digits_ways.BETA[way]
        np.testing.assert_array_equal(setting.layers(model), setting.layers(wanted))
    wide = digits_ways._start("random", 512, 512, 4, key=jr.key(8))
    rows = np.asarray(setting.layers(wide))
    assert rows.shape == (512, 20)
    assert abs(np.mean(rows**2) - 1) < 0.05


def test_sums_have_their_factor():
    rows = np.ones((1, 4, 6)) * np.arange(4)[:, None]  # sum 6, increments 1
    for way, factor in {"flow": 1 / 4, "Adam": 1.0, "random": 1 / 2}.items():
        read = digits_ways._measured(rows, 2 * rows, way, 8)
        assert read["sum"][1][0] == pytest.approx(factor * 12 * 6**0.5)
        assert read["noise"][1][0] == pytest.approx(factor * (3 * 6 / 2) ** 0.5)
        assert read["layers"][1].shape == (1, 8, 6)
    # of the matrix alone: four of six entries, variance 1/4
    size = digits_ways._measured(rows, 2 * rows, "Adam", 8)["trend"][1][0]
    assert size == pytest.approx((4 * 4 * (0 + 1 + 4 + 9) * 4) ** 0.5)


def test_what_is_said_of_weights_that_are_known():
    depths = (64, 128, 256)
    smooth = np.array(
        [
            np.repeat(
                np.sin(3 * np.arange(L)[:, None] / L + np.arange(20)), 256 // L, 0
            )
            for L in depths
        ]
    )
    one, together = digits_ways._said(smooth, "flow", depths)
    assert {diagnosis.VERDICTS[place] for place in one} == {diagnosis.SMOOTH}
    assert diagnosis.VERDICTS[together] == diagnosis.SMOOTH
    noise = [np.random.default_rng(1).standard_normal((L, 1640)) for L in depths]
    assert digits_ways.says(noise, 0.5) == diagnosis.ROUGH
    assert digits_ways.says(noise, 1.0) == diagnosis.IDENTITY


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: digits_ways.DigitsWays(depths=(16, 24)), "divide the deepest"),
        (lambda: digits_ways.DigitsWays(depths=(4, 8)), "depths"),
        (lambda: digits_ways.DigitsWays(adam_steps=10**7), "at most"),
        (lambda: digits_ways.DigitsWays(width=65), "at most 64"),
        (lambda: four_ways.FourWays(depths=(16, 24)), "divide the deepest"),
        (lambda: four_ways.FourWays(depths=(4, 8)), "8 or more"),
        (lambda: four_ways.FourWays(flow_steps=15), "multiple of 10"),
        (lambda: four_ways.FourWays(adam_steps=10**7), "at most"),
        (lambda: LongTraining(steps=30, every=20), "multiple of every"),
        (lambda: LongTraining(depths=(1,)), "2 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


TINY = {
    "ours/four-ways": {"depths": (8,), "seeds": 1, "flow_steps": 10, "adam_steps": 10},
    "ours/digits-ways": {"depths": (8,), "seeds": 1, "train": 20, "iterations": 2},
    "ours/long-training": {"depths": (4,), "seeds": 1},
}


@pytest.mark.parametrize("name", TINY)
def test_a_run_in_double_precision_is_one(name):
    """Not only stored as one: rounding the data or a start would leave the loss where
    single precision has it."""
    # Adam raises floats to integers
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        double = experiments.run(name, "smoke", key=jr.key(9), **TINY[name])
    wide = {k: v for k, v in double.items() if v.dtype.kind == "f"}
    assert {v.dtype for v in wide.values()} == {np.dtype("float64")}
    rounded = wide["loss"].astype("float32")
    assert not (wide["loss"] == rounded).any()


def test_data_have_the_precision_of_the_run():
    for double, wanted in ((True, "float64"), (False, "float32")):
        with jax.enable_x64(double):
            assert {z.dtype for z in setting.data()} == {np.dtype(wanted)}
            images = digits_ways.DigitsWays(train=20).data(key=jr.key(10))
            found = setting.in_precision(*images)
            assert {z.dtype for z in found} == {np.dtype(wanted)}
