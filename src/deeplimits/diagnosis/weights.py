r"""Weights exported from any framework: one array per parameter, depth leading.

From PyTorch, for a network whose residual blocks are `model.blocks`:

    import numpy as np
    layers = [dict(block.named_parameters()) for block in model.blocks]
    array = lambda z: z.detach().float().cpu().numpy()
    stacked = {key: np.stack([array(z[key]) for z in layers]) for key in layers[0]}
    np.savez(f"depth-{len(layers)}.npz", **stacked)

From Flax, for blocks named `Block_0`, `Block_1` and so on in `params`:

    import jax, numpy as np
    from flax.traverse_util import flatten_dict
    layers = [params[f"Block_{k}"] for k in range(depth)]
    stacked = jax.tree.map(lambda *z: np.stack(z).astype("float32"), *layers)
    np.savez(f"depth-{depth}.npz", **flatten_dict(stacked, sep="."))

A file called `depth-64` must hold 64 layers. Names that differ by a number alone, like
the `0.weight` and `2.weight` of a `Sequential` block, are refused, as those of layers
that are not stacked: rename them in `stacked`. The format `.safetensors` is eight bytes
of length, a header in JSON and the arrays' bytes: reading it takes no package.
"""

import json
import math
import os
import re
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from ..files import read_npz
from ..residual import ResNet

Weights = dict[str, np.ndarray]

_TENSORS = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}


def read(path: str | os.PathLike) -> Weights:
    """The arrays of an `.npz` or `.safetensors` file, checked.

    Raises `ValueError` for another or a damaged file, for pickled objects, and for
    arrays that are not real and finite or do not share one depth of two or more.
    """
    path = Path(path)
    readers = {".npz": _npz, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise ValueError(f"{path} must end in .npz or .safetensors.")
    if not path.is_file():
        raise ValueError(f"there is no file {path}.")
    weights = readers[path.suffix](path)
    check(weights, path)
    named = re.search(r"depth[-_]?(\d+)$", path.stem)
    depth = len(next(iter(weights.values())))
    if named and int(named[1]) != depth:
        raise ValueError(f"{path} is named for another depth: it has {depth} layers.")
    return weights


def as_weights(network: Weights | ResNet) -> Weights:
    """The arrays of a network: for a `ResNet` those of its blocks, by their names.

    For a `TwoLayer`: `{"outer": (depth, q, m), "inner": (depth, m, q)}`; with `scale`
    where it holds one factor a layer. A dictionary of arrays is returned as it came.
    """
    if not isinstance(network, ResNet):
        return network
    leaves = jax.tree_util.tree_leaves_with_path(network.block)
    named = {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}
    if network.scale is not None and network.scale.ndim == 1:
        named["scale"] = network.scale
    return {name: np.asarray(leaf) for name, leaf in named.items()}


def check(weights: Weights, source: object, *, stacked: bool = False) -> None:
    """Raise `ValueError` where the arrays cannot be the layers of one network.

    Unless they are `stacked` for certain, as those of a `ResNet` are, names may not
    differ by a number alone: `blocks.0.weight` and `blocks.1.weight` are layers that
    were saved one by one, and would be diagnosed row by row.
    """
    if not weights:
        raise ValueError(f"{source} holds no array.")
    if not stacked:
        _check_names(weights, source)
    for name, array in weights.items():
        check_array(array, f"{name} in {source}")
    depths = {name: len(array) for name, array in weights.items()}
    if len(set(depths.values())) > 1:
        raise ValueError(
            f"the arrays of {source} differ in depth, their first size: {depths}."
        )


def _check_names(weights: Weights, source: object) -> None:
    alike: dict[str, str] = {}
    for name in weights:
        first = alike.setdefault(re.sub(r"\d+", "0", name), name)
        if first != name:
            raise ValueError(
                f"{first} and {name} in {source} differ by a number alone, like layers "
                "that were saved one by one: stack these, np.stack([layer, ...]), one "
                "array a parameter. What is a stack already needs another name."
            )


def check_array(array: np.ndarray, name: str) -> None:
    """Raise `ValueError` where an array cannot be the layers of one parameter."""
    if not hasattr(array, "dtype"):
        raise ValueError(f"{name} is no array but a {type(array).__name__}.")
    if array.dtype.kind not in "fiu" and array.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"{name} is not numeric: it has type {array.dtype}.")
    if array.ndim < 1 or array.shape[0] < 2:
        raise ValueError(
            f"{name} has fewer than two layers on its first axis: {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty: it has shape {array.shape}.")
    if not np.isfinite(np.asarray(array, np.float64)).all():
        raise ValueError(f"{name} holds NaN or infinity.")


def _npz(path: Path) -> Weights:
    try:
        return read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def _safetensors(path: Path) -> Weights:
    try:
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        body = memoryview(content)[start:]
        return {name: _tensor(entry, body) for name, entry in header.items()}
    except Exception as error:  # a header that lies raises what it provokes
        raise ValueError(
            f"{path} is truncated or no safetensors file ({error})."
        ) from error


def _tensor(entry: dict, content: memoryview) -> np.ndarray:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in _TENSORS:
        raise ValueError(f"type {entry['dtype']} is not one of {', '.join(_TENSORS)}")
    if not 0 <= begin <= end <= len(content):
        raise ValueError(f"bytes {begin} to {end} of {len(content)}")
    array = np.frombuffer(content[begin:end], _TENSORS[entry["dtype"]])
    if array.size != math.prod(entry["shape"]):
        raise ValueError(f"{array.size} numbers for the shape {entry['shape']}")
    return array.reshape(entry["shape"])
