"""Machines that are not this one: other terminals, checkouts of Windows, accelerators.

What is lowered for a GPU or a TPU here has not run there: only its text is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import lowering
import pytest
import test_docstrings

from deeplimits import sources

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = """
import sys
from deeplimits import cli
for words in (["list"], ["claims"], ["run", "≥ naïve", "--profile", "∞"]):
    cli.main(words)
try:
    cli.main(["--help"])
except SystemExit:
    pass
"""


def python(*arguments, **environment):
    process = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(sources.ROOT)} | environment,
        capture_output=True,
        cwd=ROOT,
    )
    assert process.returncode == 0, process.stderr.decode(errors="replace")[-2000:]
    return process


@pytest.fixture(scope="module")
def spoken():
    """What the commands print where every character is known."""
    found = python("-X", "utf8", "-c", COMMANDS, PYTHONIOENCODING="utf-8")
    return found.stdout.decode()


@pytest.mark.parametrize("encoding", ["cp1252", "cp932", "ascii"])
def test_every_command_prints_where_characters_are_lacking(encoding, spoken):
    """What is lacking is written in others that mean the same."""
    found = python("-X", "utf8", "-c", COMMANDS, PYTHONIOENCODING=encoding)
    text = found.stdout.decode(encoding)
    assert len(text.splitlines()) == len(spoken.splitlines())
    assert text.count("?") == spoken.count("?")
    assert "Traceback" not in found.stderr.decode(encoding)


def test_a_checkout_on_windows_has_the_same_bytes():
    listed = ["git", "-C", str(ROOT), "ls-files", "--eol"]
    lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    for line in lines.splitlines():
        index, _, attributes = line.partition("\t")[0].split(maxsplit=2)
        assert index in ("i/lf", "i/none", "i/-text"), line
        assert attributes.strip() in ("attr/text=auto eol=lf", "attr/-text"), line


def test_programs_are_lowered_for_accelerators():
    """Those of networks, of training and of an experiment of each paper. That `schur`
    and a call back to the host are refused shows that something is looked up."""
    process = python("tests/lowering.py", EQX_ON_ERROR="nan")
    found = json.loads(process.stdout.decode().splitlines()[-1])
    papers = {name.partition("/")[0] for name in sources.experiments()}
    assert papers <= {name.partition("/")[0] for name in found["lowered"]}
    networks = {"OneLayer", "OuterLayer", "TwoLayer", "Convolution"}
    assert networks | {"NeuralODE", "NeuralSDE", "train"} <= found["lowered"].keys()
    assert set(found["refused"]) == {"schur", "callback"}


def test_an_example_that_ends_early_is_named(monkeypatch, capsys):
    """Not for the value that it shows, but for its own error."""
    shown = {"deeplimits.checks.a": ">>> 1 + 1\n", "deeplimits.checks.b": ">>> 1 / 0\n"}
    monkeypatch.setattr(test_docstrings, "EXAMPLES", shown)
    lowering.examples()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 of 2 examples ended early:"
    assert lines[1] == "  deeplimits.checks.b ZeroDivisionError division by zero"


def test_a_solver_of_which_nothing_is_lowered_is_seen():
    there = [f"deeplimits.{name}.x" for name in lowering.SOLVERS]
    assert lowering.lacking(there) == []
    assert lowering.lacking(there[1:]) == [lowering.SOLVERS[0]]
