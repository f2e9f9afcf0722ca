"""How long a search may take."""

from typing import Any

from ...checks import require_positive

MOST_ITERATIONS = 10**6


def require_iterations(config: Any) -> None:
    """`ValueError` unless the field `iterations` is positive, and none that never
    ends."""
    require_positive(config, "iterations")
    if config.iterations > MOST_ITERATIONS:
        raise ValueError(
            f"iterations must be at most {MOST_ITERATIONS:,}: got {config.iterations}."
        )
