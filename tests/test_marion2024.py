"""The experiments of Marion et al.: published values, closed forms, resumption."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

from deeplimits import checkpoints, experiments
from deeplimits.experiments import marion2024
from deeplimits.experiments.marion2024 import counterexample, limit
from deeplimits.residual import ResNet
from deeplimits.statistics import loglog_slope


@pytest.mark.parametrize("experiment", marion2024.EXPERIMENTS, ids=lambda e: e.name)
def test_smoke_preset_gives_finite_labelled_data(experiment):
    dataset = experiment.run(experiment.preset("smoke"), key=jr.key(0))
    assert set(dataset.dims) <= set(dataset.coords)
    for name, values in dataset.data_vars.items():
        assert np.isfinite(values).all(), name


def test_what_computes_in_double_precision_says_so():
    with jax.enable_x64(False):
        for name in ("relu-counterexample", "depth-convergence"):
            experiment = experiments.find(f"marion2024/{name}")
            found = experiment.run(experiment.preset("smoke"), key=jr.key(0))
            assert "float64" in found.attrs["dtype"], name


def test_the_script_gives_the_values_of_the_published_panel():
    config = marion2024.SuccessiveDistance(("script",), (2, 16), steps=450)
    dataset = marion2024.successive_distance(config, key=jr.key(0))
    for horizon, published in {50: (0.4160, 0.1620), 450: (18.767, 6.940)}.items():
        values = marion2024.aggregate(dataset, horizon).sel(variant="script")
        np.testing.assert_allclose(values, published, rtol=1e-2)


def test_aggregate_of_distances_of_order_one_over_depth_has_slope_minus_one_half():
    depths = np.array([16, 64, 256, 1024])
    squares = ((depths - 1) / depths**2)[:, None] * np.ones(5)
    dims = ("depth", "iteration")
    dataset = xr.Dataset({"squares_outer": (dims, squares)}, {"depth": depths})
    slope = loglog_slope(depths, marion2024.aggregate(dataset, 3)).value
    assert abs(slope + 0.5) < 0.01


def test_the_even_layers_of_appendix_d_reach_the_closed_form():
    config = marion2024.Counterexample((2, 5), steps=4000, every=4000)
    dataset = marion2024.relu_counterexample(config, key=jr.key(0)).isel(iteration=-1)
    expected = [2 * L * (3 ** (1 / L) - 1) for L in (2, 5)]
    np.testing.assert_allclose(dataset["limit"], expected, rtol=1e-12)
    np.testing.assert_allclose(dataset["even_low"], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset["even_high"], expected, rtol=1e-6)
    np.testing.assert_allclose(dataset["odd_low"], [-1 / 4, -1 / 10], rtol=0)
    np.testing.assert_allclose(dataset["odd_high"], [-1 / 4, -1 / 10], rtol=0)


def test_time_to_reach_solves_its_equation():
    ratio, step = np.linspace(1.1, 2.9, 7), 1e-6
    slope = (
        marion2024.time_to_reach(ratio + step, 1.0, 3.0)
        - marion2024.time_to_reach(ratio - step, 1.0, 3.0)
    ) / (2 * step)
    np.testing.assert_allclose(slope, 1 / ((3 - ratio) * ratio**2), rtol=1e-6)


def test_a_target_below_one_has_no_counterexample():
    config = marion2024.Counterexample(target=0.5)
    with pytest.raises(ValueError, match=r"above 1: got 0\.5"):
        marion2024.relu_counterexample(config, key=jr.key(0))


def _midway():
    """A grid, data, and weights that vary with depth."""
    config = marion2024.LimitDynamics()
    grid = limit.Grid(config.nodes, config.substeps)
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
    network = ResNet(limit.between(matrix, model.block), model.encoder, model.decoder)
    exact = limit.network_gradient(network, data=data).block.outer
    ours = limit.limit_gradient(model, grid=grid, data=data, printed=printed).block
    gap = limit.between(matrix, ours).outer - exact
    return float(jnp.linalg.norm(gap) / jnp.linalg.norm(exact))


def test_the_corrected_adjoint_is_the_limit_of_automatic_differentiation():
    coarse, fine = _mismatch(256), _mismatch(512)
    assert fine < 0.01
    assert abs(coarse / fine - 2) < 0.05


def test_the_printed_adjoint_is_not():
    assert _mismatch(512, printed=True) > 0.1


def test_the_grid_interpolates_polynomials_exactly():
    grid, points = limit.Grid(6, 2), np.linspace(0, 1, 9)
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
    config = marion2024.LongTime(depths=(2, 4), steps=60, every=2)
    whole = marion2024.long_time(config, key=jr.key(0))
    save, calls = checkpoints.Checkpoint.save, []

    def dying(self, *state):
        save(self, *state)
        calls.append(1)
        if len(calls) == 7:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "save", dying)
    with pytest.raises(Killed):
        marion2024.long_time(config, key=jr.key(0), scratch=tmp_path)
    again = marion2024.long_time(config, key=jr.key(0), scratch=tmp_path)
    assert len(calls) > 7
    xr.testing.assert_identical(whole, again)


def test_unknown_names_are_refused():
    wrong = marion2024.SuccessiveDistance(variants=("print",))
    with pytest.raises(ValueError, match="unknown variant 'print'; known: script"):
        marion2024.successive_distance(wrong, key=jr.key(0))
    wrong = marion2024.Initialisation(initialisations=("rough",), depths=(2,))
    with pytest.raises(ValueError, match="unknown initialisation 'rough'; known: tied"):
        marion2024.initialisation(wrong, key=jr.key(0))
    wrong = marion2024.DepthConvergence(depths=(3, 8), reference=16)
    with pytest.raises(ValueError, match="each depth must divide the largest"):
        marion2024.depth_convergence(wrong, key=jr.key(0))


def test_the_counterexample_starts_as_the_paper_says():
    weights = counterexample.network(3).block.weight[:, 0, 0]
    np.testing.assert_allclose(weights * 6, [-1, 1, -1, 1, -1, 1])
