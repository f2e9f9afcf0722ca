"""The command line, on an experiment of two lines."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from tqdm import tqdm

from deeplimits import checks, cli, experiments, results, sources
from deeplimits.checks import require_positive
from deeplimits.experiments import registry


@dataclasses.dataclass(frozen=True)
class Config:
    depths: tuple[int, ...] = (2, 4)
    rate: float = 0.1
    seeds: int = 1
    name: str = "tied"
    clip: bool = False

    def __post_init__(self):
        require_positive(self, "depths", "seeds")


def draw(config, point, key):
    values = jr.normal(key, (config.seeds, len(config.depths))) * config.rate
    return {"v": (("seed", "depth"), values)}


def toy(config, run):
    return run.each("toy", {}, draw).assign_coords(depth=list(config.depths))


def register(monkeypatch, name, compute=toy):
    presets = {"smoke": Config(depths=(2,)), "book": Config(), "paper": Config(seeds=3)}
    made = experiments.Experiment(name, "two lines", presets, compute, "deeplimits.cli")
    monkeypatch.setitem(registry._REGISTERED, name, made)
    return made


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    register(monkeypatch, "toy/normal")
    monkeypatch.chdir(tmp_path)


def test_list_names_every_experiment(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(sources.experiments())
    assert "Figure 2: weights along depth" in "".join(lines)


def test_run_writes_the_result_once(capsys):
    arguments = ["run", "toy/normal", "--profile", "paper", "--set", "depths=8,16,32"]
    assert cli.main(arguments) == 0
    path = capsys.readouterr().out.strip()
    dataset = results.load(path)
    assert dataset.v.shape == (3, 3)
    assert dataset.depth.values.tolist() == [8, 16, 32]
    assert cli.main(arguments) == 0
    assert "is there already" in capsys.readouterr().out


def test_seed_and_seeds(capsys):
    for extra in ([], ["--seed", "1"], ["--seeds", "5"]):
        assert cli.main(["run", "toy/normal", *extra]) == 0
    first, other, several = map(results.load, capsys.readouterr().out.split())
    assert not np.allclose(first.v, other.v)
    assert several.v.shape == (5, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy/other"], "unknown experiment 'toy/other'; known: "),
        (["toy/normal", "--profile", "huge"], "unknown profile 'huge'; known: smoke"),
        (["toy/normal", "--set", "depth=3"], "unknown parameter 'depth'; known: clip"),
        (["toy/normal", "--set", "rate"], "--set needs KEY=VALUE"),
        (["toy/normal", "--set", "rate=fast"], "rate=fast is no float"),
        (["toy/normal", "--set", "depths=2,x"], "depths=2,x is no tuple"),
        (["toy/normal", "--set", "depths=2.5"], "every entry must be int"),
        (["toy/normal", "--set", "depths={[]:1}"], "is no tuple"),
        (["toy/normal", "--set", f"rate={'-' * 5000}1"], "is no float"),
        (["toy/normal", "--output=.unfinished"], "is where pieces are kept"),
        (["toy/normal", "--set", "seeds=True"], "seeds=True is no int"),
        (["toy/normal", "--seeds", "0"], "seeds must be positive, and finite: got 0"),
        (["toy/normal", "--set", "depths=2,2"], "depth names a value twice: 2."),
        (["toy/normal", "--set", "depths=()"], "depths needs at least one entry"),
        (["toy/normal", "--seed", "-1"], "--seed must lie between 0 and 4294967295"),
        (["toy/normal", f"--seed={2**32}"], "--seed must lie between 0 and 4294967295"),
        (["toy/normal", "--output", "file/x.nc"], "file/x.nc cannot be written"),
        (
            ["marion2025/independent-depth", "--set", "model=res-2"],
            "unknown model 'res-2'; known: res-1, res-3",
        ),
        (
            ["marion2025/critical", "--set", "model=res-2"],
            "unknown model 'res-2'; known: res-1, res-3",
        ),
        (
            ["marion2024/digits", "--set", "initialisations='smooth'"],
            "unknown initialisation 'smooth'; known: tied, independent",
        ),
        (
            ["marion2024/long-time", "--set", "row=16"],
            "row and column must lie between 0 and 15",
        ),
    ],
)
def test_errors_are_one_line_and_exit_code_two(arguments, message, capsys, tmp_path):
    (tmp_path / "file").touch()
    assert cli.main(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "output",
    ["/dev/null/x.nc", "/dev/null", "folder", "", "n" * 300, "n/" * 2000 + "x"],
)
def test_a_file_is_tried_before_the_computation(output, monkeypatch, capsys, tmp_path):
    def compute(config, run):
        raise AssertionError("computed, and nowhere to put it")

    (tmp_path / "folder").mkdir()
    register(monkeypatch, "toy/never", compute)
    assert cli.main(["run", "toy/never", "--output", output]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert len(said) <= cli.MOST + 1


def test_with_an_output_nothing_is_written_elsewhere(tmp_path):
    """The name is as long as a file's can be, and the working folder takes nothing."""
    (tmp_path / "runs").touch()
    output = Path("deep", f"{'n' * 252}.nc")
    assert cli.main(["run", "toy/normal", "--output", str(output)]) == 0
    found = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    assert found == {Path("runs"), Path("deep"), output}


def test_what_a_killed_run_left_is_removed_and_another_process_waited_for(
    tmp_path, monkeypatch, capsys
):
    def compute(config, run):
        assert [path.name for path in run.scratch.iterdir()] == [".lock"]
        assert cli.main(["run", "toy/left"]) == 2  # as another process would
        assert "another process computes this now" in capsys.readouterr().err
        return toy(config, run)

    register(monkeypatch, "toy/left", raising_point)
    assert cli.main(["run", "toy/left"]) == 130
    [scratch] = tmp_path.glob("runs/.unfinished/*")
    (scratch / ".half.tmp").touch()
    register(monkeypatch, "toy/left", compute)
    assert cli.main(["run", "toy/left"]) == 0
    assert not (tmp_path / "runs" / ".unfinished").exists()


@pytest.mark.parametrize(
    ("arguments", "differing"),
    [
        (["toy/other"], "experiment"),
        (["toy/normal", "--set", "rate=2.0"], "config"),
        (["toy/normal", "--seed", "7"], "key"),
        (["toy/other", "--seed", "7"], "experiment, key"),
    ],
)
def test_another_result_is_not_taken_for_this_one(
    arguments, differing, monkeypatch, capsys
):
    register(monkeypatch, "toy/other")
    assert cli.main(["run", "toy/normal", "--output", "x.nc"]) == 0
    assert cli.main(["run", *arguments, "--output", "x.nc"]) == 2
    message = f"x.nc holds another computation (its {differing} differs)"
    assert message in capsys.readouterr().err
    assert cli.main(["run", "toy/normal", "--output", "x.nc"]) == 0


def test_a_file_in_another_precision_is_another_computation(capsys):
    with jax.enable_x64(False):
        assert cli.main(["run", "toy/normal", "--output", "x.nc"]) == 0
    assert cli.main(["run", "toy/normal", "--double", "--output", "x.nc"]) == 2
    assert "(its precision differs)" in capsys.readouterr().err


def test_a_file_that_says_nothing_of_its_computation_is_refused(capsys):
    dataset = xr.Dataset({"v": 1.0})
    results.save(dataset, "x.nc", config=Config(), seed=2024, wall_seconds=0.0)
    assert cli.main(["run", "toy/normal", "--output", "x.nc"]) == 2
    assert "does not say which computation it holds" in capsys.readouterr().err


def test_edited_code_is_another_computation_and_a_commit_is_not(monkeypatch, capsys):
    for commit, code in (
        ("0123456789", "a"),
        ("9876543210+", "a"),
        ("9876543210", "b"),
    ):
        monkeypatch.setattr(results, "commit", lambda commit=commit: commit)
        monkeypatch.setattr(sources, "running_hash", lambda module, code=code: code)
        assert cli.main(["run", "toy/normal"]) == 0
    first, again, edited = capsys.readouterr().out.splitlines()
    assert again == f"{first} is there already: move it away to run again."
    assert edited != first


def test_a_number_that_the_precision_does_not_have_is_refused(capsys):
    arguments = ["run", "toy/normal", "--set", "rate=1e300"]
    with jax.enable_x64(False):
        assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error == "deeplimits: rate is beyond float32: got 1e+300.\n"
    assert cli.main([*arguments, "--double"]) == 0


def test_a_run_that_diverges_says_so(capsys):
    arguments = ["run", "marion2024/long-time", "--profile=smoke", "--set=rate=1e9"]
    assert cli.main(arguments) == 2
    assert "the loss stopped being finite after" in capsys.readouterr().err


def test_a_damaged_result_is_not_passed_over(capsys, tmp_path):
    (tmp_path / "bad.nc").write_bytes(b"CDF")
    assert cli.main(["run", "toy/normal", "--output", "bad.nc"]) == 2
    assert "truncated, damaged, edited" in capsys.readouterr().err


def test_a_killed_command_goes_on_to_the_same_numbers(tmp_path):
    sizes = ["depths=16,32", "steps=3000", "every=15"]
    arguments = [f"--set={size}" for size in sizes]
    command = [sys.executable, "-m", "deeplimits.cli", "run", "marion2024/long-time"]
    for folder in ("killed", "whole"):
        (tmp_path / folder).mkdir()

    def start(folder):
        return subprocess.Popen(
            [*command, "--profile=smoke", *arguments],
            cwd=tmp_path / folder,
            # runs longer than it compiles, so it pays to optimise
            env=os.environ
            | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"},
        )

    process = start("killed")
    while not list(tmp_path.glob("killed/runs/.unfinished/*/*depth-32.npz")):
        assert process.poll() is None, "the command ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/runs/marion2024/**/*.nc"))
    assert start("killed").wait() == 0
    assert start("whole").wait() == 0
    resumed, whole = (
        results.load(path) for path in sorted(tmp_path.glob("*/runs/**/*.nc"))
    )
    xr.testing.assert_identical(resumed.drop_attrs(), whole.drop_attrs())
    assert not list(tmp_path.glob("*/runs/.unfinished/*"))


@pytest.fixture
def said(monkeypatch, capsys):
    """The exit code and the line that a command ends with."""

    def end(command):
        monkeypatch.setattr(cli, "_list", command)
        code, (out, err) = cli.main(["list"]), capsys.readouterr()
        shown = err.rsplit("\r", 1)[-1]  # what stands in the place of a bar
        assert out == ""
        assert shown.endswith("\n")
        assert shown.count("\n") == 1
        assert len(shown) <= cli.MOST + 1
        return code, shown

    return end


def raising(error):
    def command(options):
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory: choose"),
        (RuntimeError("INTERNAL: Out of memory allocating 7 bytes"), "(7 bytes at"),
        (RuntimeError("RESOURCE_EXHAUSTED: x"), "out of memory: choose"),
        (MemoryError("Unable to allocate 7.28 TiB for"), "(7.28 TiB at once)"),
        (OverflowError("int too large"), "a number is too large (int too large)"),
        (OSError(28, "No space left on device", "a\nb"), "No space left"),
        (ValueError("a\nb\x1b[31m\u202e"), r"a\nb\x1b[31m\u202e"),
        (RuntimeError("Unable to initialize backend 'x'"), "initialize backend 'x'"),
    ],
)
def test_what_the_machine_does_not_have_is_said_in_a_line(error, words, said):
    code, line = said(raising(error))
    assert code == 2
    assert words in line


def test_a_long_message_keeps_its_ends(said):
    _, line = said(raising(ValueError("depths " + "0, " * 1000 + "must be positive")))
    assert line.startswith("deeplimits: depths 0, 0")
    assert line.endswith("0, must be positive\n")


def test_a_message_is_cut_as_it_is_printed(monkeypatch):
    """A letter that the terminal lacks takes more room, spelt out."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["run", "Γ" * 200]) == 2
    line = stream.buffer.getvalue().decode()
    assert line.startswith("deeplimits: unknown experiment 'GammaGamma")
    assert "?" not in line
    assert len(line) == cli.MOST + 1


def test_a_ledger_without_a_claim_is_no_sound_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.yml").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["claims"]) == 2
    assert capsys.readouterr().err == "deeplimits: claims.yml holds no claim.\n"


def test_a_message_takes_the_place_of_the_bar(said):
    def command(options):
        bar = tqdm(total=3, desc="trained")
        bar.update()
        raise ValueError("diverged")

    assert said(command) == (2, "deeplimits: diverged\n")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("becomes", [None, SystemError])
def test_a_signal_ends_the_command_in_a_line(name, code, becomes, said):
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def command(options):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stopped:
            raise (becomes("in a module's import") if becomes else stopped) from None

    assert said(command) == (code, "deeplimits: stopped.\n")
    assert signal.getsignal(number) == before


def test_a_run_that_is_stopped_says_that_it_goes_on(monkeypatch, capsys):
    register(monkeypatch, "toy/long", raising_point)
    assert cli.main(["run", "toy/long"]) == 130
    assert capsys.readouterr().err == f"deeplimits: stopped; {cli._GOES_ON}.\n"


def raising_point(config, run):
    signal.raise_signal(signal.SIGINT)


def in_a_process(code, **options):
    command = [sys.executable, "-c", f"import sys\nfrom deeplimits import cli\n{code}"]
    return subprocess.run(
        command, capture_output="stdout" not in options, text=True, **options
    )


@pytest.mark.parametrize("platform", ["cuda", "rocm"])
def test_a_platform_that_is_not_here_is_refused_in_a_line(platform):
    """In the words of JAX, or in ours where it has none."""
    if jax.default_backend() != "cpu":
        pytest.skip("a machine with more than a processor")
    code = 'sys.exit(cli.main(["run", "marion2025/histogram", "--profile=smoke"]))'
    run = in_a_process(code, env=os.environ | {"JAX_PLATFORMS": platform})
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"JAX finds no {platform} here, as JAX_PLATFORMS asks" in run.stderr
    assert "goes on" not in run.stderr


def test_a_signal_in_a_finaliser_is_not_lost():
    run = in_a_process("""
import signal
import deeplimits.experiments.runner  # before it, the process ends at once
class Short:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
cli._list = lambda options: Short() and None
sys.exit(cli.main(["list"]))""")
    assert run.returncode == 143
    assert run.stderr == "deeplimits: stopped.\n"


def test_output_that_nobody_takes():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ended = 'sys.exit(cli.main(["list"]))'
    asks = ["list"], ["--help"], ["--version"], ["diagnose", "--help"]
    for asked in asks:
        with open("/dev/full", "w") as full:
            code = f"sys.exit(cli.main({asked}))"
            run = in_a_process(code, stdout=full, stderr=subprocess.PIPE)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    read, write = os.pipe()
    os.close(read)
    run = in_a_process(ended, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (run.returncode, run.stderr) == (141, "")
    closed = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    run = in_a_process(f"sys.stdout = None\n{ended}", **closed)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["n" * 500],
        ["run"],
        ["run", "x", "--seed", "n" * 500],
        ["run", "n" * 500],
        ["run", "a\nb\x1b[31m"],
        ["run", "toy/normal", f"--set=depths={'0,' * 500}"],
        ["run", "toy/normal", f"--set={'n' * 500}"],
        ["run", "toy/normal", f"--set=rate={'(' * 500}"],
        ["run", "toy/normal", "--output=none/"],
        ["claims"],  # in a folder that is no checkout
        ["diagnose", "n" * 500],
        ["diagnose", "a\nverdict.npz"],
        ["diagnose", "x.npz", "--figure=file/x.png"],
    ],
)
def test_every_refusal_is_one_short_line(arguments, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("deeplimits: ")
    assert err[:-1].isprintable()
    assert len(err) <= cli.MOST + 1


def test_a_name_like_many_is_answered_by_those_most_like_it(capsys):
    assert cli.main(["run", "marion2024/long-tim"]) == 2
    known = capsys.readouterr().err.split("known: ")[1]
    assert known.startswith("marion2024/long-time, ")
    assert "more" in known


def test_more_memory_than_the_machine_has_is_refused(monkeypatch, capsys):
    experiment, sizes = "marion2024/relu-counterexample", "--set=half_depths=1000"
    monkeypatch.setattr(checks, "memory", lambda: 10_000)
    assert cli.main(["run", experiment, "--profile=smoke", sizes]) == 2
    said = capsys.readouterr().err
    assert "this would take 4.8e+04 bytes of memory, more than 1e+04" in said
    assert experiments.find(experiment).preset("paper")  # as on any machine


def test_the_machine_has_the_memory_that_it_says():
    assert 2**28 < checks.memory() <= checks.MOST_BYTES


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    def command(options):
        raise RuntimeError("a fault")

    monkeypatch.setattr(cli, "_list", command)
    with pytest.raises(RuntimeError, match="a fault"):
        cli.main(["list"])


def test_values_keep_the_type_of_the_field():
    changed = experiments.override(Config(), {"rate": "1", "clip": "True", "name": "x"})
    assert changed == Config(rate=1.0, clip=True, name="x")
    assert isinstance(changed.rate, float)
    assert experiments.override(Config(), {"depths": "(4, 8)"}).depths == (4, 8)
    assert experiments.override(Config(), {"depths": "4"}).depths == (4,)


@pytest.mark.parametrize(
    "text", ["tied,smooth", "'tied', 'smooth'", "('tied','smooth',)"]
)
def test_tuples_of_names_need_no_quotes(text):
    config = experiments.find("marion2024/initialisation").preset("smoke")
    found = experiments.override(config, {"initialisations": text})
    assert found.initialisations == ("tied", "smooth")


def test_a_closed_error_stream_is_like_none():
    run = in_a_process("""
sys.stderr.close()
stream = cli._Heedless(sys.stderr)
assert not stream.isatty()
for _ in range(50):
    stream.flush()
import os
assert os.open(os.devnull, os.O_RDONLY) < 20
sys.exit(cli.main(["list"]))""")
    assert run.returncode == 0
    closed = "sys.stdout = None\nsys.exit(cli.main(['--version']))"
    assert in_a_process(closed).stderr.startswith("0.")


@pytest.mark.parametrize("stream", ["None", "open('/dev/full', 'w')"])
def test_a_bar_that_nobody_takes_ends_no_run(stream, tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    asked = ["run", "marion2025/histogram", "--profile=smoke", "--output=x.nc"]
    code = f"sys.stderr = {stream}\nsys.exit(cli.main({asked}))"
    run = in_a_process(code, cwd=tmp_path)
    assert run.returncode == 0
    assert results.load(tmp_path / "x.nc").attrs["seed"] == "2024"
    code = f"sys.stderr = {stream}\nsys.exit(cli.main(['run', 'x']))"
    assert in_a_process(code, cwd=tmp_path).returncode == 2
