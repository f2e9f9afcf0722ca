r"""Live models of PyTorch, Flax, Equinox and others: `diagnosis.of(model)`.

A model is read through the names that it gives its arrays itself: the `state_dict` of
PyTorch, the paths of a pytree in JAX. So a list of stages, a list of blocks, a wrapped
or compiled model, and a checkpoint of the same model are all understood alike
(`stages`), and no block can be lost without a word.

    weights = diagnosis.of(model)             # PyTorch, Equinox, Flax NNX
    weights = diagnosis.of(params)            # Flax Linen, Haiku, any nested dictionary
    found = diagnosis.diagnose([weights])

Nothing of these packages is imported: arrays are copied to NumPy, one at a time, when
they are asked for.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..files import Stored
from ..residual import ResNet
from .assembly import assemble
from .weights import Weights


def of(
    model: Any, *, pattern: str | None = None, source: str = "the network"
) -> Weights:
    """The weights of a live model, or of a dictionary of arrays, by stages.

    `pattern` chooses as in `read`. The arrays of a `ResNet` of the library are stacked
    for certain: those of a `TwoLayer` are `{"outer": (depth, q, m), "inner": (depth, m,
    q)}`, with `scale` where each layer has its own. `Weights` are returned as they are.
    Raises `ValueError` for a model without arrays and for what `assemble` refuses.

    ```pycon
    >>> model = {"blocks": [{"weight": np.full(2, k / 2)} for k in range(3)]}
    >>> weights = of(model)
    >>> weights.shapes, weights["blocks.#.weight"].sum(1).tolist()
    ({'blocks.#.weight': (3, 2)}, [0.0, 1.0, 2.0])
    ```
    """
    if isinstance(model, Weights):
        return model
    if isinstance(model, ResNet):
        named, pattern = _of_resnet(model), "*"
    else:
        named = _named(model)
    return assemble({name: _stored(z) for name, z in named}, source, pattern)


def _of_resnet(network: ResNet) -> Iterator[tuple[str, Any]]:
    yield from _leaves("", network.block)
    if network.scale is not None and network.scale.ndim == 1:
        yield "scale", network.scale


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    if callable(getattr(model, "state_dict", None)):
        buffers = dict(model.named_buffers()) if hasattr(model, "named_buffers") else {}
        state = model.state_dict()
        yield from ((name, z) for name, z in state.items() if name not in buffers)
    elif isinstance(model, Mapping | list | tuple):
        yield from _entries("", model)
    else:
        nnx = sys.modules.get("flax.nnx")
        if nnx is not None and isinstance(model, nnx.Module):
            model = nnx.state(model, nnx.Param)
        yield from _leaves("", model)


def _entries(prefix: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of nested dictionaries and lists, in the order that these have."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _entries(f"{prefix}{key}.", value)
    elif isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        for key, value in enumerate(tree):
            yield from _entries(f"{prefix}{key}.", value)
    elif hasattr(tree, "shape") and hasattr(tree, "dtype"):
        yield prefix[:-1], tree
    else:
        yield from _leaves(prefix, tree)


def _leaves(prefix: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """The arrays of a pytree, by their paths."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            yield f"{prefix}{name}".removesuffix(".value").rstrip("."), leaf


def _stored(leaf: Any) -> Stored:
    if np.ma.is_masked(leaf):
        raise ValueError("an array is masked, and its mask would be lost.")
    shape = tuple(map(int, leaf.shape))
    if hasattr(leaf, "detach"):
        kind = str(leaf.dtype).removeprefix("torch.")
        # NumPy lacks some of PyTorch's types: its narrow floats are read as float32
        narrow = "float" in kind and kind not in ("float32", "float64")
        try:
            dtype = np.dtype(np.float32 if narrow else kind)
        except TypeError:
            dtype = np.dtype("V")
        return Stored(shape, dtype, lambda: _of_torch(leaf, narrow), kind)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):  # keys
        return Stored(shape, np.dtype("V"), lambda: np.asarray(leaf), str(leaf.dtype))
    return Stored(
        shape, np.dtype(leaf.dtype), lambda: np.asarray(leaf), str(leaf.dtype)
    )


def _of_torch(tensor: Any, narrow: bool) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu()
        return (tensor.float() if narrow else tensor).numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise ValueError(f"a tensor has no values to read: {error}.") from error
