"""Minibatches epoch by epoch until the loss is small: one compiled program."""

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, PyTree

from ...losses import Loss
from .setting import require

Orders = Int[Array, "epochs batches size"]


@dataclasses.dataclass(frozen=True)
class Stopping:
    """Stop once the mean loss of an epoch is below `loss`, or once it has not improved
    on its best by the share `improvement` for `patience` epochs, or after `epochs`."""

    loss: float = 1e-3
    epochs: int = 10
    patience: int = 5
    improvement: float = 0.01

    def __post_init__(self):
        if self.epochs < 1 or self.patience < 1 or self.loss < 0:
            raise ValueError(
                "epochs and patience must be positive and loss not negative: got "
                f"{self.epochs}, {self.patience}, {self.loss}."
            )


class Fit(NamedTuple):
    """What `fit` returns: the model, the mean loss of each epoch (NaN after the last),
    the number of epochs, and whether the loss fell below that of the rule."""

    model: Any
    losses: Float[Array, " epochs"]
    epochs: Int[Array, ""]
    reached: Array


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
    orders: Orders,
    loss: Loss,
    optimiser: optax.GradientTransformation,
    rule: Stopping,
) -> Fit:
    """Train on the batches `orders` names, epoch after epoch, until the `rule` says so.

    A loop over epochs around a scan over batches; it may be compiled and mapped over
    seeds, when a network that has stopped waits for the others. A loss that is not
    finite stops it, too.
    """
    params, fixed = eqx.partition(model, eqx.is_inexact_array)

    def batch(carry, chosen):
        params, state = carry
        part = jax.tree.map(lambda a: a[chosen], data)

        def objective(params):
            return loss(eqx.combine(params, fixed), part, None)

        value, grads = jax.value_and_grad(objective)(params)
        changes, state = optimiser.update(grads, state, params)
        return (eqx.apply_updates(params, changes), state), value

    def epoch(state: _State) -> _State:
        carry = (state.params, state.optimiser)
        (params, inner), values = jax.lax.scan(batch, carry, orders[state.epoch])
        mean = values.mean()
        better = mean < (1 - rule.improvement) * state.best
        return _State(
            params,
            inner,
            state.losses.at[state.epoch].set(mean),
            state.epoch + 1,
            jnp.where(better, mean, state.best),
            jnp.where(better, 0, state.waited + 1),
        )

    def last(state: _State) -> Float[Array, ""]:
        return jnp.where(state.epoch > 0, state.losses[state.epoch - 1], jnp.inf)

    def unfinished(state: _State) -> Array:
        small = last(state) < rule.loss
        broken = (state.epoch > 0) & ~jnp.isfinite(last(state))
        tired = state.waited >= rule.patience
        return (state.epoch < rule.epochs) & ~small & ~broken & ~tired

    empty = jnp.full(orders.shape[0], jnp.nan, jax.tree.leaves(params)[0].dtype)
    zero = jnp.zeros((), int)
    best = jnp.full((), jnp.inf, empty.dtype)
    state = _State(params, optimiser.init(params), empty, zero, best, zero)
    state = jax.lax.while_loop(unfinished, epoch, state)
    model = eqx.combine(state.params, fixed)
    return Fit(model, state.losses, state.epoch, last(state) < rule.loss)


SHUFFLES = ("examples", "batches", "views")


def orders(n: int, size: int, epochs: int, how: str, *, key: PRNGKeyArray) -> Orders:
    """Which examples each batch of each epoch holds.

    `how="examples"` deals all `n` examples anew in every epoch (what does not fill a
    batch is left out of it); `"batches"` composes the batches once and shuffles their
    order; `"views"` does that with the defect of `shuffled_views`, epoch after epoch.
    """
    require("shuffling", how, SHUFFLES)
    if not 0 < size <= n:
        raise ValueError(f"a batch holds between 1 and {n} examples: got {size}.")
    keys = jr.split(key, epochs)
    if how == "examples":
        dealt = jax.vmap(lambda k: jr.permutation(k, n))(keys)
        return dealt[:, : n - n % size].reshape(epochs, -1, size)
    batches = jnp.arange(n - n % size).reshape(-1, size)
    if how == "batches":
        return jax.vmap(lambda k: jr.permutation(k, batches))(keys)
    return batches[shuffled_views(jnp.arange(len(batches)), keys)]


def shuffled_views(
    rows: Int[Array, " rows"], keys: Key[Array, " epochs"]
) -> Int[Array, "epochs rows"]:
    r"""What becomes of `rows` that Fisher and Yates shuffle in place through views.

    To swap rows $i$ and $j$, row $i$ is overwritten with row $j$; then row $j$ with
    what was row $i$, but that is a *view*, which by now holds row $j$. Nothing is
    swapped, and each step may lose a row: `numpy.random.shuffle` on a PyTorch tensor.
    """
    last = rows.shape[0] - 1

    def shuffle(rows, key):
        draws = jr.uniform(key, (last,))

        def swap(m, rows):
            i = last - m
            j = jnp.floor(draws[m] * (i + 1)).astype(int)
            return rows.at[i].set(rows[j])

        rows = jax.lax.fori_loop(0, last, swap, rows)
        return rows, rows

    return jax.lax.scan(shuffle, rows, keys)[1]
