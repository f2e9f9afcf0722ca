"""One diagnosis for any network: its weights, what they show, the verdict, the report.

`diagnose([read(path)])` takes files, `diagnose([network])` a `ResNet`.
"""

from .examination import (
    ABSTAIN,
    BETWEEN,
    EXPLOSIVE,
    FEWEST_LAYERS,
    IDENTITY,
    ROUGH,
    SMOOTH,
    VERDICTS,
    Network,
    examine,
)
from .formats import read
from .report import figure, save_figure, table, to_json
from .verdict import Parameter, diagnose, overall
from .weights import Weights, as_weights, check

__all__ = [
    "ABSTAIN",
    "BETWEEN",
    "EXPLOSIVE",
    "FEWEST_LAYERS",
    "IDENTITY",
    "ROUGH",
    "SMOOTH",
    "VERDICTS",
    "Network",
    "Parameter",
    "Weights",
    "as_weights",
    "check",
    "diagnose",
    "examine",
    "figure",
    "overall",
    "read",
    "save_figure",
    "table",
    "to_json",
]
