"""The experiments' common ground: a random network, an input, and two ratios."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ... import initialisation
from ...checks import require_known
from ...residual import AbstractBlock, OuterLayer, ResNet, TwoLayer

PARTS = {"res-1": 1, "res-3": 2}  # matrices in a layer
MODELS = tuple(PARTS)
LAWS = ("uniform", "smooth")
QUANTITIES = ("state", "gradient")  # what `ratios` gives
INFINITE = 16.0  # what log10 of a ratio counts that overflows, as in the public code

Law = Callable[..., Float[Array, "depth rows columns"]]


def stacked(
    model: str,
    outer: Float[Array, "depth q q"],
    inner: Float[Array, "depth q q"] | None = None,
) -> AbstractBlock:
    r"""The block $V \sigma(h)$ of "res-1" or $V \sigma(W h)$ of "res-3", with ReLU."""
    require_known("model", model, MODELS)
    if inner is None:
        return OuterLayer(outer)
    return TwoLayer(outer, inner, activation="relu", width_factors=False)


def draw(
    model: str, law: Law, depth: int, width: int, *, key: PRNGKeyArray
) -> AbstractBlock:
    """A block of `depth` layers; `law` makes weights of variance $1/q$."""
    return stacked(model, *draws(model, law, depth, width, 1, key=key)[0])


def draws(
    model: str, law: Law, depth: int, width: int, count: int, *, key: PRNGKeyArray
) -> Float[Array, "count parts depth q q"]:
    """The weights of `count` blocks, to be unpacked into `stacked`."""
    require_known("model", model, MODELS)
    weights = law(depth, (count, PARTS[model], width, width), key=key)
    return jnp.moveaxis(weights, 0, 2)


def normalised(noise: Law, **options) -> Law:
    """The law of noise of variance one, divided by the root of the fan-in."""

    def law(depth, shape, *, key):
        return noise(depth, shape, key=key, **options) / shape[-1] ** 0.5

    return law


def law(name: str, *, length_scale: float) -> Law:
    """Uniform independent weights, or the increments of a smooth Gaussian process."""
    require_known("law", name, LAWS)
    if name == "uniform":
        return initialisation.uniform
    noise = initialisation.smooth_increments
    return normalised(noise, length_scale=length_scale)


def ends(
    width: int, inputs: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    r"""$h_0 = A x$ for $x$ uniform on $[0, 1]^d$, and $B^\top$ for one output.

    The gradient of any loss of that output in $h_L$ is a multiple of $B^\top$.
    """
    a, b, x = jnp.split(
        jr.uniform(key, (width * inputs + width + inputs,)),
        (width * inputs, width * (inputs + 1)),
    )
    A = (3 / inputs) ** 0.5 * (2 * a.reshape(width, inputs) - 1)
    return A @ x, (3 / width) ** 0.5 * (2 * b - 1)


def propagate(
    block: AbstractBlock,
    scale: Float[Array, ""] | Float[Array, " depth"],
    h: Float[Array, " q"],
    p: Float[Array, " q"],
) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
    """The last state, from the first; the gradient in the first, from the last."""
    last, pullback = jax.vjp(ResNet(block, beta=0.0, scale=scale), h)
    return last, pullback(p)[0]


def ratios(
    block: AbstractBlock,
    scale: Float[Array, ""] | Float[Array, " depth"],
    h: Float[Array, " q"],
    p: Float[Array, " q"],
) -> Float[Array, "2"]:
    r"""$\|h_L - h_0\| / \|h_0\|$ and $\|p_0 - p_L\| / \|p_L\|$."""
    last, first = propagate(block, scale, h, p)
    return jnp.stack([_change(h, last), _change(p, first)])


def change(
    block: AbstractBlock, scale: Float[Array, ""], h: Float[Array, " q"]
) -> Float[Array, ""]:
    r"""$\|h_L - h_0\| / \|h_0\|$ alone, without a backward pass."""
    return _change(h, ResNet(block, beta=0.0, scale=scale)(h))


def _change(old: Float[Array, " q"], new: Float[Array, " q"]) -> Float[Array, ""]:
    return jnp.linalg.norm(new - old) / jnp.linalg.norm(old)


def log10(ratio: Float[Array, "..."]) -> Float[Array, "..."]:
    """The decimal logarithm; what overflowed, to infinity or beyond, counts 16."""
    return jnp.where(jnp.isfinite(ratio), jnp.log10(ratio), INFINITE)


def require_length_scale(length_scale: float) -> None:
    """`ValueError` for a path that varies within a layer, or not at all: on the unit
    interval one of a long scale is a straight line, and then only rounding."""
    if not 0.01 <= length_scale <= 1000:
        raise ValueError(
            f"length_scale must lie between 0.01 and 1000: got {length_scale}."
        )


def require_nested(depths: Sequence[int], finest: int) -> None:
    """`ValueError` unless every depth divides the finest, whose noise all share."""
    if any(finest % depth for depth in depths):
        raise ValueError(f"every depth must divide {finest}: got {depths}.")


def group_means(
    samples: Float[np.ndarray, "samples ..."], groups: int
) -> Float[np.ndarray, "groups ..."]:
    """The means of `groups` of equal size, in order: repeats, from which an interval.

    Raises `ValueError` unless `groups` divides the number of samples.
    """
    if groups < 1 or len(samples) % groups:
        raise ValueError(f"{len(samples)} samples make no {groups} equal groups.")
    return samples.reshape(groups, -1, *samples.shape[1:]).mean(1)
