"""The networks of the benchmark have the laws that their truths say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from deeplimits import diagnosis, results

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import diagnosis as benchmark  # of benchmarks/
import networks
import trained
from networks import KINDS, Answer, Case, Truth

ROOT = Path(__file__).parents[1]
SHALLOW, DEEP, WIDTH = 64, 256, 32


def drawn(kind, *depths, width=WIDTH, ratio=None, key=0):
    """The networks of a kind: one path, sampled at each depth, and noise anew."""
    ratio = ratio or next(iter(KINDS[kind].ratios[::-1]), None)
    index = list(KINDS).index(kind)
    return networks.networks(Case(kind, depths, width, ratio, None, index), key)


def seen(weights):
    """What no choice of hidden units changes: without them, the weights themselves."""
    if "outer" not in weights:
        return weights["weight"].astype(float)
    return weights["outer"].astype(float) @ weights["inner"]


def correlation(weights, lag):
    return np.mean(weights[lag:] * weights[:-lag]) / np.mean(weights**2)


def root_mean_square(weights):
    return np.sqrt(np.mean(weights**2, axis=tuple(range(1, weights.ndim))))


@pytest.mark.parametrize("kind", [k for k in KINDS if "Ornstein" not in k])
def test_trend_and_noise_are_of_the_orders_of_the_truth(kind):
    """Two draws share the trend: their product keeps it, their difference the noise."""
    truth = KINDS[kind].truth
    found = map(seen, drawn(kind, SHALLOW, SHALLOW, DEEP, DEEP))
    one, two, three, four = map(without_exception, found)
    if truth.noise is None:
        nodes = three[:: DEEP // SHALLOW]
        if "alternating" in kind:  # each of the two paths by itself
            one, two, nodes = one[::2], two[::2], nodes[::2]
        for other in (two, nodes):
            assert same_layers(one, other) >= len(one) - 2
        return
    # of low rank, sixteen or a few hundred independent entries
    few = {"low rank, fixed frame": 0.3}.get(kind, 0.1)
    sums = [np.mean((a - b).sum(0) ** 2) for a, b in ((one, two), (three, four))]
    assert abs(exponent(*sums) / 2 - truth.noise) < few
    shared = [np.mean(one * two), np.mean(three * four)]
    if truth.trend is None:
        assert max(np.abs(shared)) < few * np.mean(one**2)
    elif KINDS[kind].ratios[-1] >= 0.5:
        assert abs(exponent(*shared) / 2 - truth.trend) < 0.15


def without_exception(weights):
    sizes = root_mean_square(weights)
    return np.where(sizes > 5 * np.median(sizes), 0.0, weights.T).T


def same_layers(one, two):
    """How many: up to the rounding of float32 in a product."""
    near = 1e-5 * np.abs(one).max()
    return sum(np.allclose(a, b, atol=near) for a, b in zip(one, two, strict=True))


def exponent(shallow, deep):
    return np.log(deep / shallow) / np.log(DEEP / SHALLOW)


@pytest.mark.parametrize("ratio", networks.RATIOS)
def test_the_ratio_is_that_of_trend_to_noise(ratio):
    found = drawn(f"trend and noise, {ratio:g}", 128, 128, width=64, key=1)
    one, two = map(seen, found)
    noise = np.var(one - two) / 2
    # a path of finite length has a mean square of its own
    assert ratio**2 / 3 < np.mean(one * two) / noise < 3 * ratio**2


@pytest.mark.parametrize("hurst", [0.2, 0.3, 0.5, 0.58, 0.7, 0.8])
def test_fractional_noise_has_its_correlations(hurst):
    [weights] = map(seen, drawn(f"noise, H = {hurst:g}", DEEP))
    for n in (1, 2, 5):
        powers = [(n + 1) ** (2 * hurst), n ** (2 * hurst), (n - 1) ** (2 * hurst)]
        expected = np.dot(powers, [0.5, -1.0, 0.5])
        assert correlation(weights, n) == pytest.approx(expected, abs=0.02)


def test_memory_counts_in_layers_or_in_depth_time():
    for phi in (0.5, 0.9):
        for weights in map(seen, drawn(f"AR(1), {phi:g}", SHALLOW, DEEP)):
            for n in (1, 3):
                assert correlation(weights, n) == pytest.approx(phi**n, abs=0.03)
            first, *rest = root_mean_square(weights)
            assert first == pytest.approx(np.mean(rest), rel=0.1)  # stationary
    kind = "Ornstein-Uhlenbeck, three depths"
    few, many = map(seen, drawn(kind, SHALLOW, DEEP))
    for part in (16, 4):
        near, far = correlation(few, SHALLOW // part), correlation(many, DEEP // part)
        assert near == pytest.approx(far, abs=0.04)
    assert 0.6 < correlation(many, DEEP // 16) < 0.9


def test_a_smooth_path_has_its_covariance():
    """Of many paths of one length: $e^{-(s - t)^2 / 2 l^2}$."""
    seeds = networks.Seeds(np.random.default_rng(0), np.random.default_rng(1))
    paths = networks._path(seeds, 32, (10_000,))
    length = np.random.default_rng(0).uniform(*networks.LENGTHS)
    s = np.arange(32) / 32
    expected = np.exp(-((s[:, None] - s) ** 2) / (2 * length**2))
    np.testing.assert_allclose(paths @ paths.T / 10_000, expected, atol=0.06)


def test_pieces_and_exceptions_are_few():
    [weights] = map(seen, drawn("piecewise constant", DEEP))
    jumps = (np.diff(weights, axis=0) != 0).any((1, 2)).sum()
    assert networks.PIECES[0] - 1 <= jumps <= networks.PIECES[1] - 1
    [weights] = map(seen, drawn("exceptional layer, noise", DEEP))
    sizes = np.sort(root_mean_square(weights))
    assert sizes[-1] / sizes[DEEP // 2] == pytest.approx(10, rel=0.1)
    assert sizes[-2] / sizes[DEEP // 2] < 1.2
    [weights] = map(seen, drawn("alternating, noise", DEEP))
    sizes = root_mean_square(weights)
    assert sizes[1::2].mean() / sizes[::2].mean() == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("df", [2.5, 4.0])
def test_tails_are_those_of_students_law(df):
    [weights] = map(seen, drawn(f"Student, {df:g}", DEEP))
    sizes = np.abs(weights) / np.median(np.abs(weights)) * stats.t.ppf(0.75, df)
    for bound in (3.0, 10.0):
        expected = 2 * stats.t.sf(bound, df)
        assert np.mean(sizes > bound) == pytest.approx(expected, rel=0.1)


def test_low_rank_is_low():
    for kind in ("noise", "smooth"):
        [weights] = map(seen, drawn(f"low rank, {kind}", SHALLOW))
        assert set(np.linalg.matrix_rank(weights, rtol=1e-4)) == {networks.RANK}
    [weights] = map(seen, drawn("low rank, fixed frame", SHALLOW))
    rows = weights.reshape(-1, weights.shape[-1])
    assert np.linalg.matrix_rank(rows, rtol=1e-4) == networks.FRAME


@pytest.mark.parametrize("change", ["permuted", "rescaled", "flipped"])
def test_units_that_move_hide_the_path_but_keep_the_function(change):
    [weights] = drawn(f"{change} units, smooth", SHALLOW)
    product = seen(weights)
    assert correlation(product, 1) > 0.9
    raw = weights["inner"].astype(float)
    hidden = {"permuted": 0.1, "rescaled": 0.85, "flipped": 0.05}
    assert correlation(raw, 1) < hidden[change]


def test_a_unit_whose_draw_is_zero_keeps_a_sign(monkeypatch):
    """Of float32 numbers one in some ten million is: no infinite weights by it."""
    white = networks._white
    zero = lambda seeds, shape: 0 * white(seeds, shape)  # noqa: E731
    monkeypatch.setattr(networks, "_white", zero)
    [weights] = drawn("flipped units, smooth", SHALLOW)
    assert all(np.isfinite(z).all() for z in weights.values())


def test_the_limit_follows_from_the_two_orders():
    both, balanced = Truth(0.0, 0.5), Truth(-0.5, 0.5)
    found = [t.answer(b) for t in (both, balanced) for b in (0.5, 0.75, 1.0)]
    assert found == [
        *(Answer.EXPLOSIVE, Answer.EXPLOSIVE, Answer.ODE),
        *(Answer.BOTH, Answer.IDENTITY, Answer.IDENTITY),
    ]
    assert Truth(noise=0.5).answer(0.5) == Answer.SDE
    assert Truth(noise=0.8).answer(0.8) == Answer.OWN
    assert Truth(noise=0.8).answer(0.5) == Answer.EXPLOSIVE
    assert Truth(trend=0.0).answer(None) == Answer.ODE
    assert both.answer(None) == balanced.answer(None) == Answer.BOTH


def test_every_verdict_of_the_rule_has_its_answer():
    found = {benchmark.answer(verdict, "") for verdict in diagnosis.VERDICTS}
    assert found >= set(Answer) - {Answer.ALTERNATES, Answer.BOTH}
    larger = benchmark.answer(diagnosis.BETWEEN, "noise about a larger trend (60%)")
    assert larger == Answer.BOTH
    reason = "the layers alternate: give each kind apart"
    assert benchmark.answer(diagnosis.ABSTAIN, reason) == Answer.ALTERNATES


def test_what_one_depth_cannot_tell_is_right_only_unsaid():
    far, near = KINDS["AR(1), 0.9"].truth, KINDS["AR(1), 0.5"].truth
    assert far.right(Answer.ABSTAIN) == "abstained"
    assert far.right(Answer.SDE) == far.right(Answer.ODE) == "wrong"
    assert near.right(Answer.SDE) == "right"
    assert near.right(Answer.ODE) == "wrong"
    alternating = KINDS["alternating, smooth"].truth
    assert alternating.right(Answer.ALTERNATES) == "right"
    assert KINDS["smooth"].truth.right(Answer.ALTERNATES) == "wrong"


def test_a_half_is_large_and_its_draws_are_its_own():
    cases = list(networks.cases())
    assert len(cases) >= 600
    assert {c.kind for c in cases} == set(KINDS)
    depths = {depth for case in cases for depth in case.depths}
    assert (min(depths), max(depths)) == (12, 1024)
    assert {c.width for c in cases} >= {8, 256}
    [case] = [c for c in cases if (c.kind, *c.depths, c.width) == ("tied", 12, 8)]
    one, again, other = (networks.networks(case, key)[0] for key in (1, 1, 2))
    np.testing.assert_array_equal(one["weight"], again["weight"])
    assert not np.isclose(one["weight"], other["weight"]).any()
    fewer = [c.name for c in cases if len(c.depths) == 1 and min(c.depths[0], 128) > 99]
    assert all(fewer.count(name) >= 10 for name in fewer)


def test_an_interrupted_benchmark_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_EVERY", 2)
    cases = [c for c in networks.cases() if c.depths == (12,) and c.width == 8][-5:]
    first, asked = benchmark.row(cases[0], key=1), []
    path, again = (str(tmp_path / name) for name in ("x.nc", "y.nc"))

    def work(case):
        asked.append(case)
        return first | {"kind": case.name}

    def interrupted(case):
        if case is cases[3]:
            raise KeyboardInterrupt
        return work(case)

    rest = (benchmark.counted, path, {"key": 1})
    with pytest.raises(KeyboardInterrupt):
        benchmark.measure(cases, interrupted, *rest)
    assert results.load(path).sizes["network"] == 2
    done = benchmark.measure(cases, work, *rest)
    assert asked == [*cases[:3], *cases[2:]]
    whole = benchmark.measure(cases, work, benchmark.counted, again, {"key": 1})
    assert done.equals(whole)
    assert int(whole["count"].sum()) == 5
    with pytest.raises(ValueError, match="another computation"):
        benchmark.measure(cases, work, benchmark.counted, path, {"key": 2})


def test_counts_are_those_of_the_rows():
    names = ["right", "wrong", "abstained", "right"]
    table = benchmark.pd.DataFrame(
        {
            "kind": ["a", "a", "b", "b"],
            "depth": [128, 64, 256, 128],
            "width": [64, 64, 8, 64],
            "answer": ["ODE", "SDE", "no verdict", "SDE"],
            "outcome": names,
        }
    )
    found = benchmark.counted(table)
    np.testing.assert_array_equal(found["count"], [[1, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(found["count_deep"], [[1, 0, 0], [1, 0, 0]])
    lines = benchmark.bars(found)
    assert lines.loc["b", "definite if large"] == 1
    assert lines.loc["a", "low"] == pytest.approx(0.09, abs=0.01)  # Wilson, 1 of 2


def test_draws_are_pooled_by_key():
    count = ("kind_name", "outcome_name"), [[1, 2, 3]]
    coords = {"kind_name": ["a"], "outcome_name": list(benchmark.OUTCOMES)}
    half = xr.Dataset({"count": count, "count_deep": count}, coords)
    attrs = [
        {"seed": str(key), "identity": json.dumps({"sources": code})}
        for key, code in ((11, "x"), (12, "x"), (13, "y"))
    ]
    first, second, other = (half.assign_attrs(each) for each in attrs)
    found = benchmark.pooled([first, second])
    assert found["key"].values.tolist() == [11, 12]
    assert benchmark.bars(found.sum("key")).loc["a", "wrong"] == 4
    with pytest.raises(ValueError, match="twice"):
        benchmark.pooled([first, first])
    with pytest.raises(ValueError, match="2 versions"):
        benchmark.pooled([first, other])


@pytest.mark.parametrize("block", ["two layers", "convolution", "attention"])
def test_trained_units_in_another_order_compute_the_same(block):
    shapes = trained._shapes(block)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(2, *z)) for name, z in shapes.items()}
    other = trained.other_order(block, weights)
    assert all((other[name] != weights[name]).any() for name in weights)
    features = shapes["outer"][0]
    inputs = {"two layers": (), "convolution": (8, 8), "attention": (8,)}[block]
    h = rng.normal(size=(features, *inputs)).astype(np.float32)
    one, two = (
        trained._residual(block, {n: np.float32(z[1]) for n, z in w.items()}, h)
        for w in (weights, other)
    )
    np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(one).max())


def test_there_are_enough_trained_networks_of_each_sort():
    groups = trained.groups()
    assert sum(len(group.members) for group in groups) >= 60
    assert {group.block for group in groups} == set(trained.DEPTHS)
    assert {group.optimiser for group in groups} == {"SGD", "AdamW"}


@pytest.mark.parametrize("half", ["first", "second"])
def test_an_archived_half_has_the_cases_of_the_script(half):
    path = ROOT / f"results/benchmarks/diagnosis-{half}.nc"
    if not path.is_file():
        pytest.skip("it is drawn when the rule is done")
    found = results.load(path)
    names = [case.name for case in networks.cases()]
    assert found["kind"].values.tolist() == names
    assert found["kind_name"].values.tolist() == list(dict.fromkeys(names))
    assert int(found["count"].sum()) == len(names)
    truths = [KINDS[case.kind].truth for case in networks.cases()]
    assert found["truth"].values.tolist() == list(map(str, truths))
    for case, truth, outcome, said in zip(
        networks.cases(), truths, found["outcome"], found["answer"], strict=True
    ):
        assert truth.right(Answer(str(said.item())), case.beta) == outcome, case
