"""Laws of networks at initialisation: exact identities, exponents, presets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from conftest import assert_mean

from deeplimits import datasets, experiments, initialisation
from deeplimits.experiments import marion2025
from deeplimits.experiments.marion2025 import setting, trained
from deeplimits.experiments.marion2025.depth import _network as network
from deeplimits.residual import ResNet, TwoLayer


def laws(name, shape, key):
    if name == "uniform":
        return initialisation.uniform(6, shape, key=key)
    return jr.normal(key, (6, *shape)) / shape[-1] ** 0.5


@pytest.mark.parametrize("law", ["uniform", "normal"])
@pytest.mark.parametrize("m", [2, 7])
def test_mean_squares_are_exact_at_finite_depth(law, m):
    """States and gradients of res-3, for an inner width that is not the outer."""
    q, step = 4, 0.6
    h, p = jnp.asarray([1.0, -2.0, 0.5, 3.0]), jnp.asarray([0.3, 1.0, -1.0, 2.0])

    def squares(key):
        outer_key, inner_key = jr.split(key)
        outer, inner = laws(law, (q, m), outer_key), laws(law, (m, q), inner_key)
        block = TwoLayer(outer, inner, activation="relu", width_factors=False)
        last, first = setting.propagate(block, jnp.asarray(step), h, p)
        return [jnp.sum(v**2) for v in (last, last - h, first, first - p)]

    found = jax.jit(jax.vmap(squares))(jr.split(jr.key(0), 20_000))
    growth = (1 + step**2 / 2) ** 6
    for samples, start, change in zip(found, (h, h, p, p), (0, 1, 0, 1), strict=True):
        assert_mean(samples, (growth - change) * float(start @ start))


def test_res1_has_no_identity():
    """A negative state never moves; the growth of a positive one is bounded."""
    config = marion2025.Identity(depth=8, width=4, draws=4096)
    found = marion2025.identity(config, key=jr.key(1))["square"]
    res1 = found.sel(model="res-1", quantity="state")
    assert float(abs(res1.sel(start="negative") - 1).max()) < 1e-6
    mean = float(res1.sel(start="positive").mean())
    assert 1.1 * (1 + 1 / 16) ** 8 < mean < (1 + 1 / 8) ** 8


def test_ratios_are_those_of_a_plain_loop():
    keys = jr.split(jr.key(2), 4)
    V, W = jr.normal(keys[0], (3, 4, 4)), jr.normal(keys[1], (3, 4, 4))
    h0, p = jr.normal(keys[2], (4,)), jr.normal(keys[3], (4,))
    h, jacobian = np.asarray(h0), np.eye(4)
    for k in range(3):
        v, w = np.asarray(V[k]), np.asarray(W[k])
        jacobian = (np.eye(4) + 0.3 * v @ np.diag(w @ h > 0) @ w) @ jacobian
        h = h + 0.3 * v @ np.maximum(w @ h, 0)
    first = jacobian.T @ p
    expected = [
        np.linalg.norm(h - h0) / np.linalg.norm(h0),
        np.linalg.norm(first - p) / np.linalg.norm(p),
    ]
    block = setting.stacked("res-3", V, W)
    found = setting.ratios(block, jnp.asarray(0.3), h0, p)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert float(setting.change(block, jnp.asarray(0.3), h0)) == pytest.approx(
        expected[0]
    )


def test_padded_layers_change_nothing():
    config = marion2025.Depth(depths=(3, 8), betas=(0.5,), width=4)
    block, steps, h, _ = network(config, 3, jr.key(3))
    short = jax.tree.map(lambda w: w[:3], block)
    full = ResNet(block, beta=0.0, scale=steps[0])(h)
    np.testing.assert_allclose(full, ResNet(short, beta=0.5)(h), rtol=1e-10)


def test_the_critical_law_is_lognormal():
    config = marion2025.Histogram(width=5, depth=400, draws=2000)
    found = marion2025.histogram(config, key=jr.key(4))
    mean, variance = marion2025.lognormal(5)
    logs = 2 * np.log(found["state"].values)
    assert_mean(logs, mean)
    assert_mean((logs - logs.mean()) ** 2, variance)


@pytest.mark.parametrize("model", setting.MODELS)
@pytest.mark.parametrize("hurst", [0.2, 0.5, 0.8])
def test_first_order_is_the_mean_square_of_the_sum(model, hurst):
    """The sum itself, drawn: `V_k` times a fixed or a random vector."""
    h = jnp.asarray([2.0, 1.0, 0.5])

    def square(key):
        v_key, w_key = jr.split(key)
        V, W = (
            initialisation.fractional_noise(9, (3, 3), hurst=hurst, key=k) / 3**0.5
            for k in (v_key, w_key)
        )
        inside = jax.nn.relu(jnp.einsum("kij,j->ki", W, h))
        inside = inside if model == "res-3" else jnp.broadcast_to(h, (9, 3)) / 2**0.5
        return jnp.sum(jnp.einsum("kij,kj->i", V, inside) ** 2)

    samples = jax.vmap(square)(jr.split(jr.key(5), 20_000))
    assert_mean(samples, marion2025.first_order(model, hurst, 9) * float(h @ h))


@pytest.mark.parametrize(
    ("model", "hurst", "expected"),
    [
        ("res-1", 0.3, 0.3),
        ("res-3", 0.2, 0.5),
        ("res-3", 0.5, 0.5),
        ("res-3", 0.9, 0.9),
    ],
)
def test_first_order_exponents(model, hurst, expected):
    found = marion2025.first_order_exponent(model, hurst, (2**14, 2**16))
    assert found == pytest.approx(expected, abs=0.03)


def test_crossing_of_two_power_laws():
    """Curves that are straight in beta cross at the exponent of their growth."""
    config = marion2025.Critical(hursts=(0.7,), depths=(16, 64))
    betas = np.asarray(config.betas)
    rows = np.stack([(0.7 - betas) * np.log10(L) for L in (16, 64)])
    dataset = marion2025.critical(
        replace(config, networks=8, width=2, points=1), key=jr.key(6)
    )
    dataset["log_ratio"][:] = rows[None, None]
    [found] = marion2025.crossing(dataset)
    np.testing.assert_allclose(found.numbers, [0.7] * 3, atol=1e-12)


def test_no_network_stands_still():
    """At width 1 every second normal state is negative: res-1 would not move it."""
    config = marion2025.Critical(
        model="res-1", hursts=(0.5,), depths=(2, 4), networks=64, width=1, points=2
    )
    found = marion2025.critical(config, key=jr.key(11))["log_ratio"]
    assert np.isfinite(found).all()


def test_overflow_counts_sixteen():
    ratios = jnp.asarray([100.0, jnp.inf, jnp.nan])
    np.testing.assert_allclose(setting.log10(ratios), [2, 16, 16])


def test_bounds_are_vacuous_for_narrow_networks():
    assert marion2025.bounds(40, 0.1)[0] < 0 < marion2025.bounds(4000, 0.5)[0]


SMALL = {"data": "digits", "depth": 32, "width": 6, "epochs": 1}


def test_training_moves_the_matrices_and_not_the_factor():
    config = marion2025.Trained(**SMALL)
    train, _ = trained.handwritten("digits")
    law = setting.law("uniform", length_scale=1.0)
    model = trained.classifier(config, law, 0.5, train, key=jr.key(8))
    assert model.scale is not None
    np.testing.assert_allclose(model.scale, 32**-0.5)
    run = trained.trainer(config, train, 1e-2)(model, None, key=jr.key(9)).finished()
    assert run.steps == 10  # 1,437 images in batches of 128, rounded to two halves
    np.testing.assert_array_equal(run.model.scale, model.scale)
    for part in (lambda m: m.block.outer, lambda m: m.encoder.weight):
        # Adam's first steps have the size of the learning rate, whatever the gradient
        moved = float(jnp.abs(part(run.model) - part(model)).max())
        assert 0.02 < moved < 0.1


def test_steps_of_adam_do_not_know_the_size_of_the_gradient():
    """Nor where it is a hundred thousandth: the epsilon is that of the public code."""
    config = marion2025.Trained(**SMALL)
    train, _ = trained.handwritten("digits")
    law = setting.law("uniform", length_scale=1.0)
    model = trained.classifier(config, law, 0.5, train, key=jr.key(8))
    faint = train._replace(images=train.images * 1e-5)
    run = trained.trainer(config, faint, 1e-2)(model, None, key=jr.key(9))
    moved = jnp.abs(run.model.encoder.weight - model.encoder.weight)
    assert 0.02 < float(moved.max()) < 0.1


def test_matrices_in_and_out_have_variance_one_over_what_they_take():
    config = marion2025.Trained(**SMALL | {"width": 300})
    images = trained.Digits(jnp.zeros((1, 64)), jnp.zeros(1, int))
    law = setting.law("uniform", length_scale=1.0)
    model = trained.classifier(config, law, 0.5, images, key=jr.key(8))
    for part, taken in ((model.encoder, 64), (model.decoder, 300)):
        assert part.weight.shape[1] == taken
        assert float(jnp.abs(part.weight).max()) <= (3 / taken) ** 0.5
        assert_mean(part.weight.ravel() ** 2, 1 / taken)


def test_the_learning_rate_falls_to_a_tenth_half_way():
    config = marion2025.Trained(**SMALL)
    train, _ = trained.handwritten("digits")
    law = setting.law("uniform", length_scale=1.0)
    model = trained.classifier(config, law, 0.5, train, key=jr.key(8))
    fit = trained.trainer(config, train, 1e-2)
    whole = fit(model, None, key=jr.key(9))
    first = trained.trainer(replace(config, epochs=2), train, 1e-2)
    longer = first(model, None, key=jr.key(9))
    np.testing.assert_allclose(longer.losses[:6], whole.losses[:6], rtol=1e-8)
    assert np.abs(longer.losses[6:10] - whole.losses[6:10]).min() > 1e-4


def test_without_a_learning_rate_nothing_changes():
    found = marion2025.trained_weights(
        marion2025.Trained(**SMALL, rate=0.0), key=jr.key(10)
    )
    for name in ("weight", "regularity", "roughness", "accuracy"):
        before, after = (found[name].sel(time=time) for time in ("before", "after"))
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(found["moved"], 0)
    hurst = found["regularity"].sel(time="before", bound="value").values
    assert hurst[0] > 1.5  # smooth, and two independent ones
    np.testing.assert_allclose(hurst[1:], 0.5, atol=0.15)


def test_handwritten_images_are_rows_in_the_unit_interval(monkeypatch):
    pixels = np.arange(2 * 28 * 28).reshape(2, 1, 28, 28) % 256
    whole = datasets.Images(
        pixels.astype(np.uint8),
        np.array([3, 1], np.int32),
        pixels[:1].astype(np.uint8),
        np.array([3], np.int32),
    )
    monkeypatch.setattr(datasets, "mnist", lambda: whole)
    train, test = trained.handwritten("mnist")
    assert train.images.shape == (2, 784)
    assert float(train.images[0, 255]) == 1.0
    np.testing.assert_array_equal(test.images[0], train.images[0])
    assert train.labels.tolist() == [3, 1]


SMOKE = [name for name in experiments.EXPERIMENTS if name.startswith("marion2025/")]


@pytest.mark.parametrize("name", SMOKE)
def test_smoke_presets_run_resume_and_are_reproducible(name, tmp_path):
    experiment = experiments.find(name)
    config = experiment.preset("smoke")
    whole = experiment.run(config, key=jr.key(7))
    assert all(np.isfinite(v).all() for v in whole.data_vars.values())
    assert whole.identical(experiment.run(config, key=jr.key(7), scratch=tmp_path))
    for piece in sorted(tmp_path.iterdir())[::2]:
        piece.unlink()
    assert whole.identical(experiment.run(config, key=jr.key(7), scratch=tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: setting.stacked("res-2", jnp.ones((1, 2, 2))),
            "unknown model 'res-2'",
        ),
        (lambda: setting.law("cauchy", length_scale=1.0), "unknown law 'cauchy'"),
        (
            lambda: marion2025.critical(
                marion2025.Critical(depths=(3, 4)), key=jr.key(0)
            ),
            "divide the largest",
        ),
        (
            lambda: marion2025.critical(
                marion2025.Critical(networks=3, batch=2), key=jr.key(0)
            ),
            "batch must divide networks",
        ),
        (
            lambda: marion2025.histogram(
                marion2025.Histogram(draws=3, batch=2), key=jr.key(0)
            ),
            "batch must divide draws",
        ),
        (lambda: trained.handwritten("svhn"), "unknown data 'svhn'; known: mnist, dig"),
        (
            lambda: marion2025.trained_weights(
                marion2025.Trained(betas=(1.0,)), key=jr.key(0)
            ),
            "must pair up",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
