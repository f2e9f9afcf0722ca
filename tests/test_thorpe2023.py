"""Laws of the experiments on the deep limit of training."""

import dataclasses

import jax
import jax.random as jr
import numpy as np
import pytest

from deeplimits import datasets, experiments
from deeplimits.experiments.thorpe2023 import digits, rate, search, setting

SMALL = search.Search(
    alphas=(0.03, 0.01),
    activations=("GELU",),
    depth=4,
    starts=3,
    rough=(1.0,),
    smooth=(2.0,),
    kept=3,
    shared=1,
)


@pytest.fixture(scope="module")
def found():
    return experiments.find("thorpe2023/search").run(SMALL, key=jr.key(3))


@pytest.fixture(autouse=True)
def doubles():
    with jax.enable_x64(True):
        yield


# ----------------------------------------------------------------- the search


def by_hand(row, activation, alpha):
    """$E_n$ in plain NumPy."""
    x, y = map(np.asarray, datasets.rings())
    K, b, W, c = (row[name].values for name in setting.DIMENSIONS)
    for K_i, b_i in zip(K, b, strict=True):
        x = x + activation(x @ K_i.T + b_i) / len(K)
    rises = len(K) * sum(np.sum(np.diff(z, axis=0) ** 2) for z in (K, b))
    penalty = rises + np.sum(K[0] ** 2) + np.sum(b[0] ** 2) + W @ W + c**2
    return np.sum((np.tanh(x @ W + c) - y) ** 2) + alpha * penalty


def test_energies_are_those_of_the_kept_networks_by_a_plain_loop(found):
    for alpha in SMALL.alphas:
        row = found.sel(problem=f"tanh {alpha:g}").isel(branch=0)
        assert float(row.energy) == pytest.approx(
            by_hand(row, np.tanh, alpha), rel=1e-12
        )


def test_branches_are_distinct_and_the_lowest_first(found):
    for row in found.energy.values:
        there = row[np.isfinite(row)]
        assert len(there) >= 1
        assert (np.diff(there) > SMALL.same * there[1:]).all()


def test_every_start_ends_somewhere_and_is_counted_at_most_once(found):
    assert found.started.sel(kind="rough 1").values.tolist() == [3, 3, 3]
    assert found.started.sel(kind="shared").values.tolist() == [2, 2, 2]
    ends = found.energies.notnull().sum("start")
    assert (ends <= found.started).all()
    assert (found["count"].sum("branch") <= ends).all()


def test_nothing_that_was_met_lies_below_the_lowest_branch(found):
    lowest = found.energy.isel(branch=0)
    assert (found.energies.min(("kind", "start")) >= lowest * (1 - SMALL.same)).all()


def test_kept_networks_are_at_rest(found):
    gradients = found.gradient_norm.values
    assert np.nanmax(gradients) < 10 * SMALL.polished


def test_of_energies_that_lie_together_the_lowest_stays():
    pairs = [(2.0, "b"), (1.0, "a"), (1.00001, "copy"), (90.0, "c"), (90.001, "copy")]
    assert search.distinct(pairs, 1e-4) == [(1.0, "a"), (2.0, "b"), (90.0, "c")]


# ------------------------------------------------------------- branches in depth


def test_the_archived_start_is_continued():
    config = experiments.find("thorpe2023/rate").preset("smoke")
    one = experiments.find("thorpe2023/rate").run(config, key=jr.key(3))
    archive = experiments.archive("thorpe2023/search").sel(problem="tanh 0.01")
    first = float(archive.energy.isel(branch=0))
    assert float(one.energy.isel(depth=0).squeeze()) == pytest.approx(first, rel=1e-9)
    row = one.squeeze().rename(node="layer")
    kept = row[["weight", "bias", "readout", "offset"]]
    last = float(row.energy.isel(depth=-1))
    assert by_hand(kept, np.tanh, 0.01) == pytest.approx(last, rel=1e-12)


def test_extrapolation_is_exact_for_what_errs_by_a_square():
    assert rate.richardson([3 + 5 / n**2 for n in (8, 16)]) == pytest.approx(3)


def test_the_archived_branches_meet_their_constant():
    """Theory against the archive, on all branches of smooth activations."""
    archive = experiments.archive("thorpe2023/rate")
    scaled = (archive.energy - archive.limit) * archive.depth
    measured = 2 * scaled[..., -1] - scaled[..., -2]
    constant = (4 * archive.critical[..., -1] - archive.critical[..., -2]) / 3
    ratios = (measured / constant).sel(
        problem=[name for name in archive.problem.values if name[:4] != "ReLU"]
    )
    assert abs(ratios - 1).max() < 0.005


# ------------------------------------------------------------------- digits


def test_features_are_centred_scaled_and_split():
    config = digits.Digits()
    (x, y), (z, w) = digits.features(config, 4, key=jr.key(0))
    assert x.shape == (240, 4)
    assert len(z) == len(w) > 100
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-12)
    assert np.mean(x**2) == pytest.approx(1)
    covariance = x.T @ x
    np.testing.assert_allclose(
        covariance, np.diag(np.diag(covariance)), atol=1e-9 * covariance.max()
    )
    assert (np.diff(np.diag(covariance)) < 0).all()
    assert set(y) == set(w) == {-1.0, 1.0}


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("config", "change", "told"),
    [
        (SMALL, {"activations": ("tan",)}, "unknown activation 'tan'"),
        (SMALL, {"depth": 1}, "depth must be at least 2"),
        (SMALL, {"alphas": (0.0,)}, "alphas must be positive"),
        (SMALL, {"shared": 9}, "shared must be at most kept"),
        (SMALL, {"starts": 10**12}, "choose smaller sizes"),
        (rate.Rate(), {"problems": ("tanh 7",)}, "unknown problem 'tanh 7'"),
        (rate.Rate(), {"branches": (1,)}, "each problem needs a number of branches"),
        (rate.Rate(), {"pieces": (64, 100)}, "pieces must double"),
        (rate.Rate(), {"flows": (64,)}, "flows must double"),
        (rate.Rate(), {"kept": 65}, "kept must be one of"),
        (digits.Digits(), {"widths": (2,)}, "each width needs an alpha"),
        (digits.Digits(), {"widths": (2, 2, 65)}, "widths must be at most 64"),
        (digits.Digits(), {"classes": (3, 3)}, "classes must be two digits"),
        (digits.Digits(), {"train": 400}, "train must be at least the width"),
    ],
)
def test_what_is_no_experiment_is_refused(config, change, told):
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(config, **change)
