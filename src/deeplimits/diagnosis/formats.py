r"""Checkpoints as they are saved: `.npz` and `.safetensors`, read one array at a time.

A `.safetensors` file is eight bytes of length, a header in JSON (name, type, shape and
the place of each array) and the arrays' bytes: reading it takes no package, and nothing
is run. A file may declare a header of at most 100 MB and 100,000 arrays; arrays may not
overlap or go beyond the file. Of an `.npz` the directory and the headers are held
against each other before anything is unpacked, and no array may declare more than
2 GiB, nor all of them more than 64 GiB, unless the file itself is as large.
"""

import itertools
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ..files import MOST_ARRAYS, Stored, open_npz, printable
from .assembly import assemble
from .weights import Weights

_LONGEST_HEADER = 100_000_000
_MOST_AXES = 32
_MOST_UNPACKED = 2**36  # bytes: a small file that unpacks to more is meant to
_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "BOOL": np.dtype(bool),
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}


def read(path: str | os.PathLike, *, pattern: str | None = None) -> Weights:
    """The weights of an `.npz` or `.safetensors` file, by stages.

    Layers that were saved one by one are found by their names (`stages`), or by a
    `pattern` such as `encoder.layers.#`; a file without numbers in its names, or one
    chosen by a pattern without `#`, holds one stacked array a parameter. A file called
    `depth-64` must hold 64 layers. Raises `ValueError` for another or a damaged file,
    for pickled objects, and for what `assemble` refuses.

    ```pycon
    >>> import tempfile
    >>> layers = {f"layers.{k}.weight": np.full(2, float(k)) for k in (10, 9, 2)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/depth-3.npz", **layers)
    ...     weights = read(f"{folder}/depth-3.npz")
    ...     weights["layers.#.weight"][:, 0].tolist()  # in numeric order
    [2.0, 9.0, 10.0]
    ```
    """
    path = Path(path)
    readers = {".npz": open_npz, ".safetensors": _safetensors}
    shown = printable(str(path))
    if path.suffix not in readers:
        raise ValueError(f"{shown} must end in .npz or .safetensors.")
    if not path.is_file():
        raise ValueError(f"there is no file {shown}.")
    try:
        arrays = readers[path.suffix](path)
        _require_measure(arrays, path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{shown} cannot be read: {error}.") from error
    weights = assemble(arrays, shown, pattern)
    named = re.search(r"depth[-_]?([0-9]{1,9})$", path.stem)
    depths = [weights.shapes[names[0]][0] for names in weights.stages.values()]
    if named and int(named[1]) not in (sum(depths), max(depths)):
        raise ValueError(
            f"{shown} is named for another depth: it has {sum(depths)} layers."
        )
    return weights


def _require_measure(arrays: dict[str, Stored], path: Path) -> None:
    total = sum(array.nbytes for array in arrays.values())
    if total > max(_MOST_UNPACKED, path.stat().st_size):
        raise ValueError(
            f"its arrays declare {total} bytes together, more than the limit of "
            f"{_MOST_UNPACKED}"
        )


def _safetensors(path: Path) -> dict[str, Stored]:
    try:
        header, start = _header(path)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("its header is no JSON") from error
    size = path.stat().st_size - start
    header.pop("__metadata__", None)
    if len(header) > MOST_ARRAYS:
        raise ValueError(f"{len(header)} arrays: more than {MOST_ARRAYS}")
    found = {}
    spans = []
    for name, entry in header.items():
        try:
            kind, shape, begin, end = _entry(entry, size)
        except ValueError as error:
            raise ValueError(f"{printable(name, 60)}: {error}") from error
        found[name] = _stored(path, kind, shape, start + begin)
        spans.append((begin, end))
    for (_, end), (begin, _) in itertools.pairwise(sorted(spans)):
        if begin < end:
            raise ValueError("two of its arrays overlap")
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with open(path, "rb") as file:
        prefix = file.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > path.stat().st_size - 8:
            raise ValueError("it is truncated or no safetensors file")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_distinct)
    if not isinstance(header, dict):
        raise ValueError("its header is no list of arrays")
    return header, 8 + length


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("two of its arrays have one name")
    return content


def _entry(entry: Any, size: int) -> tuple[str, tuple[int, ...], int, int]:
    """Type, shape and place of an array that lies within `size` bytes."""
    try:
        kind, shape = entry["dtype"], tuple(entry["shape"])
        begin, end = entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("no type, shape and two offsets") from error
    numbers = (*shape, begin, end)
    if (
        type(kind) is not str
        or len(shape) > _MOST_AXES
        or any(type(n) is not int or n < 0 for n in numbers)
    ):
        raise ValueError("no type, shape and two offsets")
    if not begin <= end <= size:
        raise ValueError(f"bytes {begin} to {end} of {size}")
    if kind in _TYPES and end - begin != math.prod((*shape, _TYPES[kind].itemsize)):
        raise ValueError(f"{end - begin} bytes for the shape {shape}")
    return kind, shape, begin, end


def _stored(path: Path, kind: str, shape: tuple[int, ...], offset: int) -> Stored:
    dtype = _TYPES.get(kind, np.dtype("V"))

    def load() -> np.ndarray:
        count = math.prod((*shape, dtype.itemsize))
        content = np.fromfile(path, np.uint8, count, offset=offset)
        if content.size != count:
            raise ValueError(f"{printable(str(path))} has become shorter.")
        return content.view(dtype).reshape(shape)

    return Stored(shape, dtype, load, printable(kind, 20))
