"""Files that are written whole or not at all, and read without running them."""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

try:
    import fcntl
except ImportError:  # not on Windows: there nobody is kept from a folder in use
    fcntl = None

MOST_BYTES = 2**31  # of arrays in memory, whatever a file declares
_TEMPORARY = ".tmp"  # how the name of what is not yet whole ends
_PAGE = 2**16  # bytes that a disk must have room for before anything is computed


def printable(text: str, most: int | None = None) -> str:
    """A text in one line: what is not printable is escaped, and where it is longer than
    `most`, its middle is left out."""
    marked = (c if c.isprintable() else c.encode("unicode_escape") for c in text)
    line = "".join(c if isinstance(c, str) else c.decode() for c in marked)
    if most is None or len(line) <= most:
        return line
    head = 2 * (most - 3) // 3
    return f"{line[:head]} … {line[len(line) - (most - 3 - head) :]}"


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


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file.

    Raises `ValueError`, with the reason alone and in one line, for a damaged file and
    for pickled objects.
    """
    try:
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if isinstance(file, np.ndarray):
                raise ValueError("one array without a name")
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and numpy raise what the bytes provoke
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "pickle" in reason.lower():
            reason = "it holds pickled objects, or is no .npz file"
        raise ValueError(reason) from error
