"""How often is `deeplimits diagnose` right? Known networks, and trained ones.

    python benchmarks/diagnosis.py half --key 1 --output results/benchmarks/X.nc
    python benchmarks/diagnosis.py pool /tmp/11.nc /tmp/12.nc --output results/...
    python benchmarks/diagnosis.py power --key 3 --output results/benchmarks/Y.nc
    python benchmarks/diagnosis.py trained --output /tmp/weights
    python benchmarks/diagnosis.py judge /tmp/weights --output results/benchmarks/Z.nc

`half` draws the networks of `networks.py` with one of two keys, asks for a verdict on
each, and counts by kind how often it is right, wrong or not given. Both keys are for a
rule that is done, once; while it was made, others were drawn. `pool` keeps the counts
of several such draws, by key. `power` counts right definite verdicts against depth and
width. `trained` trains the networks of `trained.py` and keeps their weights, some
100 MB, in a folder that is not archived; `judge` asks whether their verdicts stay when
units are permuted, the depth is halved or the seed is another. What draws or trains
goes on where it was interrupted.
"""

import argparse
import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import networks as known
import numpy as np
import pandas as pd
import trained
import xarray as xr
from scipy.stats import binomtest
from tqdm import tqdm

from deeplimits import diagnosis, files, results
from deeplimits.intervals import Interval

OUTCOMES = ("right", "wrong", "abstained")
DEEP, WIDE = 128, 64  # from here on half of the verdicts should be definite
POWER_KINDS = ("noise, H = 0.5", "smooth", "trend and noise, 0.5")
POWER_DEPTHS = (8, 12, 16, 24, 36, 48, 64, 128, 256)
POWER_WIDTHS = (8, 16, 64)
POWER_REPEATS = 20
_EVERY = 40  # networks between two savings
_ANSWERS = {
    "smooth: neural ODE": known.Answer.ODE,
    "trend and noise: neural ODE": known.Answer.ODE,
    "rough: SDE": known.Answer.SDE,
    "neither, in between": known.Answer.OWN,
    "trend and noise": known.Answer.BOTH,
    "trend and noise: SDE with drift": known.Answer.BOTH,
    "identity": known.Answer.IDENTITY,
    "explosive": known.Answer.EXPLOSIVE,
    "not enough depth to say": known.Answer.ABSTAIN,
}


def answer(verdict: str, reason: str) -> known.Answer:
    """The one place that knows the words of the rule."""
    if reason.startswith("noise about a larger trend"):
        return known.Answer.BOTH
    if reason.startswith("the layers alternate"):
        return known.Answer.ALTERNATES
    return _ANSWERS[verdict]


def judge(weights: Sequence[known.Weights], beta: float | None) -> dict[str, Any]:
    """The verdict on a network, or on a family of several depths; what was read."""
    start = time.perf_counter()
    found = diagnosis.diagnose(list(weights), beta=beta)
    verdict = diagnosis.overall(found)
    seconds = time.perf_counter() - start
    reasons = [parameter.reason for parameter in found if parameter.verdict == verdict]
    reason = reasons[0] if reasons else ""
    return {
        "verdict": verdict,
        "reason": reason,
        "answer": str(answer(verdict, reason)),
        "seconds": seconds,
        **numbers(found[0].networks[-1]),
    }


def numbers(network: Any) -> dict[str, float]:
    """What was read from the first parameter of the deepest network."""
    read: dict[str, float] = {}
    for name, value in network._asdict().items():
        if isinstance(value, Interval):
            ends = zip(("", "_low", "_high"), value.numbers, strict=True)
            read |= {f"read_{name}{end}": number for end, number in ends}
        elif isinstance(value, float):
            read[f"read_{name}"] = value
    return read


def row(case: known.Case, key: int) -> dict[str, Any]:
    truth = known.KINDS[case.kind].truth
    found = judge(known.networks(case, key), case.beta)
    return {
        "kind": case.name,
        "depth": case.depths[-1],
        "width": case.width,
        "ratio": math.nan if case.ratio is None else case.ratio,
        "truth": str(truth),
        "expected": str(truth.answer(case.beta)),
        **found,
        "outcome": truth.right(known.Answer(found["answer"]), case.beta),
    }


def sources() -> str:
    """A hash of the rule and of the networks: other code does not go on with a file."""
    package = Path(diagnosis.__file__).parents[1]
    paths = [*sorted((package / "diagnosis").glob("*.py")), package / "variation.py"]
    paths += [Path(__file__), Path(known.__file__)]
    return hashlib.sha256(b"".join(p.read_bytes() for p in paths)).hexdigest()[:16]


def measure(
    tasks: Sequence[Any],
    work: Callable[[Any], dict[str, Any]],
    finish: Callable[[pd.DataFrame], xr.Dataset],
    output: str,
    config: dict[str, Any],
) -> xr.Dataset:
    """A row for each task, saved as it goes; `finish` adds the counts."""
    files.require_writable(output)
    identity = {"config": json.dumps(config, sort_keys=True), "sources": sources()}
    rows, seconds = [], 0.0
    if Path(output).is_file():
        found = results.load(output)
        results.require_same(identity, found, output)
        rows = _table(found).to_dict("records")
        seconds = float(found.attrs["wall_seconds"])
    before = time.perf_counter() - seconds
    bar = tqdm(tasks[len(rows) :], initial=len(rows), total=len(tasks), unit="network")
    dataset = None
    for task in bar:
        rows.append(work(task))
        if len(rows) % _EVERY == 0 or len(rows) == len(tasks):
            table = pd.DataFrame(rows)
            dataset = finish(table).assign_attrs(identity=json.dumps(identity))
            passed = time.perf_counter() - before
            _save(dataset, output, config, passed)
    return results.load(output)


def _save(dataset: xr.Dataset, output: str, config: dict, seconds: float) -> None:
    empty = [k for k, v in dataset.items() if v.dtype.kind == "f" and v.isnull().all()]
    seed = config.get("key", 0)
    results.save(
        dataset.drop_vars(empty), output, config=config, seed=seed, wall_seconds=seconds
    )


def _table(dataset: xr.Dataset) -> pd.DataFrame:
    names = [name for name, v in dataset.items() if v.dims == ("network",)]
    return pd.DataFrame({str(name): dataset[name].values for name in names})


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    """One variable a column; text as text, numbers with the digits that they have."""
    return {
        name: ("network", table[name].astype(str).to_list())
        if table[name].dtype.kind not in "fiu"
        else ("network", table[name].to_numpy())
        for name in table
    }


def counted(table: pd.DataFrame) -> xr.Dataset:
    """The rows, and outcomes by kind: of all, and of what is deep and wide."""
    kinds = list(dict.fromkeys(table["kind"]))
    large = (table["depth"] >= DEEP) & (table["width"] >= WIDE)
    answers = [str(a) for a in known.Answer if str(a) in set(table["answer"])]
    coords = {"kind_name": kinds, "outcome_name": list(OUTCOMES), "said": answers}
    dims = {"outcome": "outcome_name", "answer": "said"}

    def count(part: pd.DataFrame, column: str):
        found = pd.crosstab(part["kind"], part[column])
        found = found.reindex(index=kinds, columns=coords[dims[column]], fill_value=0)
        return ("kind_name", dims[column]), found.to_numpy()

    return xr.Dataset(
        {
            **_columns(table),
            "count": count(table, "outcome"),
            "count_deep": count(table[large], "outcome"),
            "count_said": count(table, "answer"),
        },
        coords=coords,
    )


def pooled(halves: Sequence[xr.Dataset]) -> xr.Dataset:
    """The counts of several draws, by key. `ValueError` if one key comes twice, or if
    the draws were judged by different code."""
    keys = [int(half.attrs["seed"]) for half in halves]
    if len(set(keys)) < len(keys):
        raise ValueError(f"one draw is there twice: the keys are {keys}.")
    codes = {json.loads(half.attrs["identity"])["sources"] for half in halves}
    if len(codes) > 1:
        raise ValueError(f"the draws were judged by {len(codes)} versions of the code.")
    counts = [half[["count", "count_deep"]] for half in halves]
    return xr.concat(counts, pd.Index(keys, name="key"), combine_attrs="drop")


def bars(dataset: xr.Dataset) -> pd.DataFrame:
    """By kind: outcomes, the share of the definite that are right with Wilson's
    interval, and the share of the definite among deep and wide networks."""
    lines = []
    for kind in dataset["kind_name"].values:
        right, wrong, none = map(int, dataset["count"].sel(kind_name=kind))
        deep = dataset["count_deep"].sel(kind_name=kind)
        definite = int(deep[:2].sum()) / max(int(deep.sum()), 1)
        low, high = wilson(right, right + wrong)
        share = right / (right + wrong) if right + wrong else math.nan
        lines.append((kind, right, wrong, none, share, low, high, definite))
    columns = ["kind", *OUTCOMES, "right share", "low", "high", "definite if large"]
    return pd.DataFrame(lines, columns=columns).set_index("kind").round(2)


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's interval at 95 %; from zero to one where nothing was counted."""
    if not total:
        return 0.0, 1.0
    bounds = binomtest(count, total).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def pool(paths: Sequence[str], output: str) -> None:
    halves = [results.load(path) for path in paths]
    dataset = pooled(halves)
    seconds = sum(float(half.attrs["wall_seconds"]) for half in halves)
    config = {"command": "pool", "keys": dataset["key"].values.tolist()}
    _save(dataset, output, config, seconds)
    print(bars(dataset.sum("key")).to_string())


def power_cases() -> Iterator[known.Case]:
    index = 0
    for kind in POWER_KINDS:
        [ratio] = known.KINDS[kind].ratios or (None,)
        for depth in POWER_DEPTHS:
            for width in POWER_WIDTHS:
                for _ in range(POWER_REPEATS):
                    yield known.Case(kind, (depth,), width, ratio, None, index)
                    index += 1


def powered(table: pd.DataFrame) -> xr.Dataset:
    """Outcomes by kind, depth and width; the rows themselves would say no more."""
    found = table.groupby(["kind", "depth", "width", "outcome"]).size()
    grid = [POWER_KINDS, POWER_DEPTHS, POWER_WIDTHS, OUTCOMES]
    names = ["kind_name", "depth_value", "width_value", "outcome_name"]
    full = found.reindex(pd.MultiIndex.from_product(grid), fill_value=0)
    count = full.to_numpy().reshape([len(axis) for axis in grid])
    kept = table[["kind", "depth", "width", "outcome", "answer"]]
    coords = {name: list(axis) for name, axis in zip(names, grid, strict=True)}
    return xr.Dataset({**_columns(kept), "count": (names, count)}, coords=coords)


def train_all(output: str, steps: int) -> None:
    """A file for each group: its members' weights in float32 and their accuracies."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for n, group in enumerate(tqdm(trained.groups(), unit="group")):
        path = folder / f"group-{n:02}.npz"
        if path.is_file():
            continue
        arrays, start = {}, time.perf_counter()
        for k, (accuracy, weights) in enumerate(trained.train(group, steps)):
            arrays[f"{k} accuracy"] = np.float32(accuracy)
            arrays |= {f"{k} {name}": array for name, array in weights.items()}
        with files.atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        found = [float(arrays[f"{k} accuracy"]) for k in range(len(group.members))]
        tqdm.write(f"{group}: {np.round(found, 2)} {time.perf_counter() - start:.0f} s")


def trained_networks(folder: str) -> list[tuple[int, int]]:
    return [
        (n, k)
        for n, group in enumerate(trained.groups())
        for k in range(len(group.members))
        if (Path(folder) / f"group-{n:02}.npz").is_file()
    ]


def trained_row(folder: str, task: tuple[int, int]) -> dict[str, Any]:
    """The verdict on a trained network, and on the same function in another order."""
    n, k = task
    group = trained.groups()[n]
    start, seed = group.members[k]
    with np.load(Path(folder) / f"group-{n:02}.npz") as file:
        found = {x.split(" ", 1)[1]: file[x] for x in file if x.startswith(f"{k} ")}
    accuracy = float(found.pop("accuracy"))
    if not all(np.isfinite(z).all() for z in found.values()):
        raise ValueError(f"the weights of {group}, {start}, are not finite.")
    permuted = trained.other_order(group.block, found)
    same = group.block == "one layer"  # it has no hidden units
    verdict = judge([found], None)
    other = verdict if same else judge([permuted], None)
    return {
        **group._asdict(),
        "normalised": int(group.normalised),
        "start": start,
        "seed": seed,
        "accuracy": accuracy,
        **verdict,
        "permuted_verdict": other["verdict"],
        "permuted_answer": other["answer"],
    }


def consistent(table: pd.DataFrame) -> xr.Dataset:
    """The rows, and for each comparison how often both verdicts agree, contradict one
    another, or one or both abstain."""
    counts = {name: [0, 0, 0, 0] for name in ("permuted", "half depth", "other seed")}
    for name, one, other in _pairs(table):
        silent = [one, other].count(known.Answer.ABSTAIN)
        counts[name][1 + silent if silent else int(one != other)] += 1
    data = {
        **_columns(table),
        "count": (("comparison", "agreement"), [*counts.values()]),
    }
    kinds = ["same", "contradictory", "one abstains", "both abstain"]
    return xr.Dataset(data, {"comparison": list(counts), "agreement": kinds})


def _pairs(table: pd.DataFrame) -> Iterable[tuple[str, str, str]]:
    for line in table[table["block"] != "one layer"].itertuples():
        yield "permuted", str(line.answer), str(line.permuted_answer)
    for _, part in table.groupby(["block", "normalised", "optimiser", "start"]):
        full = part[part["depth"] == trained.DEPTHS[part["block"].iloc[0]]]
        first, half = full[full["seed"] == 1], part[part["depth"] < full["depth"].max()]
        second = full[full["seed"] == 2]
        for name, others in (("half depth", half), ("other seed", second)):
            for a, b in zip(first["answer"], others["answer"], strict=False):
                yield name, str(a), str(b)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("half", "power"):
        command = commands.add_parser(name)
        command.add_argument("--key", type=int, required=True)
        command.add_argument("--output", required=True)
    command = commands.add_parser("pool")
    command.add_argument("halves", nargs="+")
    command.add_argument("--output", required=True)
    command = commands.add_parser("trained")
    command.add_argument("--output", required=True)
    command.add_argument("--steps", type=int, default=trained.STEPS)
    command = commands.add_parser("judge")
    command.add_argument("weights")
    command.add_argument("--output", required=True)
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.command == "trained":
        return train_all(options.output, options.steps)
    if options.command == "pool":
        return pool(options.halves, options.output)
    config: dict[str, Any] = {"command": options.command}
    if options.command == "judge":
        tasks = trained_networks(options.weights)
        work, finish = partial(trained_row, options.weights), consistent
        config |= {"networks": len(tasks), "steps": trained.STEPS}
    else:
        half = options.command == "half"
        tasks = list(known.cases() if half else power_cases())
        finish = counted if half else powered
        work = partial(row, key=options.key)
        config |= {"key": options.key, "networks": len(tasks)}
    with contextlib.suppress(BrokenPipeError):
        dataset = measure(tasks, work, finish, options.output, config)
        if options.command == "half":
            print(bars(dataset).to_string())
        elif options.command == "power":
            share = dataset["count"].sel(outcome_name="right") / POWER_REPEATS
            for kind in POWER_KINDS:
                print(kind, share.sel(kind_name=kind).to_pandas().to_string(), sep="\n")
        else:
            print(dataset["count"].to_pandas().to_string())


if __name__ == "__main__":
    main()
