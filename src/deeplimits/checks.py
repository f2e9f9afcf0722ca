"""The checks that several modules share: what comes in is named where it is wrong.

Arrays are looked into (for NaN, for their order) only where they have values: inside
a transformation of JAX, a shape and a type are all there is to check.
"""

import contextlib
import difflib
import math
import numbers
import operator
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_NAMED = 12  # of the names that are known: a message is one line

# JAX is imported where it is used, so that who checks a name alone (the command line)
# need not wait for it.


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise `ValueError` for a name that is not among the known ones; of many, those
    that are most like it are named."""
    if name not in (names := list(known)):
        more = len(names) - _NAMED
        if more > 1:
            names = difflib.get_close_matches(str(name), names, _NAMED, 0.0)
            names.append(f"{more} more")
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(names)}.")


def require_whole(least: int = 1, **values: Any) -> None:
    """Raise `ValueError` for a value that is no whole number, or under the `least`."""
    for name, value in values.items():
        if not is_whole(value, least):
            raise ValueError(
                f"{name} must be a whole number of at least {least}: got {value}."
            )


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether `value` counts something, of which there is at least the `least`."""
    try:
        return operator.index(value) >= least
    except TypeError:
        return False


def require_within(interval: str, **values: Any) -> None:
    """Raise `ValueError` for a value outside an `interval` written as "[0, inf)".

    NaN lies in none, and neither does what is no real number. What JAX traces has no
    value, and passes.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = operator.le if interval[0] == "[" else operator.lt
    below = operator.le if interval[-1] == "]" else operator.lt
    for name, value in values.items():
        if _traced(value):
            continue
        number = as_number(name, value)
        if not (above(low, number) and below(number, high)):
            raise ValueError(f"{name} must lie in {interval}: got {value}.")


def as_number(name: str, value: Any) -> float:
    """A real number, or NaN; `ValueError` for what is none, a word among them."""
    try:
        if isinstance(value, str | bytes):  # float("1") would do
            raise TypeError("a text")
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a real number: got {value!r}.") from error


def as_scalar(name: str, value: Any, dtype: Any, *, within: str) -> Any:
    """One number as a JAX array of that precision, in which it lies in the interval."""
    import jax.numpy as jnp

    with np.errstate(over="ignore"):  # what is too large is refused below
        array = as_real(name, value, jnp.asarray).astype(dtype)
    require_shape(name, array, ())
    try:
        require_within(within, **{name: array})
    except ValueError as error:
        raise ValueError(
            f"{name} must lie in {within} in {array.dtype}: got {value}."
        ) from error
    return array


def require_sizes(**shapes: Any) -> None:
    """Raise `ValueError` for a shape that is not made of positive whole numbers."""
    for name, shape in shapes.items():
        if not isinstance(shape, Iterable) or not all(map(is_whole, shape)):
            raise ValueError(
                f"{name} must be sizes, positive whole numbers: got {shape!r}."
            )


def require_level(level: float) -> None:
    """Raise `ValueError` for a level of confidence that is no probability."""
    require_within("(0, 1)", level=level)


def as_floats(
    name: str, array: Any, *, shape: tuple[int | None, ...] | None = None
) -> Any:
    """`array` as floats of JAX: whole numbers are converted, floats stay as they are.

    Raises `ValueError` for what is no array of real numbers, for an empty one, and for
    another shape than `shape`, where None stands for any size.
    """
    import jax.numpy as jnp

    array = as_real(name, array, jnp.asarray)
    require_shape(name, array, shape)
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array if floats else array.astype(float)


def as_singles(
    name: str, array: Any, *, shape: tuple[int | None, ...] | None = None
) -> Any:
    """`as_floats`, where half precision has too few digits: of it float32 is made."""
    import jax.numpy as jnp

    floats = as_floats(name, array, shape=shape)
    return floats if jnp.finfo(floats.dtype).bits >= 32 else floats.astype("float32")


def as_doubles(
    name: str, array: Any, *, shape: tuple[int | None, ...] | None = None
) -> np.ndarray:
    """`array` in float64 of NumPy, with the errors of `as_floats`."""
    array = as_real(name, array, np.asarray)
    require_shape(name, array, shape)
    return array.astype(np.float64)


def as_real(name: str, array: Any, convert: Callable[[Any], Any]) -> Any:
    """What `convert` (of NumPy or JAX) makes of it; `ValueError` for what is no array
    of real numbers, and for a masked one, whose mask would be lost."""
    if any(map(np.ma.is_masked, array if isinstance(array, list | tuple) else [array])):
        raise ValueError(f"{name} must not be masked: take what is not, or fill it.")
    try:
        converted = convert(array)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be an array of numbers: got {type(array).__name__}."
        ) from error
    if not converted.dtype.name.startswith(("bool", "int", "uint", "float", "bfloat")):
        raise ValueError(f"{name} must hold real numbers: got {converted.dtype}.")
    return converted


def require_floats(name: str, array: Any) -> None:
    """Raise `ValueError` for weights that are no array of floats, which alone can be
    trained."""
    import jax.numpy as jnp

    if not hasattr(array, "dtype"):
        raise ValueError(f"{name} must be an array: got {type(array).__name__}.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be floats: got {array.dtype}.")


def require_shape(
    name: str, array: Any, shape: tuple[int | None, ...] | None = None
) -> None:
    """Raise `ValueError` for an empty array, and for another shape than `shape`, where
    None stands for any size."""
    found = np.shape(array)
    if 0 in found:
        raise ValueError(f"{name} is empty: it has shape {found}.")
    if shape is None:
        return
    sizes = zip(shape, found, strict=False)
    if len(found) != len(shape) or any(a not in (None, b) for a, b in sizes):
        wanted = f"({', '.join('any' if a is None else str(a) for a in shape)})"
        raise ValueError(f"{name} must have shape {wanted}: got {found}.")


def require_finite(name: str, tree: Any) -> None:
    """Raise `ValueError` where an array of `tree`, a pytree, holds NaN or infinity."""
    import equinox as eqx
    import jax

    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)):
        if not holds(lambda values: np.isfinite(values).all(), leaf):
            raise ValueError(f"the {name} holds NaN or infinity: shape {leaf.shape}.")


def require_times(name: str, times: Any, end: float) -> None:
    """Raise `ValueError` for times that do not increase from 0 or later to `end`."""

    def increase(times):
        inside = times[0] >= 0 and times[-1] <= end and np.isfinite(times).all()
        return inside and (np.diff(times) >= 0).all()

    if not holds(increase, times):
        raise ValueError(
            f"{name} must increase within [0, {end:g}], without NaN: got "
            f"{np.asarray(times).tolist()}."
        )


def holds(condition: Callable[[np.ndarray], Any], array: Any) -> bool:
    """The condition on an array, or true where the array has no values yet.

    NumPy looks into it: JAX would compile a program for each shape.
    """
    return _traced(array) or bool(condition(np.asarray(array)))


def _traced(value: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


# ------------------------------------------------------- sizes of an experiment

MOST_BYTES = 2**40  # a terabyte: no machine of this book has as much memory


def _require(
    config: Any, names: Iterable[str], wanted: str, holds: Callable[[Any], bool]
) -> None:
    """Raise `ValueError` where a field, or an entry of a tuple, is not as `wanted`."""
    require_kinds(config)
    for name in names:
        value = getattr(config, name)
        entries = value if isinstance(value, tuple | list) else (value,)
        if not entries:
            raise ValueError(f"{name} needs at least one entry: got none.")
        if not all(holds(entry) and entry < math.inf for entry in entries):
            raise ValueError(f"{name} must be {wanted}, and finite: got {value}.")


def require_kinds(config: Any) -> None:
    """Raise `ValueError` where a field is not of the kind that its class declares."""
    for name, kind in typing.get_type_hints(type(config)).items():
        if not _is_a(value := getattr(config, name), kind):
            shown = kind.__name__ if kind in (int, float, str) else kind
            raise ValueError(f"{name} must be of the kind {shown}: got {value}.")


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a kind made of tuples, numbers, names, and unions of them;
    a whole number is also a float, and what is declared otherwise is not looked at."""
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(kinds) == len(value) and all(map(_is_a, value, kinds))
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, part) for part in parts)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


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
    if isinstance(chosen, str) or not isinstance(chosen, Iterable):
        raise ValueError(f"choose from a tuple of names of {what}s: got {chosen!r}.")
    if not (names := tuple(chosen)):
        raise ValueError(f"choose at least one {what}; known: {', '.join(known)}.")
    for name in names:
        require_known(what, name, known)


def require_room(nbytes: int) -> None:
    """Raise `ValueError` for arrays that no machine has room for; or, within
    `on_this_machine`, that this one has not."""
    if nbytes > (most := _most_bytes[-1]):
        raise ValueError(
            f"this would take {nbytes:.2g} bytes of memory, more than {most:.2g}: "
            "choose smaller sizes."
        )


_most_bytes = [MOST_BYTES]


@contextlib.contextmanager
def on_this_machine() -> Iterator[None]:
    """Let `require_room` refuse what is more than this process may have.

    Not for good: presets belong to the experiment, and must be read anywhere.
    """
    _most_bytes.append(min(MOST_BYTES, memory()))
    try:
        yield
    finally:
        _most_bytes.pop()


def memory() -> int:
    """The bytes of memory of this machine, or of the share that this process has."""
    limits = [MOST_BYTES]
    if hasattr(os, "sysconf"):  # not on Windows
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text(encoding="ascii")))
    return min(limit for limit in limits if limit > 0)
