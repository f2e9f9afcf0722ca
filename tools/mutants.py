"""Break the library on purpose, one line at a time, and see the tests notice.

`python tools/mutants.py` applies each fault of `tools/mutants.yml` to a copy of the
tree and runs the tests that should fail there; `python tools/mutants.py NAME...` only
those whose names start so. The tree itself stays as it is. A fault that no test notices
(it *survives*) asks for a new law, or for its reason in the list under `survives`.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "bias": "a term is dropped",
    "bound": "a check lets one case more through, or one fewer",
    "constant": "a number has another value",
    "factor": "a scale is left out, or doubled",
    "index": "the layer beside the right one, or another axis",
    "key": "draws that should differ are the same, or other draws",
    "sign": "plus for minus",
}
KILLED, SURVIVED, BROKEN = "killed", "survived", "broken"
LONGEST = 600  # seconds: a fault that makes a test hang is noticed, too


class Mutant(NamedTuple):
    """One fault: the text `old` of `file` becomes `new`, and `tests` should fail.

    `tests` are arguments of pytest. `survives` says why no test can notice.
    """

    name: str
    kind: str
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""


def listed(root: Path = ROOT) -> list[Mutant]:
    """The faults of `tools/mutants.yml`."""
    entries = yaml.safe_load((root / "tools" / "mutants.yml").read_text())
    return [Mutant(name, **entry) for name, entry in entries.items()]


def problems(mutant: Mutant, root: Path = ROOT) -> list[str]:
    """Why a fault cannot be applied: its text has gone, or is there twice."""
    found = []
    text = (root / mutant.file).read_text() if (root / mutant.file).is_file() else ""
    if (count := text.count(mutant.old)) != 1:
        found.append(f"old is in {mutant.file} {count} times, not once")
    if "\n" in mutant.old + mutant.new or mutant.old == mutant.new:
        found.append("old and new must be two different parts of one line")
    if mutant.kind not in KINDS:
        found.append(f"unknown kind {mutant.kind!r}; known: {', '.join(KINDS)}")
    tests = [part for part in shlex.split(mutant.tests) if part.endswith(".py")]
    if not tests or not all((root / part).is_file() for part in tests):
        found.append(f"no such tests: {mutant.tests}")
    return [f"{mutant.name}: {problem}" for problem in found]


def outcome(tests: str, tree: Path) -> tuple[str, str]:
    """What the tests say in that tree, and their last line."""
    environment = os.environ | {
        "PYTHONPATH": str(tree / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
        # programs that the fault leaves alone need not be compiled again
        "JAX_COMPILATION_CACHE_DIR": str(tree.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # as in `make test-laws`
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
        "HYPOTHESIS_PROFILE": "first-failure",
    }
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command = [*pytest, *shlex.split(tests)]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return KILLED, f"no end within {LONGEST} s"
    # pytest: 0 all passed, 1 some failed, anything else: the tests did not run
    said = (done.stdout.strip() or done.stderr.strip() or "nothing").splitlines()
    return {0: SURVIVED, 1: KILLED}.get(done.returncode, BROKEN), said[-1]


def tried(mutant: Mutant, tree: Path) -> tuple[str, str]:
    """The outcome with the fault, in a copy that is then as before."""
    path = tree / mutant.file
    text = path.read_text()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        return outcome(mutant.tests, tree)
    finally:
        path.write_text(text)


def run(mutants: list[Mutant], jobs: int, root: Path = ROOT) -> list[str]:
    """Try all faults in copies of the tree, print what came, return what is wrong."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for n in range(jobs):
            trees.put(copied(root, Path(folder) / f"tree-{n}"))

        def in_a_copy(function, argument):
            tree = trees.get()
            try:
                return function(argument, tree)
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            # tests that fail without a fault would kill all of them
            selections = sorted({mutant.tests for mutant in mutants})
            sound = pool.map(partial(in_a_copy, outcome), selections)
            wrong = [
                f"without any fault: {tests}: {said}"
                for tests, (word, said) in zip(selections, sound, strict=True)
                if word != SURVIVED
            ]
            if wrong:
                return wrong
            outcomes = pool.map(partial(in_a_copy, tried), mutants)
            for mutant, (word, said) in zip(mutants, outcomes, strict=True):
                print(f"{word:9} {mutant.name:28} {said}", flush=True)
                if word != (SURVIVED if mutant.survives else KILLED):
                    expected = "should survive" if mutant.survives else "should not"
                    wrong.append(f"{mutant.name}: {word} ({expected})")
    return wrong


def copied(root: Path, tree: Path) -> Path:
    """A copy of what the tests need."""
    skip = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("src", "tests", "tools", "results", "book", "benchmarks"):
        if (root / name).is_dir():
            shutil.copytree(root / name, tree / name, ignore=skip)
    for name in ("pyproject.toml", "requirements.lock", "_config.yml"):
        if (root / name).is_file():
            shutil.copy(root / name, tree / name)
    return tree


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="name them, run nothing")
    options = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in listed(root)
        if not options.names or mutant.name.startswith(tuple(options.names))
    ]
    if not mutants:
        parser.error(f"no fault has a name that starts with {options.names}")
    if wrong := [problem for mutant in mutants for problem in problems(mutant, root)]:
        print("\n".join(wrong))
        return 1
    if options.list:
        for mutant in mutants:
            print(f"{mutant.kind:9} {mutant.name:28} {mutant.old} -> {mutant.new}")
        return 0
    wrong = run(mutants, max(1, options.jobs), root)
    explained = sum(bool(mutant.survives) for mutant in mutants)
    print(f"{len(mutants)} faults, {explained} of them explained, {len(wrong)} wrong")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
