"""`check(name, value)`: a friendly word on an exercise, with no server to ask.

The answers stand in `exercises.yml` beside this module, so that they travel with the
package. They are not secret: the folded solutions are on the same page.
"""

from importlib.resources import files
from typing import Any

import numpy as np
import yaml


def answers() -> dict[str, dict[str, Any]]:
    """All exercises that can be checked: answer, rtol, atol, hint.

    ```pycon
    >>> answers()["wdig-time"]["answer"]  # twenty points, rate 0.005
    0.1
    ```
    """
    text = files("deeplimits").joinpath("exercises.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text) or {}


def _entry(name: str) -> dict[str, Any]:
    known = answers()
    if name not in known:
        raise ValueError(f"no exercise {name!r}; the known ones are {sorted(known)}.")
    return known[name]


def is_right(name: str, value: Any) -> bool:
    r"""Whether $|v - a| \le \text{atol} + \text{rtol}\,|a|$ in every entry."""
    entry = _entry(name)
    answer, value = np.asarray(entry["answer"]), np.asarray(value)
    if value.dtype.kind not in "biuf":
        raise ValueError(f"exercise {name!r} wants numbers: got {value.tolist()!r}.")
    if value.shape != answer.shape:
        raise ValueError(
            f"exercise {name!r} wants shape {answer.shape}, got {value.shape}."
        )
    rtol, atol = entry.get("rtol", 1e-2), entry.get("atol", 0.0)
    return bool(np.allclose(value, answer, rtol=rtol, atol=atol))


def check(name: str, value: Any) -> None:
    """Say whether `value` answers the exercise, and give the hint if not."""
    if is_right(name, value):
        print(f"{name}: right.")
    else:
        print(f"{name}: not yet. Hint: {_entry(name)['hint']}")
