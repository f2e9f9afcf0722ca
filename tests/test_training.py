"""Laws of training: exact replay, the factor L, divergence, resumption."""

import subprocess
import sys
from functools import partial

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from deeplimits import (
    checkpoints,
    gradient_flow,
    initialisation,
    losses,
    training,
)
from deeplimits.residual import Matrix, ResNet, TwoLayer


def problem(depth=4, n=5, q=3, m=6, *, key, outer=0.0, **options):
    v_key, w_key, x_key, y_key = jr.split(key, 4)
    v = outer * jr.normal(v_key, (depth, q, m))
    w = initialisation.tied(depth, (m, q), key=w_key)
    network = ResNet(TwoLayer(v, w, activation="tanh"), **options)
    return network, (jr.normal(x_key, (n, q)), jr.normal(y_key, (n, q)))


def numpy_descent(v, w, x, y, rate, steps):
    """Gradient descent of equation (3) with tanh, written out by hand in NumPy."""
    (depth, q, m), n = v.shape, len(x)
    losses = []
    for _ in range(steps):
        states, inner = [x], []
        for k in range(depth):
            inner.append(np.tanh(states[-1] @ w[k].T / np.sqrt(q)))
            states.append(states[-1] + inner[-1] @ v[k].T / np.sqrt(m) / depth)
        losses.append(np.sum((states[-1] - y) ** 2) / n)
        p = 2 * (states[-1] - y) / n
        dv, dw = np.zeros_like(v), np.zeros_like(w)
        for k in reversed(range(depth)):
            dv[k] = p.T @ inner[k] / np.sqrt(m) / depth
            back = (p @ v[k]) * (1 - inner[k] ** 2) / np.sqrt(m) / depth
            dw[k] = back.T @ states[k] / np.sqrt(q)
            p = p + back @ w[k] / np.sqrt(q)
        v, w = v - depth * rate * dv, w - depth * rate * dw
    return v, w, np.array(losses)


def test_replays_an_external_run_exactly():
    network, (x, y) = problem(depth=6, outer=0.5, key=jr.key(0))
    v, w, descended = numpy_descent(
        *map(np.asarray, (network.block.outer, network.block.inner, x, y)), 0.05, 300
    )
    rule = optax.chain(training.depth_factor(), optax.sgd(0.05))
    run = training.train(
        network, (x, y), losses.mean_square, rule, 300, trainable=training.only_layers
    )
    assert run.finished() is run
    np.testing.assert_allclose(run.losses, descended, rtol=1e-9)
    np.testing.assert_allclose(run.model.block.outer, v, rtol=1e-9)
    np.testing.assert_allclose(run.model.block.inner, w, rtol=1e-9)


def test_tied_layers_stay_equal_but_for_order_one_over_depth():
    """The factor L makes the motion of a layer independent of the depth."""
    rule = optax.chain(training.depth_factor(), optax.sgd(0.1))

    def moved(depth):
        network, data = problem(depth=depth, key=jr.key(2))
        run = training.train(network, data, losses.mean_square, rule, 20)
        return float(jnp.linalg.norm(run.model.block.outer[depth // 2]))

    assert moved(64) == pytest.approx(moved(16), rel=0.05)


def test_records_are_of_the_steps_they_name():
    network, data = problem(key=jr.key(3))
    record = lambda m: {"v": m.block.outer.sum(), "w": m.block.inner[0]}  # noqa: E731
    rule = optax.sgd(0.1)
    all_steps = training.train(
        network, data, losses.mean_square, rule, 12, record=record
    )
    some = training.train(
        network, data, losses.mean_square, rule, 12, record=record, every=3, chunk=3
    )
    assert some.recorded.tolist() == [0, 3, 6, 9, 12]
    np.testing.assert_allclose(some.records["v"], all_steps.records["v"][::3])
    np.testing.assert_allclose(some.records["w"], all_steps.records["w"][::3])
    np.testing.assert_allclose(some.losses, all_steps.losses)
    np.testing.assert_allclose(some.records["w"][-1], some.model.block.inner[0])


def test_divergence_ends_the_run_and_keeps_its_records():
    network, data = problem(outer=1.0, key=jr.key(4))
    run = training.train(
        network,
        data,
        losses.mean_square,
        optax.sgd(1e6),
        400,
        record=lambda m: m.depth,
    )
    assert run.diverged
    assert 0 < run.steps < 400
    assert len(run.losses) == run.steps
    assert np.isfinite(run.losses).all()
    assert len(run.records) == run.steps + 1
    with pytest.raises(ValueError, match=rf"finite after {run.steps} of 400 steps"):
        run.finished()


@pytest.fixture
def lenient():
    """Optax's Adam raises a float to an integer, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_ensemble_members_are_the_single_runs(lenient):
    rule = optax.adam(0.01)
    members = [problem(key=jr.key(seed)) for seed in (5, 6, 7)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *members)
    run = training.train(
        *stacked,
        losses.mean_square,
        rule,
        10,
        record=lambda m: m.block.outer.sum(),
        ensemble=True,
        every=2,
    )
    assert run.records.shape == (3, 6)
    assert run.losses.shape == (3, 10)
    for i, (network, data) in enumerate(members):
        single = training.train(
            network,
            data,
            losses.mean_square,
            rule,
            10,
            record=lambda m: m.block.outer.sum(),
            every=2,
        )
        np.testing.assert_allclose(run.losses[i], single.losses, rtol=1e-9)
        np.testing.assert_allclose(run.records[i], single.records, rtol=1e-9)


AS_IN_USE = """
import jax, jax.numpy as jnp, jax.random as jr, optax
from deeplimits import losses, residual, training

model = residual.ResNet(residual.OneLayer(0.3 * jr.normal(jr.key(0), (4, 3, 3))))
x, y = jr.normal(jr.key(1), (2, 5, 3))
rule = optax.chain(training.depth_factor(), optax.adam(0.01))
run = training.train(model, (x, y), losses.mean_square, rule, 30).finished()
assert run.losses.dtype == run.model.block.weight.dtype == "float32"
assert run.losses[-1] < run.losses[0]
try:
    training.train(model, (x, y[:, :1]), losses.mean_square, rule, 1)
except ValueError as error:
    assert "the outputs' shape (5, 3): got (5, 1)" in str(error), error
else:
    raise AssertionError("targets of another shape")
"""


def test_training_in_the_default_configuration():
    """Float32 and promotion as JAX has them, no check of annotations."""
    command = [sys.executable, "-c", AS_IN_USE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_frozen_maps_do_not_move():
    maps = {"encoder": Matrix(jnp.eye(3)), "decoder": Matrix(jnp.eye(3))}
    network, data = problem(key=jr.key(8), **maps)
    rule = optax.chain(training.depth_factor(), optax.sgd(0.1))
    free = training.train(network, data, losses.mean_square, rule, 3).model
    held = training.train(
        network, data, losses.mean_square, rule, 3, trainable=training.only_layers
    ).model
    assert not np.allclose(free.decoder.weight, np.eye(3))
    np.testing.assert_array_equal(held.decoder.weight, np.eye(3))


def test_clipping_bounds_every_step():
    network, data = problem(outer=1.0, key=jr.key(9))
    rule = optax.chain(training.depth_factor(), optax.clip(0.01), optax.sgd(1.0))
    after = training.train(network, data, losses.mean_square, rule, 1).model
    moved = jnp.abs(after.block.outer - network.block.outer)
    assert float(moved.max()) == pytest.approx(0.01)


def test_gradient_flow_is_the_limit_of_descent():
    network, data = problem(outer=0.5, key=jr.key(10))
    flowed = gradient_flow.flow(
        network, data, losses.mean_square, jnp.asarray([0.5, 1.0])
    )
    gaps = []
    for steps in (50, 100, 200):
        rule = optax.chain(training.depth_factor(), optax.sgd(1 / steps))
        run = training.train(network, data, losses.mean_square, rule, steps)
        gaps.append(
            float(jnp.abs(run.model.block.outer - flowed.block.outer[-1]).max())
        )
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.1)
    coarse = gradient_flow.flow(
        network,
        data,
        losses.mean_square,
        jnp.asarray([0.0, 1.0]),
        solver=diffrax.Tsit5(),
        tolerance=1e-4,
    )
    np.testing.assert_array_equal(coarse.block.outer[0], network.block.outer)
    np.testing.assert_allclose(coarse.block.outer[1], flowed.block.outer[1], atol=1e-3)


@pytest.mark.parametrize("times", [[1.0, 0.5], [-1.0, 1.0], [0.0, np.nan], [np.inf]])
def test_a_flow_goes_forwards(times, as_in_use):
    network, data = problem(key=jr.key(10))
    with pytest.raises(ValueError, match=r"times must increase within \[0, inf\]"):
        gradient_flow.flow(network, data, losses.mean_square, times)


def test_a_flow_starts_where_it_starts(as_in_use):
    """Whole times, and no time at all."""
    network, data = problem(outer=0.5, key=jr.key(10))
    found = gradient_flow.flow(network, data, losses.mean_square, [0, 0])
    for k in range(2):
        np.testing.assert_array_equal(found.block.outer[k], network.block.outer)


def test_batches_are_drawn_anew_and_reproducibly():
    network, data = problem(n=40, key=jr.key(11))
    loss = losses.on_batches(losses.mean_square, 8)

    def drawn(seed):
        return training.train(
            network, data, loss, optax.sgd(1e-9), 6, key=jr.key(seed)
        ).losses

    assert np.unique(drawn(0).round(8)).size == 6
    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.allclose(drawn(0), drawn(1))


def test_one_compilation_for_runs_of_one_shape():
    network, data = problem(key=jr.key(12))
    counted = eqx.debug.assert_max_traces(losses.mean_square, max_traces=3)
    rule = optax.sgd(0.1)
    for steps in (20, 20, 40):  # the shape of the loss, the update, the last loss
        training.train(network, data, counted, rule, steps, chunk=5)


def test_a_saved_run_goes_on_to_the_same_numbers(tmp_path, lenient):
    network, data = problem(key=jr.key(13))
    loss = losses.on_batches(losses.mean_square, 3)
    options = {
        "record": lambda m: m.block.outer,
        "every": 2,
        "chunk": 2,
        "key": jr.key(0),
    }
    rule = optax.adam(0.01)
    whole = training.train(network, data, loss, rule, 20, **options)

    class Stop(Exception):
        pass

    def stop_after(save, count):
        def saved(self, state, kept):
            save(self, state, kept)
            if int(state.step) >= count:
                raise Stop

        return saved

    path = tmp_path / "run.npz"
    original = checkpoints.Checkpoint.save
    checkpoints.Checkpoint.save = stop_after(original, 8)
    try:
        with pytest.raises(Stop):
            training.train(network, data, loss, rule, 20, checkpoint=path, **options)
    finally:
        checkpoints.Checkpoint.save = original
    resumed = training.train(network, data, loss, rule, 20, checkpoint=path, **options)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    np.testing.assert_array_equal(resumed.records, whole.records)
    finished = training.train(network, data, loss, rule, 20, checkpoint=path, **options)
    np.testing.assert_array_equal(finished.records, whole.records)

    with pytest.raises(ValueError, match="belongs to another run"):
        training.train(network, data, loss, rule, 40, checkpoint=path, **options)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        training.train(network, data, loss, rule, 20, checkpoint=path, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": 10, "every": 3}, "steps=10, every=3"),
        ({"chunk": -1}, "chunk must be positive: got -1"),
        ({"data": (jnp.ones((2, 3)), jnp.full((2, 3), jnp.nan))}, "the data holds NaN"),
    ],
)
def test_errors(change, message):
    network, data = problem(key=jr.key(14))
    options = {"data": data, "steps": 5} | change
    with pytest.raises(ValueError, match=message):
        training.train(
            network, loss=losses.mean_square, optimiser=optax.sgd(0.1), **options
        )


def test_weights_that_are_not_finite_are_refused():
    network, data = problem(key=jr.key(15), encoder=Matrix(jnp.full((3, 3), jnp.inf)))
    with pytest.raises(ValueError, match="the model holds NaN or infinity"):
        training.train(network, data, losses.mean_square, optax.sgd(0.1), 5)


@pytest.mark.parametrize("leafwise", [eqx.is_array, eqx.is_inexact_array])
def test_filters_of_leaves_and_of_the_model_train_the_same(leafwise):
    network, data = problem(key=jr.key(17), decoder=Matrix(jnp.eye(3)))
    each = partial(jax.tree.map, leafwise)
    for trainable in (leafwise, each, each(network)):
        run = training.train(
            *(network, data, losses.mean_square, optax.sgd(0.1), 2),
            trainable=trainable,
        )
        for old, new in zip(
            jax.tree.leaves(network), jax.tree.leaves(run.model), strict=True
        ):
            assert not np.allclose(old, new)


@pytest.mark.parametrize("end", [np.nan, np.inf])
def test_a_loss_that_the_last_update_blows_up_is_noticed(end):
    """Whether infinities cancel to NaN depends on the order of sums, and that on the
    number of processors: here it is said."""

    def loss(model, data, key):
        value = losses.mean_square(model, data)
        return jnp.where(jnp.isfinite(value), value, end)

    network, data = problem(1, outer=1.0, key=jr.key(18))
    run = training.train(network, data, loss, optax.sgd(1e160), 1)
    assert np.isfinite(run.losses).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.model))
    np.testing.assert_equal(float(loss(run.model, data, None)), end)
    with pytest.raises(ValueError, match="after 1 of 1 steps"):
        run.finished()


def test_an_ensemble_names_the_step_of_the_member_that_ended_first():
    network, (x, y) = problem(key=jr.key(19))
    both = jax.tree.map(lambda a: jnp.stack([a, a]), (network, x))
    data = both[1], jnp.stack([y, 1e200 * y])
    run = training.train(
        both[0], data, losses.mean_square, optax.sgd(0.1), 20, ensemble=True
    )
    assert run.steps == 20
    with pytest.raises(ValueError, match="after 0 of 20 steps"):
        run.finished()


def _changed(name):
    network, data = problem(key=jr.key(13))
    block = network.block
    relu = TwoLayer(block.outer, block.inner, activation="relu")
    encoder = Matrix(2 * jnp.eye(3))
    return {
        "rate": {"optimiser": optax.sgd(0.001)},
        "optimiser": {"optimiser": optax.sgd(0.1, momentum=0.9)},
        "beta": {"model": ResNet(block, Matrix(jnp.eye(3)), beta=0.0)},
        "activation": {"model": ResNet(relu, Matrix(jnp.eye(3)))},
        "frozen": {"model": ResNet(block, encoder)},
        "key": {"key": jr.key(1)},
        "loss": {"loss": losses.on_batches(losses.mean_square_entry, 3)},
        "data": {"data": (data[0], data[1] + 1)},
        "chunk": {"chunk": 3},
    }[name]


@pytest.mark.parametrize(
    "name",
    ["rate", "optimiser", "beta", "activation", "frozen", "key", "loss", "data"],
)
def test_a_saved_run_is_not_taken_for_another(name, tmp_path):
    network, data = problem(key=jr.key(13), encoder=Matrix(jnp.eye(3)))
    options = {
        "model": network,
        "data": data,
        "loss": losses.on_batches(losses.mean_square, 3),
        "optimiser": optax.sgd(0.1),
        "steps": 6,
        "key": jr.key(0),
        "trainable": training.only_layers,
        "checkpoint": tmp_path / "run.npz",
    }
    first = training.train(**options).losses
    again = training.train(**options | _changed("chunk")).losses
    np.testing.assert_array_equal(first, again)
    with pytest.raises(ValueError, match="belongs to another run"):
        training.train(**options | _changed(name))


def test_a_checkpoint_that_could_not_be_read_again_is_not_written(tmp_path):
    huge = np.broadcast_to(np.float64(1), (2**15, 2**14))
    checkpoint = checkpoints.Checkpoint(tmp_path / "x.npz", "a run")
    with pytest.raises(ValueError, match=f"would take {2**32 + 8} bytes"):
        checkpoint.save({"w": huge}, [np.float64(0)])
    assert list(tmp_path.iterdir()) == []


def squares(model, data, key):
    return jnp.sum(jnp.abs(model) ** 2)


@pytest.mark.parametrize(
    ("model", "trainable", "words"),
    [
        (jnp.array([1j]), eqx.is_inexact_array, "must be floats: got complex"),
        (jnp.array([1, 2]), eqx.is_inexact_array, "nothing is trained"),
        (jnp.array([1.0]), lambda model: False, "nothing is trained"),
    ],
)
def test_what_cannot_be_trained_is_refused(model, trainable, words):
    """What JAX calls the gradient of a complex weight is the conjugate: it would climb,
    and integers would stay where they are, without a word."""
    with pytest.raises(ValueError, match=words):
        training.train(model, None, squares, optax.sgd(0.1), 3, trainable=trainable)
    with pytest.raises(ValueError, match=words):
        gradient_flow.flow(model, None, squares, jnp.ones(1), trainable=trainable)


def test_a_flow_takes_no_optimiser(as_in_use):
    """Their updates point downhill, and the flow goes against what a rule returns."""
    network, data = problem(key=jr.key(3))
    times = jnp.array([0.0, 1.0])
    for rule in (optax.sgd(1.0), optax.adam(1.0)):
        with (
            jax.numpy_dtype_promotion("standard"),
            pytest.raises(ValueError, match="would climb"),
        ):
            gradient_flow.flow(network, data, losses.mean_square, times, rule=rule)


def test_a_flow_keeps_to_a_plane():
    """Its rule takes the ones to nothing, but for rounding."""
    normal = jnp.ones(7) / jnp.sqrt(7.0)
    rule = optax.stateless(lambda grads, _: grads - normal * (normal @ grads))
    start, times = jnp.arange(7.0), jnp.array([5.0])
    path = gradient_flow.flow(start, None, lambda z, *_: z @ z / 2, times, rule=rule)
    off = start.mean()
    np.testing.assert_allclose(path[0], off + (start - off) * np.exp(-5), atol=1e-6)
