"""Execute the chapters whose records are stale.

A chapter `book/NAME.md` has an executed record `book/NAME.ipynb`, committed with its
outputs. The record carries a fingerprint of all that it depends on, so that only what
has changed is run again. Where prose or tags alone have changed, nothing is run: the
record gets the new ones, and keeps its outputs and what it says of their making.

    python tools/records.py [NAME ...]         run what is stale, two at a time
    python tools/records.py --check            name what is stale; exit 1 if any is
    python tools/records.py --profile smoke --output build/smoke     leave records alone
"""

import argparse
import ast
import base64
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from nbformat import NotebookNode
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from tqdm import tqdm

from deeplimits import sources

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sources.PACKAGE
PROFILE = "book"
LIMIT = 1_000_000  # bytes; a record stays below it
RUN_TAGS = {"parameters", "raises-exception", "skip-execution"}

# The first cell of every chapter: in its source the first line alone, in its record the
# whole. REPOSITORY stands for the address in _config.yml.
COLAB = """\
# On Colab, install the library; anywhere else this cell does nothing.
import sys

if "google.colab" in sys.modules:
    import re
    import subprocess
    from importlib.metadata import version

    driver = re.search(r"CUDA Version: (\\d+)", subprocess.getoutput("nvidia-smi"))
    extra = f"[cuda{13 if int(driver[1]) > 12 else 12}]" if driver else ""
    names = ("h5py", "jax", "jaxlib", "matplotlib", "numpy", "scipy", "xarray")
    used = {name: version(name) for name in names if name in sys.modules}
    %pip install --quiet "deeplimits{extra} @ git+REPOSITORY"
    replaced = [name for name in used if used[name] != version(name)]
    if replaced:
        print(f"Replaced while in use: {', '.join(replaced)}.")
        print("The kernel starts again: then run all cells once more.")
        get_ipython().kernel.do_shutdown(True)
"""

# Run last, and taken out again: what only the kernel knows.
PROBE = """\
import json, pathlib, re, resource, sys
jax = sys.modules.get("jax")
# `ru_maxrss` may be that of the process that started this one: Linux knows better
status = pathlib.Path("/proc/self/status")
found = status.is_file() and re.search(r"VmHWM:\\s*(\\d+) kB", status.read_text())
unit = 2**20 if sys.platform == "darwin" else 2**10
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
print(json.dumps({
    "peak_mib": 10 * round((int(found[1]) / 2**10 if found else peak) / 10),
    "device": jax.default_backend() if jax else "cpu",
    "dtype": "float64" if not jax or jax.config.jax_enable_x64 else "float32",
}))
"""


class RecordError(ValueError):
    """A chapter that cannot be recorded, and why."""


# ------------------------------------------------------------------ sources


def is_chapter(path: Path) -> bool:
    """A page that computes says so: its front matter names a kernel."""
    front = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)
    return bool(front) and "kernelspec" in (yaml.safe_load(front[1]) or {})


def chapters(root: Path) -> list[str]:
    return sorted(p.stem for p in (root / "book").glob("*.md") if is_chapter(p))


def address(root: Path) -> str:
    """The public address of the repository; it stands in _config.yml alone."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return config["repository"]["url"]


def source_text(root: Path, name: str) -> str:
    text = (root / "book" / f"{name}.md").read_text(encoding="utf-8")
    cell = COLAB.replace("git+REPOSITORY", f"git+{address(root)}")
    return text.replace(f"\n{COLAB.splitlines()[0]}\n", f"\n{cell}", 1)


def _cell_ids(cells: Iterable[NotebookNode]) -> Iterator[str]:
    """Names that stay with a cell while others come and go."""
    seen: Counter[str] = Counter()
    for cell in cells:
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] += 1
        yield f"{digest}-{seen[digest]}"


def read_source(root: Path, name: str) -> NotebookNode:
    """The chapter as a notebook without outputs; the same bytes each time."""
    notebook = jupytext.reads(source_text(root, name), fmt="md:myst")
    for cell, cell_id in zip(notebook.cells, _cell_ids(notebook.cells), strict=True):
        cell.id = cell_id
    notebook.metadata = NotebookNode(kernelspec=notebook.metadata.kernelspec)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def code(notebook: NotebookNode) -> list[str]:
    """The code cells, magics taken out so that Python can parse them."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell) for cell in cells]


# ------------------------------------------------------------------ fingerprints


def _named(notebook: NotebookNode, module: str, *functions: str) -> Iterator[str]:
    """The names that `module.function("…")` is called with: all written out."""
    wanted = [f"{module}.{function}" for function in functions]
    for node in ast.walk(ast.parse("\n".join(code(notebook)))):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in wanted:
            continue
        match node.args:
            case [ast.Constant(value=str(name)), *_]:
                yield name
            case _:
                text = ast.unparse(node)
                raise RecordError(f"{text} must name a file or an experiment.")


def modules(root: Path, notebook: NotebookNode) -> dict[str, Path]:
    """Every module of the library that the chapter leads to, by its imports and by the
    names of the experiments that it runs."""
    source = root / "src"
    trees = (ast.parse(cell) for cell in code(notebook))
    names = [name for tree in trees for name in sources.imports(tree, "")]
    known = sources.experiments(source)
    run = _named(notebook, "experiments", "run", "find")
    names += [known[name].module for name in run if name in known]
    return sources.closure([name for name in names if name != PACKAGE], source)


def archives(root: Path, notebook: NotebookNode) -> list[Path]:
    """Archived results that the code names, or an experiment that it runs."""
    known = sources.experiments(root / "src")
    run = _named(notebook, "experiments", "run", "find")
    names = [each for name in run if name in known for each in known[name].reads]
    names += _named(notebook, "experiments", "archive")
    files = [f"{name}.nc" for name in names]
    files += _named(notebook, "results", "archive")
    paths = sorted({root / "results" / name for name in files})
    if missing := [path for path in paths if not path.is_file()]:
        raise RecordError(f"there is no archive {missing[0].relative_to(root)}.")
    return paths


def dependencies(root: Path, name: str) -> list[Path]:
    notebook = read_source(root, name)
    library = sources.with_data(modules(root, notebook).values())
    first = [root / "book" / f"{name}.md", root / "requirements.lock"]
    return [*first, *library, *archives(root, notebook)]


@functools.cache
def required() -> frozenset[str]:
    """What the library needs, and what that needs, whatever the platform."""
    found, queue = set[str](), [Requirement(PACKAGE)]
    while queue:
        package = queue.pop()
        name = canonicalize_name(package.name)
        if (first := name not in found) or package.extras:
            found.add(name)
            for need in map(Requirement, _requires(name)):
                extra = re.search(r"extra == .([\w-]+)", str(need.marker or ""))
                if extra[1] in package.extras if extra else first:
                    queue.append(need)
    return frozenset(found)


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # one of another platform
        return []


def pins(lock: str) -> str:
    """The lines of the lock that can change a number: versions of what the library
    needs. Other pins are those of tools."""
    pinned = re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)", lock)
    return repr([pin for pin in pinned if canonicalize_name(pin[0]) in required()])


def fingerprint(root: Path, name: str) -> dict[str, str]:
    """A short hash of what matters of each file that the record depends on."""
    marks = {path: sources.mark(path) for path in dependencies(root, name)}
    texts = {
        root / "book" / f"{name}.md": source_text(root, name),
        root / "requirements.lock": pins((root / "requirements.lock").read_text()),
    }
    marks |= {path: sources.digest(text.encode()) for path, text in texts.items()}
    return {path.relative_to(root).as_posix(): mark for path, mark in marks.items()}


# ------------------------------------------------------------------ is it stale?


def _shape(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    return [
        (cell.cell_type, cell.source, tuple(cell.metadata.get("tags", ())))
        for cell in notebook.cells
    ]


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    paths = sorted(old.keys() | new.keys())
    return [f"{path} has changed" for path in paths if old.get(path) != new.get(path)]


def _unsound(notebook: NotebookNode) -> Iterator[str]:
    """What a record that was executed to its end never shows."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count is None:
            yield f"a cell has not been executed: {cell.source.splitlines()[:1]}"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"a cell shows {output.ename}: {output.evalue}"


def stale(root: Path, name: str) -> list[str]:
    """Why the record must be made again; empty if it need not be."""
    path = root / "book" / f"{name}.ipynb"
    if not path.is_file():
        return ["there is no record"]
    record = nbformat.read(path, as_version=4)
    meta = record.metadata.get(PACKAGE, {})
    reasons = _changed(meta.get("fingerprint", {}), fingerprint(root, name))
    if meta.get("provenance", {}).get("profile") != PROFILE:
        reasons.append(f"the profile is not {PROFILE}")
    if _shape(record) != _shape(read_source(root, name)):
        reasons.append("source and record have different cells")
    if path.stat().st_size > LIMIT:
        reasons.append(f"the record is larger than {LIMIT} bytes")
    return reasons + list(_unsound(record))


def _code(notebook: NotebookNode) -> list[tuple[str, set[str]]]:
    """What is run. Other tags say how a cell is shown, or compared."""
    shape = [cell for cell in _shape(notebook) if cell[0] == "code"]
    return [(source, set(tags) & RUN_TAGS) for _, source, tags in shape]


def reworded(root: Path, name: str) -> NotebookNode | None:
    """The record with the prose, captions and tags of today's source; `None`
    if more than that has changed, so that the chapter has to be run."""
    path, page = root / "book" / f"{name}.ipynb", f"book/{name}.md has changed"
    words = {page, "source and record have different cells"}
    if not set(stale(root, name)) <= words:
        return None
    record, source = nbformat.read(path, as_version=4), read_source(root, name)
    if _code(record) != _code(source):
        return None
    ran = iter([cell for cell in record.cells if cell.cell_type == "code"])
    for cell in source.cells:
        if cell.cell_type == "code":
            done = next(ran)
            cell.update(outputs=done.outputs, execution_count=done.execution_count)
    marks = fingerprint(root, name)
    source.metadata = record.metadata
    source.metadata[PACKAGE] = record.metadata[PACKAGE] | {"fingerprint": marks}
    return source


# ------------------------------------------------------------------ execution


def declared(notebook: NotebookNode) -> dict[str, Any]:
    """The parameters that the chapter declares, with their defaults."""
    tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    if len(tagged) != 1:
        raise RecordError(f"{len(tagged)} cells are tagged parameters, one is needed.")
    statements = ast.parse(tagged[0].source).body
    pairs = [(s.targets[0], s.value) for s in statements if isinstance(s, ast.Assign)]
    return {t.id: ast.literal_eval(v) for t, v in pairs if isinstance(t, ast.Name)}


def settle(notebook: NotebookNode, given: dict[str, Any]) -> dict[str, Any]:
    """All parameters of the run. Papermill only warns of an unknown one; we refuse."""
    known = declared(notebook)
    unknown = sorted((given.keys() | {"profile", "seed"}) - known.keys())
    if unknown:
        raise RecordError(f"no parameter {unknown}; the cell has {sorted(known)}.")
    return known | given


def _run(notebook: NotebookNode, root: Path, given: dict[str, Any]) -> NotebookNode:
    return papermill.execute_notebook(
        notebook, None, given, cwd=str(root / "book"), progress_bar=False
    )


def packed(png: str) -> str:
    """The same pixels in fewer bytes: without the alpha channel where all is opaque."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    image.save(file := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _tidy(executed: NotebookNode, source: NotebookNode) -> None:
    """Leave the outputs, pictures packed; take out dates, paths and durations."""
    executed.metadata = NotebookNode(
        kernelspec=source.metadata.kernelspec,
        language_info=NotebookNode(name="python", file_extension=".py"),
    )
    metadata = {cell.id: cell.metadata for cell in source.cells}
    for cell in executed.cells:
        cell.metadata = metadata.get(cell.id, NotebookNode(tags=["parameters"]))
        for output in cell.get("outputs", []):
            if "image/png" in (data := output.get("data", {})):
                data["image/png"] = packed(data["image/png"])


def commit(root: Path, paths: Iterable[Path]) -> str:
    """HEAD's short hash, with a `+` when these files differ from it."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    head = git("rev-parse", "--short=10", "HEAD")
    names = [path.relative_to(root).as_posix() for path in paths]
    dirty = git("status", "--porcelain", "--untracked-files=all", "--", *names)
    return head + "+" * bool(dirty) if re.fullmatch("[0-9a-f]+", head) else "unknown"


def provenance(root: Path, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": version(PACKAGE),
        "commit": commit(root, dependencies(root, name)),
        "profile": settings["profile"],
        "seed": settings["seed"],
    }


def execute(root: Path, name: str, given: dict[str, Any]) -> NotebookNode:
    """The chapter's record, in memory."""
    source = read_source(root, name)
    settings, marks = settle(source, given), fingerprint(root, name)
    probe = nbformat.v4.new_code_cell(PROBE, id="probe")
    probed = NotebookNode(source | {"cells": [*source.cells, probe]})
    began = time.monotonic()
    executed = _run(probed, root, given)
    wall = {"wall_seconds": round(time.monotonic() - began)}
    kernel = json.loads(executed.cells.pop().outputs[0].text)
    _tidy(executed, source)
    about = provenance(root, name, settings) | kernel | wall
    executed.metadata[PACKAGE] = {"fingerprint": marks, "provenance": about}
    return executed


def write(notebook: NotebookNode, path: Path) -> None:
    """All or nothing: a reader never meets half a record."""
    text = nbformat.writes(notebook)
    if len(text.encode()) > LIMIT:
        raise RecordError(f"the record has {len(text.encode())} bytes, over {LIMIT}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(text + "\n", encoding="utf-8")
    os.replace(scratch, path)


def _explain(error: Exception) -> str:
    """One line; for a cell that raised, the cell and the exception."""
    if isinstance(error, PapermillExecutionError):
        first = next(iter(error.source.strip().splitlines()), "")
        return f"cell {error.exec_count} ({first}) raised {error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {error}"


def record(root: Path, name: str, given: dict[str, Any], output: Path) -> str | None:
    """Execute one chapter into `output`; what went wrong, if anything did."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        write(execute(root, name, given), output / f"{name}.ipynb")
    except Exception as error:  # it must cross a process boundary as text
        return f"{name}: {_explain(error)}"
    return None


def record_all(
    root: Path, names: list[str], given: dict[str, Any], output: Path
) -> list[str]:
    """Two chapters at a time, each in a kernel of its own (its peak is its own)."""
    failures = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn) as pool:
        jobs = [pool.submit(record, root, name, given, output) for name in names]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="chapters"):
            failures += [job.result()] if job.result() else []
    return failures


# ------------------------------------------------------------------ command line


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="chapters; all when none is named")
    parser.add_argument("--check", action="store_true", help="only name what is stale")
    parser.add_argument("--force", action="store_true", help="run what is fresh, too")
    parser.add_argument("--profile", help="smoke or paper; needs --output")
    parser.add_argument("--parameter", nargs=2, action="append", default=[])
    parser.add_argument("--output", type=Path, help="write here, not beside the source")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.given = {key: yaml.safe_load(value) for key, value in options.parameter}
    if options.profile:
        options.given["profile"] = options.profile
    if options.given and not options.output:
        parser.error("other parameters than the record's need --output DIR.")
    unknown = set(options.names) - set(chapters(options.root))
    if unknown:
        parser.error(f"no chapter {sorted(unknown)}: {chapters(options.root)}.")
    return options


def _check(root: Path, names: list[str]) -> int:
    reasons = {name: stale(root, name) for name in names}
    for name, why in reasons.items():
        print(f"{name}: {'; '.join(why) if why else 'fresh'}")
    return int(any(reasons.values()))


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    root, names = options.root, options.names or chapters(options.root)
    if options.check:
        return _check(root, names)
    output = (options.output or root / "book").resolve()
    if not (options.force or options.output):
        names = [name for name in names if stale(root, name)]
        for name in names:
            if kept := reworded(root, name):
                write(kept, output / f"{name}.ipynb")
        names = [name for name in names if stale(root, name)]
    failures = record_all(root, names, options.given, output)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{len(names) - len(failures)} of {len(names)} chapters recorded in {output}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
