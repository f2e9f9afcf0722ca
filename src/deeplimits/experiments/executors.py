"""Who computes the pieces of an experiment: processes of this machine, or a cluster.

Both are a `concurrent.futures.Executor`, for as long as a `with` lasts.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
)
from typing import Any

from .. import checks

ANSWER = 10.0  # seconds that a scheduler has
WORKER_BYTES = 3 * 10**8  # of a process that has imported JAX, before it computes


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor]:
    """`count` processes of this machine.

    They are spawned, since threads of JAX do not survive a fork, and end with this one,
    however it ends. Raises `ValueError` for a count that is no positive number, or more
    than this machine has memory for, and `ChildProcessError` where a process was ended
    from outside.
    """
    checks.require_whole(1, workers=count)
    if count > (most := max(1, checks.memory() // WORKER_BYTES)):
        raise ValueError(
            f"this machine has room for {most} workers, each of which takes "
            f"{WORKER_BYTES / 1e9} GB of memory before it computes: got {count}."
        )
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, spawn, initializer=_follow)
    try:
        yield pool
    except BrokenExecutor as error:
        raise ChildProcessError(
            "a worker was ended from outside, for lack of memory perhaps: fewer "
            "--workers need less"
        ) from error
    except (KeyboardInterrupt, SystemExit):
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _follow() -> None:
    """Let this process end with its parent, and without a word on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Executor]:
    """The workers of the Dask scheduler at `address`, as `tcp://host:8786`.

    Raises `ValueError` for what is no such address and where Dask is not installed, and
    `ConnectionError` where no scheduler answers, where it is lost, and where a piece
    ended several workers. Nothing is logged meanwhile: with its scheduler Dask loses
    every piece by itself, and says so of each.
    """
    client, closed = _connected(address), threading.Event()
    from distributed import KilledWorker

    silenced = logging.root.manager.disable
    logging.disable(logging.CRITICAL)

    lost = f"the scheduler {address} is lost"
    executor = _Watched(client.get_executor(pure=False))

    def watch() -> None:
        while not closed.wait(ANSWER / 10):
            if client.status == "closed" or not _answers(address):
                executor.end(ConnectionError(lost))

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield executor
    except CancelledError as error:
        raise ConnectionError(lost) from error
    except KilledWorker as error:
        raise ConnectionError(
            "one piece ended several workers, for lack of memory perhaps"
        ) from error
    finally:
        closed.set()
        client.close(timeout=2)
        logging.disable(silenced)


def _answers(address: str) -> bool:
    """Whether anybody listens there: the client itself may go on waiting."""
    from distributed.comm.addressing import get_address_host_port

    try:
        place = get_address_host_port(address)
        socket.create_connection(place, ANSWER).close()
    except ConnectionRefusedError:
        return False
    except (OSError, ValueError):  # slow, or no address of that kind: no proof
        return True
    return True


class _Watched(Executor):
    """Another executor, whose futures can be ended from outside: Dask forgets one whose
    result was on its way when the scheduler was lost."""

    def __init__(self, inner: Executor):
        self.inner, self.begun = inner, weakref.WeakSet()

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        self.begun.add(future := self.inner.submit(fn, *args, **kwargs))
        return future

    def end(self, error: Exception) -> None:
        for future in list(self.begun):
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)


def _connected(address: str) -> Any:
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError:
        raise ValueError(
            'a scheduler needs Dask: pip install "deeplimits[cluster]".'
        ) from None
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise ValueError(
            f"{address} is no address of a scheduler, as tcp://host:8786: {error}."
        ) from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    found: list[Any] = []

    def connect() -> None:
        try:
            found.append(Client(address, timeout=ANSWER, set_as_default=False))
        except Exception as error:
            found.append(error)

    # in a thread: where somebody accepts and is silent, Dask waits for ever
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(3 * ANSWER)
    if found and isinstance(found[0], Client):
        return found[0]
    error = found[0] if found else TimeoutError(f"nothing within {3 * ANSWER:g} s")
    if isinstance(error, MemoryError):  # of a length that was none
        error = ValueError("what answers is no scheduler")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise ConnectionError(f"no scheduler answers at {address}: {reason}") from error
