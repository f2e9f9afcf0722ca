"""Figure 8: weights before and after training on handwritten digits."""

import dataclasses

import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ... import diagnosis
from ...checks import require_at_least, require_choices, require_positive
from ...residual import OuterLayer, ResNet
from ..registry import experiment
from ..runner import Point, Runner
from . import digits, setting

__all__ = ["TrainedWeights", "layers", "trained_weights"]


@dataclasses.dataclass(frozen=True)
class TrainedWeights:
    """Figure 8: the pairs of `laws` and `betas`.

    `data` is `mnist`, or `digits` for the small ones that are always there. The result
    holds the first `kept` rows and columns of every layer.
    """

    data: str = "mnist"
    laws: tuple[str, ...] = ("smooth", "uniform", "uniform")
    betas: tuple[float, ...] = (1.0, 1.0, 0.5)
    depth: int = 1000
    width: int = 30
    length_scale: float = 0.1
    epochs: int = 10
    batch: int = 128
    rate: float = 1e-3
    kept: int = 3

    def __post_init__(self):
        digits.require_trainable(self)
        require_at_least(diagnosis.FEWEST_LAYERS, self, "depth")
        require_choices("law", self.laws, setting.LAWS)
        require_at_least(0, self, "betas", "rate")
        if len(self.laws) != len(self.betas):
            raise ValueError(f"laws and betas must pair up: {self.laws}, {self.betas}.")
        setting.require_length_scale(self.length_scale)
        require_positive(self, "kept")
        if self.kept > self.width:
            raise ValueError(
                f"kept is at most the width {self.width}: got {self.kept}."
            )


@experiment(
    "marion2025/trained-weights",
    "Figure 8: weights against the layer, before and after training",
    TrainedWeights(),
    book={"data": "digits", "depth": 128, "epochs": 20},
    smoke={"data": "digits", "depth": 32, "width": 6, "epochs": 1},
)
def trained_weights(config: TrainedWeights, run: Runner) -> xr.Dataset:
    """Weights of res-1 before and after training, what `diagnosis` reads from all of
    them, how far all of them `moved` (root mean square, over that of the start), the
    losses, and the accuracy on the test images."""
    found = run.each("trained", {"case": range(len(config.laws))}, _trained)
    return found.drop_vars("case").assign_coords(
        law=("case", list(config.laws)),
        beta=("case", list(config.betas)),
        time=["before", "after"],
        bound=["value", "low", "high"],
    )


def _trained(config: TrainedWeights, point: Point, key: PRNGKeyArray):
    case = point["case"]
    weight_key, batch_key = jr.split(jr.fold_in(key, case))
    law = setting.law(config.laws[case], length_scale=config.length_scale)
    train, test = digits.read(config)
    model = digits.classifier(config, law, config.betas[case], train, key=weight_key)
    run = digits.fit(
        config, model, train, config.rate, key=batch_key, **point.resumable
    ).finished()
    start, end = weights = [layers(model), layers(run.model)]
    seen = [diagnosis.examine(each) for each in weights]
    exponents = [each.regularity for each in seen]
    unknown = (np.nan,) * 3  # weights that are all the same have no increments
    kept = slice(config.kept)
    return {
        "weight": (
            ("time", "layer", "row", "column"),
            np.stack([each[:, kept, kept] for each in weights]),
        ),
        "regularity": (
            ("time", "bound"),
            np.array([h.numbers if h else unknown for h in exponents]),
        ),
        "roughness": ("time", np.array([each.roughness for each in seen])),
        "moved": np.sqrt(np.mean((end - start) ** 2) / np.mean(start**2)),
        "accuracy": (
            "time",
            np.array([digits.accuracy_of(m, test) for m in (model, run.model)]),
        ),
        "loss": ("step", run.losses),
    }


def layers(model: ResNet) -> Float[np.ndarray, "depth q q"]:
    """The trained weights of all layers."""
    assert isinstance(model.block, OuterLayer)
    return np.asarray(model.block.outer)
