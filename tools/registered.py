"""Were the ranges of claims written before their numbers? Asked of the history.

    python tools/registered.py        what does not hold, a line each

A claim whose `registered` names a commit says that this commit wrote its range, while
the claim had no verdict yet, and that it came before the commit that first measured the
claim in an executed record. (Archived results may be older than the record that reads
them: so a verdict in the entry gives away that a number was known.)
"""

import functools
import re
import subprocess
import sys
from pathlib import Path

import yaml

from deeplimits import ledger

ROOT = Path(__file__).resolve().parents[1]
OPEN = ("undecided", "not attempted")  # what an entry says before there is a number
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it is there


class History:
    """The commits of a repository."""

    def __init__(self, root: Path):
        self.root = root
        self.entries = functools.cache(self._entries)  # many were written together

    def git(self, *arguments: str) -> str | None:
        """What git says, or None where it refuses."""
        command = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None

    def is_whole(self) -> bool:
        """Whether all commits are there, as in a clone that is not shallow."""
        return (self.git("rev-parse", "--is-shallow-repository") or "").strip() == (
            "false"
        )

    def _entries(self, commit: str) -> dict[str, dict]:
        """The entries with a range that the ledger had at a commit, by claim."""
        text = self.git("show", f"{commit}:book/claims.yml")
        entries = (yaml.load(text, LOADER) if text else None) or []
        return {entry["id"]: entry for entry in entries if entry.get("expected")}

    @functools.cached_property
    def measured(self) -> dict[str, str]:
        """By claim, the first commit with a measurement of it in a record."""
        options = ["--reverse", "--topo-order", "--format=commit %h", "-p", "-U0"]
        lines = (self.git("log", *options, "--", "book/*.ipynb") or "").splitlines()
        first, commit = {}, ""
        for line in lines:
            if line.startswith("commit "):
                commit = line.removeprefix("commit ")
            elif line.startswith("+"):
                for claim in re.findall(r'"claim": "([^"]+)"', line):
                    first.setdefault(claim, commit)
        return first

    def precedes(self, first: str, second: str) -> bool:
        same = self.git("rev-parse", first) == self.git("rev-parse", second)
        ancestor = self.git("merge-base", "--is-ancestor", first, second) is not None
        return ancestor and not same


def problem(claim: ledger.Claim, history: History) -> str | None:
    """What is wrong with the word of one claim, if anything."""
    commit = claim.registered
    if commit in (None, "after"):
        return None
    if history.git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        return f"{claim.id}: there is no commit {commit}."
    entry, new = history.entries(commit).get(claim.id), claim.expected
    old = ledger.as_range(claim.id, entry["expected"]) if entry else None
    if not entry or not old or not new or (old.low, old.high) != (new.low, new.high):
        return f"{claim.id}: commit {commit} has another range, or none."
    if entry["verdict"] not in OPEN:
        return f"{claim.id}: commit {commit} has a verdict already: {entry['verdict']}."
    first = history.measured.get(claim.id)
    if first is not None and not history.precedes(commit, first):
        return f"{claim.id}: {commit} is not before {first}, which measured it."
    return None


def problems(root: Path = ROOT) -> list[str]:
    history = History(root)
    found = (problem(claim, history) for claim in ledger.load(root))
    return [line for line in found if line is not None]


if __name__ == "__main__":
    wrong = problems()
    print("\n".join(wrong) or "every range that says so was written before")
    sys.exit(bool(wrong))
