r"""From the names of a checkpoint to stages: which arrays are the layers of what.

Layers that were saved one by one have a number in their names, set off by anything but
letters and digits: `encoder.layers.11.attn.weight`, `params/Block_3/Dense_0/kernel`.
What comes before it is a *prefix*, what comes after it with its shape a parameter, and
all parameters under one number a *block*. Blocks of one prefix with the same parameters
in the same shapes are a *stage*, in numeric order: `encoder.layers.#.attn.weight`.
Blocks that differ are kept apart, as kinds; one that is like no other is left out,
unless it only has more than the rest. The first number in a name counts, unless it
numbers stages: where no two blocks are alike, or where another number follows at once
(`blocks.0.3.conv.weight`, a list of lists), the next one does.

A *pattern* chooses by hand: `#` stands for the number of a layer, `*` for anything, and
the rest is taken literally, whatever follows it after a dot, say. So a name in a report
is a pattern. Without `#` it chooses arrays that are stacked, depth leading.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..files import printable
from .weights import Shape

_NUMBER = re.compile(r"(?<![^\W_])[0-9]{1,9}(?![^\W_])")
_WRAPPERS = re.compile(r"^module\.|(?:_orig_mod|_fsdp_wrapped_module)\.")


class Stage(NamedTuple):
    """Layers of one kind: for each parameter, by its name with `#` for the number, the
    names of its layers. `numbers` are those of the blocks.

    ```pycon
    >>> ([stage], left) = arrange({"a.10.w": (2,), "a.9.w": (2,), "head": (5,)})
    >>> stage.parameters, stage.numbers, left
    ({'a.#.w': ['a.9.w', 'a.10.w']}, [9, 10], ['head'])
    ```
    """

    name: str
    parameters: dict[str, list[str]]
    numbers: list[int]


class _Place(NamedTuple):
    prefix: str
    number: str
    rest: str


_Blocks = dict[int, dict[str, str]]  # number -> what follows it -> name


def arrange(
    shapes: Mapping[str, Shape], pattern: str | None = None
) -> tuple[list[Stage], list[str]]:
    """The stages, and the names that are in none.

    Raises `ValueError` for two names with the same number, such as `w.1` and `w.01`,
    and for a pattern with more than one `#`.
    """
    if pattern is None:
        stages = _descend(shapes, {name: 0 for name in shapes})
    else:
        find = _matcher(pattern)
        stages = []
        for prefix, blocks in _grouped(shapes, find).items():
            stages += _kinds(prefix, blocks, shapes)
    placed = {n for s in stages for names in s.parameters.values() for n in names}
    return stages, [name for name in shapes if name not in placed]


def chosen(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern without `#` chooses.

    ```pycon
    >>> names = ["encoder.fc", "encoder.fc.bias", "encoder.fc2", "decoder.fc"]
    >>> chosen(names, "encoder.fc")
    ['encoder.fc', 'encoder.fc.bias']
    ```
    """
    expression = re.compile(_expression(pattern), re.DOTALL)
    return [name for name in names if expression.fullmatch(name)]


def unwrapped(names: Iterable[str]) -> dict[str, str]:
    """Each name without what wrappers of PyTorch put before it, where none collide."""
    short = {name: _WRAPPERS.sub("", name) for name in names}
    distinct = len(set(short.values())) == len(short)
    return short if distinct else {name: name for name in short}


def numbered(names: Iterable[str]) -> list[str]:
    """The names that have a number of their own, or differ from another by a number
    within a word, as `fc1` and `fc2`."""
    names = list(names)
    words = [re.sub(r"\d+", "0", "".join(map(_digit, name))) for name in names]
    count = Counter(words)
    found = zip(names, words, strict=True)
    return [name for name, word in found if count[word] > 1 or _NUMBER.search(name)]


def _digit(letter: str) -> str:
    """Of a raised or circled digit the plain one; all else as it is."""
    plain = unicodedata.normalize("NFKC", letter)
    return plain if plain.isdigit() else letter


def _descend(shapes: Mapping[str, Shape], starts: dict[str, int]) -> list[Stage]:
    """The stages of names whose number is looked for from a place on."""

    def find(name: str) -> _Place | None:
        found = _NUMBER.search(name, starts[name])
        if found is None:
            return None
        return _Place(name[: found.start()], found[0], name[found.end() :])

    stages = []
    for prefix, blocks in _grouped(starts, find).items():
        kinds = [] if _lists(blocks) else _kinds(prefix, blocks, shapes)
        if 2 * sum(len(kind.numbers) for kind in kinds) > len(blocks):
            stages += kinds
        else:
            deeper = {
                name: len(name) - len(rest)
                for block in blocks.values()
                for rest, name in block.items()
            }
            stages += _descend(shapes, deeper)
    return stages


def _grouped(
    names: Iterable[str], find: Callable[[str], _Place | None]
) -> dict[str, _Blocks]:
    groups: dict[str, _Blocks] = defaultdict(lambda: defaultdict(dict))
    for name in names:
        if (place := find(name)) is None:
            continue
        block = groups[place.prefix][int(place.number)]
        if place.rest in block:
            pair = " and ".join(printable(n, 60) for n in (block[place.rest], name))
            raise ValueError(f"{pair} have the same number")
        block[place.rest] = name
    return groups


def _lists(blocks: _Blocks) -> bool:
    """Whether each block is a list of others: a number follows, and then more than the
    name of an array, as it would in a block that lists its linear layers."""
    rests = [rest for block in blocks.values() for rest in block]
    inner = [re.match(r"\W[0-9]+\W.*\W", rest) is not None for rest in rests]
    return all(inner)


def _kinds(prefix: str, blocks: _Blocks, shapes: Mapping[str, Shape]) -> list[Stage]:
    """The blocks of a prefix as stages of two layers or more, in numeric order."""
    kinds: dict[frozenset, list[int]] = defaultdict(list)
    for number in sorted(blocks):
        made_of = ((rest, shapes[name]) for rest, name in blocks[number].items())
        kinds[frozenset(made_of)].append(number)
    common = {kind: numbers for kind, numbers in kinds.items() if len(numbers) > 1}
    for kind, numbers in kinds.items():
        if len(numbers) == 1:
            fuller = [other for other in common if other < kind]
            if len(fuller) == 1:  # it has what the others have, and more
                common[fuller[0]] = sorted(common[fuller[0]] + numbers)
    stages = []
    for n, (kind, numbers) in enumerate(common.items(), 1):
        mark = f" (kind {n})" if len(common) > 1 else ""
        order = {rest for rest, _ in kind}
        parameters = {
            f"{prefix}#{rest}{mark}": [blocks[k][rest] for k in numbers]
            for rest in blocks[numbers[0]]
            if rest in order
        }
        stages.append(Stage(f"{prefix}#{mark}", parameters, numbers))
    return stages


def _matcher(pattern: str) -> Callable[[str], _Place | None]:
    before, mark, after = pattern.partition("#")
    if not mark or "#" in after:
        raise ValueError(f"a pattern has one #, for the number of a layer: {pattern}")
    expression = re.compile(
        f"({_expression(before, '')})([0-9]{{1,9}})(?![0-9])({_expression(after)})",
        re.DOTALL,
    )

    def find(name: str) -> _Place | None:
        found = expression.fullmatch(name)
        return found and _Place(*found.groups())

    return find


def _expression(pattern: str, end: str = r"(?:[\W_].*)?") -> str:
    pieces = [re.escape(piece) for piece in pattern.split("*")]
    return ".*?".join(pieces) + end
