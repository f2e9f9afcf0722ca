"""What a piece of code runs: the modules of the library behind it, and their hash.

Imports are followed by reading the sources, not by running them: a module counts where
it is named in an `import`, also inside a function. Data that a module reads stands
beside it under its name, and counts with it. Comments and docstrings do not count.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import io
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "deeplimits"
ROOT = Path(__file__).parents[1]


def digest(data: bytes) -> str:
    """The first 16 digits of a SHA-256: enough to tell versions of a file apart."""
    return hashlib.sha256(data).hexdigest()[:16]


def runs(text: str) -> str:
    """What runs of a module's text: no comments, docstrings, blank lines."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    strings, docstrings = set[int](), set[int]()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant() | ast.JoinedStr():
                strings.update(_rows(node))
            case ast.Module() | ast.ClassDef() | ast.FunctionDef():
                if ast.get_docstring(node) is not None:
                    docstrings.update(_rows(node.body[0]))
    rows = (row for row, line in enumerate(lines) if line.strip() or row in strings)
    return "\n".join(lines[row] for row in rows if row not in docstrings)


def _rows(node: ast.stmt | ast.expr) -> range:
    return range(node.lineno - 1, node.end_lineno or node.lineno)


def mark(path: Path) -> str:
    """A short hash of a file; of Python, of what runs."""
    data = path.read_bytes()
    return digest(runs(data.decode()).encode() if path.suffix == ".py" else data)


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a file of `package` imports, relative ones made absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join((parts if node.level else []) + [node.module or ""])
            base = base.strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file(root: Path, module: str) -> Path | None:
    stem = root.joinpath(*module.split("."))
    options = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in options if path.is_file()), None)


def closure(names: Iterable[str], root: Path = ROOT) -> dict[str, Path]:
    """Every module of the library below `root` that these names lead to.

    A name may be that of a module or of something in it; others are passed over.
    """
    found: dict[str, Path] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        path = _file(root, name) if belongs(name) else None
        if path is None or name in found:
            continue
        found[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        queue += imports(ast.parse(path.read_text(encoding="utf-8")), package)
        queue.append(name.rpartition(".")[0])  # importing it runs its package, too
    return found


def docstring(module: str, root: Path = ROOT) -> str | None:
    """What a module says of itself, without running it."""
    path = closure([module], root)[module]
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def with_data(paths: Iterable[Path]) -> list[Path]:
    """The files, and the data beside each: `exercises.yml` beside `exercises.py`."""
    found = set()
    for path in paths:
        beside = path.parent.glob(f"{path.stem}.*")
        found |= {path, *(p for p in beside if p.suffix not in (".py", ".pyc"))}
    return sorted(found)


@functools.cache
def code_hash(module: str, root: Path = ROOT) -> str:
    """One hash for a module and all that it leads to, whatever commit they are of."""
    files = with_data(closure([module], root).values())
    hashes = {p.relative_to(root).as_posix(): mark(p) for p in files}
    return digest(repr(sorted(hashes.items())).encode())


NOWHERE = "in no file"


def foreign_hash(module: str) -> str:
    """One hash for a module outside the library, as its file is now, the data beside it
    and the whole library; `NOWHERE` for what was typed into a notebook. Other modules
    that it imports do not count.
    """
    path = getattr(sys.modules.get(module), "__file__", None)
    if module and module not in sys.modules:
        with contextlib.suppress(ImportError, ValueError):
            path = getattr(importlib.util.find_spec(module), "origin", None)
    if path is None or not Path(path).is_file():
        return NOWHERE
    contents = [digest(p.read_bytes()) for p in with_data([Path(path)])]
    return digest("".join([*contents, tree()]).encode())


def _stamps() -> dict[Path, tuple[int, int]]:
    """Of every file of the library, when it was written, and its size."""
    files = (p for p in (ROOT / PACKAGE).rglob("*.*") if p.suffix != ".pyc")
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in files}


_AT_IMPORT = _stamps()


def belongs(module: str) -> bool:
    """Whether a module is one of the library."""
    return f"{module}.".startswith(f"{PACKAGE}.")


def behind(module: str) -> str:
    """`running_hash` of a module of the library, `foreign_hash` of any other."""
    if belongs(module):
        return running_hash(module)
    _require_unedited(_AT_IMPORT)
    return foreign_hash(module)


@functools.cache
def running_hash(module: str) -> str:
    """`code_hash` of what this process runs.

    Raises `ValueError` where one of its files was written after the library had been
    imported: what runs may be older than what the file says now.
    """
    _require_unedited(with_data(closure([module]).values()))
    return code_hash(module)


def _require_unedited(files: Iterable[Path]) -> None:
    now = _stamps()
    edited = [path.name for path in files if now.get(path) != _AT_IMPORT.get(path)]
    if edited:
        raise ValueError(
            f"{edited[0]} was edited after this process had imported the library: "
            "start again, so that one code computes all."
        )


def tree(root: Path = ROOT) -> str:
    """One hash for all files of the library."""
    files = sorted(p for p in (root / PACKAGE).rglob("*.*") if p.suffix != ".pyc")
    return digest(b"".join(p.read_bytes() for p in files if p.is_file()))


class Entry(NamedTuple):
    """What the sources say of an experiment."""

    module: str
    summary: str
    reads: tuple[str, ...] = ()


@functools.cache
def experiments(root: Path = ROOT) -> dict[str, Entry]:
    """Every experiment of every paper by name, as `experiment("…", "…", …)` in the
    sources says: no paper is imported."""
    paths = sorted(root.glob(f"{PACKAGE}/experiments/*/*.py"))
    return {name: entry for path in paths for name, entry in _entries(path, root)}


def _entries(path: Path, root: Path) -> Iterator[tuple[str, Entry]]:
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "experiment":
            name, summary = (ast.literal_eval(part) for part in node.args[:2])
            reads = (k.value for k in node.keywords if k.arg == "reads")
            yield name, Entry(module, summary, *map(ast.literal_eval, reads))
