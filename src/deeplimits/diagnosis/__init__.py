"""One diagnosis for any network: its weights, what they show, the verdict, the report.

`diagnose([read(path)])` takes files, `diagnose([network])` a `ResNet`.
"""

from .examination import (
    ABSTAIN,
    AVERAGED,
    BETWEEN,
    DRIFT,
    EXPLOSIVE,
    FEWEST_LAYERS,
    IDENTITY,
    MIXED,
    ROUGH,
    SMOOTH,
    VERDICTS,
    Network,
    examine,
)
from .report import figure, save_figure, table, to_json
from .verdict import Parameter, decision, diagnose, overall, pooled
from .weights import Weights, as_weights, check, read

__all__ = [
    "ABSTAIN",
    "AVERAGED",
    "BETWEEN",
    "DRIFT",
    "EXPLOSIVE",
    "FEWEST_LAYERS",
    "IDENTITY",
    "MIXED",
    "ROUGH",
    "SMOOTH",
    "VERDICTS",
    "Network",
    "Parameter",
    "Weights",
    "as_weights",
    "check",
    "decision",
    "diagnose",
    "examine",
    "figure",
    "overall",
    "pooled",
    "read",
    "save_figure",
    "table",
    "to_json",
]
