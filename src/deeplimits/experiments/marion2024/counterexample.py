"""Appendix D: with ReLU, neighbouring layers can drift apart."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ... import files, losses, training
from ...residual import OneLayer, ResNet
from . import setting


@dataclasses.dataclass(frozen=True)
class Counterexample:
    """Depth is $2L$ for each of the `half_depths` $L$."""

    half_depths: tuple[int, ...] = (2, 8, 32, 128, 512)
    steps: int = 4000
    every: int = 40
    rate: float = 0.005
    target: float = 3.0


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


def relu_counterexample(
    config: Counterexample, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """Weights of odd and even layers under gradient descent: nothing is random."""
    if not config.target > 1:
        raise ValueError(f"the target must be above 1: got {config.target}.")
    with jax.enable_x64(True):
        rows = [_run(config, half, scratch, progress) for half in config.half_depths]
    dims = ("half_depth", "iteration")
    names = ("even_low", "even_high", "odd_low", "odd_high", "ratio")
    return xr.Dataset(
        {name: (dims, np.stack([row[name] for row in rows])) for name in names},
        {
            "half_depth": list(config.half_depths),
            "iteration": np.arange(0, config.steps + 1, config.every),
            "time": (
                "iteration",
                config.rate * np.arange(0, config.steps + 1, config.every),
            ),
            "limit": (
                "half_depth",
                [limit(h, config.target) for h in config.half_depths],
            ),
        },
        {"dtype": "float64"},
    )


def _run(config, half_depth, scratch, progress) -> dict[str, np.ndarray]:
    one = jnp.ones((1, 1))

    def record(model: ResNet):
        assert isinstance(model.block, OneLayer)
        weights = model.block.weight[:, 0, 0]
        odd, even = weights[::2], weights[1::2]
        extremes = {
            "even_low": even.min(),
            "even_high": even.max(),
            "odd_low": odd.min(),
            "odd_high": odd.max(),
        }
        return extremes | {"ratio": model(one[0])[0]}

    return (
        training.train(
            network(half_depth),
            (one, config.target * one),
            losses.mean_square,
            setting.descent(config.rate),
            config.steps,
            record=record,
            every=config.every,
            trainable=_only_weights,
            progress=progress,
            checkpoint=files.checkpoint(scratch, f"half-depth-{half_depth}"),
        )
        .finished()
        .records
    )
