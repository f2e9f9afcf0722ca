"""A plugin of pytest: to nbval, numbers that differ by rounding alone are the same.

Another processor adds in another order, and compiles to other instructions. So a number
of a record and its repetition may differ by two in the last digit that is shown, or by
one in ten thousand; whole numbers, by one in a thousand; and what is itself a rounding
error, by its size. Text, and how many numbers there are, must be equal, whatever the
spaces between them.

    pytest -p nbval_rounding --nbval ...    (with this folder on PYTHONPATH)
"""

import re

NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")
LAST_DIGITS = 2  # units in the last place that is shown
SHARE = 1e-4  # of a number with many digits
WHOLE = 1e-3  # of a whole number
ROUNDING = 1e-9  # numbers below it are errors of rounding


def near(new: str, old: str) -> bool:
    """Do two numbers differ by rounding alone, as the second is written?"""
    a, b = float(new), float(old)
    mantissa, _, exponent = old.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    if "." not in old and not exponent:
        return abs(a - b) <= WHOLE * abs(b)
    last = LAST_DIGITS * 10.0 ** (int(exponent or 0) - decimals)
    allowed = 1.01 * max(last, SHARE * abs(b))
    return abs(a - b) <= allowed or max(abs(a), abs(b)) < ROUNDING


def alike(new: str, old: str) -> bool:
    """Do two texts differ by rounding, and by spaces, alone?"""
    words = ["".join(NUMBER.sub("#", text).split()) for text in (new, old)]
    pairs = zip(NUMBER.findall(new), NUMBER.findall(old), strict=False)
    return words[0] == words[1] and all(near(*pair) for pair in pairs)


def settled(new, old):
    """The new output, with the old text where the two are alike."""
    if isinstance(new, str) and isinstance(old, str):
        return old if alike(new, old) else new
    if isinstance(new, dict) and isinstance(old, dict):
        return type(new)({k: settled(v, old.get(k)) for k, v in new.items()})
    if isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        return [settled(*pair) for pair in zip(new, old, strict=True)]
    return new


def pytest_configure():
    from nbval.plugin import IPyNbCell

    compare = IPyNbCell.compare_outputs

    def compare_outputs(cell, new, old, skip_compare=None):
        return compare(cell, settled(list(new), list(old)), old, skip_compare)

    IPyNbCell.compare_outputs = compare_outputs
