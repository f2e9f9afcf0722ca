"""Laws of the sine toy: sweeps one by one are sweeps, steps are those of a loop."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from deeplimits import control, experiments
from deeplimits.experiments.li2018 import toy

SMALL = toy.Toy(
    rhos=(1.0,), seeds=1, sweeps=3, steps=6, every=2, points=12, layers=4, width=3
)


@pytest.fixture(scope="module")
def found():
    with jax.numpy_dtype_promotion("standard"):  # Adam raises floats to integers
        found = experiments.find("li2018/toy").run(SMALL, key=jr.key(2))
    return found.isel(seed=0)


@pytest.fixture(scope="module")
def drawn():
    with jax.enable_x64(True):
        yield toy.sine(SMALL, jr.fold_in(jr.key(2), 0))


def test_sweeps_one_by_one_are_those_of_one_call(found, drawn):
    problem, start = drawn
    with jax.enable_x64(True):
        rho = control.summed_rho(1.0, 12, 0.25)
        whole = control.extended_msa(problem, start, rho=rho, max_sweeps=3)
    swept = found.isel(rho=0)
    np.testing.assert_allclose(swept.cost, whole.values, rtol=1e-9)
    evaluations = whole.work - len(whole.values)  # of all layers, with penalties
    assert evaluations >= 3 * 11  # at least one a step of L-BFGS, and the first
    work = 3 + toy.WORK * evaluations
    assert float(swept.work[-1]) == pytest.approx(work, rel=1e-12)
    held = found.isel(costate=0)  # another method, of the same start
    assert float(held.held_cost[0]) == float(swept.cost[0])
    with jax.enable_x64(True):
        pair = rho[0], 1.0
        other = control.extended_msa(problem, start, rho=pair, max_sweeps=3)
    np.testing.assert_allclose(held.held_cost, other.values, rtol=1e-9)
    effort = swept.cost - swept.loss
    assert (effort > 0).all()
    np.testing.assert_allclose(effort[-1], problem.effort(whole.theta), rtol=1e-6)


def test_steps_are_those_of_a_plain_loop(found, drawn):
    problem, theta = drawn
    x, y = np.asarray(problem.inputs), np.asarray(problem.labels)

    def loss(theta):
        h = jnp.asarray(x)
        for W, b in zip(theta["W"], theta["b"], strict=True):
            h = h + jnp.tanh(h @ W.T + b[None]) / 4
        return jnp.mean((h.sum(1) - jnp.asarray(y[:, 0])) ** 2)

    def cost(theta):
        return loss(theta) + 0.002 / 4 * sum((z**2).sum() for z in theta.values())

    kept = []
    with jax.enable_x64(True):
        slopes = jax.jit(jax.grad(cost))
        for step in range(7):
            if step % 2 == 0:
                kept.append((float(loss(theta)), float(cost(theta))))
            theta = jax.tree.map(lambda z, g: z - 0.1 * g, theta, slopes(theta))
    sgd = found.sel(optimiser="SGD 0.1")
    np.testing.assert_allclose(sgd.descended, [a for a, _ in kept], rtol=1e-9)
    np.testing.assert_allclose(sgd.descended_cost, [b for _, b in kept], rtol=1e-9)


def test_a_batch_of_copies_is_the_same_to_two_penalties_and_not_to_one(drawn):
    """With one number for sums over the batch, four copies are another method."""
    problem, start = drawn
    with jax.enable_x64(True):
        four = problem.but(
            inputs=jnp.tile(problem.inputs, (4, 1)),
            labels=jnp.tile(problem.labels, (4, 1)),
            weights=None,
        )

        def values(problem, rho):
            return control.extended_msa(problem, start, rho=rho, max_sweeps=2).values

        one = values(problem, control.summed_rho(1.0, 12, 0.25))
        same = values(four, control.summed_rho(1.0, 12, 0.25))
        other = values(four, control.summed_rho(1.0, 48, 0.25))
    np.testing.assert_allclose(same, one, rtol=1e-6)
    assert abs(other[-1] / one[-1] - 1) > 0.01
