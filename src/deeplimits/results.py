"""Archived runs: labelled arrays with provenance, stored so that damage shows."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import xarray as xr

from . import __version__
from .files import MOST_BYTES, atomic


def lock_hash(root: Path | None = None) -> str:
    """The SHA-256 of `requirements.lock`, or "unknown" outside a checkout."""
    lock = (_root() if root is None else root) / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "unknown"


def _root() -> Path:
    return Path(__file__).parents[2]


def commit() -> str:
    """The checkout's commit, with "+" where tracked files differ; else "unknown".

    ```pycon
    >>> import re
    >>> re.fullmatch(r"unknown|[0-9a-f]{10,}[+]?", commit()) is not None
    True
    ```
    """
    if not (_root() / "book" / "claims.yml").is_file():
        return "unknown"  # installed, it may lie in a checkout of something else
    git = [
        "git",
        "-C",
        str(_root()),
        "describe",
        "--always",
        "--dirty=+",
        "--abbrev=10",
    ]
    try:
        answer = subprocess.run(
            [*git, "--exclude=*"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


def provenance() -> dict[str, str]:
    """Where a number comes from: versions, commit, device, precision, lock."""
    device = jax.devices()[0]
    return {
        "version": __version__,
        "commit": commit(),
        "jax": jax.__version__,
        "device": f"{device.platform}: {device.device_kind}",
        "dtype": "float64" if jax.config.read("jax_enable_x64") else "float32",
        "lock": lock_hash(),
    }


def config_json(config: Any) -> str:
    """A configuration (a dataclass or a dictionary) as canonical JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    return json.dumps(config, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"a configuration holds numbers, names, tuples: got {value!r:.60}")


def checksum(dataset: xr.Dataset) -> str:
    """The SHA-256 of every variable's name, dimensions, type and bytes, and of the
    attributes (its own aside)."""
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        variable = dataset.variables[name]
        values = np.ascontiguousarray(variable.values)
        if values.dtype.kind in "OUS":
            values = np.array([str(v).encode() for v in values.ravel()])
            digest.update(f"{name} {variable.dims} text".encode())
        else:
            values = values.astype(values.dtype.newbyteorder("<"))
            digest.update(f"{name} {variable.dims} {values.dtype.str}".encode())
        digest.update(values.tobytes())
    attributes = {k: str(v) for k, v in dataset.attrs.items() if k != "checksum"}
    digest.update(json.dumps(attributes, sort_keys=True).encode())
    return digest.hexdigest()


def write(
    dataset: xr.Dataset,
    path: str | os.PathLike,
    folder: str | os.PathLike | None = None,
) -> None:
    """Write a data set as netCDF, whole or not at all, with a checksum of its own.

    The attribute `checksum` is that of the values and attributes; a checksum of the
    bytes of the file follows its end.

    Until it is whole it lies in `folder`, on the same disk, or beside `path`. Raises
    `ValueError` for more bytes than `load` would read.
    """
    _require_declared(path, (v.nbytes for v in dataset.variables.values()))
    stamped = dataset.assign_attrs(checksum=checksum(dataset))
    packing = {name: {"zlib": True} for name in stamped.data_vars if stamped[name].ndim}
    # made in memory: where a disk is full, HDF5 ends the process as it closes a file;
    # released at once: a view left in the traceback of an error is one that the garbage
    # collector of Python 3.13 complains of
    content = stamped.to_netcdf(engine="h5netcdf", encoding=packing)
    with content, atomic(path, folder) as temporary:
        temporary.write_bytes(b"".join([content, _seal(content)]))


def _require_declared(path: str | os.PathLike, sizes: Iterable[int]) -> None:
    if (total := sum(sizes)) > MOST_BYTES:
        raise ValueError(
            f"the arrays of {path} take {total} bytes, more than the {MOST_BYTES} that "
            "one file may hold."
        )


def save(
    dataset: xr.Dataset,
    path: str | os.PathLike,
    *,
    config: Any,
    seed: int,
    wall_seconds: float,
    folder: str | os.PathLike | None = None,
) -> None:
    """`write`, with provenance.

    Its own attribute `dtype` stays: an experiment that computes in another precision
    than the default says so there. Raises `ValueError` for a variable that is NaN
    throughout: nothing was measured.
    """
    for name, variable in dataset.data_vars.items():
        if variable.isnull().all():
            raise ValueError(f"{name} is NaN throughout: there is nothing to save.")
    own = {k: v for k, v in dataset.attrs.items() if k == "dtype"}
    stamped = dataset.assign_attrs(
        provenance() | own,
        config=config_json(config),
        seed=str(seed),
        wall_seconds=f"{wall_seconds:.1f}",
    )
    write(stamped, path, folder)


def require_same(
    identity: Mapping[str, str], found: xr.Dataset, path: str | os.PathLike
) -> None:
    """`ValueError` where the data set at `path` is of another computation, and in what
    it differs."""
    if "identity" not in found.attrs:
        raise ValueError(
            f"{path} does not say which computation it holds: move it away, or name "
            "another file."
        )
    try:
        there = dict(json.loads(found.attrs["identity"]))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} does not say soundly which computation it holds: move it away, or "
            "name another file."
        ) from error
    differing = [key for key in identity if there.get(key) != identity[key]]
    if differing:
        raise ValueError(
            f"{path} holds another computation (its {', '.join(differing)} differs): "
            "move it away, or name another file."
        )


def archive(name: str) -> xr.Dataset:
    """An archived run of the book, as `marion2024/long-time.nc`.

    It is in the checkout's `results/`, or was installed with the package. Raises
    `ValueError` where there is none of that name.

    ```pycon
    >>> run = archive("marion2024/long-time.nc")
    >>> run.attrs["seed"], float(run.attrs["wall_seconds"]) > 0
    ('2024', True)
    ```
    """
    here = _root() / "results" / name
    installed = Path(__file__).parent / "archive" / name
    return load(here if here.is_file() else installed)


_SEAL = b"\nsha256 "


def _seal(content: bytes | memoryview) -> bytes:
    """What follows the bytes of a file. Readers of netCDF do not look there; who opens
    the file to write cuts it off."""
    return _SEAL + hashlib.sha256(content).hexdigest().encode()


# Nothing else is handed to HDF5, and from memory: a changed byte among its headers can
# make it read on for ever, and a file that it could not read stays open until Python
# collects it, with what was read of it for all who open it again, mended or not.
def _unsealed(path: Path) -> bytes:
    with path.open("rb") as file:
        end = max(path.stat().st_size - len(_seal(b"")), 0)
        file.seek(end)
        seal = file.read()
        file.seek(0)  # a large file without a seal is not read
        if seal.startswith(_SEAL) and seal == _seal(content := file.read(end)):
            return content
    raise ValueError(
        f"{path} is truncated, damaged, edited or from an earlier version: it does not "
        "end in the checksum of its bytes. Move it away to make it again."
    )


def _declared(content: io.BytesIO) -> list[int]:
    """The bytes of every array of a file, as its headers say: none is unpacked."""
    with h5py.File(content) as file:
        arrays = (item for item in file.values() if isinstance(item, h5py.Dataset))
        return [array.size * array.dtype.itemsize for array in arrays]


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # h5py raises whatever the damaged bytes provoke
        raise ValueError(f"{path} is truncated or no netCDF file ({error}).") from error


def load(path: str | os.PathLike) -> xr.Dataset:
    """Read what `save` wrote.

    Raises `ValueError` for a file that is missing, truncated, damaged or edited, and
    for one whose arrays would take more than 2 GiB: a small file can declare any size.

    ```pycon
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "errors.nc"
    ...     write(xr.Dataset({"error": ("depth", [0.5, 0.25])}), path)
    ...     found = load(path)
    >>> found["error"].values.tolist()
    [0.5, 0.25]
    ```
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no archived result {path}.")
    content = io.BytesIO(_unsealed(path))
    with _damage_named(path):
        sizes = _declared(content)
    _require_declared(path, sizes)
    with _damage_named(path):
        with xr.open_dataset(content, engine="h5netcdf") as opened:
            dataset = opened.load()
        found = checksum(dataset)
    if dataset.attrs.get("checksum") != found:
        raise ValueError(
            f"{path} was edited after it was written: its checksum differs."
        )
    return dataset
