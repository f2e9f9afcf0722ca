"""The claims ledger: what a paper says, what we measured, and whether they agree.

A claim is an entry of `book/claims.yml`. A measurement is an interval that `measure`
left in an executed record (`book/*.ipynb`). The verdict follows from the two by
`verdict` alone:

$$ [\\text{low}, \\text{high}] \\subseteq E \\Rightarrow \\text{agrees}, \\qquad
   [\\text{low}, \\text{high}] \\cap E = \\emptyset \\Rightarrow \\text{differs}, $$

where $E$ is the expected range; anything else is *undecided*. A slope must also be one:
see `verdict`. What `book/claims.yml` says must be what follows.

`registered` is the commit that wrote the range before anything was measured, or "after"
where some number had been seen; `looks` counts how often data were added, or the
analysis was done again, before it was final.
"""

import ast
import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .intervals import Interval, Kind

PREFIX = "application/papermill.record/"
KINDS = ("theorem", "figure", "table", "ours")
TAGS = ("T", "T0", "C", "F", "M", "D", "N")
VERDICTS = ("agrees", "differs", "undecided", "not attempted")
_NUMBERS = ("value", "low", "high")
_OF_A_RUN = ("source", "registered", "looks")  # null for what is not attempted
FIELDS = {
    "id": str,
    "paper": str,
    "where": str,
    "kind": str,
    "tag": str,
    "statement": str,
    "expected": (dict, type(None)),
    "source": (str, type(None)),
    "verdict": str,
    "reason": str,
    "registered": (str, type(None)),
    "looks": (int, type(None)),
}


class LedgerError(ValueError):
    """The ledger cannot be read, or does not hold together.

    ```pycon
    >>> issubclass(LedgerError, ValueError)
    True
    ```
    """


@dataclass(frozen=True)
class Expected:
    """The range that the claim allows, and why.

    ```pycon
    >>> slope = Interval(-1.0, -1.02, -0.98, Kind.SEEDS)
    >>> verdict(Expected(-1.1, -0.9, "a bound"), slope)
    'agrees'
    ```
    """

    low: float
    high: float
    why: str


@dataclass(frozen=True)
class Measurement:
    """An interval, and the record that it was found in.

    ```pycon
    >>> Measurement(Interval(-1.0, -1.02, -0.98, Kind.SEEDS), "euler").interval.low
    -1.02
    ```
    """

    interval: Interval
    source: str


@dataclass(frozen=True)
class Claim:
    """One entry of `book/claims.yml`.

    ```pycon
    >>> claim = load()[0]
    >>> claim.verdict in VERDICTS, claim.attempted
    (True, False)
    ```
    """

    id: str
    paper: str
    where: str
    kind: str
    tag: str
    statement: str
    expected: Expected | None
    source: str | None
    verdict: str
    reason: str
    registered: str | None
    looks: int | None

    @property
    def attempted(self) -> bool:
        """Whether there is a measurement to judge the claim by."""
        return self.verdict != "not attempted"


# ----------------------------------------------------------------- in a notebook


def _significant(value: Any, digits: int) -> Any:
    """A plain Python value, floats rounded to so many significant digits."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool | int | str):
        return value
    if not math.isfinite(value):
        raise ValueError(f"a record holds finite numbers: got {value}.")
    return float(f"{float(value):.{digits}g}")


def _record(name: str, text: str, extra: Mapping[str, Any]) -> None:
    from IPython.display import display  # a notebook has it; the library need not

    scrapbook = {"name": name, "mime_prefix": PREFIX}
    metadata = {"scrapbook": scrapbook, **extra}
    display({PREFIX + "text/plain": text}, raw=True, metadata=metadata)


def glue(name: str, value: Any, *, digits: int = 4) -> None:
    """Leave a number (or a short text) in the record, for the prose to quote.

    Of an `Interval` all parts at once: `name`, `name-low` and `name-high`. Raises
    `ValueError` for a number that is not finite. A name serves once in a record, and is
    not that of a claim that the record measures: see `values`.

    ```pycon
    >>> glue("third", 1 / 3)  # outside a notebook it is printed
    {'application/papermill.record/text/plain': '0.3333'}
    ```
    """
    if isinstance(value, Interval):
        for suffix, number in zip(("", "-low", "-high"), value.numbers, strict=True):
            glue(name + suffix, number, digits=digits)
    else:
        _record(name, repr(_significant(value, digits)), {})


def measure(claim: str, interval: Interval, *, digits: int = 4) -> None:
    """Leave the measurement of a claim in the record: an interval with its halves.

    Raises `ValueError` for a bare number. It needs bounds, and a word on what they are:
    `intervals.hull` makes them. Raises it for numbers that are not finite, too.

    ```pycon
    >>> measure("euler-rate", Interval(-1.0, -1.02, -0.98, Kind.SEEDS))
    {'application/papermill.record/text/plain':
     "{'value': -1.0, 'low': -1.02, 'high': -0.98, 'kind': 'over seeds'}"}
    ```
    """
    if not isinstance(interval, Interval):
        raise ValueError(f"measure({claim!r}): an Interval is needed, got {interval}.")
    content = _content(interval, digits)
    _record(claim, repr(content), {"deeplimits": {"claim": claim}})


def _content(interval: Interval, digits: int) -> dict[str, Any]:
    """An interval as a record holds it."""
    numbers = (_significant(x, digits) for x in interval.numbers)
    content = dict(zip(_NUMBERS, numbers, strict=True)) | {"kind": interval.kind.value}
    if interval.halves is not None:
        content["halves"] = [_content(half, digits) for half in interval.halves]
    return content


# ----------------------------------------------------------------- from the records


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file provokes becomes an error that names the file."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise LedgerError(f"{path} cannot be read ({reason}).") from error


def _outputs(notebook: Path | Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    is_file = isinstance(notebook, Path)
    content = json.loads(notebook.read_text("utf-8")) if is_file else notebook
    for cell in content["cells"]:
        yield from cell.get("outputs", [])


def values(notebook: Path | Mapping[str, Any]) -> dict[str, Any]:
    """Everything that a record glued or measured, by name.

    Raises `LedgerError` for a name that stands for two things: `glue` and `measure`
    share their names.

    ```pycon
    >>> record = find_root() / "book" / "euler.ipynb"
    >>> -1.1 < values(record)["slope"] < -0.9
    True
    ```
    """
    found = {}
    for output in _outputs(notebook):
        scrapbook = output.get("metadata", {}).get("scrapbook", {})
        if scrapbook.get("mime_prefix") == PREFIX:
            if (name := scrapbook["name"]) in found:
                raise LedgerError(f"{name} is recorded twice")
            text = "".join(output["data"][PREFIX + "text/plain"])
            found[name] = ast.literal_eval(text)
    return found


def _measured(notebook: Path | Mapping[str, Any]) -> list[str]:
    """The claims that a record measures, in order, repetitions included."""
    metadata = (output.get("metadata", {}) for output in _outputs(notebook))
    claims = (m.get("deeplimits", {}).get("claim") for m in metadata)
    return [claim for claim in claims if claim is not None]


def _interval(content: Mapping[str, Any]) -> Interval:
    """What `_content` was made of."""
    halves = content.get("halves")
    halves = None if halves is None else tuple(map(_interval, halves))
    value, low, high = (float(content[name]) for name in _NUMBERS)
    return Interval(value, low, high, Kind(content["kind"]), halves)


def _in_record(path: Path) -> list[tuple[str, Measurement]]:
    with _reading(path):
        found, names = values(path), _measured(path)
        measured = [(name, _interval(found[name])) for name in names]
    return [(name, Measurement(interval, path.stem)) for name, interval in measured]


def measurements(root: Path) -> list[tuple[str, Measurement]]:
    """Every measurement in the records below `root`."""
    records = sorted((root / "book").glob("*.ipynb"))
    return [pair for path in records for pair in _in_record(path)]


# ----------------------------------------------------------------- claims.yml


def find_root(start: Path | None = None) -> Path:
    """The nearest folder, upwards, that holds `book/claims.yml`."""
    start = Path.cwd() if start is None else Path(start).resolve()
    for folder in (start, *start.parents):
        if (folder / "book" / "claims.yml").is_file():
            return folder
    raise LedgerError(f"no book/claims.yml in {start} or any folder above it.")


def as_range(where: str, given: Mapping[str, Any]) -> Expected:
    """The range that an entry gives under `expected`; `where` begins its errors."""
    allowed = ({"value", "tolerance", "why"}, {"low", "high", "why"})
    if set(given) not in allowed:
        raise LedgerError(
            f"{where}: give value, tolerance, why or low, high, why; "
            f"got {sorted(map(str, given))}."
        )
    why = given["why"]
    numbers = {key: _number(where, key, x) for key, x in given.items() if key != "why"}
    if not isinstance(why, str) or not why.strip():
        raise LedgerError(f"{where}.why: a sentence is needed, got {why!r}.")
    if "low" in numbers:
        low, high = numbers["low"], numbers["high"]
    else:
        centre, tolerance = numbers["value"], numbers["tolerance"]
        low, high = centre - tolerance, centre + tolerance
    if not low < high:
        raise LedgerError(f"{where}: an empty range, [{low}, {high}].")
    return Expected(low, high, why)


def _number(where: str, key: str, x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float) or math.isnan(x):
        raise LedgerError(f"{where}.{key}: a number is needed, got {x!r}.")
    return float(x)


def _fields(entry: Any, position: int) -> Mapping[str, Any]:
    """The entry, once each field is there and of its type."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise LedgerError(f"claims.yml, entry {position}: field id (text) is needed.")
    name = entry["id"]
    for missing in FIELDS.keys() - entry.keys():
        raise LedgerError(f"claim {name}: field {missing} is missing.")
    for unknown in entry.keys() - FIELDS.keys():
        raise LedgerError(f"claim {name}: field {unknown} is unknown: {list(FIELDS)}.")
    for field, kind in FIELDS.items():
        if not isinstance(entry[field], kind):
            raise LedgerError(f"claim {name}: field {field} is {entry[field]!r}.")
    return entry


def _choices(entry: Mapping[str, Any]) -> None:
    choices = {"kind": KINDS, "tag": TAGS, "verdict": VERDICTS}
    for field, allowed in choices.items():
        if entry[field] not in allowed:
            raise LedgerError(
                f"claim {entry['id']}: field {field} is {entry[field]!r}, "
                f"not one of {list(allowed)}."
            )


def parse(entry: Any, position: int = 0) -> Claim:
    """One claim from its entry, or an error that names the claim and the field."""
    entry = _fields(entry, position)
    _choices(entry)
    name, expected = entry["id"], entry["expected"]
    attempted = entry["verdict"] != "not attempted"
    for field in ("expected", *_OF_A_RUN):
        if attempted and entry[field] is None:
            raise LedgerError(f"claim {name}: field {field} is needed once attempted.")
    for field in _OF_A_RUN:
        if not attempted and entry[field] is not None:
            raise LedgerError(f"claim {name}: field {field} must be null.")
    if attempted and not re.fullmatch("after|[0-9a-f]{7,40}", entry["registered"]):
        raise LedgerError(
            f"claim {name}: field registered is {entry['registered']!r}, neither a "
            'commit nor "after".'
        )
    if attempted and entry["looks"] < 1:
        raise LedgerError(f"claim {name}: field looks is {entry['looks']}, under 1.")
    if expected is not None:
        expected = as_range(f"claim {name}: field expected", expected)
    return Claim(**{**entry, "expected": expected})


def load(root: Path | None = None) -> list[Claim]:
    """All claims of the book at `root`, in the order of the file.

    ```pycon
    >>> len({claim.id for claim in load()}) == len(load()) > 100
    True
    ```
    """
    root = find_root() if root is None else Path(root)
    path = root / "book" / "claims.yml"
    with _reading(path):
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    if not isinstance(entries, list):
        raise LedgerError("claims.yml: one list of claims is needed.")
    claims = [parse(entry, i) for i, entry in enumerate(entries, 1)]
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise LedgerError(f"claim {name}: {count} entries have this id.")
    return claims


# ----------------------------------------------------------------- verdicts


def verdict(expected: Expected, interval: Interval) -> str:
    """`agrees`, `differs` or `undecided`: where the interval lies.

    A slope agrees only if it is one: where the slopes of both halves of the depths lie
    in the range, too, with repeats their intervals as well. Of fewer than five depths
    it is undecided.

    ```pycon
    >>> allowed, about = Expected(-1.1, -0.9, "a bound"), (-1.0, -0.9, -0.8)
    >>> found = [Interval(x, x - 0.05, x + 0.05, Kind.SEEDS) for x in about]
    >>> [verdict(allowed, interval) for interval in found]
    ['agrees', 'undecided', 'differs']
    ```
    """
    if interval.halves == ():
        return "undecided"
    if interval.high < expected.low or expected.high < interval.low:
        return "differs"
    held = [interval.numbers, *map(_held, interval.halves or ())]
    within = all(expected.low <= min(x) and max(x) <= expected.high for x in held)
    return "agrees" if within else "undecided"


def _held(half: Interval) -> tuple[float, ...]:
    """The numbers of a half that a range must hold: of one curve, few points are left
    to tell its residuals from."""
    return half.numbers if half.kind != Kind.RESIDUALS else (half.value,)


def _problem(claim: Claim, found: list[Measurement]) -> str | None:
    """What is wrong between one claim and its measurements, if anything."""
    if not claim.attempted:
        return f"{claim.id}: not attempted, yet measured." if found else None
    if len(found) != 1:
        return f"{claim.id}: {len(found)} measurements, one is needed."
    [m] = found
    if m.source != claim.source:
        return f"{claim.id}: measured in {m.source}, source says {claim.source}."
    assert claim.expected is not None  # parse has seen to it
    computed = verdict(claim.expected, m.interval)
    if computed != claim.verdict:
        return (
            f"{claim.id}: the verdict says {claim.verdict}, but {m.interval:.4g} "
            f"against {bounds(claim.expected)} is {computed}."
        )
    return None


def rows(root: Path | None = None) -> list[tuple[Claim, Measurement | None]]:
    """Each claim with its measurement, where there is one.

    ```pycon
    >>> all((found is not None) == claim.attempted for claim, found in rows())
    True
    ```
    """
    root = find_root() if root is None else Path(root)
    found = dict(measurements(root))
    return [(claim, found.get(claim.id)) for claim in load(root)]


def check(root: Path | None = None) -> list[str]:
    """All that is wrong with the ledger; empty when it holds together."""
    root = find_root() if root is None else Path(root)
    claims, found = load(root), measurements(root)
    known = {claim.id for claim in claims}
    by_claim = {name: [m for claim, m in found if claim == name] for name in known}
    problems = [_problem(claim, by_claim[claim.id]) for claim in claims]
    orphans = [
        f"{claim}: measured in {m.source}, but claims.yml has no such claim."
        for claim, m in found
        if claim not in known
    ]
    return [problem for problem in problems if problem is not None] + orphans


# ----------------------------------------------------------------- printing


def bounds(expected: Expected | None) -> str:
    """An expected range as text; a one-sided one as an inequality.

    ```pycon
    >>> bounds(Expected(-1.1, -0.9, "why")), bounds(Expected(0.5, float("inf"), "why"))
    ('[-1.1, -0.9]', '≥ 0.5')
    ```
    """
    if expected is None:
        return ""
    if math.isinf(expected.low):
        return f"≤ {expected.high:.4g}"
    if math.isinf(expected.high):
        return f"≥ {expected.low:.4g}"
    return f"[{expected.low:.4g}, {expected.high:.4g}]"


def _line(claim: Claim, m: Measurement | None) -> str:
    numbers = f"{m.interval}; expected {bounds(claim.expected)}" if m else claim.reason
    return f"{claim.verdict:>13}  {claim.id}  {numbers}"


def report(root: Path | None = None) -> tuple[str, bool]:
    """The ledger as text, and whether it holds together.

    ```pycon
    >>> text, holds = report()
    >>> holds, f"{len(load())} claims: " in text
    (True, True)
    ```
    """
    try:
        table, problems = rows(root), check(root)
    except LedgerError as error:
        return f"ledger: {error}", False
    counts = Counter(claim.verdict for claim, _ in table)
    total = ", ".join(f"{counts[name]} {name}" for name in VERDICTS)
    lines = [_line(claim, m) for claim, m in table] + [f"{len(table)} claims: {total}."]
    return "\n".join(lines + [f"PROBLEM  {p}" for p in problems]), not problems
