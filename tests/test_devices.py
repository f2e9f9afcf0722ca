"""Laws of several devices: the same numbers, one sum over them."""

import os
import subprocess
import sys

ON_THREE_DEVICES = """
import equinox as eqx, jax, jax.numpy as jnp, jax.random as jr, numpy as np, optax
from deeplimits import devices, losses, residual, training

assert len(jax.devices()) == 3
x = jr.normal(jr.key(0), (5, 4))
doubled, members = devices.over_devices(lambda x, name: (2 * x, x.sum()))(x, "any")
assert np.array_equal(doubled, 2 * x) and np.allclose(members, x.sum(axis=1))
assert len(doubled.sharding.device_set) == 3

weights = 0.3 * jr.normal(jr.key(1), (5, 4, 3, 3))
model = jax.vmap(lambda w: residual.ResNet(residual.OneLayer(w)))(weights)
data = jr.normal(jr.key(2), (2, 5, 7, 3))
settings = (losses.mean_square, optax.adam(0.01), 6)
run = training.train(model, tuple(data), *settings, ensemble=True, chunk=2)
for member in range(5):
    alone = jax.tree.map(lambda a: a[member], (model, tuple(data)))
    single = training.train(*alone, *settings)
    np.testing.assert_allclose(run.losses[member], single.losses, rtol=1e-5)
    np.testing.assert_allclose(
        run.model.block.weight[member], single.model.block.weight, rtol=1e-4
    )

network, (x, y) = jax.tree.map(lambda a: a[0], (model, tuple(data)))
spread = devices.over_examples(losses.mean_square)
whole = eqx.filter_grad(losses.mean_square)(network, (x[:6], y[:6]))
arrays, others = eqx.partition(network, eqx.is_array)
loss = lambda arrays: spread(eqx.combine(arrays, others), (x[:6], y[:6]), None)
gradient = jax.jit(jax.grad(loss)).lower(arrays).compile()
found = gradient(arrays).block.weight
np.testing.assert_allclose(found, whole.block.weight, rtol=1e-4)
inside, outside = gradient.as_text().split("ENTRY")
assert "all-reduce(" in outside, "no sum over the devices"
assert "all-reduce(" not in inside, "a sum over the devices at each layer"
try:
    spread(network, (x, y), None)
except ValueError as error:
    assert "7 examples do not divide over 3 devices" in str(error)
else:
    raise AssertionError("7 examples on 3 devices")
"""


def test_members_and_examples_are_spread_over_the_devices():
    """Five members over three: the copies that make up the number leave no trace."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", ON_THREE_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
