"""The check that several modules share: arrays that must be finite."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree


def require_finite(name: str, tree: PyTree) -> None:
    """Raise `ValueError` where an array of `tree` holds NaN or infinity.

    Inside a transformation of JAX there are no values to look at: nothing is checked.
    """
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)):
        if not isinstance(leaf, Tracer) and not bool(jnp.isfinite(leaf).all()):
            raise ValueError(f"the {name} holds NaN or infinity: shape {leaf.shape}.")
