"""Who computes the pieces of an experiment: processes of this machine, or a cluster.

Both are a `concurrent.futures.Executor`, for as long as a `with` lasts.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    ProcessPoolExecutor,
)
from typing import Any

from ..checks import require_whole

ANSWER = 10.0  # seconds that a scheduler has


@contextlib.contextmanager
def processes(count: int) -> Iterator[Executor]:
    """`count` processes of this machine.

    They are spawned, since threads of JAX do not survive a fork, and end with this one,
    however it ends. Raises `ValueError` for a count that is no positive number, and
    `ChildProcessError` where a process was ended from outside.
    """
    require_whole(1, workers=count)
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

    Raises `ValueError` where Dask is not installed, and `ConnectionError` where no
    scheduler answers, where it is lost, and where a piece ended several workers.
    """
    client = _connected(address)
    from distributed import KilledWorker

    try:
        yield client.get_executor(pure=False)
    except CancelledError as error:
        raise ConnectionError(f"the scheduler {address} is lost") from error
    except KilledWorker as error:
        raise ConnectionError(
            "one piece ended several workers, for lack of memory perhaps"
        ) from error
    finally:
        client.close(timeout=2)


def _connected(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            'a scheduler needs Dask: pip install "deeplimits[cluster]".'
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        return Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"no scheduler answers at {address}: {reason}") from error
