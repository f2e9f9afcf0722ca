"""Run what the configurations of the experiments accept at the edge of their sizes.

Each field of each experiment is set, alone, to values that mean little (0, -1, 1, NaN,
none, very many). What is refused is refused where it is named; the rest is run at
`smoke`, each in a process with a limit of time and of memory, and must end with a
result or with one line.

    python tools/trials.py                    all of them, some minutes an experiment
    python tools/trials.py marion2024/digits  those of one experiment

By hand: it takes too long for every change.
"""

import argparse
import dataclasses
import json
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from deeplimits import experiments, sources

SECONDS, BYTES = 60, 3 * 10**9
_RUN = """
import sys, tempfile
import jax
from deeplimits import cli, experiments, results
name, field, value = sys.argv[1], sys.argv[2], eval(sys.argv[3], {"nan": float("nan")})
try:
    found = experiments.run(name, "smoke", key=jax.random.key(0), **{field: value})
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/x.nc"
        results.save(found, path, config={}, seed=0, wall_seconds=0.0)
except Exception as error:
    line = cli.one_line(error)
    if line is None:
        raise
    sys.exit(0 if "\\n" not in line else 1)
"""


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
        for value in values(getattr(preset, field.name)):
            try:
                dataclasses.replace(preset, **{field.name: value})
            except ValueError:
                continue
            yield field.name, value


def _limit() -> None:
    # of data alone: JAX reserves far more addresses than it uses; and of the
    # processor's time, which other work beside it does not lengthen
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))


def outcome(name: str, field: str, value: Any) -> str:
    """How a run with this value ends, in a word."""
    command = [sys.executable, "-c", _RUN, name, field, repr(value)]
    try:
        run = subprocess.run(
            command,
            timeout=10 * SECONDS,
            preexec_fn=_limit,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return f"longer than {10 * SECONDS} s"
    if run.returncode == -signal.SIGXCPU:
        return f"more than {SECONDS} s of a processor"
    if run.returncode:
        return (run.stderr.strip().splitlines() or ["killed"])[-1]
    return "ended"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(sources.experiments()))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    trials = [(n, *trial) for n in options.names for trial in accepted(n)]
    with ThreadPoolExecutor(options.jobs) as pool:
        ends = tqdm(pool.map(lambda t: outcome(*t), trials), total=len(trials))
        found = list(zip(trials, ends, strict=True))
    bad = [(trial, end) for trial, end in found if end != "ended"]
    for (name, field, value), end in bad:
        print(f"{name} {field}={value!r}: {end}")
    print(json.dumps(Counter(name for (name, *_), _ in found)))
    print(
        f"{len(found)} accepted, {len(bad)} of them did not end with a result or a line"
    )
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
