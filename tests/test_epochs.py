"""Training by epochs: a plain loop, the stopping rule, the batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from deeplimits.epochs import Stopping, consecutive_batches, fit, orders
from deeplimits.losses import mean_square_entry
from deeplimits.residual import OneLayer, ResNet


def problem(activation="tanh"):
    weight = 0.1 * jr.normal(jr.key(0), (6, 3, 3))
    model = ResNet(OneLayer(weight, activation=activation), beta=0.0)
    x = jr.normal(jr.key(1), (12, 3))
    return model, (x, 0.5 * x), orders(12, 4, 7, key=jr.key(2))


def by_hand(model, data, batches, epochs):
    """Adam in a plain loop."""
    params, fixed = eqx.partition(model, eqx.is_inexact_array)
    optimiser = optax.adam(0.05)
    state, means = optimiser.init(params), []
    for epoch in batches[:epochs]:
        values = []
        for chosen in epoch:
            part = jax.tree.map(lambda a, c=chosen: a[c], data)
            value, grads = jax.value_and_grad(
                lambda p, part=part: mean_square_entry(eqx.combine(p, fixed), part)
            )(params)
            changes, state = optimiser.update(grads, state, params)
            params = optax.apply_updates(params, changes)
            values.append(float(value))
        means.append(np.mean(values))
    return eqx.combine(params, fixed), means


def test_fit_is_a_plain_loop_and_stops_below_the_loss(promoting):
    model, data, batches = problem()
    expected, means = by_hand(model, data, batches, 3)
    assert means[2] < min(means[:2])
    rule = Stopping(loss=1.001 * means[2], epochs=7)
    found = fit(model, data, batches, mean_square_entry, optax.adam(0.05), rule)
    assert (int(found.epochs), bool(found.reached)) == (3, True)
    np.testing.assert_allclose(found.losses[:3], means, rtol=1e-8)
    assert np.isnan(found.losses[3:]).all()
    leaves = jax.tree.leaves(found.model), jax.tree.leaves(expected)
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("patience", [2, 4, 2**31 - 1])
def test_fit_stops_when_it_no_longer_improves(patience):
    """The first epoch improves on infinity, those that follow on nothing."""
    model, data, batches = problem()
    rule = Stopping(loss=0.0, epochs=7, patience=patience, improvement=0.99)
    found = fit(model, data, batches, mean_square_entry, optax.sgd(1e-6), rule)
    expected = (min(1 + patience, 7), False)
    assert (int(found.epochs), bool(found.reached)) == expected


def test_waiting_starts_again_with_each_improvement():
    """Targets change from epoch to epoch, so that the losses are known: 8, 4, 4, 2,
    2, 2, and nobody learns."""
    model = ResNet(OneLayer(jnp.zeros((2, 1, 1))), beta=0.0)
    roots = jnp.sqrt(jnp.asarray([8.0, 4, 4, 2, 2, 2, 1]))
    data = (jnp.zeros((7, 1)), roots[:, None])
    batches = jnp.arange(7)[:, None, None]
    rule = Stopping(loss=0.5, epochs=7, patience=2, improvement=0.5 - 1e-6)
    found = fit(model, data, batches, mean_square_entry, optax.sgd(0.0), rule)
    np.testing.assert_allclose(found.losses[:6], [8, 4, 4, 2, 2, 2], rtol=1e-12)
    assert int(found.epochs) == 6


def test_fit_stops_at_a_loss_that_is_not_finite():
    model, data, batches = problem("identity")
    rule = Stopping(loss=0.0, epochs=7)
    found = fit(model, data, batches, mean_square_entry, optax.sgd(1e200), rule)
    assert int(found.epochs) < 3
    assert not bool(found.reached)


def test_seeds_at_once_are_seeds_one_by_one(promoting):
    model, (x, y), batches = problem()
    rule = Stopping(loss=0.06, epochs=7)
    scales = jnp.asarray([1.0, 0.3])

    def one(scale):
        data = (x, scale * y)
        return fit(model, data, batches, mean_square_entry, optax.adam(0.05), rule)

    together = eqx.filter_vmap(one)(scales)
    assert together.epochs[0] != together.epochs[1]
    for i in range(2):
        alone = one(scales[i])
        assert int(alone.epochs) == int(together.epochs[i])
        np.testing.assert_allclose(alone.losses, together.losses[i], rtol=1e-8)
        np.testing.assert_allclose(
            alone.model.block.weight, together.model.block.weight[i], rtol=1e-8
        )


def test_examples_are_dealt_anew_and_batches_keep_their_company():
    dealt = orders(10, 3, 5, key=jr.key(3))
    assert dealt.shape == (5, 3, 3)
    assert all(len(np.unique(epoch)) == 9 for epoch in dealt)
    assert len({tuple(np.ravel(epoch)) for epoch in dealt}) == 5
    kept = orders(10, 3, 5, "batches", key=jr.key(3))
    for epoch in kept:
        np.testing.assert_array_equal(np.sort(epoch[:, 0]), [0, 3, 6])
        np.testing.assert_array_equal(epoch - epoch[:, :1], [[0, 1, 2]] * 3)
    assert len({tuple(epoch[:, 0].tolist()) for epoch in kept}) > 1


def test_every_example_is_left_out_as_often_as_any_other():
    """Ten examples in batches of three: the one that is left over is dealt, too."""
    dealt = np.asarray(orders(10, 3, 2000, key=jr.key(4))).reshape(2000, 9)
    missing = np.array([45 - epoch.sum() for epoch in dealt])
    counts = np.bincount(missing, minlength=10)
    assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stopping(epochs=0),
            "epochs must be a whole number of at least 1: got 0",
        ),
        (lambda: Stopping(patience=0), "patience must be a whole number of at least 1"),
        (lambda: Stopping(loss=-1e-3), r"loss must lie in \[0, inf\)"),
        (lambda: Stopping(loss=np.nan), r"loss must lie in \[0, inf\): got nan"),
        (lambda: Stopping(improvement=np.nan), r"improvement must lie in \[0, 1\)"),
        (lambda: Stopping(improvement=-0.1), r"improvement must lie in \[0, 1\)"),
        (lambda: Stopping(improvement=1.0), r"improvement must lie in \[0, 1\)"),
        (lambda: Stopping(patience=2**31), "at most 2147483647: got 10, 2147483648"),
        (lambda: orders(8, 9, 1, key=jr.key(0)), "between 1 and 8 examples: got 9"),
        (lambda: consecutive_batches(8, 0), "size must be a whole number"),
        (
            lambda: orders(8, 2, 0, key=jr.key(0)),
            "epochs must be a whole number of at least 1: got 0",
        ),
        (lambda: orders(8, 2, 1, "pairs", key=jr.key(0)), "unknown shuffling 'pairs'"),
        (lambda: fitted(Stopping(epochs=8)), "batches for 7 epochs: the rule allows 8"),
        (lambda: fitted(Stopping(epochs=7), jnp.nan), "the data holds NaN"),
    ],
)
def test_errors(make, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        make()


def fitted(rule, factor=1.0):
    model, (x, y), batches = problem()
    return fit(model, (x, factor * y), batches, mean_square_entry, optax.sgd(0.1), rule)


def test_what_is_not_trained_may_be_complex():
    def loss(model, part, key):
        return jnp.sum((model[0] - part) ** 2)

    model, batches = (jnp.ones(1), jnp.ones(1, complex)), orders(2, 1, 3, key=jr.key(9))
    options = batches, loss, optax.sgd(0.1), Stopping(epochs=3)
    found = fit(model, jnp.zeros(2), *options, trainable=(True, False))
    assert found.losses[1] < found.losses[0]
    with pytest.raises(ValueError, match=r"what is trained\[1\] must be floats"):
        fit(model, jnp.zeros(2), *options)


@pytest.mark.parametrize("model", [jnp.array([2j]), jnp.array([2])])
def test_only_floats_are_trained(model):
    def loss(z, part, key):
        return jnp.sum(jnp.abs(z) ** 2)

    batches = orders(2, 1, 5, key=jr.key(8))
    with pytest.raises(ValueError, match=r"must be floats|nothing is trained"):
        fit(model, jnp.ones(2), batches, loss, optax.sgd(0.1), Stopping(epochs=5))


def test_data_of_numpy_are_fitted(as_in_use):
    model, data, batches = problem()
    rule = Stopping(epochs=3)
    options = batches, mean_square_entry, optax.sgd(0.1), rule
    found = fit(model, jax.tree.map(np.asarray, data), *options)
    np.testing.assert_array_equal(found.losses, fit(model, data, *options).losses)
    with pytest.raises(ValueError, match=r"rule must be a Stopping: got \{\}"):
        fit(model, data, batches, mean_square_entry, optax.sgd(0.1), {})
