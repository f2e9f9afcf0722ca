"""Where it runs: members of an ensemble, or examples, spread over all devices."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from .losses import Loss


def over_devices(function: Callable) -> Callable:
    """`jax.vmap(function)`, the members of the leading axis spread over all devices.

    These are several graphics cards, or the cores of a processor if
    `JAX_NUM_CPU_DEVICES` says how many before JAX starts. Every array of an argument
    has the leading axis; what is no array goes to all members. Each device takes an
    equal number of members, made up by copies that the result leaves out.
    """

    def mapped(*arguments):
        arrays, others = eqx.partition(arguments, eqx.is_array)
        each = jax.vmap(lambda arrays: function(*eqx.combine(arrays, others)))
        devices = jax.devices()
        if len(devices) == 1:
            return each(arrays)
        members = jax.tree.leaves(arrays)[0].shape[0]
        whole = np.arange(-(-members // len(devices)) * len(devices)) % members
        mesh, along = Mesh(devices, ("members",)), PartitionSpec("members")
        spread = jax.shard_map(
            each, mesh=mesh, in_specs=(along,), out_specs=along, check_vma=False
        )
        found = spread(jax.tree.map(lambda a: a[whole], arrays))
        return jax.tree.map(lambda a: a[:members], found)

    return mapped


def over_examples(loss: Loss) -> Loss:
    """`loss`, a mean over examples, with the examples spread over all devices.

    Each device goes through all layers with its share, forwards and backwards; their
    gradients are averaged once, at the end. Devices are those of `over_devices`. Raises
    `ValueError` for a number of examples that they do not divide.
    """

    def spread(model, data, key):
        devices = jax.devices()
        examples = jax.tree.leaves(data)[0].shape[0]
        if len(devices) == 1:
            return loss(model, data, key)
        if examples % len(devices):
            raise ValueError(
                f"{examples} examples do not divide over {len(devices)} devices."
            )
        arrays, others = eqx.partition(model, eqx.is_array)

        def mean(arrays, data, key):
            # here, once: where it is left to JAX, gradients are summed at each layer
            arrays = jax.lax.pcast(arrays, "examples", to="varying")
            part = loss(eqx.combine(arrays, others), data, key)
            return jax.lax.pmean(part, "examples")

        mesh, along = Mesh(devices, ("examples",)), PartitionSpec("examples")
        specs = (PartitionSpec(), along, PartitionSpec())
        mapped = jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=specs[0])
        return mapped(arrays, data, key)

    return spread
