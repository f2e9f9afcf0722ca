"""Files that are written whole or not at all, and read without running them."""

import contextlib
import dataclasses
import errno
import math
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows: there nobody is kept from a folder in use
    fcntl = None

MOST_BYTES = 2**31  # of arrays in memory, whatever a file declares
MOST_ARRAYS = 100_000  # in a file
_TEMPORARY = ".tmp"  # how the name of what is not yet whole ends
_PAGE = 2**16  # bytes that a disk must have room for before anything is computed
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def printable(text: str, most: int | None = None) -> str:
    """A text in one line: what is not printable is escaped, and where it is longer than
    `most`, its middle is left out."""
    marked = (c if c.isprintable() else c.encode("unicode_escape") for c in text)
    line = "".join(c if isinstance(c, str) else c.decode() for c in marked)
    if most is None or len(line) <= most:
        return line
    head = 2 * (most - 5) // 3
    return f"{line[:head]} ... {line[len(line) - (most - 5 - head) :]}"


@contextlib.contextmanager
def atomic(
    path: str | os.PathLike, folder: str | os.PathLike | None = None
) -> Iterator[Path]:
    """A temporary path that replaces `path` where all went well.

    It lies in `folder`, on the same disk, or beside `path`. Missing folders are made.
    After an exception `path` is as it was, and an `OSError` names it.
    """
    path = Path(path)
    folder = path.parent if folder is None else Path(folder)
    temporary = None
    try:
        for made in (path.parent, folder):
            made.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=_TEMPORARY, dir=folder)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder, made if need be, against other processes.

    What they left half written when they were killed is removed. Raises `ValueError`
    where one is still at work.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as lock:
        _lock(lock.fileno(), folder)
        for left in folder.glob(f".*{_TEMPORARY}"):
            left.unlink(missing_ok=True)
        yield


def _lock(handle: int, folder: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"another process computes this now, in {folder}: wait until it has ended."
        ) from error
    except OSError:
        pass  # a disk without locks


def remove(folder: str | os.PathLike) -> None:
    """Remove a folder with what is in it, and the one around it if that is empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        Path(folder).parent.rmdir()


def require_writable(path: str | os.PathLike) -> None:
    """Raise `ValueError` where no file can be written at `path`; make its folder."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, "what is there is no file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(_PAGE))
    except (OSError, RecursionError) as error:  # of thousands of folders
        reason = getattr(error, "strerror", error)
        raise ValueError(f"{path} cannot be written ({reason}).") from error


@dataclasses.dataclass(frozen=True)
class Stored:
    """An array where it lies, in a file or in a model: its shape and type are known,
    and `load` reads it. `kind` is the type's name there, of one that NumPy lacks too
    (`dtype` is void then)."""

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]
    kind: str

    @property
    def nbytes(self) -> int:
        return math.prod((*self.shape, self.dtype.itemsize))

    @classmethod
    def of(cls, array: np.ndarray) -> "Stored":
        return cls(array.shape, array.dtype, lambda: array, str(array.dtype))


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Raises `ValueError`, with the reason alone and in one line, for a damaged file, for
    pickled objects, and for more than `MOST_BYTES` in all.
    """
    stored = open_npz(path)
    _require_few_bytes("the file", sum(array.nbytes for array in stored.values()))
    return {name: array.load() for name, array in stored.items()}


def open_npz(path: str | os.PathLike) -> dict[str, Stored]:
    """The arrays of an `.npz` file, to be read one at a time; the file stays open as
    long as one of them is held.

    Raises `ValueError` as `read_npz` does, where an array by itself declares more than
    `MOST_BYTES`; what the headers do not show is raised by the array's `load`.
    """
    with _in_one_line():
        with open(path, "rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise ValueError("one array without a name")
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
        if len(members) > MOST_ARRAYS:
            raise ValueError(f"{len(members)} arrays: more than {MOST_ARRAYS}")
        found = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"two arrays have the name {printable(name, 60)}")
            found[name] = _member(archive, member)
        return found


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Stored:
    name = printable(member.filename.removesuffix(".npy"), 60)
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} has a header of version {version}")
        with warnings.catch_warnings():  # headers that Python 2 wrote are read, too
            warnings.simplefilter("ignore", UserWarning)
            shape, _, dtype = _HEADERS[version](file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    declared = math.prod((*shape, dtype.itemsize))
    _require_few_bytes(name, declared)
    if declared != member.file_size - start:
        raise ValueError(
            f"{name} declares {declared} of {member.file_size - start} bytes"
        )

    def load() -> np.ndarray:
        with _in_one_line(), archive.open(member) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return np.lib.format.read_array(file, allow_pickle=False)

    return Stored(shape, dtype, load, str(dtype))


def _require_few_bytes(what: str, nbytes: int) -> None:
    if nbytes > MOST_BYTES:
        raise ValueError(
            f"{what} declares {nbytes} bytes, more than the limit of {MOST_BYTES}"
        )


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Whatever bytes provoke in `zipfile`, `zlib` and NumPy as a `ValueError`."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = printable(str(error).partition("\n")[0], 200) or type(error).__name__
        raise ValueError(reason) from error
