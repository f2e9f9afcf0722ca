"""The command line, on an experiment of two lines."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import jax
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

from deeplimits import cli, experiments, results


@dataclasses.dataclass(frozen=True)
class Config:
    depths: tuple[int, ...] = (2, 4)
    rate: float = 0.1
    seeds: int = 1
    name: str = "tied"
    clip: bool = False


def toy(config, *, key, scratch=None, progress=False):
    values = jr.normal(key, (config.seeds, len(config.depths))) * config.rate
    return xr.Dataset(
        {"v": (("seed", "depth"), values)}, coords={"depth": list(config.depths)}
    )


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    presets = {"smoke": Config(depths=(2,)), "book": Config(), "paper": Config(seeds=3)}
    experiment = experiments.Experiment("toy/normal", "two lines", presets, toy)
    monkeypatch.setitem(experiments.EXPERIMENTS, "toy/normal", experiment)
    monkeypatch.chdir(tmp_path)


def test_list_names_every_experiment(capsys):
    assert cli.main(["list"]) == 0
    assert "toy/normal" in capsys.readouterr().out


def test_run_writes_the_result_once(capsys):
    arguments = ["run", "toy/normal", "--profile", "paper", "--set", "depths=8,16,32"]
    assert cli.main(arguments) == 0
    path = capsys.readouterr().out.strip()
    dataset = results.load(path)
    assert dataset.v.shape == (3, 3)
    assert dataset.depth.values.tolist() == [8, 16, 32]
    assert cli.main(arguments) == 0
    assert "is there already" in capsys.readouterr().out


def test_products_in_an_experiment_are_float32_on_every_device():
    def precision(config, *, key):
        return xr.Dataset({"precision": jax.config.jax_default_matmul_precision})

    presets = dict.fromkeys(experiments.PROFILES, Config())
    experiment = experiments.Experiment("toy/precision", "", presets, precision)
    with jax.default_matmul_precision("tensorfloat32"):
        found = experiment.run(experiment.preset("book"), key=jr.key(0))
    assert found.precision == "float32"


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
        (["toy/normal", "--set", "seeds=True"], "seeds=True is no int"),
        (["toy/normal", "--seeds", "0"], "--seeds must be positive: got 0"),
    ],
)
def test_errors_are_one_line_and_exit_code_two(arguments, message, capsys):
    assert cli.main(["run", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_run_that_diverges_says_so(capsys):
    arguments = ["run", "marion2024/long-time", "--profile=smoke", "--set=rate=1e9"]
    assert cli.main(arguments) == 2
    assert "the loss stopped being finite after" in capsys.readouterr().err


def test_a_damaged_result_is_not_passed_over(capsys, tmp_path):
    (tmp_path / "bad.nc").write_bytes(b"CDF")
    assert cli.main(["run", "toy/normal", "--output", "bad.nc"]) == 2
    assert "truncated or no netCDF" in capsys.readouterr().err


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
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )

    process = start("killed")
    while not list(tmp_path.glob("killed/runs/.unfinished/*/depth-32.npz")):
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


def test_values_keep_the_type_of_the_field():
    changed = experiments.override(Config(), {"rate": "1", "clip": "True", "name": "x"})
    assert changed == Config(rate=1.0, clip=True, name="x")
    assert isinstance(changed.rate, float)
    assert experiments.override(Config(), {"depths": "(4, 8)"}).depths == (4, 8)
    assert experiments.override(Config(), {"depths": "4"}).depths == (4,)


def test_an_experiment_has_three_sizes():
    with pytest.raises(ValueError, match="needs presets"):
        experiments.Experiment("x", "y", {"book": Config()}, toy)
