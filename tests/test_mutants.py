"""The list of faults that tests must notice stays true to the library."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
mutants = importlib.import_module("mutants")


def test_every_fault_is_one_place_of_one_file():
    """`mutants` itself refuses a text that is not found exactly once."""
    found = mutants.mutants()
    assert len(found) >= 40
    assert len({mutant.name for mutant in found}) == len(found)
    for mutant in found:
        assert mutant.old != mutant.new
        files = mutant.tests.partition(" -k ")[0].split()
        assert all((ROOT / f"tests/test_{name}.py").is_file() for name in files)


def test_a_text_that_is_gone_or_repeated_is_refused(tmp_path):
    (tmp_path / "tools").mkdir()
    (tmp_path / mutants.SOURCE).mkdir(parents=True)
    entry = "- {name: n, file: a.py, old: 'x = 1', new: 'x = 2', tests: cli}\n"
    (tmp_path / "tools" / "mutants.yml").write_text(entry)
    for text in ("", "x = 1\nx = 1\n"):
        (tmp_path / mutants.SOURCE / "a.py").write_text(text)
        with pytest.raises(ValueError, match="n: its text occurs"):
            mutants.mutants(tmp_path)


def test_a_fault_is_put_in_and_taken_out_again(tmp_path, monkeypatch):
    path = tmp_path / mutants.SOURCE / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n")
    seen = []
    monkeypatch.setattr(
        mutants, "_pass", lambda tests, tree: bool(seen.append(path.read_text()))
    )
    mutant = mutants.Mutant("n", "a.py", "x = 1", "x = 2", "cli")
    assert not mutants.survives(mutant, tmp_path)
    assert seen == ["x = 2\n"]
    assert path.read_text() == "x = 1\n"
