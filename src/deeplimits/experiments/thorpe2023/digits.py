"""Two handwritten digits: the same law on data that nobody has drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import datasets
from ...checks import require_at_least, require_positive, require_room
from ...variational import Parameters, Problem, multi_start, one_layer
from ..registry import experiment
from ..runner import Point, Runner
from .budget import require_iterations
from .rate import follow, require_doubling

__all__ = ["Digits", "features", "minima_of_digits"]

PIXELS = 64


@dataclasses.dataclass(frozen=True)
class Digits:
    r"""The digits of `classes` in their first `widths` principal components.

    One setting for each pair of `widths` and `alphas`. Of all images of the two, the
    first `train` of a random order are trained on, the others are the test.
    """

    classes: tuple[int, ...] = (3, 8)
    widths: tuple[int, ...] = (2, 2, 4)
    alphas: tuple[float, ...] = (0.3, 0.05, 0.3)
    train: int = 240
    starts: int = 12
    scale: float = 1.0
    depths: tuple[int, ...] = (16, 32, 64, 128, 256)
    pieces: tuple[int, ...] = (32, 64, 128)
    flows: tuple[int, ...] = (16, 32)
    tolerance: float = 1e-7
    iterations: int = 2000

    def __post_init__(self):
        require_positive(self, "widths", "alphas", "train", "starts", "scale")
        require_positive(self, "tolerance")
        require_iterations(self)
        require_at_least(4, self, "depths", "pieces", "flows")
        nodes = max(*self.depths, *self.pieces, *self.flows)
        require_room(8 * max(self.train, self.starts) * PIXELS * nodes)
        require_doubling(self)
        if len(self.widths) != len(self.alphas):
            raise ValueError(
                f"each width needs an alpha: got {self.widths} and {self.alphas}."
            )
        if max(self.widths) > PIXELS:
            raise ValueError(f"widths must be at most {PIXELS}: got {self.widths}.")
        if len(set(self.classes)) != 2 or not set(self.classes) <= set(range(10)):
            raise ValueError(
                f"classes must be two digits, each at most 9: got {self.classes}."
            )
        if not max(self.widths) <= self.train <= 340:
            raise ValueError(
                "train must be at least the width and at most 340 images: got "
                f"{self.train}."
            )


@experiment(
    "thorpe2023/digits",
    "minima along depth for two handwritten digits, their limit and their accuracy",
    Digits(),
    book={"widths": (2,), "alphas": (0.3,)},
    smoke={
        "widths": (2,),
        "alphas": (0.3,),
        "train": 40,
        "starts": 1,
        "depths": (4, 8),
        "pieces": (4, 8),
        "flows": (4, 8),
        "iterations": 100,
    },
)
def minima_of_digits(config: Digits, run: Runner) -> xr.Dataset:
    """What `follow` finds along the lowest branch of each setting, `met` in so many of
    the starts; and the shares of images on the right side, for the deepest network and
    for logistic regression on the same features."""
    settings = range(len(config.widths))
    with jax.enable_x64(True):
        found = run.each("digits", {"setting": settings}, _setting)
    return found.assign_coords(
        depth=list(config.depths),
        piece=list(config.pieces),
        flow_piece=list(config.flows),
        width=("setting", list(config.widths)),
        alpha=("setting", list(config.alphas)),
    ).assign_attrs(dtype="float64")


def features(
    config: Digits, width: int, *, key: PRNGKeyArray
) -> tuple[
    tuple[Float[np.ndarray, "train width"], Float[np.ndarray, " train"]],
    tuple[Float[np.ndarray, "test width"], Float[np.ndarray, " test"]],
]:
    """Principal components and labels $1$ and $-1$ (first class, second class).

    Axes, mean and scale are those of the training images. One factor for all components
    makes their mean square 1.
    """
    parts = datasets.digits(key=key)
    images, labels = (np.concatenate(list(each)) for each in zip(*parts, strict=True))
    chosen = np.isin(labels, config.classes)
    x = images[chosen].reshape(-1, PIXELS).astype(np.float64)
    y = np.where(labels[chosen] == config.classes[0], 1.0, -1.0)
    x = x - x[: config.train].mean(axis=0)
    _, _, axes = np.linalg.svd(x[: config.train], full_matrices=False)
    x = x @ axes[:width].T
    x /= np.sqrt(np.mean(x[: config.train] ** 2))
    return (x[: config.train], y[: config.train]), (
        x[config.train :],
        y[config.train :],
    )


def _setting(config: Digits, point: Point, key: PRNGKeyArray):
    """One width and one alpha."""
    from sklearn.linear_model import LogisticRegression  # a second to import

    width, alpha = (s[point["setting"]] for s in (config.widths, config.alphas))
    data_key, start_key = jax.random.split(key)
    train, test = features(config, width, key=data_key)
    problem = Problem(*map(jnp.asarray, train), alpha=alpha)
    search = multi_start(
        problem,
        one_layer(config.depths[0], width),
        starts=config.starts,
        scale=config.scale,
        key=start_key,
        tolerance=1e-4,
        same=1e-5,
        max_iterations=config.iterations,
    )
    found, networks = follow(problem, search.lowest.parameters, config)
    linear = LogisticRegression().fit(*train)
    last = networks[-1].parameters
    return {
        **found,
        "met": float(search.counts[0]),
        "minima": float(len(search.minima)),
        **{
            f"{name}_{part}": float(np.mean(np.sign(predicted) == y))
            for part, (x, y) in (("train", train), ("test", test))
            for name, predicted in (
                ("network", _outputs(last, jnp.asarray(x))),
                ("linear", linear.decision_function(x)),
            )
        },
    }


def _outputs(network: Parameters, x: Float[Array, "n width"]) -> np.ndarray:
    return np.asarray(jax.vmap(network.network)(x))[:, 0]
