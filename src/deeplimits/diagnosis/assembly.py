"""What of a checkpoint is diagnosed: the arrays of a file or a model as `Weights`.

Left out, each time with a note: masks, index buffers and counters (booleans and whole
numbers), running means and the like, the state of an optimiser, types that cannot be
read, and what lies outside the layers. Refused: quantised weights, whose numbers mean
nothing without their scales.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..files import Stored, printable
from .stages import Stage, arrange, chosen, numbered, unwrapped
from .weights import Shape, Weights, is_float

_LONGEST_NAME = 1000
_BUFFERS = re.compile(
    r"(^|\W)(running_mean|running_var|moving_mean|moving_variance|batch_stats|"
    r"masked_bias|attn_mask|inv_freq)(\W|$)"
)
_OPTIMISER = re.compile(
    r"(^|\W)(optim|optimi[sz]ers?|opt_state|(optim|optimi[sz]er)_states?)(\W|$)|"
    r"\W((max_)?exp_avg(_sq)?|momentum_buffer)$"
)
_SCALES = re.compile(
    r"[\W_]?(qweight|qzeros|g_idx|SCB|absmax|quant_\w*|zero_point|weight_packed|"
    r"scales?|scale_inv|scales?_\d|zeros|blocks)$"
)
_CODES = re.compile(r"[IU]8|u?int[248]|F4|F6_.*|float[46]_.*")


def assemble(
    arrays: Mapping[str, Stored], source: str, pattern: str | None = None
) -> Weights:
    """The stages of all these arrays, or of those that a `pattern` of `stages` chooses.

    Raises `ValueError` where no array can be read, where weights are quantised, where
    names have numbers and yet make no stage, and where stacked arrays differ in depth.
    """
    arrays = _named(arrays, source)
    _require_no_scales(arrays, source)
    weights, notes = _sorted_out(arrays, source)
    shapes = {name: array.shape for name, array in weights.items()}
    stacked = "#" not in pattern if pattern is not None else not numbered(shapes)
    if stacked:
        names = list(shapes) if pattern is None else chosen(shapes, pattern)
        stages, left = [], [name for name in shapes if name not in set(names)]
    else:
        names = []
        stages, left = _arranged(shapes, source, pattern)
    if not (names or stages):
        raise ValueError(
            f"nothing in {source} matches {pattern}; it has {listed(shapes)}."
        )
    if left:
        notes.append(f"left out, outside the layers: {listed(left)}")
    layers: dict[str, Stored | tuple[Stored, ...]] = {k: weights[k] for k in names}
    if stacked:
        depth = _one_depth({name: shapes[name] for name in names}, source)
        notes.append(f"read as stacks of {depth} layers, one array a parameter")
        return Weights(layers, source=source, notes=notes)
    for stage in stages:
        notes += _odd_numbers(stage)
        for name, parts in stage.parameters.items():
            if name in layers:
                raise ValueError(
                    f"two stages of {source} have the name {printable(name, 60)}: "
                    "choose the layers of one with a pattern."
                )
            layers[name] = tuple(weights[part] for part in parts)
    return Weights(
        layers,
        source=source,
        stages={stage.name: stage.parameters for stage in stages},
        notes=notes,
    )


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few of many names, each cut in the middle where it is long."""
    names = list(names)
    short = [printable(name, 50) for name in names[:most]]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(short) + more


def _named(arrays: Mapping[str, Stored], source: str) -> dict[str, Stored]:
    if not arrays:
        raise ValueError(f"{source} holds no array.")
    names = {name: printable(name) for name in arrays}
    longest = max(map(len, names.values()))
    if longest > _LONGEST_NAME:
        raise ValueError(f"{source} has a name of {longest} characters.")
    if len(set(names.values())) < len(names):
        raise ValueError(f"two arrays of {source} have one name when it is printed.")
    short = unwrapped(names.values())
    return {short[names[name]]: array for name, array in arrays.items()}


def _require_no_scales(arrays: Mapping[str, Stored], source: str) -> None:
    """Raise `ValueError` for codes: whole numbers and floats of 8 bits that have scales
    beside them, and weights of fewer bits."""
    beside = set()
    for name, array in arrays.items():
        if array.kind.lower() != "bool" and _is_code(array.dtype):
            beside |= {name, re.sub(r"\W\w*$", "", name), name.rpartition("_")[0]}
        if _CODES.fullmatch(array.kind) and name.endswith(("weight", "kernel")):
            raise _quantised(name, source)
    for name in arrays:
        scale = _SCALES.search(name)
        if scale and name[: scale.start()] in beside:
            raise _quantised(name, source)


def _quantised(name: str, source: str) -> ValueError:
    return ValueError(
        f"{source} is quantised ({listed([name])}): its numbers are codes, not "
        "weights. Convert it to floats with the package that wrote it."
    )


def _is_code(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" or dtype.itemsize <= 1


def _sorted_out(
    arrays: Mapping[str, Stored], source: str
) -> tuple[dict[str, Stored], list[str]]:
    """The weights, and notes on what is none."""
    weights, notes = {}, []
    others: dict[str, list[str]] = {}
    for name, array in arrays.items():
        if _OPTIMISER.search(name):
            others.setdefault("state of the optimiser", []).append(name)
        elif _BUFFERS.search(name) or _is_mask(array.shape, name):
            others.setdefault("a buffer", []).append(name)
        elif not is_float(array.dtype):
            others.setdefault(f"type {array.kind}", []).append(name)
        elif 0 in array.shape:
            others.setdefault("empty", []).append(name)
        else:
            weights[name] = array
    notes = [f"left out, {reason}: {listed(n)}" for reason, n in others.items()]
    if not weights:
        why = printable("; ".join(notes), 200)
        raise ValueError(f"{source} has no array of real floats ({why}).")
    return weights, notes


def _is_mask(shape: Shape, name: str) -> bool:
    """The triangle that causal attention is masked with, saved as numbers."""
    square = len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return square and name.endswith(("bias", "mask"))


def _arranged(
    shapes: Mapping[str, Shape], source: str, pattern: str | None
) -> tuple[list[Stage], list[str]]:
    try:
        stages, left = arrange(shapes, pattern)
    except ValueError as error:
        raise ValueError(f"{source}: {error}.") from error
    if pattern is None and (not stages or _ambiguous(shapes, stages)):
        names = numbered(shapes)
        guess = re.sub("[0-9]+", "#", printable(names[0], 50), count=1)
        layers = f"layers with a pattern such as '{guess}', " if "#" in guess else ""
        raise ValueError(
            f"{listed(names, 2)} in {source}: layers that were saved one by one, or "
            f"stacks? Choose {layers}stacks with '*'."
        )
    return stages, left


def _ambiguous(shapes: Mapping[str, Shape], stages: Sequence[Stage]) -> bool:
    """Whether few numbered arrays could be stacks instead: all have one first size."""
    firsts = {shape[:1] for shape in shapes.values()}
    few = max(len(stage.numbers) for stage in stages) < 4
    ranks = [len(shape) for shape in shapes.values()]
    return few and len(firsts) == 1 and min(ranks) >= 2 and max(ranks) >= 3


def _one_depth(shapes: Mapping[str, Shape], source: str) -> int:
    for name, shape in shapes.items():
        if len(shape) < 1 or shape[0] < 2:
            raise ValueError(
                f"{listed([name])} in {source} has fewer than two layers on its first "
                f"axis: {shape}."
            )
    depths = {f"{name} {shape[0]}": shape[0] for name, shape in shapes.items()}
    if len(set(depths.values())) > 1:
        differ = {depth: name for name, depth in depths.items()}
        raise ValueError(
            f"the arrays of {source} differ in depth, their first size: "
            f"{listed(differ.values())}. Choose some with a pattern."
        )
    return next(iter(depths.values()))


def _odd_numbers(stage: Stage) -> list[str]:
    """A note where the layers are not numbered through."""
    first, last = stage.numbers[0], stage.numbers[-1]
    if len(stage.numbers) == last - first + 1:
        return []
    shown = ", ".join(map(str, stage.numbers[:3]))
    return [f"{stage.name}: {len(stage.numbers)} layers, numbers {shown} … {last}"]
