r"""Residual networks trained on digits: perceptrons, convolutions, attention.

A `Group` is trained in one compiled scan: three initialisations (He's, the outer matrix
zero, one draw for all layers) by two seeds at the full depth, by one at half of it. The
factor before a block is $L^{-1/2}$, and $1/L$ for tied weights. The data are the 1,797
images of scikit-learn, a fifth of them held out. `train` returns the accuracies and the
stacked weights by name, rows first as in `outer @ activation(inner @ x)`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

STARTS = ("He", "zero outer", "tied")
BATCH, STEPS = 32, 300
HEADS = 4
_SIZES = {"one layer": 64, "two layers": 64, "convolution": 8, "attention": 32}
DEPTHS = {"one layer": 64, "two layers": 64, "convolution": 32, "attention": 32}


class Group(NamedTuple):
    block: str
    normalised: bool
    optimiser: str
    depth: int

    @property
    def members(self) -> list[tuple[str, int]]:
        seeds = (1, 2) if self.depth == DEPTHS[self.block] else (1,)
        return list(itertools.product(STARTS, seeds))


def groups() -> list[Group]:
    """Both optimisers for the perceptrons, AdamW for the others; two depths each."""
    optimisers = dict.fromkeys(("one layer", "two layers"), ("SGD", "AdamW"))
    return [
        Group(block, normalised, optimiser, depth)
        for block, deepest in DEPTHS.items()
        for normalised in (False, True)
        for optimiser in optimisers.get(block, ("AdamW",))
        for depth in (deepest // 2, deepest)
    ]


def _shapes(block: str) -> dict[str, tuple[int, ...]]:
    """Of one layer; the outer matrix first."""
    q = _SIZES[block]
    return {
        "one layer": {"outer": (q, q)},
        "two layers": {"outer": (q, 2 * q), "inner": (2 * q, q)},
        "convolution": {"outer": (q, 2 * q, 3, 3), "inner": (2 * q, q, 3, 3)},
        "attention": dict.fromkeys(("outer", "value", "query", "key"), (q, q)),
    }[block]


def _normalise(h: jax.Array) -> jax.Array:
    """Layer norm over the features, on the first axis."""
    h = h - h.mean(0)
    return h / jnp.sqrt(jnp.mean(h**2, 0) + 1e-5)


def _residual(block: str, layer: dict[str, jax.Array], h: jax.Array) -> jax.Array:
    if block == "one layer":
        return layer["outer"] @ jax.nn.relu(h)
    if block == "two layers":
        return layer["outer"] @ jax.nn.relu(layer["inner"] @ h)
    if block == "convolution":
        return _convolve(layer["outer"], jax.nn.relu(_convolve(layer["inner"], h)))
    query, key, value = (
        (layer[name] @ h).reshape(HEADS, -1, h.shape[1])
        for name in ("query", "key", "value")
    )
    scores = jnp.einsum("hds,hdt->hst", query, key) / query.shape[1] ** 0.5
    mixed = jnp.einsum("hst,hdt->hds", jax.nn.softmax(scores), value)
    return layer["outer"] @ mixed.reshape(h.shape)


def _convolve(kernel: jax.Array, h: jax.Array) -> jax.Array:
    return jax.lax.conv(h[None], kernel, (1, 1), "SAME")[0]


def _embed(block: str, params: Any, image: jax.Array) -> jax.Array:
    """Features first: of the whole image, of its pixels, or of its eight rows."""
    if block == "convolution":
        return _convolve(params["embedding"], image.reshape(1, 8, 8))
    if block == "attention":
        return params["embedding"] @ image.reshape(8, 8).T + params["position"]
    return params["embedding"] @ image


def _logits(group: Group, params: Any, factor: jax.Array, image: jax.Array):
    def step(h, layer):
        inside = _normalise(h) if group.normalised else h
        return h + factor * _residual(group.block, layer, inside), None

    h, _ = jax.lax.scan(step, _embed(group.block, params, image), params["layers"])
    h = _normalise(h) if group.normalised else h
    return params["readout"] @ h.reshape(len(h), -1).mean(1)


def _start(group: Group, kind: jax.Array, key: jax.Array) -> Any:
    """Parameters of one member; `kind` counts in `STARTS`."""
    block, depth, q = group.block, group.depth, _SIZES[group.block]
    keys = iter(jr.split(key, 8))
    layers = {}
    for name, shape in _shapes(block).items():
        fan_in = np.prod(shape[1:])
        gain = 1.0 if block == "attention" else 2.0
        white = (gain / fan_in) ** 0.5 * jr.normal(next(keys), (depth, *shape))
        tied = jnp.broadcast_to(white[:1], white.shape)
        outer = jnp.where(kind == 1, 0.0, white) if name == "outer" else white
        layers[name] = jnp.where(kind == 2, tied, outer)
    inputs = {"convolution": (1, 3, 3), "attention": (8,)}.get(block, (64,))
    shape = (q, *inputs)
    params = {
        "layers": layers,
        "embedding": jr.normal(next(keys), shape) / np.prod(inputs) ** 0.5,
        "readout": jr.normal(next(keys), (10, q)) / q**0.5,
    }
    if block == "attention":
        params["position"] = 0.5 * jr.normal(next(keys), (q, 8))
    return params


def data() -> tuple[np.ndarray, ...]:
    """Training images, test images, and their labels; entries between 0 and 1."""
    digits = load_digits()
    images = np.asarray(digits.data / 16, np.float32)
    return tuple(train_test_split(images, digits.target, test_size=0.2, random_state=0))


def optimiser(group: Group, steps: int) -> optax.GradientTransformation:
    """Gradients clipped at norm one, and a rate that falls to zero."""
    clip = optax.clip_by_global_norm(1.0)
    if group.optimiser == "SGD":
        rate = optax.cosine_decay_schedule(0.1, steps)
        return optax.chain(clip, optax.sgd(rate, momentum=0.9))
    rate = optax.cosine_decay_schedule(3e-3, steps)
    return optax.chain(clip, optax.adamw(rate, weight_decay=0.01))


def train(group: Group, steps: int = STEPS) -> list[tuple[float, dict[str, Any]]]:
    """For each of `group.members`: the test accuracy, and the layers' weights."""
    images, tests, labels, answers = (jnp.asarray(a) for a in data())
    method = optimiser(group, steps)

    def loss(params, factor, chosen):
        logits = jax.vmap(lambda x: _logits(group, params, factor, x))(images[chosen])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[chosen])
        return losses.mean()

    def member(kind, seed):
        start_key, batch_key = jr.split(jr.key(seed))
        params = _start(group, kind, start_key)
        factor = jnp.where(kind == 2, 1 / group.depth, group.depth**-0.5)

        def step(state, key):
            params, inner = state
            chosen = jr.choice(key, len(images), (BATCH,), replace=False)
            grads = jax.grad(loss)(params, factor, chosen)
            updates, inner = method.update(grads, inner, params)
            return (optax.apply_updates(params, updates), inner), None

        keys = jr.split(batch_key, steps)
        (params, _), _ = jax.lax.scan(step, (params, method.init(params)), keys)
        logits = jax.vmap(lambda x: _logits(group, params, factor, x))(tests)
        return jnp.mean(logits.argmax(1) == answers), params["layers"]

    kinds, seeds = zip(*group.members, strict=True)
    kinds = jnp.asarray([STARTS.index(kind) for kind in kinds])
    accuracy, layers = jax.device_get(_over_members(member)(kinds, jnp.asarray(seeds)))
    return [
        (float(accuracy[n]), {name: array[n] for name, array in layers.items()})
        for n in range(len(kinds))
    ]


def _over_members(member: Callable) -> Callable:
    """All at once, but one after the other on a CPU, whose convolutions with a kernel
    for each member are slow."""
    if jax.default_backend() == "cpu":
        return jax.jit(lambda *members: jax.lax.map(lambda one: member(*one), members))
    return jax.jit(jax.vmap(member))


def other_order(block: str, weights: dict[str, np.ndarray], seed: int = 0) -> dict:
    """The same function: hidden units in another order in each layer, or the features
    within each head. One layer has no hidden units, and stays."""
    rng = np.random.default_rng(seed)
    pairs = {"attention": (("outer", "value"), ("query", "key"))}
    pairs = pairs.get(block, (("outer", "inner"),))
    found = dict(weights)
    if block == "one layer":
        return found
    for left, right in pairs:
        heads = HEADS if block == "attention" else 1
        depth, units = weights[right].shape[:2]
        size = units // heads
        order = rng.permuted(np.tile(np.arange(size), (depth, heads, 1)), axis=2)
        order = (order + size * np.arange(heads)[:, None]).reshape(depth, units)
        for name, axis in ((left, 1 if left == "query" else 2), (right, 1)):
            rows = zip(weights[name], order, strict=True)
            found[name] = np.stack([np.take(z, o, axis - 1) for z, o in rows])
    return found
