"""Appendix D: with ReLU, neighbouring layers can drift apart."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import losses, training
from ...checks import require_multiple, require_positive, require_room
from ...residual import OneLayer, ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import setting

__all__ = [
    "Counterexample",
    "crossing",
    "jump",
    "limit",
    "network",
    "relu_counterexample",
    "time_to_reach",
]


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """Depth is $2L$ for each of the `half_depths` $L$."""

    half_depths: tuple[int, ...] = (2, 8, 32, 128, 512)
    steps: int = 4000
    every: int = 40
    rate: float = 0.005
    target: float = 3.0

    def __post_init__(self):
        require_positive(self, "half_depths", "steps", "every", "rate", "target")
        require_multiple(self, "steps", "every")
        if not self.target > 1:
            raise ValueError(f"the target must be above 1: got {self.target}.")
        require_room(8 * (6 * max(self.half_depths) + self.steps))


def network(half_depth: int) -> ResNet:
    r"""$h_{k+1} = h_k + \frac{1}{2L} \mathrm{ReLU}(w_{k+1} h_k)$ in one dimension.

    At the start $w_k = (-1)^k / (2L)$.
    """
    layers = jnp.arange(1, 2 * half_depth + 1)
    weights = jnp.where(layers % 2 == 0, 1.0, -1.0) / (2 * half_depth)
    return ResNet(OneLayer(weights[:, None, None], activation="relu"))


def limit(half_depth: int, target: float) -> float:
    r"""$2L(C^{1/L} - 1)$, where the even layers go."""
    return 2 * half_depth * (target ** (1 / half_depth) - 1)


def crossing(depth: int) -> ResNet:
    r"""$h_{k+1} = h_k + \frac1L \mathrm{ReLU}(w_{k+1} h_k)$ in one dimension.

    At the start $w_k = \frac12 - \frac kL$: for $x > 0$ the pre-activation crosses zero
    in the middle.
    """
    weights = 0.5 - jnp.arange(1, depth + 1) / depth
    return ResNet(OneLayer(weights[:, None, None], activation="relu"))


def jump(target: float) -> float:
    r"""How far the trained weights of `crossing` jump in the middle, as $L \to \infty$.

    With the target $g_* x$ it is $\max(0, 2 \log g_* - \frac14)$: the active layers all
    move by what makes $\int_0^{1/2} w = \log g_*$, and the others stay.
    """
    return max(0.0, 2 * float(np.log(target)) - 0.25)


def time_to_reach(
    ratio: Float[np.ndarray, "..."], start: float, target: float
) -> Float[np.ndarray, "..."]:
    r"""When $g = F(x)/x$ reaches `ratio` in the limit $L \to \infty$, for $x = 1$.

    There $\dot g = (C - g) g^2$, so that
    $t = \frac1C\bigl(\frac1{g_0} - \frac1g\bigr)
       + \frac1{C^2} \log \frac{g (C - g_0)}{g_0 (C - g)}$.
    """
    logarithm = np.log(ratio * (target - start) / (start * (target - ratio)))
    return (1 / start - 1 / ratio) / target + logarithm / target**2


def _only_weights(model: ResNet):
    """The filter that trains the weights and leaves the biases at zero."""
    frozen = jax.tree.map(lambda _: False, model)
    return eqx.tree_at(lambda m: m.block.weight, frozen, True)


@experiment(
    "marion2024/relu-counterexample",
    "Appendix D: layers that drift apart, in closed form",
    Counterexample(),
    book={"half_depths": (2, 8, 128)},
    smoke={"half_depths": (2, 4), "steps": 40},
)
def relu_counterexample(config: Counterexample, run: Runner) -> xr.Dataset:
    """Weights of odd and even layers under gradient descent: nothing is random."""
    found = run.each("trained", {"half_depth": config.half_depths}, _trained)
    iterations = np.arange(0, config.steps + 1, config.every)
    limits = [limit(half, config.target) for half in config.half_depths]
    found = found.assign_coords(
        iteration=iterations,
        time=("iteration", config.rate * iterations),
        limit=("half_depth", limits),
    )
    return found.assign_attrs(dtype="float64")


def _extremes(model: ResNet) -> dict[str, Array]:
    assert isinstance(model.block, OneLayer)
    weights = model.block.weight[:, 0, 0]
    odd, even = weights[::2], weights[1::2]
    return {
        "even_low": even.min(),
        "even_high": even.max(),
        "odd_low": odd.min(),
        "odd_high": odd.max(),
        "ratio": model(jnp.ones(1))[0],
    }


def _trained(config: Counterexample, point: Point, key: PRNGKeyArray):
    with jax.enable_x64(True):
        one = jnp.ones((1, 1))
        run = training.train(
            network(point["half_depth"]),
            (one, config.target * one),
            losses.mean_square,
            setting.descent(config.rate),
            config.steps,
            record=_extremes,
            every=config.every,
            trainable=_only_weights,
            **point.resumable,
        ).finished()
    return {name: ("iteration", values) for name, values in run.records.items()}
