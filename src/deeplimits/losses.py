"""What is minimised: losses of a model, its data and a key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

Loss = Callable[[Any, Any, PRNGKeyArray | None], Float[Array, ""]]


def mean_square(model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None):
    r"""The loss $\ell = \frac1n \sum_i \|F(x_i) - y_i\|^2$ of `marion2024`."""
    x, y = data
    outputs = jax.vmap(model)(x)
    if outputs.shape != y.shape:
        raise ValueError(
            f"targets must have the outputs' shape {outputs.shape}: got {y.shape}."
        )
    return jnp.sum((outputs - y) ** 2) / x.shape[0]


def mean_square_entry(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""The mean of all entries' squares: `mean_square` over the targets' dimension."""
    return mean_square(model, data) / data[1][0].size


def cross_entropy(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""$\ell = -\frac1n \sum_i \log \operatorname{softmax}(F(x_i))_{y_i}$."""
    x, labels = data
    logits = jax.vmap(model)(x)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have the shape {logits.shape[:-1]}: got {labels.shape}."
        )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def on_batches(loss: Loss, size: int) -> Loss:
    """`loss` on `size` examples, drawn anew without replacement at each step."""
    if size < 1:
        raise ValueError(f"a batch needs a positive size: got {size}.")

    def batch_loss(model, data, key):
        if key is None:
            raise ValueError("batches are drawn: give train a key.")
        chosen = jr.choice(
            key, jax.tree.leaves(data)[0].shape[0], (size,), replace=False
        )
        return loss(model, jax.tree.map(lambda a: a[chosen], data), None)

    return batch_loss
