"""One diagnosis for any network: its weights, what they show, the verdict, the report.

`diagnose([read(path)])` takes files, `diagnose([of(model)])` a live model, and
`diagnose([network])` a `ResNet` or a dictionary of arrays with depth leading.
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
from .formats import read
from .frameworks import of
from .report import figure, save_figure, table, to_json
from .verdict import Parameter, decision, diagnose, overall, pooled
from .weights import Weights

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
    "decision",
    "diagnose",
    "examine",
    "figure",
    "of",
    "overall",
    "pooled",
    "read",
    "save_figure",
    "table",
    "to_json",
]
