"""Laws of data as measures: how a flow carries them, and how far apart they are."""

from .distances import (
    between_laws,
    binomial_deviation,
    expected_w1,
    sliced,
    wasserstein,
)
from .entropic import Entropic, sinkhorn, sinkhorn_divergence
from .laws import (
    AbstractMeasure,
    Affine,
    Empirical,
    Gaussian,
    Histogram,
    affine_flow,
)

__all__ = [
    "AbstractMeasure",
    "Affine",
    "Empirical",
    "Entropic",
    "Gaussian",
    "Histogram",
    "affine_flow",
    "between_laws",
    "binomial_deviation",
    "expected_w1",
    "sinkhorn",
    "sinkhorn_divergence",
    "sliced",
    "wasserstein",
]
