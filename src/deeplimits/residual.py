"""Residual networks: blocks stacked on a leading depth axis, scanned over depth."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .checks import (
    as_floats,
    require_finite,
    require_floats,
    require_known,
    require_shape,
    require_whole,
    require_within,
)

Activation = Callable[[Array], Array]


def _identity(x: Array) -> Array:
    return x


def _gelu(x: Array) -> Array:
    # The exact one. JAX's own goes by erfc, which costs twice a whole layer on a CPU.
    return 0.5 * x * (1 + jax.scipy.special.erf(x * 0.5**0.5))


def _centred_softplus(x: Array) -> Array:
    # vanishes at 0 with slope 1 and curvature 1/2; its derivatives are bounded
    return 2 * (jax.nn.softplus(x) - math.log(2))


ACTIVATIONS: dict[str, Activation] = {
    "identity": _identity,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": _gelu,
    "softplus": jax.nn.softplus,
    "centred softplus": _centred_softplus,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
}


def named_activation(name: str | Activation) -> Activation:
    """The activation of that name; a callable is returned as it came.

    Raises `ValueError` for a name that is not in `ACTIVATIONS`.

    ```pycon
    >>> float(named_activation("relu")(-1.0)), named_activation(jnp.sin) is jnp.sin
    (0.0, True)
    ```
    """
    if callable(name):
        return name
    require_known("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def _is_product(primitive: Any, *_: Any, **__: Any) -> bool:
    # A checkpoint policy: what costs more to compute again than to keep.
    return primitive.name in {"dot_general", "conv_general_dilated"}


class AbstractBlock(eqx.Module):
    r"""The residual $f(\cdot, Z)$ of one layer.

    The arrays of a block are its parameters $Z$. In a network they carry a leading
    depth axis; `jax.lax.scan` takes one layer at a time off it. Products are written
    `h @ W.T`: over a batch of examples that needs no transposed copy, as `W @ h` would.

    ```pycon
    >>> class Shift(AbstractBlock):
    ...     step: jax.Array
    ...     def __call__(self, h):
    ...         return self.step * jnp.ones_like(h)
    >>> network = ResNet(Shift(jnp.array([1.0, 2.0, 3.0])), scale=1.0)
    >>> network(jnp.zeros(2)).tolist()
    [2.0, 2.0]
    ```
    """

    @abc.abstractmethod
    def __call__(self, h: Array) -> Array:
        """The residual of one layer, for one example."""


def _vector(name: str, x: Array, size: int) -> Array:
    x = as_floats(name, x)
    if x.shape[-1:] != (size,):
        raise ValueError(f"{name} must have {size} entries: got shape {x.shape}.")
    return x


class OneLayer(AbstractBlock):
    r"""The one-layer perceptron $f(h, Z) = \sigma(W h + b)$, with $Z = (W, b)$.

    ```pycon
    >>> block = OneLayer(2 * jnp.eye(2), activation="relu")
    >>> block(jnp.array([1.0, -1.0])).tolist()
    [2.0, 0.0]
    ```
    """

    weight: Float[Array, "*depth width width"]
    bias: Float[Array, "*depth width"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        weight: Float[Array, "*depth width width"],
        bias: Float[Array, "*depth width"] | None = None,
        *,
        activation: str | Activation = "tanh",
    ):
        require_floats("weight", weight)
        if weight.ndim < 2 or weight.shape[-1] != weight.shape[-2]:
            raise ValueError(
                f"weight must be (depth, width, width): got {weight.shape}."
            )
        if bias is None:
            bias = jnp.zeros(weight.shape[:-1], weight.dtype)
        require_floats("bias", bias)
        if bias.shape != weight.shape[:-1]:
            raise ValueError(
                f"bias must have shape {weight.shape[:-1]} to go with weight "
                f"{weight.shape}: got {bias.shape}."
            )
        self.weight, self.bias = weight, bias
        self.activation = named_activation(activation)

    def __call__(self, h: Float[Array, " width"]) -> Float[Array, " width"]:
        h = _vector("h", h, self.weight.shape[-1])
        return self.activation(h @ self.weight.T + self.bias)


class OuterLayer(AbstractBlock):
    r"""The residual $f(h, V) = V \sigma(h)$: weights outside the activation only.

    The "res-1" of the public code of `marion2025`; its "res-3", $V \sigma(W h)$, is
    `TwoLayer` with `width_factors=False`.

    ```pycon
    >>> block = OuterLayer(2 * jnp.eye(2))
    >>> block(jnp.array([1.0, -1.0])).tolist()
    [2.0, 0.0]
    ```
    """

    outer: Float[Array, "*depth width width"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        outer: Float[Array, "*depth width width"],
        *,
        activation: str | Activation = "relu",
    ):
        require_floats("outer", outer)
        if outer.ndim < 2 or outer.shape[-1] != outer.shape[-2]:
            raise ValueError(f"outer must be (depth, width, width): got {outer.shape}.")
        self.outer, self.activation = outer, named_activation(activation)

    def __call__(self, h: Float[Array, " width"]) -> Float[Array, " width"]:
        h = _vector("h", h, self.outer.shape[-1])
        return self.activation(h) @ self.outer.T


class TwoLayer(AbstractBlock):
    r"""The two-layer perceptron of Marion et al., equation (3),

    $$ f(h, Z) = \tfrac{1}{\sqrt m}\, V \sigma\bigl(\tfrac{1}{\sqrt q}\, W h\bigr),
       \qquad V \in \mathbb{R}^{q \times m},\; W \in \mathbb{R}^{m \times q}. $$

    `width_factors=False` leaves both factors out, as the authors' public code does.
    Source: `marion2024`.

    ```pycon
    >>> block = TwoLayer(jnp.ones((2, 4)), jnp.ones((4, 2)), activation="identity")
    >>> block(jnp.ones(2)).round(3)  # (4 / 2) · (2 / √2)
    Array([2.828, 2.828], dtype=float32)
    ```
    """

    outer: Float[Array, "*depth q m"]
    inner: Float[Array, "*depth m q"]
    activation: Activation = eqx.field(static=True)
    width_factors: bool = eqx.field(static=True)

    def __init__(
        self,
        outer: Float[Array, "*depth q m"],
        inner: Float[Array, "*depth m q"],
        *,
        activation: str | Activation = "gelu",
        width_factors: bool = True,
    ):
        require_floats("outer", outer)
        require_floats("inner", inner)
        if outer.ndim < 2 or inner.shape != (*outer.shape[:-2], *outer.shape[:-3:-1]):
            raise ValueError(
                "outer must be (depth, q, m) and inner (depth, m, q): "
                f"got {outer.shape} and {inner.shape}."
            )
        self.outer, self.inner = outer, inner
        self.activation = named_activation(activation)
        self.width_factors = width_factors

    def __call__(self, h: Float[Array, " q"]) -> Float[Array, " q"]:
        m, q = self.inner.shape[-2:]
        h = _vector("h", h, q)
        if not self.width_factors:
            return self.activation(h @ self.inner.T) @ self.outer.T
        return self.activation(h @ self.inner.T / q**0.5) @ self.outer.T / m**0.5


class Convolution(AbstractBlock):
    r"""Two $3 \times 3$ convolutions with the activation between them,

    $$ f(h, Z) = K_2 * \sigma(K_1 * h + b_1) + b_2, $$

    on `(channels, height, width)`, zero padding, stride 1.

    ```pycon
    >>> block = Convolution(jnp.ones((2, 1, 1, 3, 3)), activation="identity")
    >>> block(jnp.ones((1, 5, 5)))[0, 2].tolist()
    [45.0, 72.0, 81.0, 72.0, 45.0]
    ```
    """

    kernels: Float[Array, "*depth 2 channels channels 3 3"]
    biases: Float[Array, "*depth 2 channels"]
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        kernels: Float[Array, "*depth 2 channels channels 3 3"],
        biases: Float[Array, "*depth 2 channels"] | None = None,
        *,
        activation: str | Activation = "gelu",
    ):
        require_floats("kernels", kernels)
        shape = kernels.shape
        if len(shape) < 5 or shape[-5] != 2 or shape[-4] != shape[-3]:
            raise ValueError(
                f"kernels must be (depth, 2, channels, channels, 3, 3): got {shape}."
            )
        if shape[-2:] != (3, 3):
            raise ValueError(f"kernels must be 3 by 3: got {shape[-2:]}.")
        if biases is None:
            biases = jnp.zeros(shape[:-3], kernels.dtype)
        require_floats("biases", biases)
        if biases.shape != shape[:-3]:
            raise ValueError(f"biases must be {shape[:-3]}: got {biases.shape}.")
        self.kernels, self.biases = kernels, biases
        self.activation = named_activation(activation)

    def __call__(
        self, h: Float[Array, "channels height width"]
    ) -> Float[Array, "channels height width"]:
        h = as_floats("h", h, shape=(self.kernels.shape[-3], None, None))
        h = self.activation(
            convolve(h, self.kernels[0]) + self.biases[0, :, None, None]
        )
        return convolve(h, self.kernels[1]) + self.biases[1, :, None, None]


def convolve(
    image: Float[Array, "inputs height width"],
    kernel: Float[Array, "outputs inputs rows columns"],
    *,
    stride: int = 1,
) -> Float[Array, "outputs out_height out_width"]:
    """Cross-correlation of one image with zero padding of half a kernel."""
    require_whole(stride=stride)
    image = as_floats("image", image, shape=(None, None, None))
    kernel = as_floats("kernel", kernel, shape=(None, len(image), None, None))
    padding = [(size // 2, size // 2) for size in kernel.shape[2:]]
    return jax.lax.conv_general_dilated(
        image[None], kernel, window_strides=(stride, stride), padding=padding
    )[0]


def _scale(scale: Any, weights: Array) -> Array:
    given = as_floats("scale", scale)
    if given.shape not in {(), weights.shape[:1]}:
        raise ValueError(f"scale must be () or {weights.shape[:1]}: got {given.shape}.")
    require_finite("scale", given)
    return given if hasattr(scale, "dtype") else given.astype(weights.dtype)


class Matrix(eqx.Module):
    r"""The linear map $x \mapsto A x$: the maps in and out of the equations.

    ```pycon
    >>> Matrix(jnp.array([[1.0, 2.0]]))(jnp.array([3.0, 4.0])).tolist()
    [11.0]
    ```
    """

    weight: Float[Array, "outputs inputs"]

    def __check_init__(self):
        require_floats("weight", self.weight)
        require_shape("weight", self.weight, (None, None))

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return _vector("x", x, self.weight.shape[-1]) @ self.weight.T


class ResNet(eqx.Module):
    r"""The residual network of depth $L$,

    $$ \begin{gathered} h_0 = A(x), \qquad F(x) = B(h_L), \\
       h_{k+1} = h_k + \delta_k f(h_k, Z_{k+1}), \quad k < L, \end{gathered} $$

    with $\delta_k = L^{-\beta}$, or trained: `scale` holds one $\delta$ or one a layer,
    and $\delta_k = L^{-\beta}\,$`scale`$_k$, or its modulus if `absolute`, as with one
    $\delta$ in `cohen2021`. `encoder` is $A$ and `decoder` is $B$.
    It acts on one example; `jax.vmap` gives the batch. For the backward pass a layer
    keeps its hidden state and its products (of matrices, convolutions), and computes
    what is cheap again; with `recompute` it keeps its hidden state alone.

    ```pycon
    >>> network = ResNet(OneLayer(jnp.zeros((10, 2, 2)), jnp.ones((10, 2))))
    >>> network.depth, network(jnp.zeros(2)).round(4)  # tanh 1 in ten steps
    (10, Array([0.76159996, 0.76159996], dtype=float32))
    ```
    """

    block: AbstractBlock
    encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    scale: Float[Array, ""] | Float[Array, " depth"] | None
    beta: float = eqx.field(static=True)
    recompute: bool = eqx.field(static=True)
    absolute: bool = eqx.field(static=True)

    def __init__(
        self,
        block: AbstractBlock,
        encoder: Callable[..., Any] | None = None,
        decoder: Callable[..., Any] | None = None,
        *,
        beta: float = 1.0,
        scale: float | Float[Array, ""] | Float[Array, " depth"] | None = None,
        recompute: bool = False,
        absolute: bool = False,
    ):
        leaves = jax.tree.leaves(block)
        for leaf in leaves:
            require_floats("weights", leaf)
        depths = {leaf.shape[:1] for leaf in leaves}
        if len(depths) != 1 or not any(min(depths)):
            raise ValueError(
                "the arrays of a stacked block need one common depth of at least 1 as "
                f"leading axis: got {sorted(depths)}."
            )
        require_within("(-inf, inf)", beta=beta)
        self.block, self.beta = block, beta
        self.scale = None if scale is None else _scale(scale, leaves[0])
        self.encoder = eqx.nn.Identity() if encoder is None else encoder
        self.decoder = eqx.nn.Identity() if decoder is None else decoder
        self.recompute, self.absolute = recompute, absolute

    @property
    def depth(self) -> int:
        """The number of layers $L$."""
        return jax.tree.leaves(self.block)[0].shape[0]

    @property
    def steps(self) -> Float[Array, " depth"]:
        r"""The step $\delta_k$ of every layer."""
        leaf = jax.tree.leaves(self.block)[0]
        steps = jnp.full(self.depth, self.depth**-self.beta, leaf.dtype)
        if self.scale is None:
            return steps
        return steps * (jnp.abs(self.scale) if self.absolute else self.scale)

    def _start(self, x: Array) -> Array:
        """The first state, in the type that all others have."""
        h = as_floats("x", self.encoder(x))
        parts = (h, self.steps, *jax.tree.leaves(self.block))
        return h.astype(jnp.result_type(*(part.dtype for part in parts)))

    def _scan(self, x: Array, keep: bool) -> tuple[Array, Array | None]:
        def layer(h, parameters):
            step, block = parameters
            residual = block(h)
            if residual.shape != h.shape:
                raise ValueError(
                    f"a block must map {h.shape} to itself: got {residual.shape}; its "
                    "arrays need the depth as leading axis."
                )
            h = h + step * residual
            return h, h if keep else None

        policy = None if self.recompute else _is_product
        layer = jax.checkpoint(layer, prevent_cse=False, policy=policy)
        return jax.lax.scan(layer, self._start(x), (self.steps, self.block))

    def trajectory(self, x: Array) -> Array:
        """The hidden states $h_0, …, h_L$, on a leading axis of size $L + 1$."""
        _, hidden = self._scan(x, keep=True)
        assert hidden is not None
        return jnp.concatenate([self._start(x)[None], hidden])

    def __call__(self, x: Array) -> Array:
        """The output $F(x)$."""
        last, _ = self._scan(x, keep=False)
        return self.decoder(last)
