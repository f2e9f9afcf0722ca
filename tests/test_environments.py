"""The environment is said four times and written once."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import types
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from deeplimits import cli, diagnosis

ROOT = Path(__file__).resolve().parents[1]
BOOK_TOOLS = {"jupyter-book", "sphinx", "myst-nb", "papermill", "nbval", "pytest"}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environments = load(ROOT / "tools" / "environments.py")
built_on = ".".join(map(str, sys.version_info[:2])) == environments.python_version()
needs_oldest = pytest.mark.skipif(
    not built_on, reason="the generated files describe the oldest supported Python"
)


@pytest.fixture(scope="module")
def lock():
    return environments.locked()


@pytest.fixture(scope="module")
def binder():
    text = (ROOT / "binder" / "requirements.txt").read_text()
    return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))


@pytest.fixture
def copy(tmp_path):
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    environments.write(tmp_path)
    return tmp_path


@needs_oldest
def test_generated_files_have_not_drifted():
    assert environments.drifted() == []


@needs_oldest
@pytest.mark.parametrize("path", ["environment.yml", "binder/postBuild"])
def test_an_edited_or_missing_file_is_reported(copy, path):
    (copy / path).write_text("edited by hand\n")
    (copy / "binder" / "start").unlink()
    assert environments.drifted(copy) == [path, "binder/start"]


@needs_oldest
def test_another_pin_in_the_lock_is_reported(copy):
    lock = copy / "requirements.lock"
    lock.write_text(re.sub(r"^optax==\S+", "optax==9.9", lock.read_text(), flags=re.M))
    assert environments.drifted(copy) == ["binder/requirements.txt"]


def test_every_pin_is_exact_and_hashed(lock):
    for block in (b for blocks in lock.values() for b in blocks):
        assert re.match(r"[a-z0-9-]+==[\w.+!]+( ; .+)? \\$", block.splitlines()[0])
        assert "--hash=sha256:" in block


def test_the_lock_names_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|index-url|find-links|@", text)


def test_the_lock_holds_all_that_is_asked_for(lock):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = settings["dependency-groups"]
    wanted = [*settings["project"]["dependencies"]]
    wanted += [r for g in ("book", "test", "lint", "dev") for r in groups[g]]
    names = {
        re.match(r"[A-Za-z0-9-]+", r).group().lower() for r in wanted if type(r) is str
    }
    assert names <= lock.keys()


def test_comparisons_stay_out_of_the_lock(lock):
    assert lock.keys().isdisjoint({"torch", "torchdiffeq"})


def test_one_jax_for_every_python(lock):
    assert [len(lock["jax"]), len(lock["jaxlib"])] == [1, 1]
    assert ";" not in lock["jax"][0] + lock["jaxlib"][0]


def test_binder_has_the_science_and_no_book_tooling(binder):
    assert {"jax", "diffrax", "equinox", "matplotlib", "jupytext"} <= binder
    assert binder.isdisjoint(BOOK_TOOLS)


@pytest.fixture
def build_pack(monkeypatch):
    """What repo2docker, without a Docker engine, chooses for this repository."""
    monkeypatch.chdir(ROOT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its logger's import
        from repo2docker.app import Repo2Docker
    app = Repo2Docker()
    packs = [pack(app.base_image) for pack in app.buildpacks]
    chosen = next(pack for pack in packs if pack.detect())
    chosen.platform = "linux/amd64"
    return chosen


def test_repo2docker_takes_the_pins_and_not_the_conda_file(build_pack):
    assert type(build_pack).__name__ == "PythonBuildPack"
    assert build_pack.python_version == environments.python_version()
    scripts = "".join(build_pack.get_build_script_files())
    assert f"environment.py-{environments.python_version()}-" in scripts


def test_the_dockerfile_installs_builds_and_starts(build_pack):
    dockerfile = build_pack.render({})
    assert '/bin/pip install --no-cache-dir -r "binder/requirements.txt"' in dockerfile
    assert "RUN ./binder/postBuild" in dockerfile
    assert "/binder/start" in dockerfile


def test_binder_opens_pages_at_their_smallest(tmp_path):
    """Source and record, and nothing else in them."""
    (tmp_path / "book").mkdir()
    for suffix in ("md", "ipynb"):
        text = (ROOT / "book" / f"euler.{suffix}").read_text(encoding="utf-8")
        (tmp_path / "book" / f"page.{suffix}").write_text(text, encoding="utf-8")
    script = "cd " + environments.POST_BUILD.partition("\ncd ")[2]
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True)
    source = (tmp_path / "book" / "page.md").read_text(encoding="utf-8")
    record = json.loads((tmp_path / "book" / "page.ipynb").read_text(encoding="utf-8"))
    [cell] = [
        c for c in record["cells"] if "parameters" in c["metadata"].get("tags", ())
    ]
    lines = "".join(cell["source"]).splitlines()
    namespace = {}
    exec("\n".join(lines), namespace)
    assert namespace["profile"] == "smoke"
    assert lines[0] in source.splitlines()
    changed = set(source.splitlines()) - set(text_of("euler.md").splitlines())
    assert changed == {lines[0]}


def text_of(page):
    return (ROOT / "book" / page).read_text(encoding="utf-8")


# ----------------------------------------------------------------- Colab


def colab_cell(monkeypatch, driver, replaced, capsys):
    """The first cell, run as on Colab: what it installs, and what it does then."""
    records = load(ROOT / "tools" / "records.py")
    install = r"(?m)^( *)%pip install --quiet (.*)$"
    code = re.sub(install, r"\1installed.append(f\2)", records.COLAB)
    assert code != records.COLAB
    versions = {"numpy": iter(["1.0", "2.0" if replaced else "1.0"])}
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setattr(subprocess, "getoutput", lambda command: driver)
    monkeypatch.setattr(metadata, "version", lambda n: next(versions.get(n, iter("1"))))
    done = []
    kernel = types.SimpleNamespace(do_shutdown=done.append)
    names = {"get_ipython": lambda: types.SimpleNamespace(kernel=kernel)}
    exec(code, names | {"installed": (installed := [])})
    return installed, done, capsys.readouterr().out


@pytest.mark.parametrize(
    ("driver", "extra"),
    [
        ("sh: nvidia-smi: not found", ""),
        (
            "| NVIDIA-SMI 550.54  Driver Version: 550.54  CUDA Version: 12.8 |",
            "[cuda12]",
        ),
        (
            "| NVIDIA-SMI 580.65  Driver Version: 580.65  CUDA Version: 13.0 |",
            "[cuda13]",
        ),
    ],
)
def test_colab_installs_for_its_driver(driver, extra, monkeypatch, capsys):
    installed, done, said = colab_cell(monkeypatch, driver, False, capsys)
    assert installed == [f"deeplimits{extra} @ git+REPOSITORY"]
    assert (done, said) == ([], "")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra.strip("[]") in {"", *extras["optional-dependencies"]}


def test_colab_starts_again_where_what_is_loaded_was_replaced(monkeypatch, capsys):
    _, done, said = colab_cell(monkeypatch, "", True, capsys)
    assert done == [True]
    assert said.startswith("Replaced while in use: numpy.")


def test_a_file_that_is_uploaded_on_colab_is_diagnosed(monkeypatch, tmp_path, capsys):
    """The cell of the page on the diagnosis, with a file of independent layers."""
    cells = re.findall(r"(?s)```{code-cell} ipython3\n(.*?)```", text_of("diagnose.md"))
    [code] = [cell for cell in cells if "files.upload()" in cell]
    rows = np.random.default_rng(0).standard_normal((96, 24, 24))
    np.savez(tmp_path / "mine.npz", weight=rows)
    monkeypatch.chdir(tmp_path)
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=lambda: {"mine.npz": b""})
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    exec(code, {"sys": sys, "main": cli.main})
    assert diagnosis.ROUGH in capsys.readouterr().out


def test_the_floors_keep_what_colab_has():
    """Of what a notebook there has loaded, nothing is too old for the library."""
    lines = (ROOT / "tools" / "colab.txt").read_text().splitlines()
    assert re.search(r"on 20\d\d-\d\d-\d\d", lines[0])
    there = dict(line.split("==") for line in lines if "==" in line)
    there = {environments.canonicalize_name(k): v for k, v in there.items()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(environments.Requirement, settings["dependencies"]):
        if wanted.name in there and wanted.name != "jax":
            assert there[wanted.name] in wanted.specifier, wanted
