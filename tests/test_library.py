"""What the library's names promise: each leads to what it says."""

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

import deeplimits
from deeplimits.experiments import Experiment

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = "deeplimits.experiments"


def modules():
    found = pkgutil.walk_packages(deeplimits.__path__, "deeplimits.")
    return [name for _, name, _ in found]


def library():
    """All modules but those of the experiments, which stand above it."""
    return [name for name in modules() if not name.startswith(EXPERIMENTS)]


def home(value):
    """The module that defines a function, a class or an experiment."""
    if isinstance(value, Experiment):
        return value.module
    return getattr(value, "__module__", None)


@pytest.mark.parametrize("name", modules())
def test_no_function_class_or_experiment_has_its_modules_name(name):
    """Imported into the package it would hide the module, or the module hide it."""
    module = importlib.import_module(name)
    own = {key for key, value in vars(module).items() if home(value) == name}
    siblings = {each.rpartition(".")[2] for each in modules() if parent(each) == name}
    assert name.rpartition(".")[2] not in own
    assert own & siblings == set()


def parent(name):
    return name.rpartition(".")[0]


@pytest.mark.parametrize("name", modules())
def test_all_is_what_it_says(name):
    """Each name of `__all__` is there, once, and stands for what is defined in the
    package: no module that hides a function, nothing of somebody else's."""
    module = importlib.import_module(name)
    promised = getattr(module, "__all__", [])
    assert len(set(promised)) == len(promised)
    for key in promised:
        value = getattr(module, key)
        assert not isinstance(value, ModuleType), f"{name}.{key} is a module"
        if inspect.isfunction(value) or inspect.isclass(value):
            assert home(value).startswith(name), f"{name}.{key} is {home(value)}'s"
            assert value.__name__ == key
            assert getattr(importlib.import_module(home(value)), key) is value


@pytest.mark.parametrize("name", modules())
def test_functions_are_short(name):
    """None over 50 lines, with its signature and its docstring but for examples."""
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]

    def length(f):
        shown = re.findall(r"(?s)\n```pycon.*?```", ast.get_docstring(f) or "")
        return f.end_lineno - f.lineno + 1 - sum(1 + s.count("\n") for s in shown)

    lengths = {(f.name, f.lineno): length(f) for f in functions}
    assert {key: lines for key, lines in lengths.items() if lines > 50} == {}


def test_a_package_promises_all_that_it_imports():
    """A name without underscore that a package shows is in its `__all__`."""
    for name in library():
        module = importlib.import_module(name)
        if hasattr(module, "__path__"):
            public = {
                key
                for key, value in vars(module).items()
                if key[0] != "_" and not isinstance(value, ModuleType)
            }
            assert public == set(module.__all__), name


# Without what these bring, `deeplimits --version` need not wait.
HEAVY = {"equinox", "jax", "matplotlib", "pandas", "scipy", "sklearn", "xarray"}


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("import deeplimits", set()),
        ("from deeplimits import checks, exercises, files, images, ledger", set()),
        ("from deeplimits import datasets, losses, residual", {"equinox", "jax"}),
    ],
)
def test_what_is_heavy_is_loaded_where_it_is_used(line, allowed):
    code = f"import json, sys; {line}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) & HEAVY <= allowed


def test_modules_come_with_their_first_use():
    code = "import deeplimits; deeplimits.files.atomic; deeplimits.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'deeplimits' has no attribute 'nothing'" in done.stderr
    assert {"__version__", "residual", "diagnosis"} <= set(dir(deeplimits))


def test_users_type_checkers_are_told_of_the_annotations():
    assert resources.files("deeplimits").joinpath("py.typed").is_file()


def listed():
    """The modules on the pages of the library, in their order."""
    names = re.findall(r"\{doc\}`(api-\w+)`", (ROOT / "book" / "api.md").read_text())
    pages = [(ROOT / "book" / f"{name}.md").read_text() for name in names]
    parts = re.findall(r"```\{api\}\n(.*?)```", "".join(pages), re.DOTALL)
    return "".join(parts).split()


# What any module may import, and what stands beside the library of the page.
HELPERS = {f"deeplimits.{name}" for name in ("checks", "files", "checkpoints")}
BESIDE = {"deeplimits.cli", "deeplimits.sources"}


def imported(name):
    """The modules of the library that a module imports, anywhere in it."""
    tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(name.split(".")[: -node.level])
            names = [a.name for a in node.names]
            yield from (
                [f"{base}.{node.module}"]
                if node.module
                else [f"{base}.{each}" for each in names]
            )


def test_every_module_is_on_the_page():
    packages = {parent(name) for name in library()}
    assert set(listed()) == set(library()) - packages - HELPERS - BESIDE


def test_a_module_imports_only_from_those_above_it_on_the_page():
    for place, name in enumerate(listed()):
        found = set(imported(name)) & set(library())
        assert found <= {*HELPERS, *listed()[:place]}, name
