"""The generator of fractional noise of the public code, its law, and what it moves."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from ...checks import require_positive, require_room
from ...initialisation import fractional_noise
from ...intervals import Interval
from ...statistics import mean_interval
from ..registry import experiment
from ..runner import Point, Runner
from . import setting
from .critical import covariance, growth, roots

__all__ = [
    "Generator",
    "border",
    "border_shift",
    "described_covariance",
    "described_eigenvalues",
    "described_noise",
    "described_powers",
    "first_order_shift",
    "generator_shift",
]

SOURCES = ("exact", "described")


def described_eigenvalues(depth: int, hurst: float) -> Float[np.ndarray, " half"]:
    r"""$\lambda_0, \dots, \lambda_N$ of the circulant of size $2N$ whose first row is
    $\rho_0, \dots, \rho_{N-1}, 0, \rho_{N-1}, \dots, \rho_1$: with 0 in the middle,
    where the exact embedding has $\rho_N$. Some are negative for large `hurst`."""
    rho = covariance(depth, hurst)
    return np.fft.rfft(np.concatenate([rho, [0.0], rho[:0:-1]])).real


def described_powers(depth: int, hurst: float) -> Float[np.ndarray, " half"]:
    """The power at each frequency: of a negative eigenvalue the root is imaginary, and
    drops out; the highest frequency gets the power of frequency 0."""
    powers = np.maximum(described_eigenvalues(depth, hurst), 0.0)
    powers[-1] = powers[0]
    return powers


def described_noise(
    depth: int, shape: tuple[int, ...], *, hurst: float, key: PRNGKeyArray
) -> Float[Array, "depth ..."]:
    """Noise of the law that the public code of `marion2025` draws from, as we read it.

    With the key of `fractional_noise` it comes from the same white noise; at
    `hurst` = 1/2 both are equal.
    """
    white = jr.normal(key, (2 * depth * int(np.prod(shape)),))
    spectrum = jnp.fft.rfft(white.reshape(2 * depth, *shape), axis=0)
    root = jnp.asarray(described_powers(depth, hurst) ** 0.5, spectrum.dtype)
    spectrum *= root.reshape(-1, *[1] * len(shape))
    return jnp.fft.irfft(spectrum, 2 * depth, axis=0)[:depth]


def described_covariance(depth: int, hurst: float) -> Float[np.ndarray, " depth"]:
    r"""$\mathbb{E} X_j X_{j+n}$ of `described_noise`, $n < N$, exactly:

    $$ \frac1{2N} \Bigl[\sum_{k \ne N} \max(\lambda_k, 0) \cos \frac{\pi k n}{N}
       + (-1)^n \lambda_0\Bigr], $$

    the sum over the $2N$ frequencies but the highest.
    """
    return np.fft.irfft(described_powers(depth, hurst), 2 * depth)[:depth]


@dataclasses.dataclass(frozen=True)
class Generator:
    """Width, depth and input of Figure 7; res-3, as there."""

    hursts: tuple[float, ...] = (0.2, 0.5, 0.8, 0.9, 0.97)
    betas: tuple[float, ...] = tuple(i / 20 for i in range(8, 27))
    depth: int = 1000
    width: int = 40
    networks: int = 32
    points: int = 4
    inputs: int = 64

    def __post_init__(self):
        require_positive(self, "hursts", "betas", "depth", "width", "networks")
        require_positive(self, "points", "inputs")
        if max(self.hursts) >= 1:
            raise ValueError(f"every Hurst index must be below 1: got {self.hursts}.")
        layer = 8 * self.width**2 + 2 * len(self.betas) * self.points * self.width
        require_room(8 * self.depth * layer)
        require_room(8 * self.networks * self.width * self.inputs)


@experiment(
    "marion2025/generator",
    "what the law of the public code's fractional noise does to Figure 7",
    Generator(),
    book={"hursts": (0.8, 0.97), "networks": 8},
    smoke={"hursts": (0.9,), "depth": 16, "width": 6, "networks": 8, "points": 2},
)
def generator_shift(config: Generator, run: Runner) -> xr.Dataset:
    r"""The mean over inputs of $\log_{10} \|h_L - h_0\|/\|h_0\|$, by network, with the
    exact noise and with that of `described_noise`, from the same white noise."""
    found = run.each("log_ratio", {"hurst": config.hursts}, _networks)
    return found.assign_coords(source=list(SOURCES), beta=list(config.betas))


def _networks(config: Generator, point: Point, key: PRNGKeyArray):
    rows = [_pair(config, point["hurst"], k) for k in jr.split(key, config.networks)]
    return {"log_ratio": (("network", "source", "beta"), np.stack(rows))}


def _pair(config: Generator, hurst: float, key: PRNGKeyArray):
    weight_key, end_key = jr.split(key)
    ends = partial(setting.ends, config.width, config.inputs)
    h, _ = jax.vmap(lambda k: ends(key=k))(jr.split(end_key, config.points))
    scales = jnp.asarray(config.depth ** -np.array(config.betas), h.dtype)

    def moved(noise):
        law = setting.normalised(noise, hurst=hurst)
        block = setting.draw("res-3", law, config.depth, config.width, key=weight_key)
        return _moved(block, scales, h)

    return np.stack([moved(noise) for noise in (fractional_noise, described_noise)])


@jax.jit
def _moved(block, scales, starts) -> Float[Array, " betas"]:
    def change(scale, h):
        return setting.log10(setting.change(block, scale, h))

    return jax.vmap(jax.vmap(change, (None, 0)), (0, None))(scales, starts).mean(1)


def border(dataset: xr.Dataset, hurst: float, source: str) -> list[float]:
    r"""All exponents at which the mean logarithm over the networks passes zero: there
    $\|h_L - h_0\|$ is $\|h_0\|$, at this depth."""
    curves = dataset["log_ratio"].sel(hurst=hurst, source=source).mean("network")
    return [root for root, _ in roots(dataset["beta"].values, curves.values)]


def border_shift(dataset: xr.Dataset, hurst: float, groups: int = 8) -> Interval:
    """How far the border of the described noise lies to the right of the exact one:
    Student's interval over `groups` of networks. Raises `ValueError` where a curve has
    another number of roots than one."""
    rows = dataset["log_ratio"].sel(hurst=hurst).transpose("network", "source", "beta")
    shifts = []
    for means in setting.group_means(rows.values, groups):
        [[(exact, _)], [(described, _)]] = (
            roots(dataset["beta"].values, curve) for curve in means
        )
        shifts.append(described - exact)
    return mean_interval(shifts)


def first_order_shift(depth: int, hurst: float) -> float:
    r"""The shift of the border of res-3 to first order: half the logarithm to base $L$
    of the ratio of `growth` with the described covariance and with the exact one."""
    laws = described_covariance(depth, hurst), covariance(depth, hurst)
    described, exact = (growth("res-3", law) for law in laws)
    return float(np.log(described / exact) / (2 * np.log(depth)))
