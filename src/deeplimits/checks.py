"""The checks that several modules share."""

import math
from collections.abc import Callable, Iterable
from typing import Any

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


MOST_BYTES = 2**40  # a terabyte: no machine of this book has as much memory


def _require(
    config: Any, names: Iterable[str], wanted: str, holds: Callable[[Any], bool]
) -> None:
    """Raise `ValueError` where a field, or an entry of a tuple, is not as `wanted`."""
    for name in names:
        value = getattr(config, name)
        entries = value if isinstance(value, tuple) else (value,)
        if not entries:
            raise ValueError(f"{name} needs at least one entry: got none.")
        if not all(holds(entry) and entry < math.inf for entry in entries):
            raise ValueError(f"{name} must be {wanted}, and finite: got {value}.")


def require_positive(config: Any, *names: str) -> None:
    """Raise `ValueError` unless these fields, and all entries of tuples, are positive
    and finite. A tuple needs an entry."""
    _require(config, names, "positive", lambda value: value > 0)


def require_at_least(least: int | float, config: Any, *names: str) -> None:
    """As `require_positive`, for a smallest value."""
    _require(config, names, f"at least {least}", lambda value: value >= least)


def require_multiple(config: Any, whole: str, part: str) -> None:
    """Raise `ValueError` unless the field `whole` is a multiple of the field `part`."""
    values = getattr(config, whole), getattr(config, part)
    if values[0] % values[1]:
        raise ValueError(
            f"{whole} must be a multiple of {part}: got {values[0]} and {values[1]}."
        )


def require_choices(what: str, chosen: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ValueError` for a tuple of names that is empty or holds an unknown one."""
    if not (names := tuple(chosen)):
        raise ValueError(f"choose at least one {what}; known: {', '.join(known)}.")
    for name in names:
        require_known(what, name, known)


def require_room(nbytes: int) -> None:
    """Raise `ValueError` for arrays that no machine has room for."""
    if nbytes > MOST_BYTES:
        raise ValueError(
            f"this would take {nbytes:.2g} bytes of memory, more than "
            f"{MOST_BYTES:.2g}: choose smaller sizes."
        )
