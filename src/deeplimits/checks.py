"""The checks that several modules share."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is not among the known ones."""
    if name not in (names := list(known)):
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(names)}.")


def require_level(level: float) -> None:
    """Raise `ValueError` for a level of confidence that is no probability."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1: got {level}.")


def require_finite(name: str, tree: PyTree) -> None:
    """Raise `ValueError` where an array of `tree` holds NaN or infinity.

    Inside a transformation of JAX there are no values to look at: nothing is checked.
    """
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)):
        if isinstance(leaf, Tracer):
            continue
        with jax.ensure_compile_time_eval():  # while another function is traced, too
            finite = bool(jnp.isfinite(leaf).all())
        if not finite:
            raise ValueError(f"the {name} holds NaN or infinity: shape {leaf.shape}.")
