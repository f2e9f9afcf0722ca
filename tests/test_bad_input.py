"""No silent wrong number: each public function, fed wrong input as a user feeds it.

`bad_input.py` holds the table of functions, with a valid argument of each, and the law.
It runs in an interpreter of its own, as under pytest the check of annotations would
refuse first what the library must refuse itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("bad_input.py")
pytestmark = pytest.mark.timeout(900)  # minutes, where a core is slow


@pytest.fixture(scope="module")
def answer():
    # numbers are compared to four digits: what compiles fast is good enough
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, str(PROGRAM)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_public_function_is_fed_or_excepted(answer):
    assert answer["missing"] == [], "no valid arguments in the table of bad_input.py"
    assert answer["unknown"] == [], "in the table, but not in the library"


def test_wrong_input_is_refused_by_name_or_counts_right(answer):
    lines = [
        "{function}({argument}={value}), {fault}: must be {law}, was {wrong}".format(
            **r
        )
        for r in answer["wrong"]
    ]
    assert lines == [], "\n".join(lines)
    assert answer["tried"] > answer["refused"] > 1000


def test_the_law_can_fail(answer):
    """A careless function fed as the others are."""
    faults = {(record["argument"], record["fault"]) for record in answer["control"]}
    expected = {("depth", "sign"), ("depth", "NaN"), ("x", "NaN"), ("x", "complex")}
    assert faults >= expected | {("x", "rank 2"), ("x", "empty"), ("x", "whole")}
