"""A piece of an experiment in another process: what travels with it, who may compute
it, and how it comes back.

Of who computes, only the interface `concurrent.futures.Executor` is known here.
"""

import functools
import itertools
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    wait,
)
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from .. import sources

Arrays = Mapping[str, Any]  # a scalar, or (dimensions, array), by name
AHEAD = 256  # pieces that are sent before the first comes back: each takes memory


class Sent(NamedTuple):
    """A piece as it travels: with the settings of JAX that another process, or a
    thread of it, does not share, and the code that it belongs to."""

    module: str
    code: str
    jax: str
    double: bool
    matmul: str | None
    partitionable: bool
    platform: str
    payload: bytes


def pack(module: str, compute: Callable[..., Arrays], *arguments: Any) -> Sent:
    """`compute(*arguments)` of an experiment's module, to be computed as here."""
    return Sent(
        module,
        sources.behind(module),
        jax.__version__,
        jax.config.read("jax_enable_x64"),
        jax.config.jax_default_matmul_precision,  # pyright: ignore
        jax.config.jax_threefry_partitionable,  # pyright: ignore
        jax.default_backend(),
        pickle.dumps((compute, arguments)),
    )


def unpack(sent: Sent) -> xr.Dataset:
    """Compute a piece that was sent here.

    Raises `ValueError` where this process has other code, another JAX or another
    platform than the run. Other errors become such as every process can read.
    """
    try:
        _require_same(sent)
        with (
            jax.enable_x64(sent.double),
            jax.default_matmul_precision(sent.matmul),
            jax.threefry_partitionable(sent.partitionable),
        ):
            compute, arguments = pickle.loads(sent.payload)
            return labelled(compute(*arguments))
    except Exception as error:
        failure = _portable(error)
    raise failure


def labelled(arrays: Arrays) -> xr.Dataset:
    """With the arrays of JAX as those of NumPy, which netCDF knows. Axes that nobody
    named are named after their array: those of what is shared."""

    def variable(name: str, value: Any) -> Any:
        dims, array = value if isinstance(value, tuple) else (None, value)
        array = np.asarray(array)
        own = tuple(f"{name}_{axis}" for axis in range(array.ndim))
        return own if dims is None else dims, array

    return xr.Dataset({name: variable(name, value) for name, value in arrays.items()})


def gather(
    executor: Executor, pieces: Iterable[tuple[int, Sent]]
) -> Iterator[tuple[int, xr.Dataset]]:
    """The results, with their places, as they arrive.

    A result is forgotten here once it is handed on; as long as somebody holds it, Dask
    computes it again after the loss of the worker that made it. The first error ends
    the run: what has not begun is given up, and what comes back still is handed on
    before the error is raised.
    """
    rest, waiting = iter(pieces), {}
    failure: BaseException | None = None
    try:
        while True:
            try:
                for place, sent in itertools.islice(rest, AHEAD - len(waiting)):
                    waiting[executor.submit(unpack, sent)] = place
            except BrokenExecutor as error:
                failure, rest = failure or error, iter(())
            if not waiting:
                break
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            while done:
                place = waiting.pop(future := done.pop())
                error = CancelledError() if future.cancelled() else future.exception()
                if error is None:
                    found = future.result()
                    del future
                    yield place, found
                elif failure is None:
                    failure, rest = error, iter(())
                    # one that is given up may never count as done: nobody waits for it
                    waiting = {
                        each: place
                        for each, place in waiting.items()
                        if each in done or not each.cancel()
                    }
    finally:
        for each in waiting:
            each.cancel()
    if failure is not None:
        raise failure


def _require_same(sent: Sent) -> None:
    here = {"code": _code(sent.module), "JAX": jax.__version__}
    for what, there in {"code": sent.code, "JAX": sent.jax}.items():
        if here[what] != there:
            raise ValueError(
                f"a worker runs other {what} ({here[what]}, not {there}): start the "
                "workers again, in the same checkout and environment."
            )
    chosen = jax.config.jax_platforms  # pyright: ignore
    if sent.platform == "cpu" and not chosen:
        jax.config.update("jax_platforms", "cpu")  # heard before the first use of JAX
    if jax.default_backend() != sent.platform:
        raise ValueError(
            f"a worker computes on {jax.default_backend()}, this run on "
            f"{sent.platform}: set JAX_PLATFORMS alike for both."
        )


@functools.cache
def _code(module: str) -> str:
    """The hash of the code that this process runs: none where a file has changed since
    the first piece came, since a part may have been imported before."""
    if sources.tree() != _first_seen():
        return "edited"
    ours = sources.belongs(module)
    return sources.code_hash(module) if ours else sources.foreign_hash(module)


@functools.cache
def _first_seen() -> str:
    return sources.tree()


def _portable(error: Exception) -> Exception:
    """As an error of Python's own: others may not survive the way."""
    for kind in (ValueError, OSError, MemoryError):
        if isinstance(error, kind):
            return kind(str(error))
    return RuntimeError("".join(traceback.format_exception(error)))
