"""The synthetic experiments' common ground: network, data, loss, gradient descent."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from ... import checks, datasets, losses, training
from ...residual import ResNet, TwoLayer
from ...statistics import successive_distances
from ..runner import Point

VARIANTS = ("script", "equation")


class Setting(NamedTuple):
    r"""What a run starts from: $W$, the pairs $(x_i, y_i)$, the loss, the scaling."""

    inner: Float[Array, "m d"]
    data: tuple[Float[Array, "n d"], Float[Array, "n d"]]
    loss: losses.Loss
    width_factors: bool

    def network(self, depth: int) -> ResNet:
        r"""$V_k = 0$ and $W_k = W$ for every layer; $A$ and $B$ are the identity."""
        inner = jnp.broadcast_to(self.inner, (depth, *self.inner.shape))
        outer = jnp.zeros_like(inner).swapaxes(1, 2)
        return ResNet(TwoLayer(outer, inner, width_factors=self.width_factors))

    def astype(self, dtype: str) -> "Setting":
        """The same numbers in another precision."""
        x, y = self.data
        return self._replace(
            inner=jnp.asarray(self.inner, dtype),
            data=(jnp.asarray(x, dtype), jnp.asarray(y, dtype)),
        )


def script(seed: int, n: int, d: int, m: int, *, unused: bool = False) -> Setting:
    """The arrays, the loss and the scaling of the public code (not of equation (3)).

    No factors for the widths, and the mean of all $nd$ entries as loss. The code for
    the long run draws a matrix that it does not use, between $W$ and the data.
    """
    skipped = [(d, d)] if unused else []
    draws = datasets.torch_normals(seed, (d, m), *skipped, (n, d), (n, d))
    # drawn in float32, trained in the precision of the run
    W, *_, x, y = (jnp.asarray(each, float) for each in draws)
    return Setting(W.T, (x, y), losses.mean_square_entry, False)


def require_script(config: Any, *, unused: bool = False) -> None:
    """`ValueError` for sizes of which `script` cannot draw its arrays: PyTorch draws
    sixteen numbers at a time."""
    n, d, m = config.n, config.d, config.m
    sizes = {"d * m": d * m, "n * d": n * d} | ({"d * d": d * d} if unused else {})
    for name, size in sizes.items():
        if size % 16:
            raise ValueError(
                f"{name} must be a multiple of 16, for the public code's draws: "
                f"got {size}."
            )


def equation(n: int, d: int, m: int, *, key: PRNGKeyArray) -> Setting:
    """Equation (3) and the loss of `marion2024` as they are printed."""
    weight_key, data_key = jr.split(key)
    data = datasets.gaussian_pairs(n, d, key=data_key)
    return Setting(jr.normal(weight_key, (m, d)), data, losses.mean_square, True)


def layers(model: ResNet) -> TwoLayer:
    """The layers of a network that is known to have two maps in each."""
    assert isinstance(model.block, TwoLayer)
    return model.block


@functools.cache  # the same rule each time: what it is part of compiles once
def descent(rate: float) -> optax.GradientTransformation:
    r"""Gradient descent with step `rate` times $L$ in the layers."""
    return optax.chain(training.depth_factor(), optax.sgd(rate))


def train(
    start: Setting,
    depth: int,
    config: Any,
    point: Point,
    record: Callable[[ResNet], Any],
    *,
    every: int = 1,
) -> Any:
    """The records of gradient descent from `start` at a depth, the layers alone
    trained; steps and rate are those of `config`."""
    run = training.train(
        start.network(depth),
        start.data,
        start.loss,
        descent(config.rate),
        config.steps,
        record=record,
        every=every,
        trainable=training.only_layers,
        **point.resumable,
    ).finished()
    return run.records


def distances(model: ResNet) -> dict[str, Float[Array, ""]]:
    r"""Largest $\|V_{k+1} - V_k\|$, $\|W_{k+1} - W_k\|$ and sum of both; the means; and
    $\sum_k \|V_{k+1} - V_k\|^2$."""
    outer = successive_distances(layers(model).outer)
    inner = successive_distances(layers(model).inner)
    return {
        "max_outer": outer.max(),
        "max_inner": inner.max(),
        "max_layer": (outer + inner).max(),
        "mean_outer": outer.mean(),
        "mean_inner": inner.mean(),
        "squares_outer": jnp.sum(outer**2),
    }


def require_room(depth: int, config: Any, *, copies: int = 1) -> None:
    """`ValueError` where a training at this depth fits into no memory: its weights,
    the hidden states of all examples, and a loss a step."""
    n, d, m = config.n, config.d, config.m
    layer = 2 * d * m + n * (d + m)
    checks.require_room(8 * copies * (depth * layer + config.steps))
