"""Run what the configurations of the experiments accept at the edge of their sizes.

Each field of each experiment is set, alone, to values that mean little (0, -1, 1, NaN,
none, very many) and to the least that is taken. What is refused is refused where it is
named; the rest is run at `smoke`, each in a process with a limit of time and of memory,
and must end with a result or with one line.

    python tools/trials.py                    all of them, some minutes an experiment
    python tools/trials.py marion2024/digits  those of one experiment

By hand: it takes too long for every change.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from deeplimits import cli, experiments, results, sources

SECONDS, BYTES = 60, 3 * 10**9
ENDED, LONG = (
    "ended",
    f"more than {SECONDS} s of a processor",
)  # no fault: it may take so long
# Its process imports everything once, computes nothing, and is forked for each trial.
SERVER = multiprocessing.get_context("forkserver")


def values(present: Any) -> list[Any]:
    """What a field is set to."""
    if isinstance(present, bool):
        return [not present]
    if isinstance(present, str):
        return ["", "nothing"]
    if isinstance(present, tuple):
        single = [(v,) for v in values(present[0])] if present else []
        return [(), *single, present[::-1], present * 2]
    if isinstance(present, int):
        return [0, -1, 1, 2, 3, 10**6, 10**12]
    return [0.0, -1.0, float("nan"), 1e-9, 1e9, 1e300]


def accepted(name: str) -> Iterator[tuple[str, Any]]:
    """The fields and values that the configuration takes."""
    preset = experiments.find(name).preset("smoke")
    for field in dataclasses.fields(preset):
        present = getattr(preset, field.name)
        tried = [*values(present), *least(present, partial(takes, preset, field.name))]
        for value in tried:
            if takes(preset, field.name, value):
                yield field.name, value


def takes(preset: Any, field: str, value: Any) -> bool:
    """Whether the configuration takes it."""
    try:
        dataclasses.replace(preset, **{field: value})
    except ValueError:
        return False
    return True


def least(present: Any, takes: Callable[[Any], bool]) -> list[Any]:
    """The smallest count that is taken, where the others tried are smaller."""
    single = isinstance(present, tuple)
    count = present[0] if single and present else present
    if isinstance(count, bool) or not isinstance(count, int):
        return []
    tried = ((n,) if single else n for n in range(1, 129))
    found = [value for value in tried if takes(value)][:1]
    return [value for value in found if value not in values(present)]


def attempt(name: str, field: str, value: Any, log: Path) -> None:
    """Run the experiment with this value, and end with 0 after a result or a line."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    # Of data alone: JAX reserves far more addresses than it uses; and of the
    # processor's time, which other work beside it does not lengthen.
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    spent = int(time.process_time())  # by the process that this one is forked from
    limits = (spent + SECONDS, spent + SECONDS + 1)
    resource.setrlimit(resource.RLIMIT_CPU, limits)
    try:
        key = jax.random.key(0)
        found = experiments.run(name, "smoke", key=key, **{field: value})
        path = log.with_suffix(".nc")
        results.save(found, path, config={}, seed=0, wall_seconds=0.0)
    except Exception as error:
        line = cli.one_line(error)
        if line is None:
            raise
        sys.exit(int("\n" in line))


def outcome(name: str, field: str, value: Any) -> str:
    """How a run with this value ends, in a word."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        run = SERVER.Process(target=attempt, args=(name, field, value, log))
        run.start()
        run.join(10 * SECONDS)
        if run.exitcode is None:
            run.kill()
            return f"longer than {10 * SECONDS} s"
        if run.exitcode == -signal.SIGXCPU:
            return LONG
        if run.exitcode:
            return (log.read_text().strip().splitlines() or ["killed"])[-1]
        return ENDED


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(sources.experiments()))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    trials = [(n, *trial) for n in options.names for trial in accepted(n)]
    modules = {known.module for known in sources.experiments().values()}
    SERVER.set_forkserver_preload(["__main__", *sorted(modules)])
    with ThreadPoolExecutor(options.jobs) as pool:
        ends = tqdm(pool.map(lambda t: outcome(*t), trials), total=len(trials))
        found = list(zip(trials, ends, strict=True))
    for (name, field, value), end in found:
        if end != ENDED:
            print(f"{name} {field}={value!r}: {end}")
    print(json.dumps(Counter(name for (name, *_), _ in found)))
    ends = Counter(end for _, end in found)
    bad = len(found) - ends[ENDED] - ends[LONG]
    print(
        f"{len(found)} accepted: {ends[ENDED]} ended with a result or a line, "
        f"{ends[LONG]} took {LONG}, {bad} failed"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
