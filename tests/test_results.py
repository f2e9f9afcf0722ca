"""Laws of archived results: what is written comes back, and damage shows."""

import dataclasses
import errno
import io
import os
import re
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from deeplimits import results
from deeplimits.files import atomic


@dataclasses.dataclass(frozen=True)
class Config:
    depths: tuple[int, ...] = (2, 4)
    rate: float = 0.1


@pytest.fixture
def saved(tmp_path):
    dataset = xr.Dataset(
        {"error": (("model", "depth"), np.array([[0.5, 0.25], [1.0, 0.5]]))},
        coords={"depth": [2, 4], "model": ["tied", "independent"]},
        attrs={"note": "two models"},
    )
    path = tmp_path / "deep" / "run.nc"
    results.save(dataset, path, config=Config(), seed=3, wall_seconds=1.25)
    return dataset, path


def test_what_is_written_comes_back_with_its_provenance(saved):
    dataset, path = saved
    loaded = results.load(path)
    xr.testing.assert_equal(loaded, dataset)
    assert loaded.attrs["config"] == '{"depths": [2, 4], "rate": 0.1}'
    assert loaded.attrs["seed"] == "3"
    assert loaded.attrs["wall_seconds"] == "1.2"
    assert {"version", "commit", "device", "dtype", "lock", "jax", "note"} <= set(
        loaded.attrs
    )
    assert [p.name for p in path.parent.iterdir()] == ["run.nc"]


def test_the_precision_that_an_experiment_names_is_kept(tmp_path):
    path, dataset = tmp_path / "x.nc", xr.Dataset({"x": 1.0})
    for attributes, expected in (({}, "float64"), ({"dtype": "float32"}, "float32")):
        named = dataset.assign_attrs(attributes)
        results.save(named, path, config={}, seed=0, wall_seconds=0.0)
        assert results.load(path).attrs["dtype"] == expected


def test_the_commit_is_ours_or_unknown(tmp_path, monkeypatch):
    """Installed below somebody's checkout, the package does not report its commit."""
    who = ["-c", "user.name=x", "-c", "user.email=x"]
    for command in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(results, "_root", lambda: tmp_path)
    assert results.commit() == "unknown"
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.yml").touch()
    assert re.fullmatch("[0-9a-f]{10}", results.commit())


def edit_value(file):
    file["error"][1, 1] = 0.51


def edit_attribute(file):
    file.attrs["seed"] = "4"


@pytest.mark.parametrize("edit", [edit_value, edit_attribute])
def test_an_edited_file_is_refused(saved, edit):
    _, path = saved
    with h5py.File(path, "r+") as file:
        edit(file)
    with pytest.raises(ValueError, match="truncated, damaged, edited"):
        results.load(path)
    content = path.read_bytes()
    path.write_bytes(content + results._seal(content))
    with pytest.raises(ValueError, match="edited after it was written"):
        results.load(path)


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else len(content) // 2])
    with pytest.raises(ValueError, match="truncated, damaged, edited"):
        results.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no archived result .*absent\.nc"):
        results.load(tmp_path / "absent.nc")


@pytest.mark.parametrize("folder", ["results", "src/deeplimits/archive"])
def test_an_archive_is_found_in_a_checkout_and_in_an_installation(
    saved, folder, tmp_path, monkeypatch
):
    _, path = saved
    module = tmp_path / "src" / "deeplimits" / "results.py"
    monkeypatch.setattr(results, "__file__", str(module))
    (tmp_path / folder).mkdir(parents=True)
    path.rename(tmp_path / folder / "run.nc")
    assert results.archive("run.nc").attrs["seed"] == "3"
    with pytest.raises(ValueError, match="no archived result"):
        results.archive("absent.nc")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic(path) as temporary:
        temporary.unlink()  # what was to replace the file is not there
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_variable_that_is_nan_throughout_is_not_saved(tmp_path):
    dataset = xr.Dataset({"some": ("x", [np.nan, 1.0]), "none": ("x", [np.nan] * 2)})
    path = tmp_path / "x.nc"
    with pytest.raises(ValueError, match="none is NaN throughout"):
        results.save(dataset, path, config={}, seed=0, wall_seconds=0.0)
    assert not path.exists()
    for nothing in (np.full(2, np.nan + 0j), np.array(["NaT"] * 2, "M8[ns]"), []):
        dataset = dataset[["some"]].assign(empty=("y", nothing))
        with pytest.raises(ValueError, match="empty is NaN throughout"):
            results.save(dataset, path, config={}, seed=0, wall_seconds=0.0)
    results.save(dataset[["some"]], path, config={}, seed=0, wall_seconds=0.0)


def test_damaged_files_are_refused_before_they_are_unpacked(saved, monkeypatch):
    """HDF5 may read on for ever in them."""
    _, path = saved
    content, rng = path.read_bytes(), np.random.default_rng(0)

    def unpack(*args, **kwargs):
        raise AssertionError("damaged bytes were unpacked")

    monkeypatch.setattr(h5py, "File", unpack)
    monkeypatch.setattr(xr, "open_dataset", unpack)
    # in the middle, or among the headers at both ends
    places = [*rng.integers(len(content), size=200), *range(150), *range(-150, 0)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= rng.integers(1, 256)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="the checksum of its bytes") as error:
            results.load(path)
        assert "\n" not in str(error.value)


def test_what_is_not_netcdf_is_refused_even_with_a_checksum(saved):
    _, path = saved
    content = path.read_bytes()[:5000]
    path.write_bytes(content + results._seal(content))
    with pytest.raises(ValueError, match="truncated or no netCDF file"):
        results.load(path)


def test_what_is_unpacked_is_what_was_checked(saved, monkeypatch):
    _, path = saved
    given = []

    class Watched(h5py.File):
        def __init__(self, name, *args, **kwargs):
            given.append(type(name))
            super().__init__(name, *args, **kwargs)

    monkeypatch.setattr(h5py, "File", Watched)
    results.load(path)
    assert set(given) == {io.BytesIO}
    assert len(given) > 1  # the sizes that it declares, then the arrays


def test_a_large_file_of_others_is_refused_unread(tmp_path):
    path = tmp_path / "x.nc"
    path.touch()
    os.truncate(path, 2**26)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(ValueError, match="the checksum of its bytes"):
        results.load(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_other_readers_of_netcdf_read_it(saved):
    dataset, path = saved
    with xr.open_dataset(path, engine="h5netcdf") as read:
        xr.testing.assert_equal(read, dataset)


def test_a_small_file_that_declares_much_is_not_unpacked(tmp_path):
    path = tmp_path / "x.nc"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**20, 2**19), "f8", chunks=(64, 64))  # holds nothing
    assert path.stat().st_size < 10_000
    path.write_bytes((content := path.read_bytes()) + results._seal(content))
    with pytest.raises(ValueError, match=rf"take {2**42} bytes, more than the {2**31}"):
        results.load(path)


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    huge = np.broadcast_to(np.float64(1), (2**15, 2**15))
    with pytest.raises(ValueError, match=f"take {2**33} bytes"):
        results.write(xr.Dataset({"x": (("a", "b"), huge)}), tmp_path / "x.nc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["open", "write"])
def test_a_full_disk_names_the_file_and_leaves_nothing(where, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "open":
        monkeypatch.setattr(tempfile, "mkstemp", full)
    else:
        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*x\.nc'"):
        results.write(xr.Dataset({"x": 1.0}), tmp_path / "x.nc")
    assert list(tmp_path.iterdir()) == []


ON_A_FULL_DISK = """
import gc, sys
from pathlib import Path

import xarray as xr
from deeplimits import results

def full(*_):
    raise OSError(28, "No space left on device")

Path.write_bytes = full
kept = []
try:
    results.write(xr.Dataset({"x": ("n", [1.0])}), sys.argv[1])
except OSError as error:
    kept += [error, kept]  # as an error that a frame of its own traceback holds
del kept
gc.collect()
"""


def test_nothing_is_left_for_the_garbage_collector_to_complain_of(tmp_path):
    """Python 3.13 prints what it cannot close; before, its development mode does."""
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", ON_A_FULL_DISK]
    run = subprocess.run(
        [*command, str(tmp_path / "x.nc")], check=True, capture_output=True, text=True
    )
    assert run.stderr == ""
