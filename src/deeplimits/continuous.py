"""Depth as time: the neural ODE that a residual network discretises."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .initialisation import Path, PiecewiseConstant, PiecewiseLinear, along_path
from .residual import Activation, OuterLayer, ResNet, named_activation

INTERPOLATIONS = {"constant": PiecewiseConstant, "linear": PiecewiseLinear}


class NeuralODE(eqx.Module):
    r"""The limit of a residual network with step $1/L$,

    $$ H(0) = A(x), \qquad \dot H(s) = f(H(s), \mathcal{Z}(s)), \quad s \in [0, 1],
       \qquad F(x) = B(H(1)). $$

    `block_at` is the path of blocks $s \mapsto f(\cdot, \mathcal{Z}(s))$: any callable,
    a `PiecewiseLinear` of stacked blocks among them. It acts on one example.
    Source: `chen2018`, `marion2024`.
    """

    block_at: Path
    encoder: Any = eqx.nn.Identity()
    decoder: Any = eqx.nn.Identity()

    def trajectory(
        self,
        x: Array,
        times: Float[Array, " times"],
        *,
        solver: diffrax.AbstractSolver | None = None,
        tolerance: float = 1e-6,
        steps: int | None = None,
        adjoint: diffrax.AbstractAdjoint | None = None,
    ) -> Array:
        """The hidden states at increasing `times` in $[0, 1]$.

        Adaptive steps to the relative and absolute `tolerance`, or `steps` equal ones.
        Raises an error at run time where the solver does not reach $s = 1$.
        """
        if steps is not None and steps < 1:
            raise ValueError(f"steps must be positive: got {steps}.")
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        start = self.encoder(x)
        zero, one = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda s, h, block_at: block_at(s)(h)),
            diffrax.Tsit5() if solver is None else solver,
            t0=zero,
            t1=one,
            dt0=None if steps is None else one / steps,
            y0=start,
            args=self.block_at,
            saveat=diffrax.SaveAt(ts=times.astype(start.dtype)),
            stepsize_controller=controller
            if steps is None
            else diffrax.ConstantStepSize(),
            adjoint=diffrax.RecursiveCheckpointAdjoint()
            if adjoint is None
            else adjoint,
            max_steps=2**16 if steps is None else steps + 1,
        )
        assert solution.ys is not None
        return solution.ys

    def __call__(self, x: Array, **options: Any) -> Array:
        """The output $F(x)$; `options` are those of `trajectory`."""
        return self.decoder(self.trajectory(x, jnp.ones(1), **options)[0])


def from_network(network: ResNet, interpolation: str = "linear") -> NeuralODE:
    """The neural ODE whose weights interpolate the layers of a network with step 1/L.

    Raises `ValueError` for an interpolation that is not known, and for a network with
    another step, whose limit (if any) is not this ODE.
    """
    if interpolation not in INTERPOLATIONS:
        known = ", ".join(INTERPOLATIONS)
        raise ValueError(f"unknown interpolation {interpolation!r}; known: {known}.")
    if network.beta != 1 or network.scale is not None:
        raise ValueError(
            f"only a network with step 1/L has this limit: got beta={network.beta}, "
            f"{'no' if network.scale is None else 'a'} trained scale."
        )
    path = INTERPOLATIONS[interpolation](network.block)
    return NeuralODE(path, network.encoder, network.decoder)


def to_network(ode: NeuralODE, depth: int) -> ResNet:
    """The explicit Euler scheme of a neural ODE with `depth` steps, as a network."""
    return ResNet(along_path(ode.block_at, depth), ode.encoder, ode.decoder)


class NeuralSDE(eqx.Module):
    r"""The limit of $h_{k+1} = h_k + L^{-1/2} V_{k+1} \sigma(h_k)$ with independent
    $V_k$, entries of variance $1/q$: in the sense of Itô,

    $$ \mathrm{d}H = \tfrac{1}{\sqrt q}\, \mathrm{d}B_s\, \sigma(H), \qquad H(0) = x, $$

    with $B$ a Brownian motion of $q \times q$ matrices. Source: `marion2025`.
    """

    activation: Activation = eqx.field(static=True)

    def __init__(self, activation: str | Activation = "relu"):
        self.activation = named_activation(activation)

    def network(self, noise: Float[Array, "depth q q"]) -> ResNet:
        r"""Euler and Maruyama's scheme as a network: $V_k = q^{-1/2} X_k$, where
        $X_k = \sqrt L\, (B_{k/L} - B_{(k-1)/L})$ is the `noise`."""
        outer = noise / noise.shape[-1] ** 0.5
        return ResNet(OuterLayer(outer, activation=self.activation), beta=0.5)

    def __call__(
        self, x: Float[Array, " q"], noise: Float[Array, "depth q q"]
    ) -> Float[Array, " q"]:
        r"""$H(1)$ by diffrax, with the Euler steps of the path that `noise` makes."""
        depth = noise.shape[0]
        times = jnp.arange(depth + 1, dtype=noise.dtype) / depth
        path = jnp.cumsum(jnp.pad(noise, ((1, 0), (0, 0), (0, 0))), 0) / depth**0.5
        identity = jnp.eye(x.size, dtype=x.dtype) / x.size**0.5

        def field(s, h, args):
            return identity[:, :, None] * self.activation(h)[None, None]

        control = diffrax.LinearInterpolation(times, path)
        solution = diffrax.diffeqsolve(
            diffrax.ControlTerm(field, control),
            diffrax.Euler(),
            t0=times[0],
            t1=times[-1],
            dt0=None,
            y0=x,
            stepsize_controller=diffrax.StepTo(times),
            max_steps=depth,
        )
        assert solution.ys is not None
        return solution.ys[-1]


def adjoint_states(network: ResNet, x: Array, cotangent: Array) -> Array:
    r"""The adjoint states $p_0, …, p_L$ of one example: the recursion

    $$ p_L = \bar p, \qquad
       p_k = p_{k+1} + \delta_k\, \partial_1 f(h_k, Z_{k+1})^\top p_{k+1}, $$

    where $\bar p$ is the gradient of the loss at $h_L$. Source: `marion2024`.
    """
    hidden = network.trajectory(x)[:-1]

    def layer(p, parameters):
        h, step, block = parameters
        _, pullback = jax.vjp(block, h)
        p = p + step * pullback(p)[0]
        return p, p

    _, adjoints = jax.lax.scan(
        layer, cotangent, (hidden, network.steps, network.block), reverse=True
    )
    return jnp.concatenate([adjoints, cotangent[None]])
