"""Depth as time: the neural ODE that a residual network discretises."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .checks import (
    as_floats,
    as_singles,
    require_finite,
    require_known,
    require_times,
    require_whole,
    require_within,
)
from .initialisation import Path, PiecewiseConstant, PiecewiseLinear, along_path
from .residual import (
    Activation,
    OneLayer,
    OuterLayer,
    ResNet,
    TwoLayer,
    named_activation,
)

INTERPOLATIONS = {"constant": PiecewiseConstant, "linear": PiecewiseLinear}


class TwoLayerPath(eqx.Module):
    r"""The path of two-layer blocks that two paths of weights make,

    $$ s \mapsto f(\cdot, (\mathcal{V}(s), \mathcal{W}(s))). $$

    Raises `ValueError` for an activation that is not known. Source: `marion2024`.

    ```pycon
    >>> from deeplimits import initialisation
    >>> ones = initialisation.PiecewiseConstant(jnp.ones((3, 2, 2)))
    >>> path = TwoLayerPath(ones, ones, "identity")
    >>> path(0.5)(jnp.ones(2)).round(3)
    Array([2., 2.], dtype=float32)
    ```
    """

    outer: Path
    inner: Path
    activation: str = eqx.field(static=True, default="tanh")

    def __check_init__(self):
        named_activation(self.activation)

    def __call__(self, s: Float[Array, ""]) -> TwoLayer:
        """The block at depth-time `s`."""
        return TwoLayer(self.outer(s), self.inner(s), activation=self.activation)


class NeuralODE(eqx.Module):
    r"""The limit of a residual network with step $1/L$,

    $$ \begin{gathered}
       H(0) = A(x), \qquad F(x) = B(H(1)), \\
       \dot H(s) = f(H(s), \mathcal{Z}(s)), \quad s \in [0, 1].
       \end{gathered} $$

    `block_at` is the path of blocks $s \mapsto f(\cdot, \mathcal{Z}(s))$: any callable,
    a `PiecewiseLinear` of stacked blocks among them. It acts on one example.
    Source: `chen2018`, `marion2024`.

    ```pycon
    >>> from deeplimits import residual
    >>> ode = NeuralODE(lambda s: residual.OneLayer(jnp.eye(1), activation="identity"))
    >>> ode(jnp.ones(1)).round(4)  # e
    Array([2.7182999], dtype=float32)
    ```
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
        Raises `ValueError` for times that do not increase within $[0, 1]$ and for an
        `x` that is not real and finite, and an error at run time where the solver does
        not reach $s = 1$.
        """
        if steps is not None:
            require_whole(steps=steps)
        require_within("(0, inf)", tolerance=tolerance)
        times = as_floats("times", times, shape=(None,))
        require_times("times", times, end=1.0)
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        start = as_singles("x", self.encoder(x))
        require_finite("x", start)
        # the states of a network in another precision than its data have the finer one
        zero = jnp.zeros((), start.dtype)
        field = eqx.filter_eval_shape(_residual_field, zero, start, self.block_at)
        start = start.astype(jnp.result_type(start, field))
        times = times.astype(start.dtype)
        zero, one = jnp.zeros((), start.dtype), jnp.ones((), start.dtype)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_residual_field),
            diffrax.Tsit5() if solver is None else solver,
            t0=zero,
            t1=one,
            dt0=None if steps is None else one / steps,
            y0=start,
            args=self.block_at,
            saveat=diffrax.SaveAt(ts=times),
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


# By name, where a lambda would make every call compile again.
def _residual_field(s: Any, h: Any, block_at: Any) -> Array:
    return block_at(s)(h)


def from_network(network: ResNet, interpolation: str = "linear") -> NeuralODE:
    """The neural ODE whose weights interpolate the layers of a network with step 1/L.

    Raises `ValueError` for an interpolation that is not known, and for a network with
    another step, whose limit (if any) is not this ODE.

    ```pycon
    >>> from deeplimits import residual
    >>> rows = jnp.array([0.0, 0.0, 3.0]).reshape(3, 1, 1)
    >>> network = residual.ResNet(residual.OneLayer(rows, activation="identity"))
    >>> output = from_network(network)(jnp.ones(1))
    >>> round(float(jnp.log(output[0])), 3)  # the integral of 0, then a rise, then 3
    1.5
    ```
    """
    require_known("interpolation", interpolation, INTERPOLATIONS)
    if network.beta != 1 or network.scale is not None:
        raise ValueError(
            f"only a network with step 1/L has this limit: got beta={network.beta}, "
            f"{'no' if network.scale is None else 'a'} trained scale."
        )
    path = INTERPOLATIONS[interpolation](network.block)
    return NeuralODE(path, network.encoder, network.decoder)


def to_network(ode: NeuralODE, depth: int) -> ResNet:
    """The explicit Euler scheme of a neural ODE with `depth` steps, as a network.

    ```pycon
    >>> from deeplimits import residual
    >>> ode = NeuralODE(lambda s: residual.OneLayer(jnp.eye(1), activation="identity"))
    >>> network = to_network(ode, 100)
    >>> network.depth, network(jnp.ones(1)).round(4)  # 1.01¹⁰⁰
    (100, Array([2.7048], dtype=float32))
    ```
    """
    return ResNet(along_path(ode.block_at, depth), ode.encoder, ode.decoder)


class NeuralSDE(eqx.Module):
    r"""The limit of $h_{k+1} = h_k + L^{-1/2} V_{k+1} \sigma(h_k)$ with independent
    $V_k$, entries of variance $1/q$: in the sense of Itô,

    $$ \mathrm{d}H = \tfrac{1}{\sqrt q}\, \mathrm{d}B_s\, \sigma(H), \qquad H(0) = x, $$

    with $B$ a Brownian motion of $q \times q$ matrices. Source: `marion2025`.

    ```pycon
    >>> sde = NeuralSDE("identity")
    >>> noise = (-1.0) ** jnp.arange(100).reshape(100, 1, 1)
    >>> round(sde(jnp.ones(1), noise).item(), 3)  # 0.99⁵⁰: Itô's exp(-1/2), not 1
    0.605
    ```
    """

    activation: Activation = eqx.field(static=True)

    def __init__(self, activation: str | Activation = "relu"):
        self.activation = named_activation(activation)

    def network(self, noise: Float[Array, "depth q q"]) -> ResNet:
        r"""Euler and Maruyama's scheme as a network: $V_k = q^{-1/2} X_k$, where
        $X_k = \sqrt L\, (B_{k/L} - B_{(k-1)/L})$ is the `noise`."""
        q = np.shape(noise)[-1:]
        noise = as_floats("noise", noise, shape=(None, *q, *q))
        outer = noise / noise.shape[-1] ** 0.5
        return ResNet(OuterLayer(outer, activation=self.activation), beta=0.5)

    def __call__(
        self, x: Float[Array, " q"], noise: Float[Array, "depth q q"]
    ) -> Float[Array, " q"]:
        r"""$H(1)$ by diffrax, with the Euler steps of the path that `noise` makes."""
        x = as_floats("x", x, shape=(None,))
        noise = as_floats("noise", noise, shape=(None, x.size, x.size))
        times, path = _brownian_path(noise)
        control = diffrax.LinearInterpolation(times, path)
        return _euler_maruyama(
            diffrax.ControlTerm(_sde_field, control), x, times, self.activation
        )


def _sde_field(s: Any, h: Any, activation: Any) -> Array:
    identity = jnp.eye(h.size, dtype=h.dtype) / h.size**0.5
    return identity[:, :, None] * activation(h)[None, None]


class OneLayerSDE(eqx.Module):
    r"""The limit of $h_{k+1} = h_k + \sigma(A_k h_k + b_k)$ with trend and noise,

    $$ A_k = \tfrac1L \bar A + s_A\, \Delta B_k, \qquad
       b_k = \tfrac1L \bar b + s_b\, \Delta B'_k, $$

    and independent Brownian increments. For $\sigma(0) = 0$, $\sigma'(0) = 1$ it is,
    in the sense of Itô,

    $$ \mathrm{d}H = \bigl(\bar A H + \bar b + \tfrac12 \sigma''(0)
       (s_A^2 \|H\|^2 + s_b^2)\bigr) \mathrm{d}s
       + s_A\, \mathrm{d}B\, H + s_b\, \mathrm{d}B'. $$

    `corrected=False` leaves the term with $\sigma''(0)$ out. Source: `cohen2021`.

    ```pycon
    >>> matrix, bias = jnp.zeros((2, 2)), jnp.zeros(2)
    >>> still = OneLayerSDE(matrix, bias, std_matrix=0.0, std_bias=0.0)
    >>> still.drift(jnp.ones(2)).tolist()
    [0.0, 0.0]
    ```
    """

    matrix: Float[Array, "d d"]
    bias: Float[Array, " d"]
    std_matrix: float = eqx.field(static=True)
    std_bias: float = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    curvature: float = eqx.field(static=True)

    def __init__(
        self,
        matrix: Float[Array, "d d"],
        bias: Float[Array, " d"],
        *,
        std_matrix: float,
        std_bias: float,
        activation: str | Activation = "tanh",
        corrected: bool = True,
    ):
        matrix, bias = as_floats("matrix", matrix), as_floats("bias", bias)
        if matrix.shape != bias.shape * 2 or bias.ndim != 1:
            raise ValueError(
                f"matrix must be (d, d) and bias (d,): got {matrix.shape}, "
                f"{bias.shape}."
            )
        require_finite("matrix or the bias", (matrix, bias))
        require_within("[0, inf)", std_matrix=std_matrix, std_bias=std_bias)
        self.activation = named_activation(activation)
        value, slope, curvature = _at_zero(self.activation)
        if not np.allclose((value, slope), (0, 1), atol=1e-6):
            raise ValueError(
                "the activation must vanish at 0 with slope 1: got "
                f"{value:.3g} and {slope:.3g}."
            )
        self.curvature = curvature if corrected else 0.0
        self.matrix, self.bias = matrix, bias
        self.std_matrix, self.std_bias = std_matrix, std_bias

    def network(self, noise: Float[Array, "depth d d+1"]) -> ResNet:
        r"""The network on the path of `noise`, its increments over $L^{-1/2}$: $d$
        columns of it for the matrix, the last one for the bias."""
        noise = self._noise(noise)
        depth = noise.shape[0]
        steps = noise / depth**0.5
        weight = self.matrix[None] / depth + self.std_matrix * steps[..., :-1]
        bias = self.bias[None] / depth + self.std_bias * steps[..., -1]
        return ResNet(OneLayer(weight, bias, activation=self.activation), beta=0.0)

    def _noise(self, noise: Float[Array, "depth d d+1"]) -> Float[Array, "depth d d+1"]:
        d = self.bias.size
        return as_floats("noise", noise, shape=(None, d, d + 1))

    def drift(self, h: Float[Array, " d"]) -> Float[Array, " d"]:
        r"""The part of the right-hand side with $\mathrm{d}s$."""
        h = as_floats("h", h, shape=self.bias.shape)
        variation = self.std_matrix**2 * jnp.sum(h**2) + self.std_bias**2
        return self.matrix @ h + self.bias + 0.5 * self.curvature * variation

    def _noise_on(
        self, h: Float[Array, " d"], step: Float[Array, "d d+1"]
    ) -> Float[Array, " d"]:
        return self.std_matrix * step[:, :-1] @ h + self.std_bias * step[:, -1]

    def scan(
        self, x: Float[Array, " d"], noise: Float[Array, "depth d d+1"]
    ) -> Float[Array, " d"]:
        """$H(1)$ by the Euler–Maruyama steps of the path, scanned."""
        x, noise = as_floats("x", x, shape=self.bias.shape), self._noise(noise)
        depth = noise.shape[0]

        def step(h, increment):
            return h + self.drift(h) / depth + self._noise_on(h, increment), None

        return jax.lax.scan(step, x, noise / depth**0.5)[0]

    def __call__(
        self, x: Float[Array, " d"], noise: Float[Array, "depth d d+1"]
    ) -> Float[Array, " d"]:
        """$H(1)$ by the same steps of diffrax."""
        x, noise = as_floats("x", x, shape=self.bias.shape), self._noise(noise)
        times, path = _brownian_path(noise)
        control = diffrax.LinearInterpolation(times, path)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(_one_layer_drift),
            diffrax.ControlTerm(_one_layer_noise, control),
        )
        return _euler_maruyama(terms, x, times, self)


def _one_layer_drift(s: Any, h: Any, sde: Any) -> Array:
    return sde.drift(h)


def _one_layer_noise(s: Any, h: Any, sde: Any) -> Array:
    columns = jnp.append(sde.std_matrix * h, sde.std_bias)
    return jnp.eye(h.size, dtype=h.dtype)[:, :, None] * columns[None, None]


def _brownian_path(
    noise: Float[Array, "depth rows columns"],
) -> tuple[Float[Array, " points"], Float[Array, "points rows columns"]]:
    """A grid on $[0, 1]$ and the path on it, from its increments' normal numbers."""
    depth = noise.shape[0]
    if jnp.finfo(noise.dtype).bits < 32:  # too few digits for the places of a grid
        noise = noise.astype(jnp.float32)
    times = jnp.arange(depth + 1, dtype=noise.dtype) / depth
    return times, jnp.cumsum(jnp.pad(noise, ((1, 0), (0, 0), (0, 0))), 0) / depth**0.5


def _euler_maruyama(
    terms: diffrax.AbstractTerm,
    x: Float[Array, " q"],
    times: Float[Array, " points"],
    args: Any,
) -> Float[Array, " q"]:
    """The last state of diffrax's Euler steps on that grid."""
    solution = diffrax.diffeqsolve(
        terms,
        diffrax.Euler(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=x,
        args=args,
        stepsize_controller=diffrax.StepTo(times),
        max_steps=len(times) - 1,
    )
    assert solution.ys is not None
    return solution.ys[-1]


def _at_zero(function: Activation) -> tuple[float, float, float]:
    """Value, slope and curvature of an activation at zero, also while tracing."""
    with jax.ensure_compile_time_eval():
        slope = jax.grad(function)
        functions = (function, slope, jax.grad(slope))
        value, first, second = (float(f(jnp.zeros(()))) for f in functions)
    return value, first, second


def linear_flow(
    matrix: Float[Array, "d d"], bias: Float[Array, " d"], x: Float[Array, " d"]
) -> Float[Array, " d"]:
    r"""$H(1)$ of $\dot H = \bar A H + \bar b$, $H(0) = x$: a matrix exponential."""
    x = as_singles("x", x, shape=(None,))
    size = x.size
    matrix = as_singles("matrix", matrix, shape=(size, size))
    bias = as_singles("bias", bias, shape=(size,))
    joined = jnp.zeros((size + 1, size + 1), x.dtype)
    joined = joined.at[:size].set(jnp.column_stack([matrix, bias]))
    return (jax.scipy.linalg.expm(joined) @ jnp.append(x, 1))[:size]


def adjoint_states(network: ResNet, x: Array, cotangent: Array) -> Array:
    r"""The adjoint states $p_0, …, p_L$ of one example: the recursion

    $$ p_L = \bar p, \qquad
       p_k = p_{k+1} + \delta_k\, \partial_1 f(h_k, Z_{k+1})^\top p_{k+1}, $$

    where $\bar p$ is the gradient of the loss at $h_L$. Source: `marion2024`.

    ```pycon
    >>> from deeplimits import residual
    >>> block = residual.OneLayer(jnp.ones((4, 1, 1)), activation="identity")
    >>> adjoints = adjoint_states(residual.ResNet(block), jnp.ones(1), jnp.ones(1))
    >>> [round(p, 4) for p in adjoints[:, 0].tolist()]  # powers of 1 + 1/4
    [2.4414, 1.9531, 1.5625, 1.25, 1.0]
    ```
    """
    hidden = network.trajectory(x)[:-1]
    cotangent = as_floats("cotangent", cotangent, shape=hidden.shape[1:])
    cotangent = cotangent.astype(hidden.dtype)

    def layer(p, parameters):
        h, step, block = parameters
        _, pullback = jax.vjp(block, h)
        p = p + step * pullback(p)[0]
        return p, p

    _, adjoints = jax.lax.scan(
        layer, cotangent, (hidden, network.steps, network.block), reverse=True
    )
    return jnp.concatenate([adjoints, cotangent[None]])
