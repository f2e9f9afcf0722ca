r"""What of the weights is the network's, and what is the choice of names for its units.

The units between two matrices $V_k$ (outer) and $W_k$ (inner) of a block may be put in
another order $\Pi_k$ and, for ReLU, given other scales, $D_k$ diagonal and positive
(for odd activations other signs): with $M_k = D_k \Pi_k$ the pair $V_k M_k^{-1}$,
$M_k W_k$, with $M_k b_k$ for a bias of the inner one, is the same block wherever the
activation satisfies $\varphi(M_k z) = M_k \varphi(z)$. For GELU that is order alone. A
norm layer between the two undoes scales of the rows of $W_k$ by itself: then the
product depends on these, and on order not. Layers that were drawn independently have
each an order of their own.
Then raw matrices are noise along depth, whatever the blocks are. The *products*

$$ V_k W_k , \qquad Q_k^\top K_k , \qquad O_k V_k $$

(for attention, of queries and keys, and of values and the map out, summed over heads)
are not changed, and stand in the basis of the stream, the same for all layers. They are
smooth where the blocks are, and noise of exponent one half, without a trend, where
their factors are independent noise; of trend and noise the product is the same. So a
pair votes by its product. It is not all that the block is: activations see more.

A lone matrix has $W_k^\top W_k$ for an invariant, which all orthogonal changes of its
units leave; if this has no noise where the matrix has, units may be out of order, or
they may not be: the verdict is then withheld.

Pairs are found by name, or by shapes where just one pair can be meant. Ours.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from .weights import Stack

Shapes = Mapping[str, tuple[int, ...]]
Layers = np.ndarray | Stack

_ROWS = 64
_TWO_LAYERS = (  # the names of the outer and of the inner matrix
    *(("outer", "inner"), ("fc2", "fc1"), ("linear2", "linear1"), ("lin2", "lin1")),
    *(("w2", "w1"), ("c_proj", "c_fc"), ("down_proj", "up_proj"), ("wo", "wi")),
    *(("output", "intermediate"), ("Dense_1", "Dense_0"), ("conv2", "conv1")),
    *(("proj_out", "proj_in"), ("dense_4h_to_h", "dense_h_to_4h")),
    *(("o_proj", "v_proj"), ("out_proj", "v_proj"), ("out_lin", "v_lin")),
    *(("to_out", "to_v"), ("out", "value"), ("output.dense", "self.value")),
)
_QUERIES = (
    *(("q_proj", "k_proj"), ("query", "key"), ("q_lin", "k_lin"), ("to_q", "to_k")),
    *(("wq", "wk"), ("q", "k")),
)
_FUSED = ("in_proj_weight", "qkv", "c_attn", "query_key_value", "Wqkv")


class Factor(NamedTuple):
    """A matrix, the axis of a layer that its hidden units are on, and which third of
    that axis is meant (of fused queries, keys and values).

    ```pycon
    >>> (pair,) = pairs({"fc1": (5, 8, 3), "fc2": (5, 3, 8)})
    >>> pair.outer, pair.inner.axis  # the eight units between them
    (Factor(name='fc2', axis=1, third=None), 0)
    ```
    """

    name: str
    axis: int
    third: int | None = None


class Pair(NamedTuple):
    outer: Factor
    inner: Factor

    @property
    def name(self) -> str:
        """Both, for the report."""
        names = [
            each.name + ("" if each.third is None else f"[{'qkv'[each.third]}]")
            for each in self
        ]
        return " @ ".join(names)


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a layer of an array `(depth, ...)` is more than a vector."""
    return sum(size > 1 for size in shape[1:]) >= 2


def pairs(shapes: Shapes) -> list[Pair]:
    """The pairs of matrices, each array in one at most (fused ones in several).

    ```pycon
    >>> shapes = {"key": (4, 2, 3), "query": (4, 2, 3), "bias": (4, 2)}
    >>> [pair.name for pair in pairs(shapes)]
    ['query @ key']
    ```
    """
    matrices = {name: shape for name, shape in shapes.items() if is_matrix(shape)}
    found: list[Pair] = []
    used: set[str] = set()
    for pair in (*_named(matrices), *_fused(matrices), *_shaped(matrices)):
        names = {pair.outer.name, pair.inner.name}
        whole = {f.name for f in pair if f.third is None}
        if not whole & used and len(names) + (pair.outer.third is not None) > 1:
            found.append(pair)
            used |= whole
    return found


def _named(shapes: Shapes) -> Iterator[Pair]:
    for table, both in ((_TWO_LAYERS, False), (_QUERIES, True)):
        for outer, inner in table:
            token = re.compile(rf"(?<![A-Za-z0-9_]){inner}(?![A-Za-z0-9_])")
            for name in shapes:
                other = token.sub(outer, name)
                if other == name or other not in shapes:
                    continue
                turned = _turned(name)
                axes = (int(turned), int(turned)) if both else (1 - turned, int(turned))
                pair = Pair(Factor(other, axes[0]), Factor(name, axes[1]))
                if _fits(shapes, pair):
                    yield pair


def _turned(name: str) -> bool:
    """Does this layer map rows, so that its outputs are on the last axis?"""
    return "kernel" in name or re.search(r"(?<![A-Za-z0-9])c_", name) is not None


def _fused(shapes: Shapes) -> Iterator[Pair]:
    for name, shape in shapes.items():
        if not any(part in name for part in _FUSED):
            continue
        axis = int(_turned(name))
        if len(shape) != 3 or shape[1 + axis] != 3 * shape[2 - axis]:
            continue
        yield Pair(Factor(name, axis, 0), Factor(name, axis, 1))
        start = re.split("|".join(_FUSED), name)[0]
        for other in shapes:
            same = other != name and other.startswith(start)
            if same and re.search(r"proj|dense|out", other[len(start) :]):
                pair = Pair(Factor(other, 1 - axis), Factor(name, axis, 2))
                if shapes[other][1:] == (shape[2 - axis],) * 2:
                    yield pair


def _shaped(shapes: Shapes) -> Iterator[Pair]:
    """One array of `(a, b)` and one of `(b, a)`, `a > b`, and no other of either."""
    kinds: dict[tuple, list[str]] = {}
    for name, shape in shapes.items():
        kind = (len(shape), shape[0], *sorted(shape[1:3]), *shape[3:])
        kinds.setdefault(kind, []).append(name)
    for names in kinds.values():
        sizes = [shapes[name][1:3] for name in names]
        if len(names) == 2 and sizes[0] == sizes[1][::-1] and len(set(sizes)) == 2:
            # the hidden units are the more numerous side
            axes = [int(size[1] > size[0]) for size in sizes]
            outer, inner = sorted(zip(names, axes, strict=True), key=lambda z: -z[1])
            yield Pair(Factor(*outer), Factor(*inner))


def _fits(shapes: Shapes, pair: Pair) -> bool:
    (outer, i, _), (inner, j, _) = pair
    a, b = shapes[outer], shapes[inner]
    return a[0] == b[0] and len(a) == len(b) and a[1 + i] == b[1 + j]


def product(weights: Mapping[str, Layers], pair: Pair) -> np.ndarray:
    """The product in every layer, `(depth, rows, columns)`, of 64 rows and columns at
    most, drawn at random but always the same.

    ```pycon
    >>> draws = np.random.default_rng(0).normal(size=(2, 4, 5, 5))
    >>> weights = dict(zip(("inner", "outer"), draws))
    >>> turned = {"inner": draws[0][:, ::-1], "outer": draws[1][..., ::-1]}
    >>> (pair,) = pairs({"inner": (4, 5, 5), "outer": (4, 5, 5)})
    >>> np.allclose(product(weights, pair), product(turned, pair))
    True
    ```
    """
    outer, inner = (_rows(weights[factor.name], factor) for factor in pair)
    return outer @ np.swapaxes(inner, 1, 2)


def _rows(array: Layers, factor: Factor) -> np.ndarray:
    """Some rows of a factor, its hidden units last: `(depth, rows, units)`."""
    found = []
    for layer in array:
        turned = np.moveaxis(layer, factor.axis, -1)
        if factor.third is not None:
            size = turned.shape[-1] // 3
            turned = turned[..., factor.third * size : (factor.third + 1) * size]
        count = math.prod(turned.shape[:-1])
        places = np.unravel_index(_few(count), turned.shape[:-1])
        found.append(turned[places].astype(np.float64))
    chosen = np.stack(found)
    # products of numbers up to one neither overflow nor vanish
    chosen /= max(float(chosen.max()), -float(chosen.min())) or 1.0
    return chosen


def _few(count: int) -> np.ndarray:
    if count <= _ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, _ROWS, replace=False))


def grams(array: Layers) -> Iterator[np.ndarray]:
    r"""$W_k^\top W_k$ and $W_k W_k^\top$, the entries off the diagonal, `(depth, n)`.

    Those on it have a mean, whatever the law of the weights. Of 64 columns at most.
    """
    for axis in (0, 1):
        rows = _rows(array, Factor("", axis))
        upper = np.triu_indices(rows.shape[1], 1)
        yield (rows @ np.swapaxes(rows, 1, 2))[:, *upper]
