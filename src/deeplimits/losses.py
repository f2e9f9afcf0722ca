"""What is minimised: losses of a model, its data and a key."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .checks import as_floats, as_real, holds, is_whole, require_shape

Loss = Callable[[Any, Any, PRNGKeyArray | None], Float[Array, ""]]


def mean_square(model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None):
    r"""The loss $\ell = \frac1n \sum_i \|F(x_i) - y_i\|^2$ of `marion2024`.

    Raises `ValueError` for targets that are not real or not shaped like the outputs,
    and for no examples at all.

    ```pycon
    >>> data = jnp.zeros((5, 2)), jnp.ones((5, 2))
    >>> float(mean_square(lambda x: x, data))
    2.0
    ```
    """
    outputs, targets = _outputs(model, data)
    y = as_floats("targets", targets)
    if outputs.shape != y.shape:
        raise ValueError(
            f"targets must have the outputs' shape {outputs.shape}: got {y.shape}."
        )
    return jnp.sum((outputs - y) ** 2) / y.shape[0]


def _outputs(model: Any, data: tuple[Array, Array]) -> tuple[Array, Array]:
    """What the model makes of all inputs, in floats, and the targets."""
    x, targets = data
    x = as_real("inputs", x, jnp.asarray)
    require_shape("inputs", x)
    return as_floats("outputs", jax.vmap(model)(x)), targets


def mean_square_entry(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""The mean of all entries' squares: `mean_square` over the targets' dimension.

    ```pycon
    >>> data = jnp.zeros((5, 2)), 3 * jnp.ones((5, 2))
    >>> float(mean_square_entry(lambda x: x, data))
    9.0
    ```
    """
    return mean_square(model, data) / np.size(data[1][0])


def cross_entropy(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""$\ell = -\frac1n \sum_i \log \operatorname{softmax}(F(x_i))_{y_i}$.

    Raises `ValueError` for labels that are no whole numbers, one an example, and for a
    class that the outputs do not have. Inside a transformation of JAX a label has no
    value: there such a class makes the loss, and its gradient, NaN.
    """
    logits, labels, known = _classified(model, data)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    # without this a label -1 counts as the last class, and one too large as NaN or less
    return loss * jnp.where(known, 1.0, jnp.nan)


def _classified(model: Any, data: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    """The outputs, a row an example; the labels, one an example; and whether each is
    one of the classes: where they have no values yet, that is not known before."""
    logits, labels = _outputs(model, data)
    labels = as_real("labels", labels, jnp.asarray)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be whole numbers: got {labels.dtype}.")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have the shape {logits.shape[:-1]}: got {labels.shape}."
        )
    classes = logits.shape[-1]

    def known(labels):
        return ((labels >= 0) & (labels < classes)).all()

    if not holds(known, labels):
        raise ValueError(
            f"labels must lie between 0 and {classes - 1}: got {labels.min()} to "
            f"{labels.max()}."
        )
    return logits, labels, known(labels)


def on_batches(loss: Loss, size: int) -> Loss:
    """`loss` on `size` examples, drawn anew without replacement at each step.

    Raises `ValueError` for a size under one or beyond the number of examples, for
    arrays of data with different numbers of them, and where there is no key to draw
    with.
    """
    if not is_whole(size):
        raise ValueError(f"a batch needs a positive size: got {size}.")

    def batch_loss(model, data, key):
        if key is None:
            raise ValueError("batches are drawn: give train a key.")
        examples = examples_in(data)
        if size > examples:
            raise ValueError(f"a batch of size {size} needs more than {examples}.")
        chosen = jr.choice(key, examples, (size,), replace=False)
        return loss(model, jax.tree.map(lambda a: a[chosen], data), None)

    return batch_loss


def examples_in(data: Any) -> int:
    """How many examples there are: the leading axis that all arrays of `data` share.

    Raises `ValueError` where they share none, and for what is no array of real numbers.
    """
    shapes = []
    for leaf in jax.tree.leaves(data):
        require_shape("data", array := as_real("data", leaf, jnp.asarray))
        shapes.append(array.shape)
    if not shapes or not all(shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"data needs the examples as the leading axis of all its arrays: got "
            f"{shapes}."
        )
    return shapes[0][0]


def accuracy(model: Any, data: tuple[Array, Array]) -> Float[Array, ""]:
    r"""The share of examples whose class has the largest output,
    $\frac1n \#\{i : \operatorname{argmax} F(x_i) = y_i\}$. Outputs with NaN are wrong.

    Raises `ValueError` for labels that are no classes, one an example; inside a
    transformation of JAX one that the outputs do not have makes the share NaN.

    ```pycon
    >>> data = jnp.eye(3), jnp.array([0, 1, 0])
    >>> round(float(accuracy(lambda x: x, data)), 4)
    0.6667
    ```
    """
    logits, labels, known = _classified(model, data)
    right = jnp.argmax(logits, axis=-1) == labels  # the largest of all is NaN
    share = jnp.mean(right & ~jnp.isnan(logits).any(-1))
    return jnp.where(known, share, jnp.nan)
