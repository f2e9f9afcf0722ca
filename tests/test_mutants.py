"""The list of faults does not rot, and the tool tells noticed from unnoticed ones."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("mutants", ROOT / "tools" / "mutants.py")
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)


def test_every_fault_can_be_applied():
    found = [
        problem for mutant in mutants.listed() for problem in mutants.problems(mutant)
    ]
    assert found == []


def test_faults_are_many_and_of_all_kinds():
    listed = mutants.listed()
    assert len(listed) >= 200  # a slip of an editor once lost half of them
    assert {mutant.kind for mutant in listed} == set(mutants.KINDS)
    assert all(len(mutant.survives) > 40 for mutant in listed if mutant.survives)


TOY = {
    "src/toy.py": "def double(x):\n    return x + x\n",
    "tests/test_toy.py": "from toy import double\n\n\n"
    "def test_double():\n    assert double(2) == 4\n",
}
SIGN = ("double-sign", "x + x", "x - x")
POWER = (
    "double-power",
    "x + x",
    "x * x",
)  # the test asks for the one number that agrees


@pytest.fixture
def toy(tmp_path):
    def make(*faults, survives=""):
        entries = [
            f"{name}:\n  kind: sign\n  file: src/toy.py\n  old: {old}\n  new: {new}\n"
            f"  tests: tests/test_toy.py -k double\n  survives: '{survives}'\n"
            for name, old, new in faults
        ]
        for name, text in {**TOY, "tools/mutants.yml": "".join(entries)}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def test_what_no_test_notices_is_named(toy, capsys):
    root = toy(SIGN, POWER)
    assert mutants.main(["--jobs", "2"], root) == 1
    printed = capsys.readouterr().out
    assert "killed    double-sign" in printed
    assert "survived  double-power" in printed
    assert "double-power: survived (should not)" in printed
    assert (root / "src/toy.py").read_text() == TOY["src/toy.py"]
    assert mutants.main(["double-s", "--jobs", "1"], root) == 0


def test_a_reason_explains_a_survivor_and_no_other(toy, capsys):
    assert mutants.main(["--jobs", "1"], toy(POWER, survives="x is 2")) == 0
    assert mutants.main(["--jobs", "1"], toy(SIGN, survives="x is 2")) == 1
    assert "double-sign: killed (should survive)" in capsys.readouterr().out


def test_tests_that_fail_without_a_fault_prove_nothing(toy, capsys):
    root = toy(SIGN)
    (root / "src/toy.py").write_text(TOY["src/toy.py"].replace("x + x", "2 + x + x"))
    assert mutants.main(["--jobs", "1"], root) == 1
    assert "without any fault" in capsys.readouterr().out


def test_a_fault_whose_line_has_gone_is_named(toy, capsys):
    assert mutants.main([], toy(("gone", "x + y", "x - y"))) == 1
    assert "gone: old is in src/toy.py 0 times, not once" in capsys.readouterr().out
