"""Machines that are not this one: other terminals, checkouts of Windows, accelerators.

What is lowered for a GPU or a TPU here has not run there: only its text is made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
