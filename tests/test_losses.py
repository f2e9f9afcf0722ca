"""Laws of the losses: numbers by hand, and what they refuse."""

import equinox as eqx
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


def test_a_batch_needs_a_size_and_a_key():
    with pytest.raises(ValueError, match="got 0"):
        losses.on_batches(losses.mean_square, 0)
    data = tuple(jr.normal(jr.key(2), (2, 5, 3)))
    with pytest.raises(ValueError, match="give train a key"):
        losses.on_batches(losses.mean_square, 2)(identity, data, None)
