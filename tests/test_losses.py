"""Laws of the losses: numbers by hand, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from deeplimits import losses

identity = eqx.nn.Identity()


def test_losses_by_hand():
    x, y = jr.normal(jr.key(1), (2, 5, 3))
    squares = np.sum((np.asarray(x) - np.asarray(y)) ** 2)
    assert float(losses.mean_square(identity, (x, y))) == pytest.approx(squares / 5)
    entry = float(losses.mean_square_entry(identity, (x, y)))
    assert entry == pytest.approx(squares / 15)
    labels = jnp.asarray([0, 2, 1, 1, 0])
    log_softmax = np.asarray(x) - np.log(np.exp(np.asarray(x)).sum(1, keepdims=True))
    expected = -log_softmax[np.arange(5), labels].mean()
    found = float(losses.cross_entropy(identity, (x, labels)))
    assert found == pytest.approx(expected)


def test_targets_of_another_shape_are_refused():
    """Broadcast against each other they would give a wrong number."""
    x, y = jr.normal(jr.key(16), (2, 5, 3))
    for loss in (losses.mean_square, losses.mean_square_entry):
        with pytest.raises(ValueError, match=r"shape \(5, 3\): got \(5, 1\)"):
            loss(identity, (x, y[:, :1]))
    with pytest.raises(ValueError, match=r"shape \(5,\): got \(5, 3\)"):
        losses.cross_entropy(identity, (x, jnp.zeros((5, 3), int)))


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_class_that_is_not_there_has_no_loss(label):
    """It would be the last class, or be left out, in silence."""
    x, labels = jnp.ones((2, 3)), jnp.asarray([0, label])
    with pytest.raises(ValueError, match="labels must lie between 0 and 2: got"):
        losses.cross_entropy(identity, (x, labels))
    both = jax.value_and_grad(lambda x, y: losses.cross_entropy(identity, (x, y)))
    value, gradient = jax.jit(both)(x, labels)
    assert np.isnan(value)
    assert np.isnan(gradient).any()
    # while only the outputs are traced, labels have values
    with pytest.raises(ValueError, match="labels must lie"):
        both(x, labels)


def test_labels_are_whole_and_targets_real(as_in_use):
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="whole numbers: got float64"):
        losses.cross_entropy(identity, (x, jnp.asarray([0.0, 1.0])))
    with pytest.raises(ValueError, match="targets must hold real numbers: got complex"):
        losses.mean_square(identity, (x, x.astype(complex)))
    with pytest.raises(ValueError, match="inputs is empty"):
        losses.mean_square(identity, (x[:0], x[:0]))
    whole = losses.mean_square(identity, (x, [[1, 2, 3], [0, 1, 1]]))
    assert float(whole) == 3


def test_accuracy_counts_what_is_right_and_nothing_that_is_nan():
    """The largest of a row with NaN is the NaN, wherever it stands."""
    outputs = jnp.asarray([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [jnp.nan, 1.0]])
    labels = jnp.asarray([0, 1, 1, 0])
    assert losses.accuracy(identity, (outputs, labels)) == 2 / 4


def test_a_batch_of_all_examples_has_each_once():
    data = tuple(jr.normal(jr.key(3), (2, 7, 3)))
    whole = losses.on_batches(losses.mean_square, 7)(identity, data, jr.key(4))
    expected = losses.mean_square(identity, data)
    np.testing.assert_allclose(whole, expected, rtol=1e-12)
    with pytest.raises(ValueError, match="size 8 needs more than 7"):
        losses.on_batches(losses.mean_square, 8)(identity, data, jr.key(4))


def test_a_batch_needs_a_size_and_a_key():
    with pytest.raises(ValueError, match="got 0"):
        losses.on_batches(losses.mean_square, 0)
    data = tuple(jr.normal(jr.key(2), (2, 5, 3)))
    with pytest.raises(ValueError, match="give train a key"):
        losses.on_batches(losses.mean_square, 2)(identity, data, None)
    for short in (data[1][:3], jnp.concatenate(data)):
        with pytest.raises(ValueError, match="leading axis of all its arrays"):
            losses.on_batches(losses.mean_square, 2)(
                identity, (data[0], short), jr.key(4)
            )


def test_accuracy_looks_for_the_class_along_the_last_axis():
    outputs = jr.normal(jr.key(5), (50, 3, 3))
    assert losses.accuracy(identity, (outputs, outputs.argmax(-1))) == 1
    wider = jr.normal(jr.key(6), (20, 2, 5))
    assert losses.accuracy(identity, (wider, wider.argmax(-1))) == 1
