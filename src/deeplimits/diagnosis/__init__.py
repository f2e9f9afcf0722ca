"""One diagnosis for any network: its weights, what they show, the verdict, the report.

`diagnose([read(path)])` takes files, `diagnose([of(model)])` a live model, and
`diagnose([network])` a `ResNet` or a dictionary of arrays with depth leading.
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
from .frameworks import of
from .report import figure, save_figure, table, to_json
from .verdict import Parameter, diagnose, overall
from .weights import Weights

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
    "diagnose",
    "examine",
    "figure",
    "of",
    "overall",
    "read",
    "save_figure",
    "table",
    "to_json",
]
