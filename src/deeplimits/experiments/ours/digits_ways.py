"""Four ways to train on two digits, and what the diagnosis says of the layers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Float, PRNGKeyArray

from ... import diagnosis, training
from ...checks import require_at_least, require_positive, require_room
from ...residual import OneLayer, ResNet
from ...variational import (
    Affine,
    Parameters,
    Problem,
    minimise,
    multi_start,
    one_layer,
    refined,
)
from ..registry import experiment
from ..runner import Point, Runner
from ..thorpe2023 import digits
from ..thorpe2023.budget import require_iterations
from ..thorpe2023.setting import DIMENSIONS, arrays
from . import setting

__all__ = [
    "BETA",
    "LIMITS",
    "WAYS",
    "DigitsWays",
    "diagnoses_by_way",
    "says",
    "trend_size",
]

# Exponent of the factor, by way; and the limit that the sums S and Q of chapter 12
# stand for, with the answers of the diagnosis, of one depth, that say the same.
BETA = {"minimum": 1.0, "flow": 1.0, "Adam": 0.0, "random": 0.5}
WAYS = tuple(BETA)
LIMITS = {
    "minimum": (diagnosis.SMOOTH, diagnosis.SMOOTH),
    "flow": (diagnosis.SMOOTH, diagnosis.SMOOTH),
    "Adam": (diagnosis.MIXED, diagnosis.DRIFT),
    "random": (diagnosis.ROUGH, diagnosis.ROUGH),
}


@dataclasses.dataclass(frozen=True)
class DigitsWays:
    r"""The digits 3 and 8 in `width` principal components, `train` images of them.

    The loss is the mean of $|\tanh z - y|^2$: the time `flow_rate` $\times$
    `flow_steps`, divided by twenty, is that of `ours/four-ways`, whose loss is the sum
    over twenty points.
    """

    depths: tuple[int, ...] = (8, 16, 32, 64, 128)
    seeds: int = 6
    width: int = 4
    train: int = 240
    alpha: float = 0.3
    starts: int = 12
    iterations: int = 2000
    flow_rate: float = 0.1
    flow_steps: int = 200
    adam_rate: float = 0.1
    adam_steps: int = 1000

    def __post_init__(self):
        require_positive(self, *(field.name for field in dataclasses.fields(self)))
        require_at_least(8, self, "depths")
        require_iterations(self)
        if any(max(self.depths) % L for L in self.depths):
            raise ValueError(f"depths must divide the deepest: got {self.depths}.")
        digits.Digits(widths=(self.width,), alphas=(self.alpha,), train=self.train)
        for name in ("starts", "flow_steps", "adam_steps"):
            if (count := getattr(self, name)) > 10**6:
                raise ValueError(f"{name} must be at most {10**6}: got {count}.")
        entries = self.width * (self.width + 1)
        require_room(400 * self.seeds * entries * max(self.depths))

    def data(self, *, key: PRNGKeyArray):
        """Features and labels of the images that are trained on, in float64."""
        return digits.features(digits.Digits(train=self.train), self.width, key=key)[0]

    def rule(self, way: str, depth: int) -> optax.GradientTransformation:
        """The optimiser of a way at a depth."""
        if way == "flow":
            return optax.chain(training.depth_factor(), optax.sgd(self.flow_rate))
        return optax.adam(self.adam_rate / depth)


@experiment(
    "ours/digits-ways",
    "two digits, trained in four ways: sum, noise and diagnosis of the layers",
    DigitsWays(),
    book={"depths": (8, 16, 32), "seeds": 2, "starts": 4},
    smoke={
        "depths": (8, 16),
        "seeds": 2,
        "train": 40,
        "starts": 1,
        "iterations": 100,
        "flow_steps": 10,
        "adam_steps": 10,
    },
)
def diagnoses_by_way(config: DigitsWays, run: Runner) -> xr.Dataset:
    r"""Of each network, which is one way and seed at all depths: with the factor, of
    the layers $Z_k$, the `sum` $S$ (for Adam, of what training adds) and the `noise`
    $Q$ of chapter 12; the `loss` and the share of training images that are told
    `right`; what the diagnosis says, as a place in `diagnosis.VERDICTS`, of `one`
    depth, from the weights alone, and of `all` depths with the factor. The minimum is
    one network, without seeds. Of Adam, the `trend` of `trend_size`; of first seeds,
    the `layers` as step functions on the finest grid."""
    grid = {"way": WAYS, "depth": config.depths}
    found = run.each("trained", grid, _trained, shared=_lowest)
    found = found.transpose("way", "seed", "depth", "layer", "entry")
    there = np.argwhere(np.isfinite(found["sum"].values[..., 0]))
    at, each = tuple(there.T), ("network", "depth")
    names = ("sum", "noise", "loss", "right")
    layers = found["layers"].values
    said = [_said(layers[i, j], WAYS[i], config.depths) for i, j in there]
    return xr.Dataset(
        {name: (each, found[name].values[at]) for name in names}
        | {
            "one": (each, np.array([one for one, _ in said], "int8")),
            "all": ("network", np.array([last for _, last in said], "int8")),
            "trend": (("seed", "depth"), found["trend"].values[WAYS.index("Adam")]),
            "layers": (("way", "depth", "layer", "entry"), layers[:, 0]),
        },
        {
            "of_way": ("network", [WAYS[i] for i in at[0]]),
            "way": list(WAYS),
            "depth": list(config.depths),
            "seed": range(config.seeds),
        },
    )


def trend_size(added: np.ndarray, variance: float) -> np.ndarray:
    r"""$(\sum_k \|T_k\|^2 / \sigma^2)^{1/2}$ of a trend $T$, `(..., depth, entry)`,
    beside independent noise of variance $\sigma^2$: all that a test can go by."""
    return np.sqrt(np.sum(added**2, axis=(-2, -1)) / variance)


def says(rows: list[Float[np.ndarray, "depth entries"]], beta: float | None = None):
    """The verdict of `diagnosis` on networks of these layers, one a depth."""
    width = int(rows[0].shape[1] ** 0.5)
    networks = [
        dict(zip(("weight", "bias"), setting.split(z, width), strict=True))
        for z in rows
    ]
    return diagnosis.overall(diagnosis.diagnose(networks, beta=beta))


def _start(way: str, depth: int, finest: int, width: int, *, key: PRNGKeyArray):
    """What a way begins with: as in `ours/four-ways`, or with random layers."""
    if way == "flow":
        return setting.tied(depth, key=key, width=width)
    if way == "Adam":
        return setting.independent(depth, finest, key=key, width=width)
    layer_key, reading_key = jr.split(key)
    rows = jr.normal(layer_key, (depth, width * (width + 1)))
    return setting.network(rows, jr.normal(reading_key, (width,)), BETA[way])


def _lowest(config: DigitsWays, point: Point, key: PRNGKeyArray):
    """The lowest minimum that the starts lead to, at the first depth."""
    data_key, start_key = jr.split(key)
    with jax.enable_x64(True):
        like = one_layer(config.depths[0], config.width)
        found = multi_start(
            Problem(*map(jnp.asarray, config.data(key=data_key)), alpha=config.alpha),
            like,
            starts=config.starts,
            same=1e-5,
            tolerance=1e-4,
            max_iterations=config.iterations,
            key=start_key,
        )
        # a search that is cut short may find none
        lowest = found.minima[0].parameters if found.minima else like
        return {name: (DIMENSIONS[name], z) for name, z in arrays(lowest).items()}


def _trained(config: DigitsWays, point: Point, key: PRNGKeyArray, shared):
    way, depth = point["way"], point["depth"]
    data_key, start_key = jr.split(key)
    train = config.data(key=data_key)
    if way == "minimum":
        model = _minimum(config, train, shared, depth)
        first = models = jax.tree.map(lambda z: jnp.asarray(z)[None], model)
    else:
        first, models = _descended(config, point, train, start_key)
    before, rows = (
        np.asarray(eqx.filter_vmap(setting.layers)(m)) for m in (first, models)
    )
    added = rows - before if way == "Adam" else rows
    pairs = setting.in_precision(*train)
    losses, right = eqx.filter_vmap(_answers, in_axes=(0, None))(models, pairs)
    return {
        **_measured(rows, added, way, max(config.depths)),
        "loss": ("seed", np.asarray(losses)),
        "right": ("seed", np.asarray(right)),
    }


def _mean_loss(model, pairs, key=None):
    return setting.loss(model, pairs) / len(pairs[0])


def _answers(model, pairs):
    """The loss, and the share of data on the right side."""
    x, y = pairs
    right = jnp.sign(jax.vmap(model)(x)) == jnp.sign(y)
    return _mean_loss(model, pairs), jnp.mean(right, dtype=x.dtype)


def _minimum(config: DigitsWays, train, start, depth: int) -> ResNet:
    """The minimum at a depth, from that at the first; in the precision of the run."""
    with jax.enable_x64(True):
        weight, bias, readout, offset = (jnp.asarray(start[n]) for n in DIMENSIONS)
        begun = Parameters(OneLayer(weight, bias), Affine(readout[None], offset[None]))
        energy = Problem(*map(jnp.asarray, train), alpha=config.alpha)
        found = minimise(
            energy,
            refined(energy, begun, depth),
            tolerance=1e-4,
            polish=False,
            max_iterations=config.iterations,
        )
        parameters = jax.tree.map(np.asarray, found.parameters)
    return jax.tree.map(lambda z: jnp.asarray(z, float), parameters).network


def _descended(config: DigitsWays, point: Point, train, key: PRNGKeyArray):
    """Networks at the start and at the end of training, one a seed."""
    way, depth, many = point["way"], point["depth"], config.seeds
    width = train[0].shape[1]

    def start(key):
        return _start(way, depth, max(config.depths), width, key=key)

    models = eqx.filter_vmap(start)(jr.split(key, many))
    if way == "random":
        return models, models
    steps = config.flow_steps if way == "flow" else config.adam_steps
    pairs = setting.in_precision(*train)
    run = training.train(
        models,
        jax.tree.map(lambda a: jnp.broadcast_to(a, (many, *a.shape)), pairs),
        _mean_loss,
        config.rule(way, depth),
        steps,
        every=steps,
        ensemble=True,
        **point.resumable,
    ).finished()
    return models, run.model


def _measured(rows: np.ndarray, added: np.ndarray, way: str, finest: int) -> dict:
    """The quantities of `diagnoses_by_way`, of layers `(seed, depth, entry)`."""
    depth, width = rows.shape[1], int(rows.shape[2] ** 0.5)
    factor = depth ** -BETA[way]
    squares = np.sum(np.diff(rows, axis=1) ** 2, axis=(1, 2))
    found = {
        "sum": ("seed", factor * np.linalg.norm(added.sum(1), axis=-1)),
        "noise": ("seed", factor * np.sqrt(squares / 2)),
        "layers": (("seed", "layer", "entry"), np.repeat(rows, finest // depth, 1)),
    }
    if way == "Adam":  # of the matrix, which alone has a vote
        found["trend"] = ("seed", trend_size(added[..., : width**2], 1 / depth))
    return found


def _said(layers: np.ndarray, way: str, depths: tuple[int, ...]):
    """Of layers `(depth, layer, entry)`: what is said of each depth, and of all."""
    strides = [layers.shape[1] // depth for depth in depths]
    rows = [z[::s] for z, s in zip(layers, strides, strict=True)]
    said = [says([z]) for z in rows] + [says(rows, BETA[way])]
    *one, last = map(diagnosis.VERDICTS.index, said)
    return one, last
