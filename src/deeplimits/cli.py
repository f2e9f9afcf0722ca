"""The command line: `deeplimits list`, `run`, `claims`, `fetch` and `diagnose`."""

import argparse
import hashlib
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.random as jr

from . import (
    __version__,
    diagnosis,
    experiments,
    files,
    images,
    ledger,
    results,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 2 and one line for what was asked wrongly."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"deeplimits: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deeplimits", description="The experiments and claims of Deep Limits."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the experiments, a line each")
    listing.set_defaults(command=_list)
    claims = commands.add_parser("claims", help="every claim, measured and judged")
    claims.set_defaults(command=_claims)
    run = commands.add_parser("run", help="run an experiment, or go on with it")
    run.set_defaults(command=_run)
    run.add_argument("experiment", metavar="EXPERIMENT")
    run.add_argument("--profile", default="book", help="smoke, book (default) or paper")
    run.add_argument("--seed", type=int, default=2024, help="root of all randomness")
    run.add_argument("--seeds", type=int, help="number of repeats, where there are any")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    run.add_argument("--double", action="store_true", help="compute in float64")
    run.add_argument("--output", type=Path, metavar="FILE", help="default: under runs/")
    fetch = commands.add_parser("fetch", help="have a data set, over the network")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("name", metavar="NAME", help=", ".join(images.LOADERS))
    _add_diagnose(commands)
    return parser


def _add_diagnose(commands: Any) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="which limit a network's weights point to",
        description="Which limit in depth do the weights of a network point to?",
        epilog=diagnosis.weights.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diagnose.set_defaults(command=_diagnose)
    diagnose.add_argument("files", nargs="+", type=Path, metavar="FILE")
    diagnose.add_argument("--beta", type=float, help="of the factor L^-beta, if any")
    diagnose.add_argument("--json", action="store_true", help="print JSON, no table")
    diagnose.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw it, as .png"
    )


def _list(options: argparse.Namespace) -> int:
    for experiment in experiments.EXPERIMENTS.values():
        print(f"{experiment.name:34} {experiment.summary}")
    return 0


def _claims(options: argparse.Namespace) -> int:
    text, sound = ledger.report()
    print(text)
    return 0 if sound else 1


def _run(options: argparse.Namespace) -> int:
    experiment = experiments.find(options.experiment)
    config = _configure(experiment, options)
    if not 0 <= options.seed < 2**32:
        raise ValueError(
            f"--seed must lie between 0 and {2**32 - 1}: got {options.seed}."
        )
    if options.double:
        jax.config.update("jax_enable_x64", True)
    identity = _identity(experiment.name, config, options)
    path = options.output or Path("runs", experiment.name, f"{identity}.nc")
    if path.exists():
        _require_same(path, experiment.name, config, options.seed)
        print(f"{path} is there already: move it away to run again.")
        return 0
    files.require_writable(path)
    scratch = Path("runs", ".unfinished", identity)
    if scratch.exists() and results.commit().endswith("+"):
        warning = (
            "going on, with code that differs from its commit: it may have changed"
        )
        print(f"deeplimits: {warning}.", file=sys.stderr)
    start = time.perf_counter()
    dataset = experiment.run(
        config, key=jr.key(options.seed), scratch=scratch, progress=True
    )
    seconds = time.perf_counter() - start
    dataset = dataset.assign_attrs(experiment=experiment.name)
    results.save(dataset, path, config=config, seed=options.seed, wall_seconds=seconds)
    shutil.rmtree(scratch, ignore_errors=True)
    print(path)
    return 0


def _require_same(path: Path, name: str, config: Any, seed: int) -> None:
    """`ValueError` where the file holds another computation, as far as it says."""
    config = results.config_json(config)
    wanted = {"experiment": name, "config": config, "seed": str(seed)}
    found = results.load(path).attrs
    differing = [key for key in wanted if found.get(key, wanted[key]) != wanted[key]]
    if differing:
        raise ValueError(
            f"{path} holds another computation (its {', '.join(differing)} differs): "
            "name another file, or move it away."
        )


def _fetch(options: argparse.Namespace) -> int:
    found = images.fetch(options.name)
    print(f"{options.name}: {len(found.train)} + {len(found.test)} images")
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    networks = [diagnosis.read(path) for path in options.files]
    found = diagnosis.diagnose(networks, beta=options.beta)
    if options.figure:
        diagnosis.save_figure(networks, options.figure)
    as_text = diagnosis.to_json if options.json else diagnosis.table
    print(as_text(found))
    return 0


def _configure(experiment: experiments.Experiment, options: argparse.Namespace) -> Any:
    assignments = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set needs KEY=VALUE: got {text!r}.")
        assignments[name] = value
    if options.seeds is not None:
        assignments["seeds"] = str(options.seeds)
    return experiments.override(experiment.preset(options.profile), assignments)


def _identity(name: str, config: Any, options: argparse.Namespace) -> str:
    """A file name for one computation: the same for the same numbers and code."""
    text = f"{name} {results.config_json(config)} {options.seed}"
    dtype = "float64" if jax.config.read("jax_enable_x64") else "float32"
    code = f"{dtype} {__version__} {results.lock_hash()} {results.commit()}"
    digest = hashlib.sha256(f"{text} {code}".encode()).hexdigest()
    return f"{options.profile}-{digest[:10]}"


if __name__ == "__main__":
    sys.exit(main())
