"""Training by epochs until the loss is small: one compiled program."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .checks import (
    as_real,
    holds,
    require_finite,
    require_known,
    require_shape,
    require_whole,
    require_within,
)
from .losses import Loss, examples_in
from .training import split_trainable

Orders = Int[Array, "epochs batches size"]

SHUFFLES = ("examples", "batches")
COUNTED = 2**31 - 1  # epochs are counted in 32 bits unless JAX has been told otherwise


@dataclasses.dataclass(frozen=True)
class Stopping:
    """Stop once the mean loss of an epoch is below `loss`, or once it has not improved
    on its best by the share `improvement` for `patience` epochs, or after `epochs`.

    Raises `ValueError` unless `epochs` and `patience` are positive, `loss` is not
    negative, `improvement` lies in $[0, 1)$, and all are finite.

    ```pycon
    >>> Stopping(loss=1e-3, epochs=50).patience
    5
    ```
    """

    loss: float = 1e-3
    epochs: int = 10
    patience: int = 5
    improvement: float = 0.01

    def __post_init__(self):
        require_whole(epochs=self.epochs, patience=self.patience)
        require_within("[0, inf)", loss=self.loss)
        require_within("[0, 1)", improvement=self.improvement)
        if max(self.epochs, self.patience) > COUNTED:
            raise ValueError(
                f"epochs and patience are at most {COUNTED}: got {self.epochs}, "
                f"{self.patience}."
            )


class Fit(NamedTuple):
    """What `fit` returns: the model, the mean loss of each epoch (NaN after the last),
    the number of epochs, and whether the loss fell below that of the rule.

    ```pycon
    >>> import optax
    >>> batches, rule = jnp.zeros((4, 1, 1), int), Stopping(loss=0.1, epochs=4)
    >>> loss, data = lambda z, *_: z @ z, jnp.zeros(1)
    >>> found = fit(jnp.ones(1), data, batches, loss, optax.sgd(0.25), rule)
    >>> found.losses.tolist(), int(found.epochs), bool(found.reached)
    ([1.0, 0.25, 0.0625, nan], 3, True)
    ```
    """

    model: Any
    losses: Float[Array, " epochs"]
    epochs: Int[Array, ""]
    reached: Bool[Array, ""]


class _State(NamedTuple):
    params: PyTree
    optimiser: PyTree
    losses: Float[Array, " epochs"]
    epoch: Int[Array, ""]
    best: Float[Array, ""]
    waited: Int[Array, ""]


def fit(
    model: Any,
    data: PyTree,
    batches: Orders,
    loss: Loss,
    optimiser: optax.GradientTransformation,
    rule: Stopping,
    *,
    trainable: PyTree | Callable[[Any], PyTree] = eqx.is_inexact_array,
) -> Fit:
    """Train on `batches` of the data, epoch after epoch, until the `rule` says so.

    `batches` names the examples of each batch of each epoch (see `orders`), for as many
    epochs as the rule allows, or more. It may all be compiled, and mapped over seeds. A
    loss that is not finite stops it, too. Raises `ValueError` for too few epochs of
    batches, for examples that the data do not have, for weights or data that are
    not finite, and where what `trainable` marks (see `train`) is nothing, or no float.

    ```pycon
    >>> import optax
    >>> data = jnp.array([1.0, 3.0])
    >>> batches = orders(2, 1, 5, key=jr.key(0))
    >>> loss = lambda z, part, _: jnp.mean((z - part) ** 2)
    >>> rule = Stopping(epochs=5, patience=2)
    >>> found = fit(jnp.array([2.0]), data, batches, loss, optax.sgd(0.0), rule)
    >>> found.losses.tolist()[:3], int(found.epochs)  # never better than at first
    ([1.0, 1.0, 1.0], 3)
    ```
    """
    batches = _checked(batches, data, rule)
    require_finite("model", model)
    require_finite("data", data)
    data = jax.tree.map(jnp.asarray, data)  # NumPy's cannot be indexed by a tracer
    params, fixed = split_trainable(model, trainable)

    def update(carry, chosen):
        params, state = carry
        part = jax.tree.map(lambda a: a[chosen], data)

        def objective(params):
            return loss(eqx.combine(params, fixed), part, None)

        value, grads = jax.value_and_grad(objective)(params)
        changes, state = optimiser.update(grads, state, params)
        return (eqx.apply_updates(params, changes), state), value

    def epoch(state: _State) -> _State:
        carry = (state.params, state.optimiser)
        carry, values = jax.lax.scan(update, carry, batches[state.epoch])
        return _after(state, carry, values.mean(), rule)

    # A scan would go through all epochs that the rule allows; the loop ends at the last
    # that is needed. Mapped over seeds it goes on while any of them needs one more, and
    # JAX gives those that have stopped their old state back: they hold still.
    state = jax.lax.while_loop(
        lambda state: _unfinished(state, rule),
        epoch,
        _start(params, optimiser, len(batches)),
    )
    small = _last(state) < rule.loss
    return Fit(eqx.combine(state.params, fixed), state.losses, state.epoch, small)


def _checked(batches: Any, data: PyTree, rule: Stopping) -> Array:
    """Batches for all epochs of the rule, of examples that are there."""
    if not isinstance(rule, Stopping):
        raise ValueError(f"rule must be a Stopping: got {rule!r:.60}.")
    batches = as_real("batches", batches, jnp.asarray)
    require_shape("batches", batches, (None, None, None))
    if len(batches) < rule.epochs:
        raise ValueError(
            f"there are batches for {len(batches)} epochs: the rule allows "
            f"{rule.epochs}."
        )
    count = examples_in(data)
    whole = jnp.issubdtype(batches.dtype, jnp.integer)
    if not whole or not holds(lambda b: ((b >= 0) & (b < count)).all(), batches):
        raise ValueError(f"batches must name examples from 0 to {count - 1}.")
    return batches


def _start(params: PyTree, optimiser: Any, epochs: int) -> _State:
    dtype = jax.tree.leaves(params)[0].dtype
    losses, zero = jnp.full(epochs, jnp.nan, dtype), jnp.zeros((), int)
    best = jnp.full((), jnp.inf, dtype)
    return _State(params, optimiser.init(params), losses, zero, best, zero)


def _after(state: _State, carry: Any, mean: Array, rule: Stopping) -> _State:
    params, inner = carry
    better = mean < (1 - rule.improvement) * state.best
    return _State(
        params,
        inner,
        state.losses.at[state.epoch].set(mean),
        state.epoch + 1,
        jnp.where(better, mean, state.best),
        jnp.where(better, 0, state.waited + 1),
    )


def _last(state: _State) -> Float[Array, ""]:
    return jnp.where(state.epoch > 0, state.losses[state.epoch - 1], jnp.inf)


def _unfinished(state: _State, rule: Stopping) -> Bool[Array, ""]:
    small = _last(state) < rule.loss
    broken = (state.epoch > 0) & ~jnp.isfinite(_last(state))
    tired = state.waited >= rule.patience
    return (state.epoch < rule.epochs) & ~small & ~broken & ~tired


def orders(
    n: int, size: int, epochs: int, how: str = "examples", *, key: PRNGKeyArray
) -> Orders:
    """Which of `n` examples each batch of each epoch holds.

    `how="examples"` deals them all anew in every epoch; `"batches"` composes the
    batches once, of neighbours, and shuffles their order. What does not fill a batch
    is left out. Raises `ValueError` for sizes that are not positive, for a batch larger
    than `n`, and for an unknown `how`.

    ```pycon
    >>> batches = orders(6, 2, 3, key=jr.key(0))
    >>> batches.shape, sorted(batches[0].ravel().tolist())
    ((3, 3, 2), [0, 1, 2, 3, 4, 5])
    ```
    """
    require_known("shuffling", how, SHUFFLES)
    require_whole(epochs=epochs)
    composed, keys = consecutive_batches(n, size), jr.split(key, epochs)
    if how == "batches":
        return jax.vmap(lambda k: jr.permutation(k, composed))(keys)
    dealt = jax.vmap(lambda k: jr.permutation(k, n))(keys)
    return dealt[:, : composed.size].reshape(epochs, *composed.shape)


def consecutive_batches(n: int, size: int) -> Int[np.ndarray, "batches size"]:
    r"""Whole batches of neighbours: $0, \dots, n - 1$ in rows of `size`.

    Raises `ValueError` unless a batch holds between 1 and `n` examples.
    """
    require_whole(n=n, size=size)
    if size > n:
        raise ValueError(f"a batch holds between 1 and {n} examples: got {size}.")
    return np.arange(n - n % size).reshape(-1, size)
