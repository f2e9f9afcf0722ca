"""That a range was written before is a claim about history, and history is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import registered  # noqa: E402

CLAIM = {
    **{"id": "rate", "paper": "ours", "where": "here", "kind": "ours", "tag": "N"},
    **{
        "statement": "It falls.",
        "source": "toy",
        "verdict": "agrees",
        "reason": "Yes.",
    },
    "expected": {"low": -1.1, "high": -0.9, "why": "a bound"},
    "looks": 1,
}


class Book:
    """A repository whose commits are steps of a study."""

    def __init__(self, root):
        self.root = root
        (root / "book").mkdir()
        self.git("init", "--quiet")

    def git(self, *arguments):
        name = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        command = ["git", *name, *arguments]
        done = subprocess.run(
            command, cwd=self.root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self):
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a step")
        return self.git("rev-parse", "--short", "HEAD")

    def write(self, registered, **changes):
        entry = CLAIM | {"registered": registered} | changes
        (self.root / "book" / "claims.yml").write_text(yaml.safe_dump([entry]))

    def measure(self):
        output = {"metadata": {"deeplimits": {"claim": "rate"}}}
        text = json.dumps({"cells": [{"outputs": [output]}]})
        (self.root / "book" / "toy.ipynb").write_text(text)


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path)


def test_a_range_that_was_written_first_is_registered(book):
    book.write("after", verdict="undecided")
    before = book.commit()
    book.write(before)
    assert registered.problems(book.root) == []  # nothing is measured yet
    book.measure()
    book.commit()
    assert registered.problems(book.root) == []


def test_a_range_that_came_with_its_number_is_not(book):
    book.write("after", verdict="undecided")
    book.measure()
    late = book.commit()
    book.write(late)
    [line] = registered.problems(book.root)
    assert f"{late} is not before {late}" in line


def test_a_range_that_came_with_its_verdict_is_not(book):
    """The record may be younger than the archive that it reads."""
    book.write("after")
    known = book.commit()
    book.write(known)
    book.measure()
    book.commit()
    [line] = registered.problems(book.root)
    assert f"{known} has a verdict already: agrees" in line


def test_a_range_that_was_changed_since_is_not(book):
    wide = {"low": -2.0, "high": 0.0, "why": "a guess"}
    book.write("after", expected=wide)
    first = book.commit()
    book.write(first)
    assert "has another range" in registered.problems(book.root)[0]
    book.write("0123abc")
    assert "there is no commit 0123abc" in registered.problems(book.root)[0]


def test_ranges_of_the_ledger_were_written_when_it_says():
    if not registered.History(ROOT).is_whole():
        pytest.skip("this clone has no whole history")
    assert registered.problems() == []
