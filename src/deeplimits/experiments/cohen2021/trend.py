"""One trend for the networks of all depths: the decomposition of the paper."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.interpolate import make_interp_spline

from ...checks import require_positive, require_room
from ...devices import over_devices
from ...losses import mean_square_entry
from ...residual import OneLayer, ResNet
from ..registry import experiment
from ..runner import Point, Runner
from .runs import TINY, AbstractTraining, Seeds, require_training, shared_seeds, trained
from .setting import WIDTHS, layers, sized, smoothed

__all__ = ["CONTROLS", "Trend", "path_controls", "shared_trend"]

_PARTS = ("weight", "bias")
# What stands in the place of the shared path; its mean over depth-time is the chord.
CONTROLS = ("path", "mean", "line", "another seed")
_SCALARS = ("train_loss", "moving_loss", "sign_loss", "positive", "epochs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trend(AbstractTraining):
    r"""The trend is the mean over the networks of the depths in a window of
    $L^{\beta - 1}$ times the cumulative sum, on `bins` intervals of depth-time. The
    last window is that of the public code; the first is ours."""

    depths: tuple[int, ...] = (128, 256, 322, 406, 512, 1024, 2048, 2580, 3250, 4096)
    windows: tuple[tuple[int, ...], ...] = (
        (256, 322, 406, 512),
        (2048, 2580, 3250, 4096),
    )
    beta: float = 0.2
    bins: int = 500

    def __post_init__(self):
        require_training(self)
        require_positive(self, "bins")
        width = WIDTHS[self.data]
        entries = len(self.depths) * (self.bins + 1) * width * (width + 1)
        require_room(8 * self.seeds * entries)
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1]: got {self.beta}.")
        for window in self.windows or ((),):
            known = isinstance(window, tuple | list) and window
            if not known or any(depth not in self.depths for depth in window):
                raise ValueError(
                    f"windows must hold some of the depths {self.depths}: got "
                    f"{self.windows}."
                )


def shared_trend(config: Trend, run: Runner) -> xr.Dataset:
    r"""Training loss of the trained weights, of their own moving average (of all
    layers, and `sign_loss` of those of each sign apart), and of the trend that the
    networks of several depths share. `positive` is the share of positive $\delta_k$.

    `gap` is the largest distance, over depth-time, of a network's own path
    $L^{\beta - 1} \sum_{j \le sL} (A_j, b_j)$ from the shared one, relative to the
    largest norm of that. Networks enter as `sized` makes them.
    """
    depths = {"depth": config.depths}
    own = run.each("trained", depths, _fitted, shared=shared_seeds)
    compare = functools.partial(_against_shared, own)
    shared = run.each("shared", depths, compare, shared=shared_seeds)
    return xr.merge([own[list(_SCALARS)], shared]).assign_coords(
        seed=np.arange(config.seeds),
        window=[f"{min(w)} to {max(w)}" for w in config.windows],
    )


def path_controls(config: Trend, run: Runner) -> xr.Dataset:
    r"""Training loss with what is poorer than the shared path in its place: layers that
    are its mean over depth, layers that are its best straight line in depth-time, and
    the path of another seed.

    Raises `ValueError` for one seed, which has no other.
    """
    if config.seeds < 2:
        raise ValueError(f"another seed needs at least two: got seeds={config.seeds}.")
    depths = {"depth": config.depths}
    own = run.each("trained", depths, _fitted, shared=shared_seeds)
    compare = functools.partial(_against_controls, own)
    poorer = run.each("controls", depths, compare, shared=shared_seeds)
    return xr.merge([own[["train_loss"]], poorer]).assign_coords(
        seed=np.arange(config.seeds),
        window=[f"{min(w)} to {max(w)}" for w in config.windows],
        control=list(CONTROLS),
    )


_SIZES = {
    "book": {"depths": (64, 128, 256, 512), "windows": ((128, 256, 512),)},
    "smoke": {**TINY, "epochs": 2, "windows": ((8, 16),), "bins": 8},
}
_SLOW = {"rate": 1e-3, "epochs": 100}  # Adam at a tenth of the example's rate
_RELU = Trend(
    activation="relu",
    delta="layer",
    loss=1e-2,
    beta=0.5,
    depths=(95, 164, 197, 237, 284, 590, 1020, 2539, 3047, 3657, 4388),
    windows=((164, 197, 237, 284), (2539, 3047, 3657, 4388)),
)

tanh_trend = experiment(
    "cohen2021/tanh-trend",
    "as tanh-depth: one trend for all depths in place of the weights",
    Trend(),
    **_SIZES,  # pyright: ignore[reportArgumentType]
)(shared_trend)

tanh_trend_slow = experiment(
    "cohen2021/tanh-trend-slow",
    "as tanh-trend, at a tenth of the learning rate",
    Trend(**_SLOW, beta=0.45),
    **_SIZES,  # pyright: ignore[reportArgumentType]
)(shared_trend)

tanh_path = experiment(
    "cohen2021/tanh-path",
    "as tanh-trend-slow: poorer paths in the place of the shared one",
    Trend(
        **_SLOW,
        beta=0.45,
        depths=(128, 256, 322, 406, 512, 1024, 2048, 4096),
        windows=((256, 322, 406, 512),),
    ),
    **_SIZES,  # pyright: ignore[reportArgumentType]
)(path_controls)

relu_trend = experiment(
    "cohen2021/relu-trend",
    "as relu-depth: one trend for all depths in place of the weights",
    _RELU,
    **_SIZES,  # pyright: ignore[reportArgumentType]
)(shared_trend)

relu_trend_slow = experiment(
    "cohen2021/relu-trend-slow",
    "as relu-trend, at a tenth of the learning rate",
    dataclasses.replace(_RELU, **_SLOW, beta=0.75),
    **_SIZES,  # pyright: ignore[reportArgumentType]
)(shared_trend)


def _fitted(config: Trend, point: Point, key: PRNGKeyArray, seeds):
    all_layers = Seeds(**seeds)
    cut = all_layers._replace(draws=all_layers.draws[:, : point["depth"]])
    found = {name: np.asarray(values) for name, values in _trained(config, cut).items()}
    paths = {name: _path(config, found[name]) for name in _PARTS}
    dims = ("seed", "node", "row", "column")
    return (
        {name: ("seed", found[name]) for name in _SCALARS}
        | {"steps": (("seed", "layer"), found["steps"])}
        | {name: (dims[: path.ndim], path) for name, path in paths.items()}
    )


@functools.partial(jax.jit, static_argnums=0)
def _trained(config: Trend, seeds: Seeds) -> dict[str, Array]:
    def one(seed: Seeds) -> dict[str, Array]:
        run = trained(config, seed)[1]
        model, data = sized(run.model), (seed.x, seed.y)
        by_sign = smoothed(run.model, by_sign=True)
        return {
            "weight": layers(model).weight,
            "bias": layers(model).bias,
            "steps": model.steps,
            "train_loss": mean_square_entry(run.model, data),
            "moving_loss": mean_square_entry(smoothed(run.model), data),
            "sign_loss": mean_square_entry(by_sign, data),
            "positive": jnp.mean(run.model.steps > 0),
            "epochs": run.epochs,
        }

    return over_devices(one)(seeds)


def _against_shared(
    own: xr.Dataset, config: Trend, point: Point, key: PRNGKeyArray, seeds
):
    """The networks of one depth with the trend of each window in place of theirs."""
    depth = point["depth"]
    paths = [own.sel(depth=depth)[name].values for name in _PARTS]
    losses, gaps = [], []
    for window in config.windows:
        means = _means(own, window)
        losses.append(_losses_along(means, own, config, depth, seeds))
        gaps.append(_gap(paths, means))
    found = {"shared_loss": losses, "gap": gaps}
    return {n: (("seed", "window"), np.stack(a, axis=1)) for n, a in found.items()}


def _against_controls(
    own: xr.Dataset, config: Trend, point: Point, key: PRNGKeyArray, seeds
):
    """The networks of one depth with each control of each window in place of theirs."""

    def losses(window, control):
        paths = [_control(path, control) for path in _means(own, window)]
        return _losses_along(paths, own, config, point["depth"], seeds)

    found = [[losses(w, control) for control in CONTROLS] for w in config.windows]
    return {"loss": (("window", "control", "seed"), np.array(found))}


def _means(own: xr.Dataset, window: tuple[int, ...]) -> list[np.ndarray]:
    """The paths that the networks of these depths share."""
    there = own.sel(depth=list(window))
    return [there[name].values.mean(0) for name in _PARTS]


def _control(path: np.ndarray, control: str) -> np.ndarray:
    """What stands for the path, one a seed; see `CONTROLS`."""
    if control == "path":
        return path
    if control == "another seed":
        return np.roll(path, 1, axis=0)
    steps = np.diff(path, axis=1)
    s = np.arange(steps.shape[1]) - (steps.shape[1] - 1) / 2
    s = s.reshape(-1, *(1,) * (steps.ndim - 2))
    line = np.mean(steps, axis=1, keepdims=True) * np.ones_like(s)
    if control == "line":
        slope = np.sum(s * steps, axis=1, keepdims=True) / np.sum(s**2)
        line = line + slope * s
    return np.concatenate([path[:, :1], path[:, :1] + np.cumsum(line, axis=1)], axis=1)


def _losses_along(paths, own: xr.Dataset, config: Trend, depth: int, seeds):
    """The losses of the networks of one depth whose layers follow these paths."""
    steps = own.sel(depth=depth)["steps"].values[:, :depth]  # deeper networks have more
    arrays = [*(_layers(config, path, depth) for path in paths), steps]
    arrays = [a.astype(seeds["x"].dtype) for a in arrays]
    return np.asarray(_losses(config, *arrays, (seeds["x"], seeds["y"])))


def _resampled(values: np.ndarray, intervals: int) -> np.ndarray:
    """The piecewise linear path through `values`, axis 1, at the ends of `intervals`
    equal intervals."""
    nodes = np.linspace(0, 1, values.shape[1])
    path = make_interp_spline(nodes, values, k=1, axis=1)
    return path(np.linspace(0, 1, intervals + 1))


def _path(config: Trend, layers: np.ndarray) -> np.ndarray:
    sums = np.cumsum(layers, axis=1)
    sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)
    return layers.shape[1] ** (config.beta - 1) * _resampled(sums, config.bins)


def _layers(config: Trend, path: np.ndarray, depth: int) -> np.ndarray:
    return depth ** (1 - config.beta) * np.diff(_resampled(path, depth), axis=1)


def _gap(paths: list[np.ndarray], means: list[np.ndarray]) -> np.ndarray:
    def largest(parts: list[np.ndarray]) -> np.ndarray:
        squares = [np.sum(p**2, axis=tuple(range(2, p.ndim))) for p in parts]
        return np.sqrt(np.sum(squares, axis=0)).max(axis=1)

    apart = [path - mean for path, mean in zip(paths, means, strict=True)]
    return largest(apart) / largest(means)


@functools.partial(jax.jit, static_argnums=0)
def _losses(config: Trend, weight, bias, steps, data) -> Float[Array, " seeds"]:
    """The losses of the networks with these layers and signed steps, one a seed."""

    def one(weight, bias, steps, data):
        block = OneLayer(weight, bias, activation=config.activation)
        return mean_square_entry(ResNet(block, scale=steps, beta=0.0), data)

    return jax.vmap(one)(weight, bias, steps, data)
