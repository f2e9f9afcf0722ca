"""Four ways to train, on the rings and on two digits, and what the diagnosis says."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ... import diagnosis, initialisation, training
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
from .. import registry
from ..registry import experiment
from ..runner import Point, Runner
from ..thorpe2023 import digits
from ..thorpe2023.budget import require_iterations
from ..thorpe2023.setting import DIMENSIONS, Planar, arrays, branches
from . import setting

__all__ = ["BETA", "LIMITS", "WAYS", "DigitsWays", "digits_ways", "says", "trend_size"]

PROBLEMS = ("planar", "digits")
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
    seeds: int = 8
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
        steps = max(self.flow_steps, self.adam_steps)
        if steps > 10**6:
            raise ValueError(f"steps must be at most {10**6}: got {steps}.")
        entries = self.width * (self.width + 1)
        require_room(400 * self.seeds * entries * max(self.depths))

    def data(self, problem: str, *, key: PRNGKeyArray):
        """Training images and labels, and those of the test, in float64; the rings have
        no test."""
        if problem == "planar":
            points, labels = map(np.asarray, setting.data())
            return (points.astype(float), labels[:, 0].astype(float)), None
        config = digits.Digits(train=self.train)
        return digits.features(config, self.width, key=key)

    def rule(self, way: str, depth: int) -> optax.GradientTransformation:
        """The optimiser of a way at a depth."""
        if way == "flow":
            return optax.chain(training.depth_factor(), optax.sgd(self.flow_rate))
        return optax.adam(self.adam_rate / depth)


@experiment(
    "ours/digits-ways",
    "four ways on the rings and on two digits: sum, noise and diagnosis of the layers",
    DigitsWays(),
    book={"depths": (8, 16, 32), "seeds": 2, "starts": 4},
    smoke={
        "depths": (8, 16, 32),
        "seeds": 2,
        "train": 40,
        "starts": 1,
        "iterations": 100,
        "flow_steps": 10,
        "adam_steps": 10,
    },
)
def digits_ways(config: DigitsWays, run: Runner) -> xr.Dataset:
    r"""With the factor, of the layers $Z_k$: the `sum` $S$ (for Adam, of what training
    adds) and the `noise` $Q$ of chapter 12; the `loss` and the share of test images
    that are told right, `test`; for Adam the `trend` of `trend_size`. What the
    diagnosis says, as a place in `diagnosis.VERDICTS`: of `one` depth, from the weights
    alone, and of `all` depths with the factor. Of the first seed, the `layers` as step
    functions on the finest grid. The minimum is one network, without seeds."""
    grid = {"problem": PROBLEMS, "way": WAYS, "depth": config.depths}
    found = run.each("trained", grid, _trained, shared=_lowest)
    found = found.assign(_diagnosed(found, config))
    found["layers"] = found["layers"].isel(seed=0)
    return found.assign_coords(seed=range(config.seeds))


def trend_size(added: np.ndarray, variance: float) -> np.ndarray:
    r"""$(\sum_k \|T_k\|^2 / \sigma^2)^{1/2}$ of a trend $T$, `(..., depth, entry)`,
    beside independent noise of variance $\sigma^2$: all that a test can go by."""
    return np.sqrt(np.sum(added**2, axis=(-2, -1)) / variance)


def says(rows: list[Float[np.ndarray, "depth entries"]], beta: float | None = None):
    """The verdict of `diagnosis` on networks of these layers, one a depth."""
    width = int(rows[0].shape[1] ** 0.5)
    networks = [
        dict(zip(("weight", "bias"), _split(z, width), strict=True)) for z in rows
    ]
    return diagnosis.overall(diagnosis.diagnose(networks, beta=beta))


def _split(rows, width: int) -> tuple:
    """$K$ and $b$ of layers that are rows, one array each."""
    return rows[:, : width**2].reshape(-1, width, width), rows[:, width**2 :]


def _layers(model: ResNet) -> Float[Array, "depth entries"]:
    """The layers of a network, one a row."""
    block = model.block
    assert isinstance(block, OneLayer)
    return jnp.concatenate([block.weight.reshape(model.depth, -1), block.bias], axis=1)


def _start(way: str, depth: int, finest: int, width: int, *, key: PRNGKeyArray):
    """The networks of `setting.tied` and `setting.independent`, of any width."""
    layer_key, reading_key = jr.split(key)
    entries = (width * (width + 1),)
    if way == "flow":
        rows = initialisation.tied(depth, entries, key=layer_key)
    else:
        rows = initialisation.independent(finest, entries, key=layer_key)
        rows = initialisation.coarsened(rows, finest // depth) / depth**0.5
    reading = Affine(jr.normal(reading_key, (1, width)), jnp.zeros(1))
    return ResNet(OneLayer(*_split(rows, width)), decoder=reading, beta=BETA[way])


def _lowest(config: DigitsWays, point: Point, key: PRNGKeyArray):
    """The lowest minimum that the starts lead to, at the first depth; of the rings,
    that of the archived search."""
    data_key, start_key = jr.split(key)
    with jax.enable_x64(True):
        train, _ = config.data("digits", key=data_key)
        found = multi_start(
            Problem(*map(jnp.asarray, train), alpha=config.alpha),
            one_layer(config.depths[0], config.width),
            starts=config.starts,
            same=1e-5,
            tolerance=1e-4,
            max_iterations=config.iterations,
            key=start_key,
        )
        planar = Planar("tanh", 0.01)
        archive = registry.archive("thorpe2023/search").sel(problem=planar.name)
        starts = {"planar": branches(archive, planar)[0][1]}
        # a search that is cut short may have found none: its zero start is one
        best = (
            found.minima[0].parameters if found.minima else one_layer(8, config.width)
        )
        starts["digits"] = best
    return {
        f"{problem} {name}": (tuple(f"{problem} {dim}" for dim in DIMENSIONS[name]), z)
        for problem, start in starts.items()
        for name, z in arrays(start).items()
    }


def _trained(config: DigitsWays, point: Point, key: PRNGKeyArray, shared):
    problem, way, depth = point["problem"], point["way"], point["depth"]
    data_key, _ = jr.split(key)
    key = jr.fold_in(key, PROBLEMS.index(problem))
    train, test = config.data(problem, key=data_key)
    width = train[0].shape[1]
    if way == "random":
        rows = jr.normal(key, (config.seeds, depth, width * (width + 1)))
        rows = np.asarray(rows, np.float32)
        return _measured(rows, np.zeros_like(rows), way, max(config.depths))
    if way == "minimum":
        start = {name: shared[f"{problem} {name}"] for name in DIMENSIONS}
        model = _minimum(config, problem, train, start, depth)
        rows = np.asarray(_layers(model))[None]
        models = jax.tree.map(lambda z: jnp.asarray(z)[None], model)
        found = _measured(rows, np.zeros_like(rows), way, max(config.depths))
    else:
        first, models = _descended(config, point, train, jr.fold_in(key, 1))
        first, rows = (np.asarray(eqx.filter_vmap(_layers)(m)) for m in (first, models))
        start = first if way == "Adam" else np.zeros_like(first)
        found = _measured(rows, start, way, max(config.depths))
    losses = eqx.filter_vmap(_mean_loss, in_axes=(0, None))(models, _pairs(train))
    found["loss"] = ("seed", np.asarray(losses))
    if test is not None:
        x, y = _pairs(test)
        outputs = eqx.filter_vmap(lambda m: jax.vmap(m)(x))(models)
        found["test"] = ("seed", np.mean(np.sign(outputs) == np.sign(y), axis=(1, 2)))
    return found


def _pairs(data) -> tuple[Float[Array, "n width"], Float[Array, "n 1"]]:
    x, y = data
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)[:, None]


def _mean_loss(model, pairs, key=None):
    return setting.loss(model, pairs) / len(pairs[0])


def _minimum(config: DigitsWays, problem: str, train, start: dict, depth: int):
    """The minimum at a depth, from that at another; a network in float32."""
    with jax.enable_x64(True):
        weight, bias, readout, offset = (jnp.asarray(start[n]) for n in DIMENSIONS)
        begun = Parameters(OneLayer(weight, bias), Affine(readout[None], offset[None]))
        alpha = 0.01 if problem == "planar" else config.alpha
        energy = Problem(*map(jnp.asarray, train), alpha=alpha)
        begun = refined(energy, begun, depth)
        found = minimise(
            energy,
            begun,
            tolerance=1e-4,
            polish=False,
            max_iterations=config.iterations,
        )
        network = jax.tree.map(np.asarray, found.parameters)
    return jax.tree.map(lambda z: jnp.asarray(z, jnp.float32), network).network


def _descended(config: DigitsWays, point: Point, train, key: PRNGKeyArray):
    """Networks at the start and at the end of training, one a seed."""
    way, depth, many = point["way"], point["depth"], config.seeds
    width = train[0].shape[1]

    def start(key):
        return _start(way, depth, max(config.depths), width, key=key)

    models = eqx.filter_vmap(start)(jr.split(key, many))
    steps = config.flow_steps if way == "flow" else config.adam_steps
    pairs = _pairs(train)
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


def _measured(rows: np.ndarray, start: np.ndarray, way: str, finest: int) -> dict:
    """The quantities of `digits_ways`, of layers `(seed, depth, entry)`."""
    depth, width = rows.shape[1], int(rows.shape[2] ** 0.5)
    factor, added = depth ** -BETA[way], rows - start
    squares = np.sum(np.diff(rows, axis=1) ** 2, axis=(1, 2))
    found = {
        "sum": ("seed", factor * np.linalg.norm(added.sum(1), axis=-1)),
        "noise": ("seed", factor * np.sqrt(squares / 2)),
        "layers": (("seed", "layer", "entry"), np.repeat(rows, finest // depth, 1)),
    }
    if way == "Adam":  # of the matrix, which alone has a vote
        found["trend"] = ("seed", trend_size(added[..., : width**2], 1 / depth))
    return found


def _diagnosed(found: xr.Dataset, config: DigitsWays) -> dict:
    """`one` and `all`, as places in `diagnosis.VERDICTS`; NaN where there is none."""
    sizes = len(PROBLEMS), len(WAYS), config.seeds, len(config.depths)
    one, together = (
        np.full(sizes, np.nan, "float32"),
        np.full(sizes[:3], np.nan, "float32"),
    )
    order = ("problem", "way", "seed", "depth")
    layers = found["layers"].transpose(*order, "layer", "entry").values
    for place in np.ndindex(sizes[:3]):
        drawn = layers[place]
        entries = np.isfinite(drawn[0, 0]).sum()
        if not entries:
            continue
        strides = [drawn.shape[1] // depth for depth in config.depths]
        rows = [z[::s, :entries] for z, s in zip(drawn, strides, strict=True)]
        one[place] = [diagnosis.VERDICTS.index(says([z])) for z in rows]
        beta = BETA[WAYS[place[1]]]
        together[place] = diagnosis.VERDICTS.index(says(rows, beta))
    return {"one": (order, one), "all": (order[:3], together)}
