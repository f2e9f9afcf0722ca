"""Trained networks: the start, the shuffling, the measures, the analysis."""

from collections.abc import MutableSequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from conftest import assert_mean

from deeplimits import datasets, experiments, statistics
from deeplimits.continuous import OneLayerSDE, linear_flow
from deeplimits.experiments.cohen2021 import (
    budget,
    convolution,
    defect,
    limits,
    robustness,
    runs,
    scaling,
    setting,
    shuffling,
    trend,
)
from deeplimits.experiments.runner import Point
from deeplimits.intervals import Kind
from deeplimits.losses import mean_square_entry
from deeplimits.residual import OneLayer, ResNet


def start(depth=6, width=3, **options):
    draws = jr.normal(jr.key(0), (depth, width + 2, width))
    return setting.network(draws, **options)


@pytest.mark.parametrize(
    ("activation", "delta"), [("tanh", "shared"), ("relu", "layer")]
)
def test_networks_are_a_plain_loop(activation, delta):
    model = start(activation=activation, delta=delta, std=20.0)
    model = eqx.tree_at(lambda m: m.scale, model, -3 * model.scale)
    sigma = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}[activation]
    steps = np.abs(model.scale) if delta == "shared" else np.asarray(model.scale)
    h = np.array([1.0, -2.0, 0.5])
    for k in range(6):
        A, b = model.block.weight[k], model.block.bias[k]
        step = steps if delta == "shared" else steps[k]
        h = h + step * sigma(np.asarray(A) @ h + np.asarray(b))
    np.testing.assert_allclose(model(jnp.asarray([1.0, -2.0, 0.5])), h, rtol=1e-10)


def test_start_has_the_sizes_of_the_public_code():
    depth, d = 4000, 5
    model = start(depth, d, activation="relu", delta="layer", std=0.3)
    sizes = (
        (model.block.weight, 0.3 / d / depth),
        (model.block.bias, 0.3 / d**0.5 / depth),
        (model.scale, 1 / depth),
    )
    for values, std in sizes:
        assert_mean(np.ravel(values) ** 2, std**2)
    assert float(start(8).scale) == 1 / 8


@pytest.mark.parametrize("delta", ["shared", "layer"])
def test_gradients_balance_for_homogeneous_activations(delta):
    """delta d/d delta = sum <A, d/dA> + <b, d/db>: what gradient flow keeps."""
    x, y = jr.normal(jr.key(17), (2, 5, 3))

    def gap(activation):
        model = start(activation=activation, delta=delta, std=30.0)
        grads = jax.grad(mean_square_entry)(model, (x, y))
        axis = None if delta == "shared" else tuple(range(1, 3))
        inside = jnp.sum(model.block.weight * grads.block.weight, axis)
        axis = None if delta == "shared" else 1
        inside = inside + jnp.sum(model.block.bias * grads.block.bias, axis)
        return float(jnp.abs(model.scale * grads.scale - inside).max())

    assert gap("relu") < 1e-12
    assert gap("identity") < 1e-12
    assert gap("tanh") > 1e-4


@MutableSequence.register
class Views:
    """Rows of an array as PyTorch's tensors hand them out: reading gives a view."""

    def __init__(self, array):
        self.array = array

    def __len__(self):
        return len(self.array)

    def __getitem__(self, i):
        return self.array[i]

    def __setitem__(self, i, row):
        self.array[i] = row


def test_shuffled_views_do_what_numpy_does_to_views():
    """The number of rows that survive, epoch by epoch, in the mean."""
    rng, n, epochs, runs = np.random.default_rng(0), 16, 4, 2000
    survivors = []
    for _ in range(runs):
        rows = np.arange(n)[:, None]
        counts = []
        for _ in range(epochs):
            rng.shuffle(Views(rows))
            counts.append(len(np.unique(rows)))
        survivors.append(counts)
    shuffle = jax.jit(jax.vmap(shuffling.shuffled_views, (None, 0)))
    rows = shuffle(jnp.arange(n), jr.split(jr.key(4), (runs, epochs)))
    ours = np.array([[len(np.unique(epoch)) for epoch in run] for run in rows])
    assert (np.diff(ours, axis=1) <= 0).all()
    assert ours[:, 0].max() < n
    gap = ours - np.array(survivors)
    for epoch in range(epochs):
        assert_mean(gap[:, epoch], 0.0)


@pytest.mark.parametrize("n", [5, 32])
def test_one_shuffle_of_views_leaves_half_and_a_half(n):
    """The exact law: row p survives with probability 1 - p/n."""
    shuffle = jax.jit(jax.vmap(shuffling.shuffled_views, (None, 0)))
    rows = np.asarray(shuffle(jnp.arange(n), jr.split(jr.key(16), (4000, 1))))[:, 0]
    survives = np.array([(rows == p).any(1) for p in range(n)], float)
    assert (survives[0] == 1).all()
    for p in range(1, n):
        assert_mean(survives[p], 1 - p / n)
    assert_mean(survives.sum(0), (n + 1) / 2)


def test_one_batch_is_left_alone_by_every_shuffle():
    kept = shuffling.shuffled_orders(8, 8, 3, "views", key=jr.key(17))
    np.testing.assert_array_equal(kept, np.tile(np.arange(8), (3, 1, 1)))


def test_grid_has_the_depths_of_the_public_code():
    third = scaling.grid(2 ** (1 / 3), 3, 10_321)
    assert third[:9] == (3, 4, 5, 6, 8, 10, 12, 16, 20)
    assert third[-4:] == (5160, 6501, 8192, 10321)
    assert scaling.grid(1.2, 3, 9100)[-3:] == (6319, 7583, 9100)


def test_smoothing_leaves_tied_layers_alone():
    model = start(depth=30, activation="relu", delta="layer", std=20.0)
    sizes = jnp.abs(model.scale)
    tied = OneLayer(
        jr.normal(jr.key(5), (3, 3))[None] / sizes[:, None, None],
        jr.normal(jr.key(6), (3,))[None] / sizes[:, None],
        activation="relu",
    )
    model = ResNet(tied, beta=0.0, scale=model.scale / 30)
    h = jnp.asarray([1.0, -0.5, 2.0])
    np.testing.assert_allclose(setting.smoothed(model)(h), model(h), rtol=1e-8)
    rough = eqx.tree_at(
        lambda m: m.block.bias, model, jr.normal(jr.key(7), (30, 3)) * 30
    )
    assert float(jnp.abs(setting.smoothed(rough)(h) - rough(h)).max()) > 0.1


def test_matrices_belong_to_the_function_and_not_to_its_coordinates():
    """tanh is odd, ReLU homogeneous: changes of (delta, A, b) that neither can see."""
    signs = jnp.where(jr.bernoulli(jr.key(18), 0.5, (40,)), 1.0, -1.0)
    sizes = jnp.exp(jr.normal(jr.key(19), (40,)))
    h = jnp.asarray([1.0, -0.5, 2.0])
    for activation, inside, outside in (
        ("tanh", signs, signs),
        ("relu", sizes, 1 / sizes),
    ):
        model = start(depth=40, activation=activation, delta="layer", std=20.0)
        other = eqx.tree_at(
            lambda m: (m.block.weight, m.block.bias, m.scale),
            model,
            (
                inside[:, None, None] * model.block.weight,
                inside[:, None] * model.block.bias,
                outside * model.scale,
            ),
        )
        np.testing.assert_allclose(other(h), model(h), rtol=1e-10)
        np.testing.assert_allclose(
            setting.matrices(other), setting.matrices(model), rtol=1e-10
        )
        smooth = (setting.smoothed(m)(h) for m in (other, model))
        np.testing.assert_allclose(*smooth, rtol=1e-10)


def test_smoothing_by_sign_keeps_two_kinds_of_layers_apart():
    signs = jnp.where(jr.bernoulli(jr.key(17), 0.6, (40,)), 1.0, -1.0)
    kinds = jnp.stack([jnp.eye(3), jnp.asarray([[0.0, 2, 0], [1, 0, 0], [0, 0, -1]])])
    tied = OneLayer(kinds[(signs > 0).astype(int)] / 40, activation="relu")
    model = ResNet(tied, beta=0.0, scale=signs)
    h = jnp.asarray([1.0, -0.5, 2.0])
    apart = setting.smoothed(model, by_sign=True)
    np.testing.assert_allclose(apart(h), model(h), rtol=1e-10)
    assert float(jnp.abs(setting.smoothed(model)(h) - model(h)).max()) > 0.01


def test_a_line_is_all_trend_and_white_noise_is_mostly_noise():
    s = jnp.arange(200.0)
    line = jnp.stack([s, 1 - 2 * s], axis=1)
    trend, noise = statistics.trend_and_noise(line, window=0.3)
    np.testing.assert_allclose(trend, line, rtol=1e-10)
    assert float(jnp.abs(noise).max()) < 1e-9
    white = jr.normal(jr.key(8), (2000, 4))
    trend, noise = statistics.trend_and_noise(white)
    np.testing.assert_allclose(trend + noise, white, atol=1e-12)
    # an average of 201 keeps 1/201 of the variance
    assert 0.002 < float(jnp.mean(trend[200:-200] ** 2)) < 0.01


def test_norms_of_smooth_and_rough_weights_scale_as_they_should():
    depths = np.array([64, 256, 1024])

    def slopes(weights):
        rows = [statistics.scaling_norms(weights(int(L))) for L in depths]
        return {
            name: statistics.loglog_slope(
                depths, np.array([float(r[name]) for r in rows])
            ).value
            for name in rows[0]
        }

    smooth = slopes(lambda L: L**-0.2 * (1 + jnp.arange(L) / L)[:, None, None])
    expected = {"max": -0.2, "increment": -1.2, "sum": 0.8, "root_squares": 0.3}
    assert smooth == pytest.approx(expected, abs=0.02)
    rough = slopes(lambda L: L**-0.5 * jr.normal(jr.key(L), (L, 6, 6)))
    expected = {"max": -0.5, "increment": -0.5, "sum": 0.0, "root_squares": 0.0}
    assert rough == pytest.approx(expected, abs=0.15)


def test_one_path_serves_all_depths():
    r"""Layers $L^{-\beta} \bar A(s)$: the path of one depth gives back those of
    another, and those of its own depth exactly where the bins are its layers."""
    config = trend.Trend(beta=0.3, bins=100, depths=(100, 250), windows=((100,),))

    def layers(depth):
        s = (np.arange(depth) + 0.5) / depth
        matrices = np.stack([np.sin(6 * s), np.cos(3 * s)], axis=1)
        return depth**-0.3 * np.stack([matrices, 2 * matrices])

    path = trend._path(config, layers(100))
    own = trend._layers(config, path, 100)
    np.testing.assert_allclose(own, layers(100), rtol=1e-10, atol=1e-12)
    other = trend._layers(config, path, 250)
    assert np.abs(other - layers(250)).max() < 0.02 * np.abs(layers(250)).max()
    gap = trend._gap([trend._path(config, layers(250))], [path])
    assert gap.shape == (2,)
    assert (gap < 1e-3).all()
    np.testing.assert_allclose(trend._gap([0 * path], [path]), 1.0)


def test_controls_of_a_path_are_its_chord_and_its_parabola():
    """A path whose layers are a straight line in depth-time is its own "line"."""
    s = np.linspace(0, 1, 41)
    curved = np.stack([s**2 - 3 * s, 2 * s + s**2])[..., None]  # seeds, nodes, entries
    np.testing.assert_allclose(trend._control(curved, "line"), curved, atol=1e-12)
    chord = trend._control(curved, "mean")
    np.testing.assert_allclose(chord[..., 0], [-2 * s, 3 * s], atol=1e-12)
    np.testing.assert_array_equal(trend._control(curved, "another seed"), curved[::-1])
    cubic = (s**3)[None, :, None]
    assert np.abs(trend._control(cubic, "line") - cubic).max() > 0.01


def test_a_trend_of_its_own_layers_changes_nothing(promoting):
    """Averaged over one depth, on its own grid, the trend is the weights."""
    found = experiments.run(
        "cohen2021/relu-trend",
        "smoke",
        key=jr.key(16),
        depths=(4, 8),
        windows=((4,), (8,)),
        bins=8,
    )
    for window, depth in enumerate((4, 8)):
        own = found.sel(depth=depth)
        shared = own["shared_loss"].isel(window=window)
        np.testing.assert_allclose(shared, own["train_loss"], rtol=1e-5)
        np.testing.assert_allclose(own["gap"].isel(window=window), 0, atol=1e-12)
        assert not np.allclose(own["moving_loss"], own["train_loss"], rtol=1e-4)
        other = own["shared_loss"].isel(window=1 - window)
        assert not np.allclose(other, own["train_loss"], rtol=1e-4)


def test_a_killed_run_goes_on_at_the_depth_where_it_stopped(
    tmp_path, monkeypatch, promoting
):
    chosen = experiments.find("cohen2021/tanh-depth")
    config, computed = chosen.preset("smoke"), []
    first = chosen.run(config, key=jr.key(10), scratch=tmp_path)
    [piece] = tmp_path.glob("*depth-8.nc")
    piece.unlink()

    def counted(config, depth, seeds):
        computed.append(depth)
        return runs.measured(config, depth, seeds)

    monkeypatch.setattr(scaling, "measured", counted)
    again = chosen.run(config, key=jr.key(10), scratch=tmp_path)
    assert computed == [8]
    assert first.identical(again)


def test_a_case_is_a_run_of_its_own(promoting):
    chosen = experiments.find("cohen2021/robustness")
    config = chosen.preset("smoke")
    table = chosen.run(config, key=jr.key(3)).isel(case=0, drop=True)
    alone = replace(scaling.tanh_depth, presets={})
    found = alone.run(robustness.case_config(config, config.cases[0]), key=jr.key(3))
    for name, values in table.data_vars.items():
        np.testing.assert_array_equal(values, found[name], err_msg=str(name))


def test_a_case_without_a_loss_to_stop_at_takes_all_its_epochs(promoting):
    """However little it improves: at this rate, not at all."""
    case = ("tanh", "shared", "adam", 1e-30, 0.0, 7)
    preset = {"cases": (case,), "depths": (4,)}
    found = experiments.run("cohen2021/robustness", "smoke", key=jr.key(23), **preset)
    assert (found["epochs"] == 7).all()


def test_what_is_kept_goes_on_from_what_the_depth_before_has_left(promoting):
    config = replace(
        experiments.find("cohen2021/shuffling").preset("smoke"),
        rows=("views", "views kept"),
        depths=(4, 6),
    )
    found = defect.shuffling_defect.run(config, key=jr.key(5))
    whole, kept = (found["max_A"].sel(shuffle=row) for row in config.rows)
    np.testing.assert_array_equal(whole.sel(depth=4), kept.sel(depth=4))
    assert (whole.sel(depth=6) != kept.sel(depth=6)).all()
    # what the second depth is given: each seed's rounds from the one where it stopped
    rounds = np.arange(2 * 5).reshape(2, 5, 1, 1)
    part = defect._from(np.array([1, 3]), rounds, 2)
    assert part[..., 0, 0].tolist() == [[1, 2], [8, 9]]


def test_mnist_trains_where_it_is(monkeypatch, promoting):
    """On noise of its shapes, with a width of 25; and without it says so at once."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (96, 1, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, 96).astype(np.int32)
    small = datasets.Images(images[:64], labels[:64], images[64:], labels[64:])
    monkeypatch.setattr(datasets, "mnist", lambda: small)
    found = experiments.run("cohen2021/relu-mnist", "smoke", key=jr.key(1), depths=(4,))
    assert np.isfinite(found["train_loss"]).all()
    assert not np.array_equal(*found["train_loss"].isel(depth=0))

    def missing():
        raise ValueError("MNIST is not here")

    monkeypatch.setattr(datasets, "mnist", missing)
    with pytest.raises(ValueError, match="MNIST is not here"):
        experiments.run("cohen2021/relu-mnist", "smoke", key=jr.key(1))


def at_a_budget(**changes):
    return experiments.run(
        "cohen2021/tanh-budget", "smoke", key=jr.key(21), depths=(6,), **changes
    ).isel(depth=0)


def test_a_network_on_its_way_is_one_of_a_smaller_budget(promoting):
    """At a constant rate; a rate that decays by the end decays sooner."""
    cases = ((1e-2, 1.0), (1e-2, 1e-2))
    long, short = (at_a_budget(cases=cases, steps=steps) for steps in (16, 8))
    assert long["case"].values.tolist() == ["0.01", "0.01 to 0.0001"]
    for name in ("delta", "max_A", "increment_A", "noise_share", "loss"):
        constant, decayed = (
            np.abs(long[name].isel(step=1) - short[name].isel(step=1)).sel(case=case)
            for case in long["case"]
        )
        assert float(constant.max()) < 1e-12, name
        assert name == "loss" or float(decayed.min()) > 1e-12, name


def test_a_network_is_read_where_its_loss_is_first_small(promoting):
    every = at_a_budget(every=1, loss=1e300)
    # eight batches are the least that there is a mean of
    assert (every["step_at_loss"] == 8).all()
    for name in ("delta", "max_A", "increment_A"):
        then = every[name].sel(step=8)
        np.testing.assert_array_equal(every[f"{name}_at_loss"], then, err_msg=name)
    never = at_a_budget(loss=0.0)
    assert np.isnan(never["step_at_loss"]).all()
    assert np.isnan(never["max_A_at_loss"]).all()


def test_a_loss_is_the_mean_since_the_record_before(promoting):
    every, some = (at_a_budget(every=every)["loss"] for every in (1, 8))
    since = every.isel(step=slice(1, None)).values.reshape(1, 2, 2, 8).mean(-1)
    np.testing.assert_allclose(some.isel(step=slice(1, None)), since, rtol=1e-5)
    np.testing.assert_array_equal(some.isel(step=0), every.isel(step=0))


def test_each_seed_draws_batches_of_its_own(promoting):
    """Seeds of one start and one set of data part all the same."""
    config = experiments.find("cohen2021/tanh-budget").preset("smoke")
    point = Point({"case": budget.label(config.cases[0]), "depth": 4})
    seeds = runs.shared_seeds(config, point, jr.key(24))
    same = {name: jnp.stack([a[0], a[0]]) for name, a in seeds.items()}
    found = budget._row(config, point, jr.key(25), same)
    first, second = found["loss"][1]
    assert (first[1:] != second[1:]).all()


def test_the_first_mean_of_eight_below_the_rule():
    losses = np.full((3, 40), 2.0)
    losses[0, 20:] = 0.5  # the mean is 1.0625 after 25 of the steps, 0.875 after 26
    losses[1, 10] = -5.0  # one is enough: 1.125 from 11 steps on
    assert budget.first_below(losses, 1.0)[[0, 2]] == pytest.approx(
        [26, np.nan], nan_ok=True
    )
    assert budget.first_below(losses, 1.2)[1] == 11


DEPTHS = np.array([4, 8, 16, 32, 64, 128, 256])
POWERS = {
    "delta": -0.7,
    "max_A": -0.2,
    "increment_A": -1.1,
    "sum_A": 0.8,
    "root_squares_A": 0.3,
}


def archived():
    """Power laws from depth 16 to 64 for three seeds of their own sizes, turning at
    both ends, but for the increments, whose exponent depends on the seed."""
    powers = {name: np.full(3, power) for name, power in POWERS.items()}
    powers["increment_A"] = powers["increment_A"] + np.array([-0.1, 0.0, 0.1])
    factors = {4: 9.0, 8: 3.0, 16: 1, 32: 1, 64: 1, 128: 5.0, 256: 0.1}
    turns = np.array([factors[L] for L in DEPTHS])[:, None]
    sizes = np.array([1.0, 2.0, 5.0])
    values = {name: turns * sizes * DEPTHS[:, None] ** p for name, p in powers.items()}
    reached = np.ones((7, 3), bool)
    reached[0, 1] = reached[5, 2] = False
    dims = ("depth", "seed")
    return xr.Dataset(
        {name: (dims, a) for name, a in (values | {"reached": reached}).items()},
        {"depth": DEPTHS},
    )


def test_exponents_are_those_of_power_laws_in_the_window():
    found = scaling.exponents(archived(), most=64)
    expected = POWERS | {"product": -0.9, "roughness": -0.9}
    values = {name: slope.value for name, slope in found.items()}
    assert values == pytest.approx(expected, abs=1e-10)
    for name, slope in found.items():
        # Student's t at 97.5 % with two degrees of freedom, sd 0.1, over root three
        half = 4.302653 * 0.1 / 3**0.5 if name in ("increment_A", "roughness") else 0
        bounds = (slope.value - half, slope.value + half)
        assert (slope.low, slope.high) == pytest.approx(bounds, abs=1e-6)
    outside = scaling.exponents(archived(), 4, 64)
    assert outside["max_A"].value < POWERS["max_A"] - 0.3


def test_the_deepest_is_the_last_before_a_seed_fails():
    found = archived()
    assert scaling.deepest(found) == 64
    assert scaling.deepest(found, least=256) == 256
    # the order of the depths does not matter, nor what happens below the least
    assert scaling.deepest(found.isel(depth=slice(None, None, -1))) == 64
    for least in (4, 128, 1000):
        with pytest.raises(ValueError, match="no depth from"):
            scaling.deepest(found, least=least)


def test_a_difference_of_slopes_is_that_of_each_seed_with_itself():
    found = archived().sel(depth=slice(16, 64))
    # the seeds' exponents are -1.1 + (-0.1, 0, 0.1), the others 0.8: known to the digit
    got = scaling.slope_difference(found["increment_A"].T, found["sum_A"])
    half = 4.302653 * 0.1 / 3**0.5
    assert got.numbers == pytest.approx((-1.9, -1.9 - half, -1.9 + half), abs=1e-6)
    assert got.kind is Kind.SEEDS
    assert got.halves == ()  # of three depths there are none
    every = archived()
    got = scaling.slope_difference(every["increment_A"].T, every["sum_A"])
    assert len(got.halves) == 2
    # what the seeds have in common drops out of the interval
    twice = found["increment_A"] * found["sum_A"]
    got = scaling.slope_difference(twice, found["increment_A"])
    assert got.numbers == pytest.approx((0.8, 0.8, 0.8), abs=1e-10)
    with pytest.raises(ValueError, match="not equal along"):
        scaling.slope_difference(found["sum_A"], found["sum_A"].isel(depth=[0, 1]))


# powers of two, so that curves meet at their ends to the digit; their order is free
LARGE, SMALL, MIDDLE = RATES = [2.0**-8, 2.0**-10, 2.0**-9]


def of_rates(function):
    """`function` of depth and rate, for two seeds of their own sizes."""
    depths = 2 ** np.arange(4, 10)
    rows = [function(depths, rate)[:, None] * np.array([1.0, 3.0]) for rate in RATES]
    decaying = np.full((6, 2), 7.0)
    return xr.DataArray(
        np.array([*rows, decaying]),
        {"case": [*map(str, RATES), "0.01 to 0.0001"], "depth": depths},
        ("case", "depth", "seed"),
    )


def test_a_change_of_slope_is_the_upper_half_less_the_lower_one():
    depths, turns = 2.0 ** np.arange(9), np.array([-0.4, -0.5, -0.9])
    # -1 to depth 16, and from there on by seed; the seeds' sizes do not matter
    bent = depths[:, None] ** -1.0
    bent = bent * np.maximum(depths[:, None] / 16, 1) ** (1 + turns) * [1.0, 5.0, 0.3]
    values = xr.DataArray(bent, {"depth": depths}, ("depth", "seed"))
    expected = statistics.mean_interval(1 + turns)
    for rows in (values, values.T):
        got = budget.change_of_slope(rows)
        assert got.numbers == pytest.approx(expected.numbers, abs=1e-10)
        assert got.kind is Kind.SEEDS
    with pytest.raises(ValueError, match=r"needs five depths: got \[1.0, 2.0, 4.0"):
        budget.change_of_slope(values[:4])


def test_a_ratio_of_cases_is_a_geometric_mean_over_seeds():
    values = xr.DataArray(
        np.array([[2.0, 8.0, 6.0], [1.0, 1.0, 1.5]], "f4"),
        {"case": ["fast", "slow"]},
        ("case", "seed"),
    )
    got, logs = budget.ratio(values, "fast", "slow"), np.log([2.0, 8.0, 4.0])
    # Student's t at 97.5 % with two degrees of freedom
    half = 4.302653 * np.std(logs, ddof=1) / 3**0.5
    bounds = (4.0, 4.0 * np.exp(-half), 4.0 * np.exp(half))
    assert got.numbers == pytest.approx(bounds, rel=1e-6)
    with pytest.raises(ValueError, match="unknown case 'late'; known: fast, slow"):
        budget.ratio(values, "late", "slow")


@pytest.mark.parametrize("power", [2.0, 1.0])
def test_curves_in_their_own_units_do_not_part(power):
    def function(depth, rate):
        x = depth * rate**power / (64 * MIDDLE**power)
        return np.exp(np.abs(np.log(x)))  # with its kink at a depth of each curve

    values = of_rates(function)
    assert budget.apart(values, power) == pytest.approx(1, abs=1e-10)
    x, rows = budget.in_units(values, str(MIDDLE), power)
    np.testing.assert_allclose(x, values["depth"] * MIDDLE**power)
    np.testing.assert_array_equal(rows, values.sel(case=str(MIDDLE)).T)
    # at half the rate the same x stands at 2^p times the depth
    turns = [budget.turn(values, str(rate)) for rate in (LARGE, MIDDLE, SMALL)]
    assert turns == [64 / 2**power, 64, 64 * 2**power]


def test_curves_part_by_what_the_units_lack():
    # L eta^2 against L eta^p: a curve over that of twice the rate is 2^(p - 2); of six
    # depths as many lie within the other's as p leaves
    values = of_rates(lambda depth, rate: depth * rate**2)
    for power, inside in ((2.0, 4), (3.0, 3), (1.0, 5)):
        expected = np.full(2 * inside, 2.0 ** (power - 2))
        np.testing.assert_allclose(budget.apart(values, power), expected)
    # a rate over the next larger one, the smallest first
    heights = {SMALL: 6.0, MIDDLE: 2.0, LARGE: 1.0}
    values = of_rates(lambda depth, rate: np.full(6, heights[rate]))
    np.testing.assert_allclose(budget.apart(values), [3.0] * 4 + [2.0] * 4)
    # the mean over seeds is geometric: a curve and the inverse of another are level
    values = of_rates(lambda depth, rate: depth * rate)
    values = values ** xr.DataArray([1.0, -1.0], dims="seed")
    np.testing.assert_allclose(budget.apart(values), np.ones(8))


def test_a_depth_that_a_seed_does_not_reach_is_left_out():
    values = of_rates(lambda depth, rate: depth * rate**2)
    values.loc[{"case": str(LARGE), "depth": 512, "seed": 1}] = np.nan
    x, rows = budget.in_units(values, str(LARGE))
    assert rows.shape == (2, 5)
    np.testing.assert_allclose(x, 2.0 ** np.arange(4, 9) * LARGE**2)
    assert budget.apart(values).shape == (8,)
    values.loc[{"case": str(LARGE)}] = np.nan
    for wrong, message in (
        (lambda: budget.turn(values, str(LARGE)), "no depth has a number for every"),
        (lambda: budget.turn(values, "0.01 to 0.0001"), "unknown constant rate"),
        (lambda: budget.apart(values[1:2]), "no two rates overlap in L times"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def sde(activation="centred softplus", **options):
    matrix = jnp.asarray([[0.3, -1.0, 0.2], [0.5, 0.1, 0.0], [-0.4, 0.2, 0.6]])
    bias = jnp.asarray([0.2, -0.3, 0.1])
    options = {"std_matrix": 0.4, "std_bias": 0.7} | options
    return OneLayerSDE(matrix, bias, activation=activation, **options)


X = jnp.asarray([1.0, -0.5, 0.3])


@pytest.mark.parametrize("activation", ["centred softplus", "tanh"])
def test_scan_and_diffrax_agree_on_the_same_path(activation):
    limit = sde(activation)
    noise = jr.normal(jr.key(12), (64, 3, 4))
    np.testing.assert_allclose(limit(X, noise), limit.scan(X, noise), rtol=1e-10)


def test_the_scheme_is_a_plain_loop_with_the_correction():
    limit, L = sde(), 5
    noise = np.asarray(jr.normal(jr.key(13), (L, 3, 4)))
    h = np.asarray(X)
    for k in range(L):
        dB, db = noise[k, :, :3] / L**0.5, noise[k, :, 3] / L**0.5
        correction = 0.25 * (0.4**2 * h @ h + 0.7**2)
        drift = np.asarray(limit.matrix) @ h + np.asarray(limit.bias) + correction
        h = h + drift / L + 0.4 * dB @ h + 0.7 * db
    np.testing.assert_allclose(limit.scan(X, jnp.asarray(noise)), h, rtol=1e-10)


def test_without_curvature_there_is_no_correction():
    noise = jr.normal(jr.key(14), (32, 3, 4))
    for options in ({"activation": "tanh"}, {"corrected": False}):
        assert sde(**options).curvature == 0
    plain = sde(corrected=False).scan(X, noise)
    np.testing.assert_allclose(plain, sde("tanh").scan(X, noise), rtol=1e-12)
    assert sde().curvature == pytest.approx(0.5, abs=1e-6)


def test_without_noise_everything_tends_to_the_linear_flow():
    still = sde("tanh", std_matrix=0.0, std_bias=0.0)
    expected = linear_flow(still.matrix, still.bias, X)
    errors = [
        float(jnp.linalg.norm(still.scan(X, jnp.zeros((L, 3, 4))) - expected))
        for L in (64, 128, 256)
    ]
    slope = statistics.loglog_slope(np.array([64, 128, 256]), np.array(errors))
    assert slope.value == pytest.approx(-1, abs=0.05)
    # against a series of the exponential, a long one
    joined = np.zeros((4, 4))
    joined[:3, :3], joined[:3, 3] = still.matrix, still.bias
    term = total = np.append(X, 1.0)
    for n in range(1, 30):
        term = joined @ term / n
        total = total + term
    np.testing.assert_allclose(expected, total[:3], rtol=1e-10)


def test_networks_come_near_their_limits_as_fast_as_predicted(promoting):
    """Mean squares: 1/L for the SDE, and none without the correction; for the linear
    equation without noise L^(-2 beta), for tanh L^(-4 beta)."""
    found = experiments.run(
        "cohen2021/limits",
        "smoke",
        key=jr.key(26),
        depths=(16, 32, 64),
        finest=1024,
        draws=64,
        ode_depths=(256, 512, 1024),
        ode_draws=1,
    )
    means = found["sde"].mean("draw")
    slopes = [statistics.loglog_slope(found["depth"], row).value for row in means]
    assert slopes[::2] == pytest.approx([-1, -1], abs=0.25)
    assert slopes[1] > -0.7
    for name, slope in (("softplus", -0.6), ("tanh", -1.2)):
        rate = statistics.loglog_slope(
            found["ode_depth"], found["ode"].sel(network=name, ode_draw=0)
        )
        assert rate.value == pytest.approx(slope, abs=0.03), name


def test_spectral_norms_are_those_of_the_periodic_map():
    kernels = jr.normal(jr.key(15), (2, 2, 3, 3, 3))
    found = convolution.spectral_norms(kernels, 4)

    def periodic(kernel, image):  # convolution, by shifts
        shifted = jnp.stack(
            [jnp.roll(image, (i, j), (1, 2)) for i in range(3) for j in range(3)]
        )
        return jnp.einsum("oct,tcxy->oxy", kernel.reshape(2, 3, 9), shifted)

    for kernel, norm in zip(kernels, found, strict=True):
        jacobian = jax.jacobian(lambda z, k=kernel: periodic(k, z))(jnp.ones((3, 4, 4)))
        expected = np.linalg.norm(np.asarray(jacobian).reshape(32, 48), 2)
        assert float(norm) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: start(delta="two"), "unknown delta 'two'"),
        (lambda: setting.network(jnp.ones((2, 4, 3))), r"width \+ 2"),
        (
            lambda: shuffling.shuffled_orders(8, 9, 1, "views", key=jr.key(0)),
            "between 1 and 8",
        ),
        (
            lambda: shuffling.shuffled_orders(8, 2, 1, "pairs", key=jr.key(0)),
            "unknown shuffling 'pairs'; known: examples, batches, views",
        ),
        (lambda: scaling.grid(1.0, 3, 9), "base must exceed 1"),
        (lambda: setting.pairs("cifar", 8, 8, key=jr.key(0)), "unknown data"),
        (lambda: scaling.Scaling(optimiser="lion"), "unknown optimiser 'lion'"),
        (lambda: scaling.Scaling(depths=(1, 8)), "depths must be at least 2"),
        (lambda: scaling.Scaling(batch=2048), "between 1 and 1024 examples: got 2048"),
        (lambda: scaling.Scaling(loss=np.nan), r"loss must lie in \[0, inf\)"),
        (lambda: scaling.Scaling(patience=10**12), "patience are at most"),
        (lambda: scaling.Scaling(epochs=10**12), "would take 4.1e.16 bytes"),
        (
            lambda: scaling.Scaling(data="mnist", test=10_001),
            "60000 images to train and 10000 to test with: got 1024 and 10001",
        ),
        (lambda: sde("softplus"), "vanish at 0 with slope 1: got 0.693 and 0.5"),
        (lambda: sde(std_bias=-1.0), "std_bias must lie"),
        (lambda: sde(std_bias=np.nan), "std_bias must .* got nan"),
        (
            lambda: OneLayerSDE(
                jnp.ones((3, 2)), jnp.ones(3), std_matrix=1.0, std_bias=1.0
            ),
            r"\(d, d\) and bias \(d,\): got \(3, 2\), \(3,\)",
        ),
        (
            lambda: OneLayerSDE(
                jnp.ones((1, 1)), jnp.full(1, jnp.nan), std_matrix=1.0, std_bias=1.0
            ),
            "the bias holds NaN",
        ),
        (lambda: limits.Limits(depths=(3,), finest=8), "every depth must divide 8"),
        (lambda: limits.Limits(ode_depths=(3, 4)), r"divide 4: \(3, 4\)"),
        (lambda: limits.Limits(alpha=1.5), r"alpha must lie in \[0, 1\]: got 1.5"),
        (lambda: limits.Limits(draws=10**12), "this would take"),
        (
            lambda: statistics.trend_and_noise(jnp.ones((4, 1)), window=0.0),
            "window must lie",
        ),
        (
            lambda: trend.Trend(depths=(4, 8), windows=((16,),)),
            "windows must hold some of the depths",
        ),
        (lambda: trend.Trend(windows=()), "windows must hold some of the depths"),
        (lambda: trend.Trend(windows=((),)), "windows must hold some of the depths"),
        (lambda: trend.Trend(windows=(256,)), "windows must be of the kind"),
        (lambda: trend.Trend(beta=np.nan), r"beta must lie in \[0, 1\]"),
        (lambda: budget.Budget(cases=()), "at least one case"),
        (lambda: budget.Budget(cases=((0.1, 0.0),)), r"left must lie in \(0, 1\]"),
        (lambda: budget.Budget(steps=100), "steps must be a multiple of every: got 10"),
        (lambda: budget.Budget(steps=4, every=4), "steps must be at least 8"),
        (lambda: budget.Budget(delta="layer"), "unknown delta 'layer'; known: shared"),
        (lambda: defect.Shuffling(rows=("cards",)), "unknown shuffling 'cards'"),
        (lambda: defect.Shuffling(counted=0), "counted must be positive"),
        (lambda: defect.Shuffling(batch=2000), "between 1 and 1024"),
        (lambda: robustness.Robustness(cases=()), "at least one case"),
        (
            lambda: robustness.Robustness(cases=(("tanh", "shared"),)),
            "cases must be of the kind",
        ),
        (
            lambda: robustness.Robustness(
                cases=(("tanh", "shared", "adam", "fast", 0.0, 2),)
            ),
            "cases must be of the kind .*'fast'",
        ),
        (
            lambda: robustness.Robustness(
                cases=(("tanh", "shared", "adam", 1e-2, 0.0, 0),)
            ),
            "epochs must be positive",
        ),
        (lambda: convolution.Convolutional(depths=(1,)), "depths must be at least 2"),
        (lambda: convolution.Convolutional(batch=1438), "batch is at most 1437"),
        (lambda: convolution.Convolutional(momentum=-1.0), "momentum must be at least"),
    ],
)
def test_errors(make, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        make()


def test_another_seed_needs_two():
    found = experiments.find("cohen2021/tanh-path")
    with pytest.raises(ValueError, match="at least two: got seeds=1"):
        found.run(replace(found.preset("smoke"), seeds=1), key=jr.key(0))
