"""Laws of the data."""

import jax.random as jr
import numpy as np
import pytest
from conftest import assert_mean

from deeplimits import datasets


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
        (lambda: datasets.gaussian_pairs(0, 3, key=jr.key(0)), "n=0"),
        (lambda: datasets.torch_normals(0, (3, 5)), r"got \(3, 5\)"),
        (lambda: datasets.digits(test=1797, key=jr.key(0)), "got 1797"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
