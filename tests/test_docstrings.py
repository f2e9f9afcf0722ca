"""Examples in docstrings say what happens: run, and compared with what they print.

An example stands in a fence named `pycon`. It finds `jax`, `jnp`, `jr`, `np` and the
names of its own module, and runs as a reader would run it: in float32, and without the
strictness of the other tests.
"""

import ast
import doctest
import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib as mpl
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "deeplimits"
FENCE = re.compile(r"^```pycon\n(.*?)^```", re.DOTALL | re.MULTILINE)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
# What has no example yet; the list only shrinks.
LACKING = set(yaml.safe_load((ROOT / "tests" / "lacking_examples.yml").read_text()))


def documented():
    """Name → docstring of all public classes and functions of the reference."""
    found = {}
    for page in sorted((ROOT / "book").glob("api-*.md")):
        modules = re.search(r"```\{api\}\n(.*?)```", page.read_text(), re.DOTALL)[1]
        for module in modules.split():
            path = (ROOT / "src" / Path(*module.split("."))).with_suffix(".py")
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    text = ast.get_docstring(node)
                    if text and node.name[0] != "_":
                        found[f"{module}.{node.name}"] = (node, text)
    return found


DOCUMENTED = documented()
EXAMPLES = {
    name: "\n".join(FENCE.findall(text))
    for name, (_, text) in DOCUMENTED.items()
    if FENCE.search(text)
}


def used():
    """Names that some cell of a page uses."""
    pages = [path.read_text() for path in (ROOT / "book").glob("*.md")]
    cells = re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", "".join(pages), re.DOTALL)
    return set(re.findall(r"\b[A-Za-z_]\w*\b", "".join(cells)))


def test_what_readers_meet_has_an_example():
    met = used()
    needed = {
        name
        for name, (node, _) in DOCUMENTED.items()
        if isinstance(node, ast.ClassDef) or node.name in met
    }
    assert needed - set(EXAMPLES) <= LACKING, "an example is missing"
    assert LACKING <= needed - set(EXAMPLES), "take it off the list"


@pytest.mark.usefixtures("as_in_use")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_does_what_it_says(name):
    module = importlib.import_module(name.rpartition(".")[0])
    own = {key: value for key, value in vars(module).items() if key[:2] != "__"}
    names = {"jax": jax, "jnp": jnp, "jr": jr, "np": np, **own}
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], names, name, None, 0)
    assert any(example.want for example in test.examples)
    said = []
    with (
        mpl.rc_context({"backend": "agg"}),
        jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
