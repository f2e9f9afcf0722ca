"""Files that are written whole or not at all, and results kept in them."""

import contextlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path in the same folder that replaces `path` where all went well.

    Missing folders are made. After an exception `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept(
    scratch: str | os.PathLike | None,
    name: str,
    compute: Callable[[], Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """The arrays `compute` returns, from the file `name` in `scratch` if it is there.

    A run made of such pieces goes on where it was killed. Raises `ValueError` for a
    file that cannot be read.
    """
    if scratch is None:
        return {key: np.asarray(value) for key, value in compute().items()}
    path = Path(scratch) / f"{name}.npz"
    if not path.exists():
        found = {key: np.asarray(value) for key, value in compute().items()}
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **found)
        return found
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is not readable ({error}): delete it to compute it again."
        ) from error
