"""Files of weights: `.npz` and `.safetensors`."""

import json
import math
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np

from ..files import read_npz
from .weights import Weights, as_weights

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
    weights = as_weights(readers[path.suffix](path), str(path))
    named = re.search(r"depth[-_]?(\d+)$", path.stem)
    depth = len(next(iter(weights.values())))
    if named and int(named[1]) != depth:
        raise ValueError(f"{path} is named for another depth: it has {depth} layers.")
    return weights


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def _safetensors(path: Path) -> dict[str, np.ndarray]:
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
