"""The command line: `deeplimits list`, `run`, `claims`, `fetch` and `diagnose`."""

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import deeplimits

# Modules are reached through the package, which loads them where they are first used:
# `--version`, `--help` and `list` answer without JAX.
from . import sources


def main(arguments: list[str] | None = None) -> int:
    """Run one command; exit code 2 and one line for what was asked wrongly."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except Exception as error:
        if (line := one_line(error)) is None:
            raise
        print(deeplimits.files.printable(f"deeplimits: {line}", 300), file=sys.stderr)
        return 2


def one_line(error: Exception) -> str | None:
    """What to say to who asked for the wrong thing, or for more memory than there is;
    nothing for a fault of ours."""
    if isinstance(error, ValueError | OSError):
        return str(error)
    # JAX's error for it is a RuntimeError that tells by its text alone
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            "out of memory: choose smaller sizes; the pieces computed so far are kept."
        )
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deeplimits", description="The experiments and claims of Deep Limits."
    )
    parser.add_argument("--version", action="version", version=deeplimits.__version__)
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
    fetch.add_argument("name", metavar="NAME", help="its name, as in `datasets`")
    _add_diagnose(commands)
    return parser


def _add_diagnose(commands: Any) -> None:
    diagnose = commands.add_parser(
        "diagnose",
        help="which limit a network's weights point to",
        description="Which limit in depth do the weights of a network point to?",
        epilog=sources.docstring("deeplimits.diagnosis.stages"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    diagnose.set_defaults(command=_diagnose)
    diagnose.add_argument("files", nargs="+", type=Path, metavar="FILE")
    diagnose.add_argument(
        "--pattern", help="names to choose, as 'encoder.layers.#.attn' (below)"
    )
    diagnose.add_argument("--beta", type=float, help="of the factor L^-beta, if any")
    diagnose.add_argument("--json", action="store_true", help="print JSON, no table")
    diagnose.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw it, as .png"
    )


def _list(options: argparse.Namespace) -> int:
    for name, entry in sources.experiments().items():
        print(f"{name:34} {entry.summary}")
    return 0


def _claims(options: argparse.Namespace) -> int:
    text, sound = deeplimits.ledger.report()
    print(text)
    return 0 if sound else 1


def _run(options: argparse.Namespace) -> int:
    import jax

    experiment = deeplimits.experiments.find(options.experiment)
    config = _configure(experiment, options)
    if not 0 <= options.seed < 2**32:
        raise ValueError(
            f"--seed must lie between 0 and {2**32 - 1}: got {options.seed}."
        )
    if options.double:
        jax.config.update("jax_enable_x64", True)
    key = jax.random.key(options.seed)
    identity = experiment.identity(config, key)
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]
    name = f"{options.profile}-{digest}"
    path = options.output or Path("runs", experiment.name, f"{name}.nc")
    if path.exists():
        deeplimits.results.require_same(identity, deeplimits.results.load(path), path)
        print(f"{path} is there already: move it away to run again.")
        return 0
    deeplimits.files.require_writable(path)
    scratch = Path("runs", ".unfinished", name)
    start = time.perf_counter()
    dataset = experiment.run(config, key=key, scratch=scratch, progress=True)
    seconds = time.perf_counter() - start
    deeplimits.results.save(
        dataset, path, config=config, seed=options.seed, wall_seconds=seconds
    )
    shutil.rmtree(scratch, ignore_errors=True)
    print(path)
    return 0


def _fetch(options: argparse.Namespace) -> int:
    found = deeplimits.images.fetch(options.name)
    print(f"{options.name}: {len(found.train)} + {len(found.test)} images")
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    read = deeplimits.diagnosis.read
    networks = [read(path, pattern=options.pattern) for path in options.files]
    found = deeplimits.diagnosis.diagnose(networks, beta=options.beta)
    if options.figure:
        deeplimits.diagnosis.save_figure(networks, options.figure)
    as_text = (
        deeplimits.diagnosis.to_json if options.json else deeplimits.diagnosis.table
    )
    print(as_text(found))
    # beside JSON, which must stay one document, on the error stream
    stream = sys.stderr if options.json else sys.stdout
    for network in networks:
        where = f" on {network.source}" if len(networks) > 1 else ""
        for note in network.notes:
            print(f"Note{where}: {note}.", file=stream)
    return 0


def _configure(experiment: Any, options: argparse.Namespace) -> Any:
    assignments = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set needs KEY=VALUE: got {text!r}.")
        assignments[name] = value
    if options.seeds is not None:
        assignments["seeds"] = str(options.seeds)
    return deeplimits.experiments.override(
        experiment.preset(options.profile), assignments
    )


if __name__ == "__main__":
    sys.exit(main())
