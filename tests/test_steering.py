"""Laws of steering: exact pieces, their number, what they cost, what no flow does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_mean

from deeplimits import statistics, steering
from deeplimits.residual import ResNet


def pairs(n, d=2, seed=0):
    return np.random.default_rng([seed, n, d]).uniform(size=(2, n, d))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_one_layer_of_a_shear_is_its_flow(activation):
    """Sixteen short Euler steps end where one long one does."""
    found = steering.steer(*pairs(5, 3), activation=activation, width=2)
    block, steps = found.network.block, found.network.steps
    often = jax.tree.map(lambda z: jnp.repeat(z, 16, axis=0), block)
    fine = ResNet(often, beta=0.0, scale=jnp.repeat(steps / 16, 16))
    x = jnp.asarray([0.3, -1.5, 2.0])
    np.testing.assert_allclose(fine(x), found.network(x), rtol=1e-10)
    product = jnp.einsum("kpd,kdq->kpq", block.inner, block.outer)
    np.testing.assert_allclose(product, 0, atol=1e-13 * abs(block.inner).max())


@pytest.mark.parametrize("product", [-1.2, 0.0, 0.7])
def test_a_hinge_in_closed_form_is_the_flow(product):
    """Also where it sees its own motion: against ten thousand short steps."""
    x, (v, a) = pairs(20, 3)[0] - 0.5, np.random.default_rng(3).normal(size=(2, 3))
    v = v + (product - a @ v) / (a @ a) * a
    assert v @ a == pytest.approx(product, abs=1e-12)
    fine = x.copy()
    for _ in range(10_000):
        fine += np.maximum(fine @ a + 0.1, 0)[:, None] * v / 10_000
    moved = steering.hinge_flow(x, v, a, 0.1)
    np.testing.assert_allclose(moved, fine, atol=3e-4)
    assert np.abs(moved - x).max() > 0.1
    assert (np.asarray(moved == x).all(1) == (x @ a + 0.1 <= 0)).all()


@pytest.mark.parametrize(
    ("activation", "n", "d", "width", "tolerance"),
    [
        ("relu", 64, 2, 1, 1e-6),
        ("relu", 7, 3, 3, 1e-11),
        ("tanh", 64, 2, 1, 1e-11),
        ("tanh", 20, 5, 7, 1e-11),
        ("sigmoid", 10, 2, 4, 1e-11),
        ("relu", 1, 2, 1, 1e-15),
    ],
)
def test_every_point_arrives(activation, n, d, width, tolerance):
    points, targets = pairs(n, d)
    found = steering.steer(points, targets, activation=activation, width=width)
    assert found.pieces == 2 * math.ceil(n / width)
    homogeneous = activation == "relu"
    least = steering.least_pieces(n, d, width=width, homogeneous=homogeneous)
    factor = 4 if homogeneous else 4 + 2 / d
    # the last piece of each half may be only partly used
    assert least <= found.pieces <= factor * least + 2 * (width > 1)
    assert found.error <= tolerance, found.error
    arrived = jax.vmap(found.network)(jnp.asarray(points))
    np.testing.assert_allclose(arrived, targets, atol=tolerance)


def test_the_cost_is_the_integral_of_the_norms():
    found = steering.steer(*pairs(6), activation="tanh", width=2)
    block = found.network.block
    norms = [
        float(step) * np.linalg.norm(V, 2) * np.linalg.norm(W, 2)
        for step, V, W in zip(
            found.network.steps, block.outer, block.inner, strict=True
        )
    ]
    assert found.cost == pytest.approx(sum(norms), rel=1e-12)
    np.testing.assert_allclose(np.linalg.norm(block.outer, 2, (1, 2)), 1, rtol=1e-12)
    assert found.duration == pytest.approx(float(found.network.steps.sum()))


def test_the_cost_of_hinges_grows_like_a_power_over_two():
    counts = [8, 16, 32, 64]
    costs = [
        [steering.steer(*pairs(n, seed=seed)).cost for n in counts] for seed in range(4)
    ]
    assert 1.9 < statistics.loglog_slope(counts, np.median(costs, axis=0)).value < 2.8


@pytest.mark.parametrize(("n", "d"), [(1, 2), (2, 2), (16, 2), (64, 2), (12, 4)])
def test_without_outer_matrix_one_coordinate_moves_at_a_time(n, d):
    points, targets = pairs(n, d)
    found = steering.steer_without_outer(points, targets)
    assert found.pieces == d * n
    assert found.error < 1e-12
    assert found.duration >= np.abs(targets - points).max()
    block = found.network.block
    rows = (np.abs(block.weight).max(2) + np.abs(block.bias)) > 0
    assert (rows.sum(1) == 1).all()
    assert (np.einsum("kii->ki", block.weight) == 0).all()


@pytest.mark.parametrize(("n", "mean"), [(1, 2 / 3), (2, 14 / 15), (5, 7 / 3)])
def test_the_mean_duration_is_seven_fifteenths_a_point(n, mean):
    """In the steep limit, for pairs uniform in the square, read in a given order."""
    durations = [
        steering.steer_without_outer(
            *pairs(n, seed=seed), slope=40.0, read=(0, 1)
        ).duration
        for seed in range(150)
    ]
    assert_mean(durations, mean)


def test_steps_need_only_be_steeper_than_log_three():
    found = steering.steer_without_outer(*pairs(16), slope=1.11)
    assert found.error < 1e-9
    with pytest.raises(ValueError, match=r"slope must lie in \(1.0986"):
        steering.steer(*pairs(4), slope=1.09)


def test_coordinates_that_tell_nothing_apart_cost_a_piece_each():
    """Points of a lattice: no coordinate tells them apart, before or after."""
    lattice = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), -1).reshape(-1, 2)
    free, _ = pairs(12)
    for points, targets, extra in (
        (lattice, lattice[::-1], 2),
        (lattice, free, 1),
        (free, lattice, 1),
    ):
        found = steering.steer_without_outer(points, targets)
        assert found.pieces == 2 * 12 + extra
        assert found.error < 1e-11
    assert steering.steer(lattice, lattice[::-1]).error < 1e-10


def test_within_a_piece_points_move_on_straight_lines():
    points, targets = pairs(6)
    found = steering.steer_without_outer(points, targets)
    ends = np.cumsum(found.durations)
    times = [0.0, ends[3], (ends[3] + ends[4]) / 2, ends[4], ends[-1]]
    start, before, middle, after, end = found.positions(points, times)
    np.testing.assert_array_equal(start, points)
    np.testing.assert_allclose(middle, (before + after) / 2, rtol=1e-12)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(end, targets, atol=1e-12)
    with pytest.raises(ValueError, match="times must increase within"):
        found.positions(points, [0.0, 1.1 * ends[-1]])


def test_equal_pairs_count_once():
    points, targets = pairs(5)
    twice = steering.steer(np.tile(points, (2, 1)), np.tile(targets, (2, 1)))
    assert twice.pieces == 10
    assert twice.error < 1e-12


def test_steps_do_in_single_precision():
    points, targets = pairs(16)
    with jax.enable_x64(False):
        for steer in (steering.steer, steering.steer_without_outer):
            found = steer(points, targets, activation="tanh")
            assert found.network.steps.dtype == "float32"
            assert found.error < 1e-5


LINE = np.array([[0.0], [1.0]])
SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("steer", "points", "targets", "options", "message"),
    [
        ("steer", LINE, LINE[::-1], {}, "order cannot change in one dimension"),
        ("steer", LINE, LINE + 1, {}, "on the line shears move all points alike"),
        ("steer_without_outer", LINE, LINE[::-1], {}, "order cannot change"),
        ("steer", SQUARE * 0, SQUARE, {}, r"equal points stay equal: \[0.0, 0.0\]"),
        ("steer", SQUARE, SQUARE * 0, {}, r"one to one: points at \[0.0, 0.0\] and"),
        ("steer", SQUARE, -SQUARE, {"activation": "identity"}, "flow affine"),
        ("steer", SQUARE, -SQUARE, {"activation": "gelu"}, "known: relu, tanh"),
        (
            "steer_without_outer",
            SQUARE,
            -SQUARE,
            {"activation": "relu"},
            "never negative.*decreases. Coordinate 0 of point 1 would have to",
        ),
        ("steer_without_outer", SQUARE, SQUARE + 1, {"activation": "relu"}, "negative"),
        ("steer_without_outer", SQUARE, -SQUARE, {"activation": "sin"}, "known: tanh"),
        ("steer_without_outer", SQUARE, -SQUARE, {"read": (0, 0)}, r"read .*\(0, 0\)"),
        ("steer", SQUARE, SQUARE[:2], {}, r"one shape \(n, d\): got \(3, 2\) and"),
        ("steer", SQUARE, SQUARE + np.inf, {}, "targets must be finite"),
        ("steer", SQUARE, 1e-17 * SQUARE, {}, "too close: none of 720"),
    ],
)
def test_what_is_impossible_is_refused_with_the_reason(
    steer, points, targets, options, message, as_in_use
):
    with pytest.raises(ValueError, match=message):
        getattr(steering, steer)(points, targets, **options)


def test_shears_need_matching_weights(as_in_use):
    good = jnp.zeros((3, 2, 4)), jnp.zeros((3, 4, 2)), jnp.zeros((3, 4))
    with pytest.raises(ValueError, match=r"bias \(depth, p\): got"):
        steering.Shears(good[0], good[1], good[2][:, 1:])
    with pytest.raises(ValueError, match="must be floats"):
        steering.Shears(jnp.zeros((3, 2, 4), int), *good[1:])
    with pytest.raises(ValueError, match="h must have 2 entries"):
        steering.Shears(*(z[0] for z in good))(jnp.ones(3))


def test_what_a_hinge_does_not_read_stands_still(as_in_use):
    x = jnp.array([[-1.0, 3.0], [1.0, 3.0]])
    moved = steering.hinge_flow(x, jnp.array([800.0, 0.0]), jnp.array([1.0, 0.0]))
    assert moved[0].tolist() == [-1, 3]
    assert moved[1].tolist() == [np.inf, 3]
    slopes = jax.jacobian(
        lambda z: steering.hinge_flow(
            z[None], jnp.array([800.0, 0.0]), jnp.array([1.0, 0.0])
        )[0]
    )(x[0])
    np.testing.assert_array_equal(slopes, np.eye(2))
