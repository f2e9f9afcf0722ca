r"""The weights of a network: stages of layers, each parameter with depth leading.

A network is a dictionary of arrays $Z \in \mathbb R^{L \times \dots}$, one for each
parameter, or a `Weights`, which holds the same without holding it in memory: the arrays
of a checkpoint are read when they are asked for, one at a time.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import ml_dtypes
import numpy as np

from ..files import MOST_BYTES, Stored

Shape = tuple[int, ...]


class Stack:
    """The layers of one parameter, `(depth, ...)`, read one by one whenever one goes
    through them: none is kept.

    ```pycon
    >>> stack = Stack(lambda: iter(np.eye(3)), (3, 3), np.dtype(float))
    >>> len(stack), [layer.tolist() for layer in stack[::2]]
    (3, [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    ```
    """

    def __init__(
        self, read: Callable[[], Iterator[np.ndarray]], shape: Shape, dtype: np.dtype
    ):
        """`read` begins at the first layer each time."""
        self._read, self.shape, self.dtype = read, shape, dtype

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._read()

    def __getitem__(self, which: slice) -> "Stack":
        places = range(len(self))[which]
        parts = places.start, places.stop, places.step
        shape = (len(places), *self.shape[1:])
        return Stack(lambda: itertools.islice(self, *parts), shape, self.dtype)


class Weights(Mapping):  # of str to np.ndarray; said so, it would be read to be checked
    r"""The parameters of a network by name, each $(L, \dots)$, read when asked for.

    `weights[name]` reads the layers of one parameter into one array, and keeps nothing;
    `layers(name)` gives them one by one, so that a single layer is in memory. `shapes`
    has the shapes without reading. `stages` names the parameters of each stage: layers
    that follow each other and have the same parameters, all of them of the same depth.
    `notes` says, a line each, what was left out and how names were understood. Both
    ways of reading raise `ValueError` for NaN, infinity and damaged bytes.

    ```pycon
    >>> ones = Stored((2,), np.dtype(float), lambda: np.ones(2), "float64")
    >>> weights = Weights({"bias": (ones, ones, ones)}, source="a model")
    >>> weights.shapes, weights["bias"].sum().item(), weights.stages
    ({'bias': (3, 2)}, 6.0, {'': ('bias',)})
    ```
    """

    def __init__(
        self,
        layers: Mapping[str, Stored | tuple[Stored, ...]],
        *,
        source: str = "the network",
        stages: Mapping[str, Iterable[str]] | None = None,
        notes: Iterable[str] = (),
    ):
        """`layers` has for each parameter one array, depth leading, or the layers; all
        of them are one stage unless `stages` says which belong together."""
        self.source = source
        self.stages = {k: tuple(v) for k, v in (stages or {"": layers}).items()}
        self.notes = tuple(notes)
        self._layers = dict(layers)
        self.shapes = {name: _shape(found) for name, found in layers.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        found, dtype = self._layers[name], self._dtype(name)
        nbytes = math.prod((*self.shapes[name], dtype.itemsize))
        if nbytes > MOST_BYTES:
            raise ValueError(
                f"{name} in {self.source} takes {nbytes:.2g} bytes, more than the "
                f"{MOST_BYTES:.2g} that one array may."
            )
        if isinstance(found, Stored):
            return self._sound(name, found)
        stack = np.empty(self.shapes[name], dtype)
        for k, each in enumerate(found):
            stack[k] = self._sound(name, each)
        return stack

    def _dtype(self, name: str) -> np.dtype:
        found = self._layers[name]
        dtypes = {z.dtype for z in ([found] if isinstance(found, Stored) else found)}
        return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Weights({self.shapes})"

    def layers(self, name: str) -> Iterator[np.ndarray]:
        """The layers of one parameter, in their order."""
        found = self._layers[name]
        if isinstance(found, Stored):
            yield from self._sound(name, found)
            return
        for each in found:
            yield self._sound(name, each)

    def stack(self, name: str) -> Stack:
        """The same, to go through several times."""
        read = functools.partial(self.layers, name)
        return Stack(read, self.shapes[name], self._dtype(name))

    def epsilon(self, name: str) -> float:
        """That of the coarsest type among the layers of one parameter."""
        found = self._layers[name]
        layers = [found] if isinstance(found, Stored) else found
        return max(epsilon(z.dtype) for z in layers)

    def _sound(self, name: str, stored: Stored) -> np.ndarray:
        array = stored.load()
        if array.dtype.itemsize > 8:  # nothing is computed in more digits
            with np.errstate(over="ignore"):  # what is too large is refused below
                array = array.astype(np.float64)
        _require_finite(array, f"{name} in {self.source}")
        return array


def check_array(array: np.ndarray | Stack, name: str) -> None:
    """Raise `ValueError` where an array cannot be the layers of one parameter.

    The layers of a `Stack` are checked as they are read.
    """
    if not hasattr(array, "dtype"):
        raise ValueError(f"{name} is no array but a {type(array).__name__}.")
    if np.ma.is_masked(array):
        raise ValueError(f"{name} is masked, and its mask would be lost.")
    if array.dtype.kind not in "iu" and not is_float(array.dtype):
        raise ValueError(f"{name} is not numeric: it has type {array.dtype}.")
    if array.ndim < 1 or array.shape[0] < 2:
        raise ValueError(
            f"{name} has fewer than two layers on its first axis: {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"{name} is empty: it has shape {array.shape}.")
    if not isinstance(array, Stack):
        _require_finite(array, name)


def is_float(dtype: np.dtype) -> bool:
    """Whether numbers of this type are real floats, those of `ml_dtypes` among them."""
    if dtype.kind in "fc":
        return dtype.kind == "f"
    try:
        return bool(ml_dtypes.finfo(dtype).bits >= 8)
    except (TypeError, ValueError):
        return False


def epsilon(dtype: np.dtype) -> float:
    """The distance from one to the next number of a type; zero for integers."""
    return 0.0 if dtype.kind in "iu" else float(ml_dtypes.finfo(dtype).eps)


def _require_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind in "iu":
        return
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity.")


def _shape(found: Stored | tuple[Stored, ...]) -> Shape:
    if isinstance(found, Stored):
        return found.shape
    return (len(found), *found[0].shape)
