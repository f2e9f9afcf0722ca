"""Break the library on purpose, a line at a time, and see that a test goes red.

Each mutant of `mutants.yml` is one line of one file, changed; the tests that it names
run on a copy of the tree, never on the checkout. One that they do not notice has
survived: a law is missing, or the list says why there is none.

    python tools/mutants.py              all of them: some minutes
    python tools/mutants.py residual     those whose file or name holds the word

By hand, and once a week on the public host.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import yaml
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "src/deeplimits"


class Mutant(NamedTuple):
    """A fault: the text `old` of `file` becomes `new`; `tests` should notice.

    `survives` says why no test can, where that is so.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""


def mutants(root: Path = ROOT) -> list[Mutant]:
    """The list, every text found exactly once in its file."""
    entries = yaml.safe_load((root / "tools" / "mutants.yml").read_text("utf-8"))
    found = [Mutant(**entry) for entry in entries]
    for mutant in found:
        text = (root / SOURCE / mutant.file).read_text("utf-8")
        if (count := text.count(mutant.old)) != 1:
            raise ValueError(f"{mutant.name}: its text occurs {count} times, not once.")
    return found


def copy_tree(root: Path, target: Path) -> Path:
    """What the tests need: all that git knows, without the archives of pages."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True)
    for name in names.stdout.splitlines():
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def survives(mutant: Mutant, tree: Path) -> bool:
    """Whether its tests pass on the copy with the fault in it."""
    path = tree / SOURCE / mutant.file
    sound = path.read_text("utf-8")
    path.write_text(sound.replace(mutant.old, mutant.new), "utf-8")
    try:
        return _pass(mutant.tests, tree)
    finally:
        path.write_text(sound, "utf-8")


def _pass(tests: str, tree: Path) -> bool:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    files, _, words = tests.partition(" -k ")
    chosen = [f"tests/test_{name}.py" for name in files.split()]
    chosen += ["-k", words] if words else []
    run = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, *chosen],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree / "src"), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if run.returncode not in (0, 1):  # 1: a test failed; all else is no answer
        raise RuntimeError(
            f"{tests}: pytest said {run.returncode}.\n{run.stdout[-900:]}"
        )
    return run.returncode == 0


def trials(chosen: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool, float]]:
    """Each mutant, whether it survived, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(jobs):
            trees.put(copy_tree(ROOT, Path(folder, str(number))))

        def attempt(mutant: Mutant) -> tuple[Mutant, bool, float]:
            tree, start = trees.get(), time.monotonic()
            try:
                return mutant, survives(mutant, tree), time.monotonic() - start
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(attempt, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="only those that hold one of them")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    words = options.words or [""]
    chosen = [m for m in mutants() if any(w in f"{m.file} {m.name}" for w in words)]
    alarming = 0
    for mutant, survived, seconds in tqdm(
        trials(chosen, options.jobs), total=len(chosen)
    ):
        fate = "survived" if survived else "killed"
        tqdm.write(f"{fate:8} {seconds:4.0f} s  {mutant.file}: {mutant.name}")
        if survived and mutant.survives:
            tqdm.write(f"         {mutant.survives}")
        alarming += survived and not mutant.survives
    print(f"{len(chosen)} mutants, {alarming} survived without a reason")
    return int(alarming > 0)


if __name__ == "__main__":
    sys.exit(main())
