"""The command line: `deeplimits list`, `run`, `claims`, `fetch` and `diagnose`."""

import argparse
import codecs
import contextlib
import hashlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import deeplimits

# Modules are reached through the package, which loads them where they are first used:
# `--version`, `--help` and `list` answer without JAX.
from . import sources

MOST = 300  # characters of a message, with the command's name
_NAME = "deeplimits: "
_GOES_ON = "the pieces computed so far are kept, and the same command goes on"
_UNFINISHED = ".unfinished"  # the folder of what is not yet whole
_SIGNALS = signal.SIGINT, signal.SIGTERM


def main(arguments: list[str] | None = None) -> int:
    """Run one command; one line, and its exit code, for whatever ends it early.

    2 for what was asked wrongly and for what the machine does not have; 128 and the
    signal's number where a signal ended it: 130 after Ctrl-C, 143 after SIGTERM.
    """
    asked = sys.argv[1:] if arguments is None else arguments
    hint = f"; {_GOES_ON}" if asked[:1] == ["run"] else ""
    received: list[int] = []
    _print_anywhere()
    stream: Any = _Heedless(sys.stderr)
    try:
        with contextlib.redirect_stderr(stream), _stopped_by(received, hint):
            options = _parser().parse_args(asked)
            code = options.command(options)
            print(end="", flush=True)  # or nothing, where there is no stream
            return code
    except BrokenPipeError:  # who reads has seen enough, and expects no word
        _forget(sys.stdout)
        return 141
    except (Exception, KeyboardInterrupt) as error:
        # inside an import, or a compiler, the interrupt may come out as another error
        if received or isinstance(error, KeyboardInterrupt):
            return _stopped((*received, signal.SIGINT)[0], hint)
        if (line := one_line(error)) is None:
            raise
        line = line if isinstance(error, ValueError) else line + hint
        return _say(deeplimits.files.printable(_spelt(line), MOST - len(_NAME)), 2)


class _Heedless:
    """The error stream, or none: what it cannot take is dropped, and ends no run."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            return self._stream.isatty()
        return False

    def write(self, text: str) -> int:
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # full, or closed
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        _forget(self._stream)


def _print_anywhere() -> None:
    """Where a terminal lacks a character, print another that means the same."""
    plain = {"≥": ">=", "≤": "<=", "×": "x", "−": "-", "–": "-", "’": "'", "Γ": "Gamma"}

    def spelt(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end]
        return "".join(plain.get(c, "?") for c in lacking), error.end

    codecs.register_error("spelt", spelt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            stream.reconfigure(errors="spelt")


def _spelt(text: str) -> str:
    """As the error stream prints it: what is spelt out is longer."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    return text.encode(encoding, "spelt").decode(encoding)


def one_line(error: Exception) -> str | None:
    """What to say to who asked for the wrong thing, or for more than the machine has;
    nothing for a fault of ours."""
    text = str(error)
    if isinstance(error, ValueError | OSError):
        return text
    if isinstance(error, OverflowError):
        return f"a number is too large ({text})"
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        size = re.search(r"allocat\w*\s+([\d.]+ \w+)", text)
        wanted = f" ({size[1]} at once)" if size else ""
        return f"out of memory{wanted}: choose smaller sizes"
    if text.startswith("Unable to initialize backend"):
        return text
    return None


# JAX's error for it is a RuntimeError that tells by its text alone
_NO_MEMORY = re.compile("out of memory|resource_exhausted|failed to allocate", re.I)


def _say(text: str, code: int) -> int:
    """A line on the error stream, in the place of a bar of progress; then the code."""
    with contextlib.suppress(OSError, ValueError):  # a stream that was closed
        if tqdm := sys.modules.get("tqdm"):
            for bar in list(getattr(tqdm.tqdm, "_instances", ())):
                bar.leave = False
                bar.close()
        if sys.stderr is not None:
            print(_NAME + text, file=sys.stderr, flush=True)
    _forget(sys.stdout)
    _forget(sys.stderr)
    return code


def _stopped(number: int, hint: str) -> int:
    return _say(f"stopped{hint}.", 128 + number)


def _forget(stream: Any) -> None:
    """Drop what cannot be written, or Python would complain of it as it ends."""
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            number = stream.fileno()
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), number)


class _Stopped(KeyboardInterrupt):
    """A signal asked the command to end."""


@contextlib.contextmanager
def _stopped_by(received: list[int], hint: str) -> Iterator[None]:
    """Raise where a signal arrives; a second one ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> NoReturn:
        received.append(number)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        if "deeplimits.experiments.runner" not in sys.modules:
            # nothing runs yet, and NumPy prints what is raised while it is imported
            os._exit(_stopped(number, hint))
        raise _Stopped

    def swallowed(unraisable: Any) -> None:
        """Python drops what is raised in a finaliser, and the signal with it."""
        if isinstance(unraisable.exc_value, _Stopped):
            os._exit(_stopped(received[0], hint))
        hook(unraisable)

    hook, before = sys.unraisablehook, {}
    sys.unraisablehook = swallowed
    try:
        for number in _SIGNALS:
            # ignored where a shell has put the command behind itself
            if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None):
                before[number] = handler
                signal.signal(number, stop)
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (`{self.prog} --help` says more).")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Without dropping the error of what cannot be written, as argparse does."""
        print(message, end="", file=file or sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
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
    run.add_argument(
        "--output", type=_file, metavar="FILE", help="default: under runs/"
    )
    where = run.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="in N processes")
    where.add_argument("--scheduler", metavar="ADDRESS", help="on a Dask cluster")
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
        "--figure", type=_file, metavar="FILE", help="draw it, as .png"
    )


def _file(text: str) -> Path:
    if text.endswith(os.sep):
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file")
    return Path(text)


def _list(options: argparse.Namespace) -> int:
    for name, entry in sources.experiments().items():
        print(f"{name:34} {entry.summary}")
    return 0


def _claims(options: argparse.Namespace) -> int:
    if not deeplimits.ledger.rows():  # what cannot be read is an error, and no report
        raise ValueError("claims.yml holds no claim.")
    text, sound = deeplimits.ledger.report()
    print(text)
    return 0 if sound else 1


def _run(options: argparse.Namespace) -> int:
    import jax

    _require_platform()
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
    if _is_there(path, identity):
        return 0
    if _UNFINISHED in path.parts[-2:]:
        raise ValueError(f"{_UNFINISHED} is where pieces are kept: name another file.")
    deeplimits.files.require_writable(path)
    scratch = Path(options.output.parent if options.output else "runs")
    scratch = scratch / _UNFINISHED / name
    with deeplimits.files.alone(scratch):
        if _is_there(path, identity):  # another process has just ended
            return 0
        start = time.perf_counter()
        with _executor(options) as executor:
            found = experiment.run(
                config, key=key, scratch=scratch, progress=True, executor=executor
            )
        passed = time.perf_counter() - start
        about = {"config": config, "seed": options.seed, "wall_seconds": passed}
        deeplimits.results.save(found, path, **about, folder=scratch)
        deeplimits.files.remove(scratch)
    print(deeplimits.files.printable(str(path)))
    return 0


def _require_platform() -> None:
    """Raise `ValueError` where JAX cannot compute on what it was asked for."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second has no words
        asked = os.environ.get("JAX_PLATFORMS") or "platform"
        reason = f" ({error})" if str(error) else ""
        raise ValueError(
            f"JAX finds no {asked} here, as JAX_PLATFORMS asks: leave that out, or set "
            f"it to cpu{reason}."
        ) from error


def _is_there(path: Path, identity: dict[str, str]) -> bool:
    """Whether the result is there, which is said; `ValueError` for another one."""
    if not os.path.isfile(path):  # false for a name that is too long, too
        return False
    deeplimits.results.require_same(identity, deeplimits.results.load(path), path)
    name = deeplimits.files.printable(str(path))
    print(f"{name} is there already: move it away to run again.")
    return True


def _executor(options: argparse.Namespace) -> contextlib.AbstractContextManager:
    """Who computes the pieces: this process, if nobody else is named."""
    from .experiments import executors

    if options.workers is not None:
        return executors.processes(options.workers)
    if options.scheduler is not None:
        return executors.cluster(options.scheduler)
    return contextlib.nullcontext()


def _fetch(options: argparse.Namespace) -> int:
    found = deeplimits.images.fetch(options.name)
    print(f"{options.name}: {len(found.train)} + {len(found.test)} images")
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    if options.figure:
        deeplimits.files.require_writable(options.figure)
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
    preset = experiment.preset(options.profile)
    with deeplimits.checks.on_this_machine():
        return deeplimits.experiments.override(preset, assignments)


if __name__ == "__main__":
    sys.exit(main())
