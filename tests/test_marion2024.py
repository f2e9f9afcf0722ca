"""The experiments of Marion et al.: published values, closed forms, resumption."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

from deeplimits import checkpoints, exercises, experiments, losses, training
from deeplimits.collocation import Grid, interpolate
from deeplimits.experiments.marion2024 import (
    counterexample,
    depth,
    digits,
    initialisation,
    limit,
    long_time,
    setting,
)
from deeplimits.intervals import Kind
from deeplimits.residual import ResNet, TwoLayer
from deeplimits.statistics import loglog_slope


def test_what_computes_in_double_precision_says_so():
    with jax.enable_x64(False):
        for name in ("relu-counterexample", "depth-convergence"):
            experiment = experiments.find(f"marion2024/{name}")
            found = experiment.run(experiment.preset("smoke"), key=jr.key(0))
            assert "float64" in found.attrs["dtype"], name


def test_the_script_gives_the_values_of_the_published_panel():
    config = depth.SuccessiveDistance(("script",), (2, 16), steps=450)
    dataset = depth.successive_distance.run(config, key=jr.key(0))
    for horizon, published in {50: (0.4160, 0.1620), 450: (18.767, 6.940)}.items():
        values = depth.aggregate(dataset, horizon).sel(variant="script")
        np.testing.assert_allclose(values, published, rtol=1e-2)


def test_aggregate_of_distances_of_order_one_over_depth_has_slope_minus_one_half():
    depths = np.array([16, 64, 256, 1024])
    squares = ((depths - 1) / depths**2)[:, None] * np.ones(5)
    dims = ("depth", "iteration")
    dataset = xr.Dataset({"squares_outer": (dims, squares)}, {"depth": depths})
    slope = loglog_slope(depths, depth.aggregate(dataset, 3)).value
    assert abs(slope + 0.5) < 0.01


def test_the_even_layers_of_appendix_d_reach_the_closed_form():
    config = counterexample.Counterexample((2, 5), steps=4000, every=4000)
    dataset = counterexample.relu_counterexample.run(config, key=jr.key(0))
    dataset = dataset.isel(iteration=-1)
    expected = [2 * L * (3 ** (1 / L) - 1) for L in (2, 5)]
    np.testing.assert_allclose(dataset["limit"], expected, rtol=1e-12)
    np.testing.assert_allclose(dataset["even_low"], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset["even_high"], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset["odd_low"], [-1 / 4, -1 / 10], rtol=0)
    np.testing.assert_allclose(dataset["odd_high"], [-1 / 4, -1 / 10], rtol=0)


def test_time_to_reach_solves_its_equation():
    ratio, step = np.linspace(1.1, 2.9, 7), 1e-6
    slope = (
        counterexample.time_to_reach(ratio + step, 1.0, 3.0)
        - counterexample.time_to_reach(ratio - step, 1.0, 3.0)
    ) / (2 * step)
    np.testing.assert_allclose(slope, 1 / ((3 - ratio) * ratio**2), rtol=1e-6)


def test_a_target_below_one_has_no_counterexample():
    with pytest.raises(ValueError, match=r"above 1: got 0\.5"):
        counterexample.Counterexample(target=0.5)


def _midway():
    """A grid, data, and weights that vary with depth."""
    config = limit.LimitDynamics()
    grid = Grid(config.nodes, config.substeps)
    model = limit.initial(config, config.nodes, key=jr.key(1))
    wave = jnp.sin(2 * jnp.asarray(grid.nodes))[:, None, None]
    bump = wave * jr.normal(jr.key(2), model.block.outer.shape[1:])[None]
    block = jax.tree.map(lambda z: z, model.block)
    block = type(block)(model.block.outer + bump, block.inner, activation="tanh")
    return (
        grid,
        limit.squares(6, key=jr.key(3)),
        ResNet(block, model.encoder, model.decoder),
    )


def _mismatch(depth, printed=False):
    grid, data, model = _midway()
    matrix = grid.at(np.arange(depth) / depth)
    network = ResNet(interpolate(matrix, model.block), model.encoder, model.decoder)
    exact = limit.network_gradient(network, data=data).block.outer
    ours = limit.limit_gradient(model, grid=grid, data=data, printed=printed).block
    gap = interpolate(matrix, ours).outer - exact
    return float(jnp.linalg.norm(gap) / jnp.linalg.norm(exact))


def test_the_corrected_adjoint_is_the_limit_of_automatic_differentiation():
    coarse, fine = _mismatch(256), _mismatch(512)
    assert fine < 0.01
    assert abs(coarse / fine - 2) < 0.05


def test_the_printed_adjoint_is_not():
    assert _mismatch(512, printed=True) > 0.1


def test_the_grid_interpolates_polynomials_exactly():
    grid, points = Grid(6, 2), np.linspace(0, 1, 9)
    np.testing.assert_allclose(grid.at(points) @ grid.nodes**5, points**5, atol=1e-14)


def test_the_depth_solver_is_exact_where_the_equation_is_linear_in_time():
    grid, _, model = _midway()
    still = jax.tree.map(jnp.zeros_like, model.block)
    model = ResNet(still, model.encoder, model.decoder)
    hidden = limit.forward(model, grid, jnp.array([1.0, 2.0]))
    assert hidden.shape == (grid.count, 5)
    assert np.array_equal(hidden, np.broadcast_to(hidden[0], hidden.shape))


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(tmp_path, monkeypatch):
    config, run = (
        long_time.LongTime((2, 4), steps=60, every=2),
        long_time.train_long.run,
    )
    whole = run(config, key=jr.key(0))
    save, calls = checkpoints.Checkpoint.save, []

    def dying(self, *state):
        save(self, *state)
        calls.append(1)
        if len(calls) == 7:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "save", dying)
    with pytest.raises(Killed):
        run(config, key=jr.key(0), scratch=tmp_path)
    again = run(config, key=jr.key(0), scratch=tmp_path)
    assert len(calls) > 7
    xr.testing.assert_identical(whole, again)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: depth.SuccessiveDistance(variants=("print",)),
            "unknown variant 'print'; known: script",
        ),
        (
            lambda: initialisation.Initialisation(initialisations=("rough",)),
            "unknown initialisation 'rough'; known: tied",
        ),
        (
            lambda: digits.Digits(initialisations=()),
            "choose at least one initialisation; known: tied, independent",
        ),
        (
            lambda: depth.DepthConvergence(depths=(3, 8), reference=16),
            "each depth must divide the largest",
        ),
        (
            lambda: long_time.LongTime(steps=30, every=7),
            "steps must be a multiple of every: got 30 and 7",
        ),
        (lambda: long_time.LongTime(column=16), "row and column must lie between"),
        (lambda: long_time.LongTime(depths=(2, 10**12)), "this would take 4.8e.16 by"),
        (lambda: long_time.LongTime(n=8, d=6, m=8), "d . d must be a multiple of 16"),
        (lambda: depth.DepthConvergence(n=3, d=8), "n . d must be a multiple of 16"),
        (lambda: depth.SuccessiveDistance(d=3, m=8), "d . m must be a multiple of 16"),
        (lambda: limit.LimitDynamics(nodes=1), "nodes must be at least 3"),
        (lambda: Grid(1, 1), "count must be a whole number of at least 2"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_counterexample_starts_as_the_paper_says():
    weights = counterexample.network(3).block.weight[:, 0, 0]
    np.testing.assert_allclose(weights * 6, [-1, 1, -1, 1, -1, 1])


def _broken(depth=12, pair=5, unit=2):
    """Layers that grow slowly; from the one after `pair` on, a row is reflected."""
    growth = 1 + 0.01 * jnp.arange(float(depth))
    inner = jnp.einsum("k,md->kmd", growth, jr.normal(jr.key(4), (3, 2)))
    inner = inner.at[pair + 1 :, unit].multiply(-1)
    outer = 0.1 * jr.normal(jr.key(5), (depth, 2, 3))
    return ResNet(TwoLayer(outer, inner, activation="relu"))


def test_a_jump_is_found_where_it_was_put_and_its_crossings_are_those_of_a_loop():
    model, x = _broken(), jr.normal(jr.key(6), (7, 2))
    found = initialisation.jump(model, x)
    h, signs = x, []
    for W, V in zip(model.block.inner, model.block.outer, strict=True):
        signs.append(np.asarray(h @ W.T > 0))
        h = h + jax.nn.relu(h @ W.T / 2**0.5) @ V.T / 3**0.5 / model.depth
    changes = np.sum(np.diff(np.array(signs), axis=0), axis=1)  # pairs, units
    assert float(found["place"]) == pytest.approx(6 / 12)
    assert int(found["crossing"]) == changes[5, 2] == 7
    assert float(found["chance"]) == pytest.approx(np.mean(changes > 0))


def test_the_profile_keeps_the_largest_distance_of_each_interval():
    model = _broken()
    gaps = np.linalg.norm(np.diff(model.block.inner, axis=0), axis=(1, 2))
    found = initialisation.profile(model, 4)  # pairs 1-2, 3-5, 6-8 and 9-11, of 12
    expected = [max(gaps[:2]), max(gaps[2:5]), max(gaps[5:8]), max(gaps[8:])]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.flatnonzero(initialisation.profile(model, 24)).tolist() == [
        *range(2, 24, 2)
    ]


def _crossed(depth, target):
    """The weights of one unit with a crossing, trained."""
    one, model = jnp.ones((1, 1)), counterexample.crossing(depth)
    plan = losses.mean_square, setting.descent(0.001), 8000
    weights = counterexample._only_weights
    run = training.train(model, (one, target * one), *plan, trainable=weights)
    return np.asarray(run.finished().model.block.weight[:, 0, 0])


def test_a_jump_moves_by_the_distance_of_its_places():
    places = np.array([[0.5, 0.25, 0.875], [0.5, 0.75, 0.125], [0.25, 0.25, 0.25]])
    found = xr.Dataset({"place": (("depth", "seed"), places)}, {"depth": [64, 8, 16]})
    for pair in ((8, 64), (64, 8)):
        got = initialisation.moved(found, *pair)
        np.testing.assert_array_equal(got, [0.0, 0.5, 0.75])
    with pytest.raises(ValueError, match="unknown depth '32'; known: 64, 8, 16"):
        initialisation.moved(found, 8, 32)


def test_a_share_has_the_exact_binomial_interval():
    got = initialisation.share(np.array([True, True, False, True]))
    # k of n, Clopper and Pearson: P(at least k) and P(at most k) are 2.5 % at the ends
    assert got.value == 3 / 4
    assert got.kind is Kind.SEEDS
    assert 4 * got.low**3 - 3 * got.low**4 == pytest.approx(0.025, abs=1e-6)
    assert 1 - got.high**4 == pytest.approx(0.025, abs=1e-6)
    every = initialisation.share(np.full(10, True))
    assert every.numbers == pytest.approx((1, 0.025**0.1, 1), abs=1e-6)


@pytest.mark.parametrize("hits", [np.zeros(0, bool), np.ones((2, 2), bool), np.ones(3)])
def test_a_share_is_of_yes_and_no(hits, as_in_use):
    with pytest.raises(ValueError, match="hits must be a row of booleans"):
        initialisation.share(hits)


def test_a_crossing_tears_where_the_target_is_above():
    depths = np.array([32, 64, 128, 256])
    distances = [np.abs(np.diff(_crossed(int(L), 3.0))) for L in depths]
    places = [
        (gaps.argmax() + 1) / L for gaps, L in zip(distances, depths, strict=True)
    ]
    np.testing.assert_allclose(places, 0.5 - 1 / depths, rtol=1e-6)
    off = [gaps.max() - counterexample.jump(3.0) for gaps in distances]
    assert abs(loglog_slope(depths, off).value + 1) < 0.1
    others = [np.sort(gaps)[-2] * L for gaps, L in zip(distances, depths, strict=True)]
    np.testing.assert_array_less(others, 1 + 1e-6)  # the Lipschitz constant


def test_a_crossing_does_not_tear_where_the_target_is_below():
    assert counterexample.jump(1.05) == 0
    for layers in (32, 256):
        gaps = np.abs(np.diff(_crossed(layers, 1.05)))
        assert gaps.max() * layers < 1 + 0.5 / layers + 0.1  # a step may pass zero


def test_the_radius_of_the_exercise_is_the_true_threshold():
    assert exercises.is_right("implicit-pl-radius", 0.5 * 1**2 / 4)
    assert not exercises.is_right("implicit-pl-radius", (0.5 * 1 / (2 * 2)) ** 2)


def test_independent_second_kernels_move_independently_and_tied_ones_together():
    """Vectors of one length that have nothing in common are at sqrt(2) of it."""
    found = experiments.archive("marion2024/digits").mean("seed")
    share = (found["distance"] / found["moved"]).sel(activation="gelu")
    alone = share.sel(initialisation="independent", convolution=2)
    assert abs(float(alone) - 2**0.5) < 0.05
    assert float(share.sel(initialisation="tied").max()) < 0.1


def test_a_run_in_double_precision_is_one():
    experiment = experiments.find("marion2024/long-time")
    config = experiment.preset("smoke")
    with jax.enable_x64(False):
        single = experiment.run(config, key=jr.key(0))
    with jax.enable_x64(True):
        double = experiment.run(config, key=jr.key(0))
    assert {v.dtype for v in double.data_vars.values()} == {np.dtype("float64")}
    assert {v.dtype for v in single.data_vars.values()} == {np.dtype("float32")}
    np.testing.assert_allclose(double["loss"], single["loss"], rtol=1e-5)
