"""The ledger: a verdict follows from its numbers, and nothing is left over."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deeplimits import exercises, ledger
from deeplimits.intervals import Interval, Kind

ROOT = Path(__file__).resolve().parents[1]

CLAIM = {
    "id": "rate",
    "paper": "ours",
    "where": "Proposition 1",
    "kind": "theorem",
    "tag": "T",
    "statement": "The error falls like 1/L.",
    "expected": {"value": -1.0, "tolerance": 0.1, "why": "a bound"},
    "source": "euler",
    "verdict": "agrees",
    "reason": "It does.",
    "registered": "after",
    "looks": 1,
}
RUN = {"source": None, "registered": None, "looks": None}
OPEN = {"expected": None, "verdict": "not attempted"} | RUN


def output(name, value, claim=False):
    scrapbook = {"name": name, "mime_prefix": ledger.PREFIX}
    metadata = {"scrapbook": scrapbook}
    metadata |= {"deeplimits": {"claim": name}} if claim else {}
    data = {ledger.PREFIX + "text/plain": repr(value)}
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def measured(name, value, low, high, **extra):
    numbers = {"value": value, "low": low, "high": high, "kind": "over seeds"}
    return output(name, numbers | extra, claim=True)


@pytest.fixture
def book(tmp_path):
    """Write a book: its claims, and what its one chapter measured."""
    (tmp_path / "book").mkdir()

    def make(claims, outputs=()):
        (tmp_path / "book" / "claims.yml").write_text(yaml.safe_dump(claims))
        cells = [{"cell_type": "code", "outputs": list(outputs)}]
        (tmp_path / "book" / "euler.ipynb").write_text(json.dumps({"cells": cells}))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-1.05, -0.95, "agrees"),
        (-1.1, -0.9, "agrees"),
        (-0.6, -0.4, "differs"),
        (-1.3, -1.2, "differs"),
        (-1.0, -0.8, "undecided"),
        (-2.0, 0.0, "undecided"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(low, high, verdict):
    expected = ledger.Expected(-1.1, -0.9, "a bound")
    interval = Interval((low + high) / 2, low, high, Kind.SEEDS)
    assert ledger.verdict(expected, interval) == verdict


def slope(value, *halves, kind=Kind.SEEDS):
    parts = tuple(Interval(x, x - 0.05, x + 0.05, kind) for x in (value, *halves))
    return replace(parts[0], halves=parts[1:])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (slope(-1.0, -1.02, -0.98), "agrees"),
        (slope(-1.0, -1.2, -0.9), "undecided"),  # a half lies outside
        (slope(-1.0, -1.07, -0.98), "undecided"),  # its interval does, over seeds
        (slope(-1.0, -1.07, -0.98, kind=Kind.RESIDUALS), "agrees"),
        (slope(-1.0), "undecided"),  # too few depths for halves
        (slope(-0.5), "undecided"),
        (slope(-0.5, -0.9, -0.1), "differs"),
    ],
)
def test_a_slope_agrees_only_where_it_is_one(interval, verdict):
    expected = ledger.Expected(-1.1, -0.9, "a bound")
    assert ledger.verdict(expected, interval) == verdict


def test_a_sound_ledger_has_no_problems(book):
    root = book([CLAIM], [output("x", 1.5), measured("rate", -1.0, -1.02, -0.98)])
    assert ledger.check(root) == []
    text, ok = ledger.report(root)
    assert ok
    assert "rate  -1 [-1.02, -0.98], over seeds; expected [-1.1, -0.9]" in text
    assert "1 claims: 1 agrees, 0 differs, 0 undecided, 0 not attempted." in text


def test_undecided_is_a_verdict_that_follows_like_the_others(book):
    """It has a measurement, and may not be said of what the interval decides."""
    claim, wide = CLAIM | {"verdict": "undecided"}, measured("rate", -1, -1.3, -0.9)
    root = book([claim], [wide])
    assert ledger.check(root) == []
    assert "0 agrees, 0 differs, 1 undecided" in ledger.report(root)[0]
    [problem] = ledger.check(book([claim], [measured("rate", -1, -1.02, -0.98)]))
    assert "says undecided" in problem
    assert "is agrees" in problem
    [problem] = ledger.check(book([claim]))
    assert "0 measurements" in problem


@pytest.mark.parametrize(
    ("claims", "outputs", "message"),
    [
        ([CLAIM], [], "rate: 0 measurements, one is needed."),
        ([CLAIM], [measured("rate", -1, -1.3, -0.9)], "is undecided"),
        ([CLAIM], [measured("rate", -0.5, -0.6, -0.4)], "is differs"),
        ([], [measured("rate", -1, -1, -1)], "claims.yml has no such claim"),
        ([CLAIM | OPEN], [measured("rate", -1, -1, -1)], "not attempted, yet measured"),
        ([CLAIM | {"source": "x"}], [measured("rate", -1, -1, -1)], "source says x"),
    ],
)
def test_what_does_not_fit_together_is_named(book, claims, outputs, message):
    root = book(claims, outputs)
    [problem] = ledger.check(root)
    assert message in problem
    text, ok = ledger.report(root)
    assert not ok
    assert problem in text


def test_a_claim_is_measured_on_one_page(book):
    root = book([CLAIM], [measured("rate", -1, -1, -1)])
    folder = root / "book"
    (folder / "other.ipynb").write_text((folder / "euler.ipynb").read_text())
    assert "rate: 2 measurements, one is needed." in ledger.check(root)


@pytest.mark.parametrize(
    "first", [output("rate", -7.0), measured("rate", -7.0, -7.0, -7.0)]
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_name_stands_for_one_thing(book, first, order):
    """The last of two would be taken for both."""
    root = book([CLAIM], [first, measured("rate", -1, -1, -1)][::order])
    text, ok = ledger.report(root)
    assert not ok
    assert "rate is recorded twice" in text


def test_a_claim_not_attempted_needs_no_measurement(book):
    assert ledger.check(book([CLAIM | OPEN])) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "thm"}, "claim rate: field kind is 'thm'"),
        ({"tag": "X"}, "claim rate: field tag is 'X'"),
        ({"verdict": "yes"}, "claim rate: field verdict is 'yes'"),
        ({"where": 3}, "claim rate: field where is 3"),
        ({"extra": 1}, "claim rate: field extra is unknown"),
        ({"source": None}, "claim rate: field source is needed"),
        ({"expected": None}, "claim rate: field expected is needed"),
        ({"expected": {"value": 1.0}}, "claim rate: field expected: give value"),
        (
            {"expected": {"low": "a", "high": 1.0, "why": "x"}},
            "field expected.low: a number is needed",
        ),
        ({"expected": {"low": 1.0, "high": 0.0, "why": "x"}}, "an empty range"),
        ({"expected": {"low": 0.0, "high": 1.0, "why": ""}}, "a sentence is needed"),
        ({"verdict": "not attempted"}, "field source must be null"),
    ],
)
def test_a_wrong_field_is_named_with_its_claim(change, message):
    with pytest.raises(ledger.LedgerError, match="rate") as error:
        ledger.parse(CLAIM | change)
    assert message in str(error.value)


@pytest.mark.parametrize("field", sorted(set(ledger.FIELDS) - {"id"}))
def test_a_missing_field_is_named(field):
    entry = {key: value for key, value in CLAIM.items() if key != field}
    with pytest.raises(ledger.LedgerError, match=f"rate: field {field} is missing"):
        ledger.parse(entry)


def test_an_entry_without_id_is_named_by_its_place(book):
    with pytest.raises(ledger.LedgerError, match="entry 2: field id"):
        ledger.load(book([CLAIM, {"paper": "ours"}]))


def test_an_id_is_used_once(book):
    with pytest.raises(ledger.LedgerError, match="rate: 2 entries"):
        ledger.load(book([CLAIM, CLAIM]))


def test_an_open_side_is_infinite(book):
    expected = {"low": -math.inf, "high": 0.0, "why": "it tends to zero"}
    claim = CLAIM | {"expected": expected}
    root = book([claim], [measured("rate", -3, -4, -2)])
    assert ledger.check(root) == []
    assert "≤ 0" in ledger.report(root)[0]


def test_the_root_is_found_from_below(book):
    root = book([])
    (root / "book" / "deep").mkdir()
    assert ledger.find_root(root / "book" / "deep") == root


def test_without_a_book_the_error_says_so(tmp_path):
    with pytest.raises(ledger.LedgerError, match=r"no book/claims\.yml"):
        ledger.find_root(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("claims.yml", "- id: [rate"),
        ("euler.ipynb", "{}"),
        ("euler.ipynb", '{"cells": ['),
        (
            "euler.ipynb",
            json.dumps({"cells": [{"outputs": [output("x", 1) | {"data": 0}]}]}),
        ),
    ],
)
def test_a_damaged_file_is_named_in_one_line(book, name, text):
    root = book([CLAIM])
    (root / "book" / name).write_text(text)
    with pytest.raises(ledger.LedgerError, match=rf"{name} cannot be read \(.*\)\.$"):
        ledger.check(root)
    found, ok = ledger.report(root)
    assert not ok
    assert "\n" not in found


def test_report_turns_a_schema_error_into_a_line(book):
    text, ok = ledger.report(book([CLAIM | {"tag": "X"}]))
    assert not ok
    assert "field tag" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"value": -1.0, "low": -1.1, "high": -0.9}, "kind"),
        (
            {"value": -1.0, "low": -1.1, "high": -0.9, "kind": "over the moon"},
            "unknown kind 'over the moon'; known: over seeds, ",
        ),
        (
            {"value": -1.0, "low": -0.9, "high": -1.1, "kind": "over seeds"},
            "low <= value <= high",
        ),
    ],
)
def test_a_record_whose_interval_is_none_is_named(book, content, message):
    root = book([CLAIM], [output("rate", content, claim=True)])
    with pytest.raises(ledger.LedgerError, match=r"euler\.ipynb cannot be") as error:
        ledger.check(root)
    assert message in str(error.value)


@pytest.fixture
def displayed(monkeypatch):
    """What a notebook would keep as outputs."""
    seen = []

    def display(data, *, raw, metadata):
        assert raw
        seen.append({"data": data, "metadata": metadata})

    monkeypatch.setattr("IPython.display.display", display)
    return lambda: {"cells": [{"outputs": seen}]}


def test_glue_is_read_back_rounded(displayed):
    import jax.numpy as jnp

    assert ledger.glue("pi", jnp.asarray(math.pi)) is None
    ledger.glue("two", math.pi, digits=2)
    ledger.glue("count", 12345)
    ledger.glue("word", "tanh")
    expected = {"pi": 3.142, "two": 3.1, "count": 12345, "word": "tanh"}
    assert ledger.values(displayed()) == expected


def test_glue_takes_an_interval_apart(displayed):
    ledger.glue("slope", Interval(-1.00001, -1.23456, -0.98765, Kind.SEEDS), digits=3)
    assert ledger.values(displayed()) == {
        "slope": -1.0,
        "slope-low": -1.23,
        "slope-high": -0.988,
    }


def test_measure_is_read_back_with_its_kind_and_its_halves(displayed, tmp_path):
    a, b = [Interval(x, x, x, Kind.RESIDUALS) for x in (-1.5, -0.987654)]
    ledger.measure("rate", Interval(-1.00001, -2.0, 0.0, Kind.RESIDUALS, (a, b)))
    ledger.measure("plain", Interval(-1.0, -1.23456, -0.98765, Kind.SEEDS))
    found = displayed()
    metadata = [x["metadata"]["deeplimits"] for x in found["cells"][0]["outputs"]]
    assert metadata == [{"claim": "rate"}, {"claim": "plain"}]
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "euler.ipynb").write_text(json.dumps(found))
    (_, rate), (_, plain) = ledger.measurements(tmp_path)
    assert rate.source == "euler"
    assert rate.interval == Interval(
        *(-1.0, -2.0, 0.0, Kind.RESIDUALS),
        tuple(Interval(x, x, x, Kind.RESIDUALS) for x in (-1.5, -0.9877)),
    )
    assert plain.interval == Interval(-1.0, -1.235, -0.9877, Kind.SEEDS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(displayed, value):
    """The record could not be read back."""
    with pytest.raises(ValueError, match=f"finite numbers: got {value}"):
        ledger.glue("x", value)
    unknown = Interval(math.nan, -math.inf, math.inf, Kind.LAYERS)
    with pytest.raises(ValueError, match="finite numbers: got nan"):
        ledger.measure("rate", unknown)


def test_a_number_without_bounds_is_no_measurement(displayed, as_in_use):
    with pytest.raises(ValueError, match="an Interval is needed, got -1"):
        ledger.measure("rate", -1.0)


def test_the_ledger_of_the_book_holds_together():
    text, ok = ledger.report(ROOT)
    assert ok, text


def test_the_ledger_is_independent_of_sphinx():
    text = (ROOT / "src" / "deeplimits" / "ledger.py").read_text(encoding="utf-8")
    assert "import sphinx" not in text
    assert "from sphinx" not in text


# ----------------------------------------------------------------- exercises


def test_check_says_right_and_not_yet(capsys):
    exercises.check("reading-the-slope", -1.0)
    exercises.check("reading-the-slope", 1.0)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "reading-the-slope: right."
    assert wrong.startswith("reading-the-slope: not yet. Hint: ")


def test_an_unknown_exercise_names_the_known_ones():
    with pytest.raises(ValueError, match="reading-the-slope"):
        exercises.check("no-such", 1.0)


def test_a_wrong_shape_is_said():
    with pytest.raises(ValueError, match=r"wants shape \(\), got \(2,\)"):
        exercises.check("reading-the-slope", [1.0, 2.0])


@pytest.mark.parametrize("value", [None, "x", 1j])
def test_what_is_no_number_is_said(value):
    with pytest.raises(ValueError, match="wants numbers: got"):
        exercises.check("reading-the-slope", value)


@pytest.mark.parametrize("name", sorted(exercises.answers()))
def test_each_answer_is_complete_and_right(name):
    entry = exercises.answers()[name]
    assert entry.keys() >= {"answer", "hint"}
    assert entry.keys() <= {"answer", "hint", "rtol", "atol"}
    assert exercises.is_right(name, entry["answer"])
