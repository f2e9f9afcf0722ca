"""Runs that are killed, find a full disk or damaged pieces, or meet each other.

They end in one line, and the same command then ends with the same numbers, bit by bit.
A driver imports the library once and forks a process for each run. It is this file:

    python tests/test_faults.py 30    thirty kills of each experiment; minutes, by hand
"""

import contextlib
import ctypes
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

RUNS = {
    "marion2024/relu-counterexample": ["steps=200", "every=2"],
    "marion2024/long-time": ["depths=4,8", "steps=200", "every=1"],
    "marion2025/histogram": ["draws=60", "batch=10"],
}
SIGNALS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
# of a disk on which a run does not end, in pages; what is tried first is tried in CI
SIZES = dict.fromkeys(4096 * n for n in (10, 1, 17, 13, 15, *range(2, 17)))
NEW_MOUNTS, NEW_USER, REMOUNT, PRIVATE = 0x20000, 0x10000000, 32, 0x44000


def command(name):
    sets = [f"--set={size}" for size in RUNS[name]]
    return ["run", name, "--profile=smoke", *sets]


# ----------------------------------------------------------------- the driver


def start(folder, work):
    """Fork a process that does `work()` in a folder, and return its number."""
    folder.mkdir(exist_ok=True)
    if process := os.fork():
        return process
    code = 1
    try:
        os.chdir(folder)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = work()
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def deeplimits(name):
    from deeplimits import cli

    return lambda: cli.main(command(name))


def result(folder):
    from deeplimits import results

    [path] = folder.glob("runs/*/*/*.nc")
    return results.load(path).drop_attrs()


def left(folder):
    return [str(path) for path in folder.glob("runs/.unfinished/**/*")]


def said(folder, name="said"):
    """What a run has said, and what of it a terminal shows in the place of bars."""
    text = (folder / name).read_bytes().decode()
    return text[-600:], text.rsplit("\r", 1)[-1].splitlines()


def said_in_a_line(folder, name="said"):
    _, lines = said(folder, name)
    return len(lines) == 1 and lines[0].startswith("deeplimits: ")


def kills(name, rng, count, folder):
    """Kill a run, once or twice, at random moments, and let it end."""
    begun = time.monotonic()
    assert wait(start(folder / "whole", deeplimits(name))) == 0
    seconds, whole, bad = time.monotonic() - begun, result(folder / "whole"), []
    signals, hit = itertools.cycle(SIGNALS), 0
    for n in range(count):
        here = folder / str(n)
        for number in itertools.islice(signals, 1 + n % 2):
            process = start(here, deeplimits(name))
            time.sleep(rng.uniform(0.05, 1) * seconds)
            os.kill(process, number)
            if (code := wait(process)) == 0:
                continue  # it had ended before
            hit += 1
            if code != SIGNALS[number] or not (code < 0 or said_in_a_line(here)):
                bad.append(f"{name} {n}: exit {code}, {said(here)}")
        if wait(start(here, deeplimits(name))) != 0:
            bad.append(f"{name} {n}: {said(here)}")
        elif not result(here).identical(whole) or left(here):
            bad.append(f"{name} {n}: other numbers, or {left(here)}")
    return hit, bad


def mounted(folder, size):
    """A disk of that size at a folder, seen by this process alone; false where the
    machine does not let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS) and libc.unshare(NEW_MOUNTS | NEW_USER):
        return False
    libc.mount(None, b"/", None, PRIVATE, None)
    place = os.fsencode(folder)
    return libc.mount(b"none", place, b"tmpfs", 0, b"size=%d" % size) == 0


def on_a_full_disk(name, size, limited):
    """Run where there is no room, then where there is, and copy the result out."""

    def work():
        here = Path.cwd()
        (here / "disk").mkdir()
        as_before = resource.getrlimit(resource.RLIMIT_FSIZE)
        own = not limited and mounted(here / "disk", size)
        os.chdir("disk")
        if not own:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, as_before[1]))
        first = deeplimits(name)()
        sys.stdout.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, as_before)
        shutil.copy(here / "said", here / "first")
        libc, place = ctypes.CDLL(None), os.fsencode(here / "disk")
        if own and libc.mount(b"none", place, b"tmpfs", REMOUNT, b"size=16m"):
            return 3
        second = deeplimits(name)()
        print(f"{first} {second} {result(Path.cwd()).to_dict()}", file=sys.stderr)
        return 0 if (first, second) == (2, 0) else 4 + first

    return work


def full_disks(name, count, folder):
    bad, whole = [], None
    sizes = list(SIZES)[:count]
    for limited, size in itertools.product((False, True), sizes):
        here = folder / f"{limited}-{size}"
        # a file of the run is small: a limit to one is met by those that are not
        work = on_a_full_disk(name, size // 16 if limited else size, limited)
        code = wait(start(here, work))
        found = (here / "said").read_text().rsplit("\n2 0 ", 1)[-1]
        whole = whole or found
        if code or found != whole or not said_in_a_line(here, "first"):
            bad.append(f"{limited} {size}: exit {code}, {said(here)}")
    return 2 * len(sizes), bad


def damage(name, rng, count, folder):
    """Change a byte, or cut the end off, of a file that a killed run has left."""
    bad, whole = [], folder / "kept"
    wait(start(whole, lambda: kept(name)))
    expected, refused = None, 0
    for n in range(count):
        here = folder / str(n)
        shutil.copytree(whole, here)
        files = sorted(p for p in here.glob("runs/.unfinished/*/*") if p.stat().st_size)
        path = files[rng.integers(len(files))]
        content = bytearray(path.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(
            content[: rng.integers(len(content))] if n % 3 == 0 else content
        )
        code = wait(start(here, deeplimits(name)))
        if code == 2 and said_in_a_line(here):
            refused += 1
            path.unlink()
            code = wait(start(here, deeplimits(name)))
        expected = expected if expected is not None or code else result(here)
        if code or not result(here).identical(expected):
            bad.append(f"{path.name}: exit {code}, {said(here)}")
    return refused, bad


def kept(name):
    """A run that ends before it has put its pieces together."""
    from deeplimits import results

    def end(*args, **options):
        os._exit(0)

    results.save = end
    return deeplimits(name)()


def both(name, count, folder):
    """Two runs at once: one is done, the other waits or finds the result."""
    bad, expected = [], None
    for n in range(count):
        here = folder / str(n)
        here.mkdir(parents=True)
        processes = [start(here, deeplimits(name)) for _ in range(2)]
        codes = sorted(map(wait, processes))
        expected = expected if expected is not None else result(here)
        if codes not in ([0, 0], [0, 2]) or left(here):
            bad.append(f"{codes}: {said(here)} {left(here)}")
        elif not result(here).identical(expected):
            bad.append("other numbers")
    return count, bad


def drive(count):
    """Everything, with so many kills: what was tried, and what went wrong."""
    from deeplimits import experiments

    experiments.find("marion2024/long-time"), experiments.find("marion2025/histogram")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    name, found = "marion2024/relu-counterexample", {}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for each in RUNS:
            folder = root / each.replace("/", "-")
            folder.mkdir()
            found[each] = kills(each, np.random.default_rng(7), count, folder)
        for part in ("full", "damaged", "both"):
            (root / part).mkdir()
        found["full disks"] = full_disks(name, count, root / "full")
        rng = np.random.default_rng(8)
        found["damaged pieces"] = damage(name, rng, count, root / "damaged")
        found["two at once"] = both(name, count, root / "both")
    return found


# ----------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def found():
    own = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run(
        [sys.executable, __file__, os.environ.get("DEEPLIMITS_FAULTS", "1")],
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    with contextlib.suppress(ValueError):
        return json.loads(run.stdout)
    pytest.fail(run.stderr[-3000:])


@pytest.mark.timeout(1200)  # the first waits for all; quiet, it takes under a minute
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows forks no process")
@pytest.mark.parametrize("part", [*RUNS, "full disks", "damaged pieces", "two at once"])
def test_a_fault_ends_in_a_line_and_the_same_command_in_the_same_numbers(part, found):
    tried, bad = found[part]
    assert bad == []
    assert tried or part in RUNS  # a run may end before it is killed


if __name__ == "__main__":
    print(json.dumps(drive(int(sys.argv[1])), indent=1))
