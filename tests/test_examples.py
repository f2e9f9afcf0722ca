"""Every example that a page of prose shows is run, or says here why it is not."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from deeplimits import checks, cli, exercises, experiments, ledger

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("book/*.md"))]

# What a reader would bring to the examples of a page.
BROUGHT = {
    "book/diagnose.md": """\
import jax.random as jr
from deeplimits import initialisation
from deeplimits.residual import OuterLayer, ResNet

weights = initialisation.independent(32, (4, 4), key=jr.key(0))
model = ResNet(OuterLayer(weights))
params = {f"layer_{k}": {"kernel": weights[k]} for k in range(32)}
""",
}
# What a page prints, where it says so.
SAID = {"book/how-to-use.md": "reading-the-slope: not yet. Hint: "}
# Commands that cost too much here, and what holds them: what they name is looked up,
# but for a file of the reader's.
HELD = {
    "deeplimits diagnose": "test_reading runs it",
    "deeplimits run": "hours at the paper's size; test_cli runs it",
    "dask": "it runs until it is stopped; test_executors has both",
    "make book": "minutes; CI makes it",
    "make test": "an hour; CI runs it",
    "make execute": "half an hour; it rewrites the records",
    "make lint": "CI runs it",
    "python3 -m venv": "400 MB over the network; CI installs it",
    ".venv/bin/python -m pip install": "400 MB over the network; CI installs it",
    ".venv/bin/jupyter-book build": "minutes; CI makes it",
    ".venv/bin/pytest": "an hour; CI runs it",
    "PYTHONPATH=tests .venv/bin/pytest": "twenty minutes; CI runs it",
    ".venv/bin/python tools/records.py": "minutes; CI runs it",
}


def blocks(path):
    """The language, first line and text of what stands between fences, in order."""
    fence, lines = None, path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        mark = re.match(r"\s*(`{3,}|~{3,})\s*([\w{}-]*)", line)
        if fence is None and mark:
            fence, language, text, first = mark[1], mark[2], [], number + 1
        elif fence and line.strip() == fence:
            yield language, first, "\n".join(text)
            fence = None
        elif fence:
            text.append(line)
    assert fence is None, path


def examples(*languages):
    """By page, the examples in these languages."""
    found = {}
    for path in PAGES:
        name = path.relative_to(ROOT).as_posix()
        for language, first, text in blocks(path):
            if language in languages:
                found.setdefault(name, []).append((f"{name}:{first}", text))
    return found


_RUN = """
import contextlib, io, json, sys
found = {}
for page, parts in json.load(sys.stdin).items():
    names, said = {}, io.StringIO()
    for where, code in parts:
        try:
            with contextlib.redirect_stdout(said):
                exec(compile(code, where, "exec"), names)
        except Exception as error:
            said.write(f"{where} raises {type(error).__name__}: {error}")
    found[page] = said.getvalue()
print(json.dumps(found))
"""


def test_every_python_example_runs(tmp_path, pytestconfig):
    """In one process as a reader has it, without the strictness of these tests; with
    the warnings that they were told to allow."""
    allowed = [f"-W{rule}" for rule in pytestconfig.getoption("pythonwarnings") or ()]
    pages = examples("python", "py")
    for page, text in BROUGHT.items():
        pages[page] = [("brought", text), *pages[page]]
    assert len(pages) >= 3
    run = subprocess.run(
        [sys.executable, "-Werror", *allowed, "-c", _RUN],
        input=json.dumps(pages),
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert {page: text for page, text in found.items() if " raises " in text} == {}
    for page, text in SAID.items():
        assert text in found[page]


def commands():
    for parts in examples("sh", "bash", "shell", "console").values():
        for where, text in parts:
            for line in text.splitlines():
                if shlex.split(line, comments=True):
                    yield where, line


def look_up(words):
    """Raise what a command would, before it computes: options, names and sizes."""
    if words[0] == "dask":
        program = importlib.import_module(f"distributed.cli.dask_{words[1]}")
        program.main.make_context(" ".join(words[:2]), words[2:])
        return
    options = cli._parser().parse_args(words[1:])
    if words[1] == "run":
        cli._configure(experiments.find(options.experiment), options)


@pytest.fixture
def large_machine(monkeypatch):
    """One that has room for every size of a paper."""
    monkeypatch.setattr(checks, "memory", lambda: checks.MOST_BYTES)


@pytest.mark.usefixtures("large_machine")
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("deeplimits run no/such", "unknown experiment 'no/such'"),
        ("deeplimits run marion2025/histogram --profile huge", "unknown profile"),
        ("deeplimits run marion2025/histogram --set no=1", "unknown parameter 'no'"),
        ("deeplimits run marion2025/histogram --worker 8 --no", "unrecognized"),
        ("deeplimits diagnose x.npz --no", "unrecognized"),
        ("dask worker tcp://127.0.0.1:8786 --no", "No such option"),
    ],
)
def test_a_held_command_that_names_what_is_not_there_is_seen(command, message):
    with pytest.raises((ValueError, click.ClickException)) as error:
        look_up(shlex.split(command))
    assert message in str(error.value)


@pytest.mark.usefixtures("large_machine")
def test_every_run_that_a_sentence_names_is_one():
    found = [
        shlex.split(command)
        for path in PAGES
        for command in re.findall(r"`(deeplimits run [^`]+)`", path.read_text("utf-8"))
        if " NAME" not in command
    ]
    assert len(found) > 5
    for words in found:
        look_up(words)


@pytest.mark.usefixtures("large_machine")
def test_every_shell_example_runs_or_is_held(tmp_path):
    """What is held back names targets, files, experiments and options that exist."""
    found = list(commands())
    assert len(found) > 5
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)", makefile, re.M)[1].split()
    for where, line in found:
        words = shlex.split(line, comments=True)
        if not line.startswith(tuple(HELD)):
            shell = ["sh", "-euc", line]
            run = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True)
            assert run.returncode == 0, (where, line, run.stderr)
        elif words[0] == "make":
            assert words[1] in targets, where
        elif words[0] in ("deeplimits", "dask"):
            look_up(words)
        else:
            files = [word for word in words[1:] if re.fullmatch(r"[\w/]+\.\w+", word)]
            assert [f for f in files if not (ROOT / f).exists()] == [], where


def test_every_exception_is_needed():
    lines = [line for _, line in commands()]
    assert [s for s in HELD if not any(line.startswith(s) for line in lines)] == []
    assert [page for page in BROUGHT if page not in examples("python")] == []


def test_every_entry_that_is_shown_is_one():
    """A claim, and the answer of an exercise: in the form that the library reads."""
    pages = examples("yaml").values()
    shown = [yaml.safe_load(text) for parts in pages for _, text in parts]
    claims = [claim for entry in shown if isinstance(entry, list) for claim in entry]
    assert [ledger.parse(claim).id for claim in claims] != []
    known = {frozenset(answer) for answer in exercises.answers().values()}
    given = [a for entry in shown if isinstance(entry, dict) for a in entry.values()]
    assert [frozenset(answer) in known for answer in given] == [True]
