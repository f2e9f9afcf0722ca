"""How batches are shuffled: as they should be, and as by the public code."""

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, Key, PRNGKeyArray

from ... import epochs as library
from ...checks import require_known

__all__ = ["SHUFFLES", "shuffled_orders", "shuffled_views"]

SHUFFLES = (*library.SHUFFLES, "views")


def shuffled_orders(
    n: int, size: int, epochs: int, how: str, *, key: PRNGKeyArray
) -> library.Orders:
    """`deeplimits.epochs.orders`, and `how="views"`: as `"batches"`, but with the
    defect of `shuffled_views`, epoch after epoch."""
    require_known("shuffling", how, SHUFFLES)
    if how != "views":
        return library.orders(n, size, epochs, how, key=key)
    batches = jnp.asarray(library.consecutive_batches(n, size))
    return batches[shuffled_views(jnp.arange(len(batches)), jr.split(key, epochs))]


def shuffled_views(
    rows: Int[Array, " rows"], keys: Key[Array, " epochs"]
) -> Int[Array, "epochs rows"]:
    r"""What becomes of `rows` that Fisher and Yates shuffle in place through views.

    To swap rows $i$ and $j$, row $i$ is overwritten with row $j$; then row $j$ with
    what was row $i$, but that is a *view*, which by now holds row $j$. Nothing is
    swapped, and each step may lose a row: `numpy.random.shuffle` on a PyTorch tensor.
    """
    last = rows.shape[0] - 1

    def swap(rows, step):
        i, draw = step
        j = jnp.floor(draw * (i + 1).astype(draw.dtype)).astype(int)
        return rows.at[i].set(rows[j]), None

    def shuffle(rows, key):
        steps = jnp.arange(last, 0, -1), jr.uniform(key, (last,))
        rows, _ = jax.lax.scan(swap, rows, steps)
        return rows, rows

    return jax.lax.scan(shuffle, rows, keys)[1]
