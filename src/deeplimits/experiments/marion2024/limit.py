"""The limit training dynamics: a system in depth-time and training time."""

import dataclasses
import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import xarray as xr
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ... import losses
from ...residual import Matrix, ResNet, TwoLayer
from .setting import layers

Data = tuple[Float[Array, "n d"], Float[Array, "n outputs"]]


@dataclasses.dataclass(frozen=True)
class LimitDynamics:
    """Sizes are ours. The network satisfies the assumptions of Theorem 4."""

    depths: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    nodes: int = 11
    substeps: int = 2
    horizon: float = 24.0
    times: int = 13
    n: int = 12
    q: int = 5
    m: int = 12
    tolerance: float = 1e-6


@dataclasses.dataclass(frozen=True)
class Grid:
    r"""Chebyshev nodes $s_j = \frac12(1 - \cos \frac{\pi j}{N})$ in depth-time.

    Functions of depth are known at the nodes and interpolated by the polynomial through
    them. Between two nodes the fourth-order Runge–Kutta scheme takes `substeps` steps,
    each of which needs the weights at its two ends and its middle.
    """

    count: int
    substeps: int

    @functools.cached_property
    def nodes(self) -> Float[np.ndarray, " nodes"]:
        return (1 - np.cos(np.pi * np.arange(self.count) / (self.count - 1))) / 2

    @functools.cached_property
    def starts(self) -> Float[np.ndarray, " steps"]:
        part = np.arange(self.substeps) / self.substeps
        return (self.nodes[:-1, None] + np.diff(self.nodes)[:, None] * part).ravel()

    @functools.cached_property
    def sizes(self) -> Float[np.ndarray, " steps"]:
        return np.diff(np.append(self.starts, 1.0))

    @functools.cached_property
    def stages(self) -> Float[np.ndarray, "steps 3 nodes"]:
        points = self.starts[:, None] + self.sizes[:, None] * np.array([0.0, 0.5, 1.0])
        return self.at(points.ravel()).reshape(*points.shape, self.count)

    def at(
        self, points: Float[np.ndarray, " points"]
    ) -> Float[np.ndarray, "points nodes"]:
        """The matrix that takes values at the nodes to values at `points`."""
        signs = (-1.0) ** np.arange(self.count)
        signs[[0, -1]] /= 2
        gaps = points[:, None] - self.nodes
        hit = np.abs(gaps) < 1e-14
        terms = np.where(
            hit.any(1, keepdims=True), hit, signs / np.where(hit, 1.0, gaps)
        )
        return terms / terms.sum(1, keepdims=True)


def between(matrix: Float[np.ndarray, "... nodes"], block: TwoLayer) -> TwoLayer:
    """The block of a model on the grid, interpolated by a matrix of `Grid`."""
    return jax.tree.map(lambda z: jnp.tensordot(matrix, z, axes=1), block)


def _runge_kutta(field, state, size, blocks):
    """One step of the classical scheme; `blocks` are stacked: start, middle, end."""
    start, middle, end = (jax.tree.map(lambda z, i=i: z[i], blocks) for i in range(3))

    def moved(slope, length):
        return jax.tree.map(lambda y, k: y + length * k, state, slope)

    first = field(state, start)
    second = field(moved(first, size / 2), middle)
    third = field(moved(second, size / 2), middle)
    fourth = field(moved(third, size), end)
    slope = jax.tree.map(
        lambda a, b, c, d: (a + 2 * b + 2 * c + d) / 6, first, second, third, fourth
    )
    return moved(slope, size)


def forward(
    model: ResNet, grid: Grid, x: Float[Array, " d"]
) -> Float[Array, "nodes q"]:
    r"""$H(s_j)$: the neural ODE $\partial_s H = f(H, \mathcal{Z}(s))$, $H(0) = A x$."""

    def step(h, parameters):
        size, blocks = parameters
        h = _runge_kutta(lambda h, block: block(h), h, size, blocks)
        return h, h

    start = model.encoder(x)
    stages = (jnp.asarray(grid.sizes), between(grid.stages, layers(model)))
    _, hidden = jax.lax.scan(step, start, stages)
    return jnp.concatenate([start[None], hidden[grid.substeps - 1 :: grid.substeps]])


def _corrected(block, h, p):
    r"""$-(\partial_1 f)^\top P$: the limit of the recursion of backpropagation."""
    return -jax.vjp(block, h)[1](p)[0]


def _printed(block, h, p):
    r"""$\partial_1 f\, P$: the right-hand side as it stands in the paper."""
    return jax.jvp(block, (h,), (p,))[1]


RULES = ("corrected", "printed")


def adjoint(
    model: ResNet,
    grid: Grid,
    last: Float[Array, " q"],
    cotangent: Float[Array, " q"],
    printed: bool | Bool[Array, ""] = False,
) -> Float[Array, "nodes q"]:
    r"""$P(s_j)$, backwards from $P(1)$ together with $H$ from $H(1)$:

    $$ \partial_s P = -\partial_1 f(H, \mathcal{Z})^\top P, $$

    or, for the negative control, by the equation that is `printed` in the paper.
    """

    def field(state, block):
        h, p = state
        return block(h), jax.lax.cond(printed, _printed, _corrected, block, h, p)

    def step(state, parameters):
        size, blocks = parameters
        backwards = jax.tree.map(lambda z: z[::-1], blocks)
        state = _runge_kutta(field, state, -size, backwards)
        return state, state[1]

    stages = (jnp.asarray(grid.sizes), between(grid.stages, layers(model)))
    _, adjoints = jax.lax.scan(step, (last, cotangent), stages, reverse=True)
    return jnp.concatenate([adjoints[:: grid.substeps], cotangent[None]])


def limit_gradient(
    model: ResNet, *, grid: Grid, data: Data, printed: bool | Bool[Array, ""] = False
) -> ResNet:
    r"""The gradient of $\ell$ at weights that are functions of depth-time,

    $$ \frac1n \sum_i \partial_2 f(H_i(s), \mathcal{Z}(s))^\top P_i(s), \quad
       \frac1n \sum_i P_i(0) x_i^\top, \quad
       \frac2n \sum_i (F(x_i) - y_i) H_i(1)^\top, $$

    in the metric $L^2(\mathrm{d}s)$. `model` holds their values at the nodes.
    Source: `marion2024`, appendix A.5.
    """

    def one(x, y):
        hidden = forward(model, grid, x)
        error = 2 * (model.decoder(hidden[-1]) - y)
        cotangent = model.decoder.weight.T @ error
        states = adjoint(model, grid, hidden[-1], cotangent, printed)

        def pull(block, h, p):
            return jax.vjp(lambda b: b(h), block)[1](p)[0]

        blocks = jax.vmap(pull)(model.block, hidden, states)
        return blocks, jnp.outer(states[0], x), jnp.outer(error, hidden[-1])

    gradients = jax.vmap(one)(*data)
    means = jax.tree.map(lambda g: g.mean(0), gradients)
    return eqx.tree_at(
        lambda m: (m.block, m.encoder.weight, m.decoder.weight), model, means
    )


def network_gradient(model: ResNet, *, data: Data) -> ResNet:
    r"""$(L\,\partial_{Z_k} \ell, \partial_A \ell, \partial_B \ell)$ of a network."""
    gradient = jax.grad(losses.mean_square)(model, data)
    block = jax.tree.map(lambda g: model.depth * g, gradient.block)
    return eqx.tree_at(lambda m: m.block, gradient, block)


@eqx.filter_jit
def flow(
    gradient, model: ResNet, times: Float[Array, " times"], tolerance: float
) -> ResNet:
    """The gradient flow of `model` at `times`, to a tolerance in training time."""

    def velocity(t, model, args):
        return jax.tree.map(jnp.negative, gradient(model))

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5(),
        t0=0.0,
        t1=times[-1],
        dt0=0.01 * times[-1],
        y0=model,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=4096,
    )
    assert isinstance(solution.ys, ResNet)
    return solution.ys


def initial(config: LimitDynamics, depth: int, *, key: PRNGKeyArray) -> ResNet:
    """$A = (I; 0)$, $B = (0, I)$, $V = 0$ and the same Gaussian $W$ at every depth."""
    inner = jnp.broadcast_to(
        jr.normal(key, (config.m, config.q)), (depth, config.m, config.q)
    )
    outer = jnp.zeros((depth, config.q, config.m))
    identity = jnp.eye(config.q)
    return ResNet(
        TwoLayer(outer, inner, activation="tanh"),
        Matrix(identity[:, :2]),
        Matrix(identity[-2:]),
    )


def squares(
    n: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "n 2"], Float[Array, "n 2"]]:
    r"""Points of the plane as complex numbers $z$, standard normal, and their $z^2$."""
    x = jr.normal(key, (n, 2))
    a, b = x.T
    return x, jnp.stack([a**2 - b**2, 2 * a * b], axis=1)


def limit_dynamics(
    config: LimitDynamics, *, key: PRNGKeyArray, scratch=None, progress=False
) -> xr.Dataset:
    """The limit against networks of growing depth, and against the printed adjoint.

    The errors are the largest over the recorded training times; the gradients are
    compared at the last, with those of automatic differentiation in a network that
    samples the limit's weights. Each solve takes seconds: `scratch` is not used.
    """
    with jax.enable_x64(True):
        return _limit_dynamics(config, key)


def _limit_dynamics(config: LimitDynamics, key: PRNGKeyArray) -> xr.Dataset:
    weight_key, data_key, test_key = jr.split(key, 3)
    data, grid = squares(config.n, key=data_key), Grid(config.nodes, config.substeps)
    test = jr.normal(test_key, (32, 2))
    times = jnp.linspace(0.0, config.horizon, config.times)

    def solve(depth, gradient):
        model = initial(config, depth, key=weight_key)
        return flow(gradient, model, times, config.tolerance)

    # `Partial` lets both rules, and every use of the gradient, share one program
    rules = [
        Partial(limit_gradient, grid=grid, data=data, printed=jnp.asarray(printed))
        for printed in (False, True)
    ]
    path, printed = (solve(config.nodes, gradient) for gradient in rules)
    networks = [
        solve(depth, Partial(network_gradient, data=data)) for depth in config.depths
    ]
    errors = [compare(path, network, grid, test) for network in networks]
    gradients = [_along(gradient, path) for gradient in rules]
    dims = ("rule", "depth")
    return xr.Dataset(
        {
            "error": (("quantity", "depth"), np.stack(errors, axis=1)),
            "loss": ("time", _losses(path, grid, data)),
            "printed_loss": ("time", _losses(printed, grid, data)),
            "mismatch": (dims, _mismatches(config, path, gradients, grid, data)),
            "speed": max(
                float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients[0])
            ),
            "outer_entry": (("time", "s"), _entry(path, grid)),
        },
        {
            "quantity": list(QUANTITIES),
            "rule": list(RULES),
            "depth": list(config.depths),
            "time": np.asarray(times),
            "s": _FINE,
        },
        {"dtype": "float64"},
    )


QUANTITIES = ("outer", "inner", "encoder", "decoder", "states", "outputs")
_FINE = np.linspace(0.0, 1.0, 65)


def _largest(gap: Float[Array, "..."]) -> Float[Array, ""]:
    """The largest Frobenius norm of the matrices on the last two axes."""
    return jnp.sqrt(jnp.sum(gap**2, axis=(-2, -1)).max())


@eqx.filter_jit
def compare(
    path: ResNet, network: ResNet, grid: Grid, test: Float[Array, "points d"]
) -> Float[Array, " quantities"]:
    r"""How far a network is from the limit, layer $k + 1$ from $s = k/L$: `QUANTITIES`.

    Both carry a leading axis of training times; of all, the largest distances.
    """
    depth = layers(network).outer.shape[1]
    samples = grid.at(np.arange(depth) / depth)
    states = jnp.asarray(grid.at(np.arange(depth + 1) / depth))

    def gap(limit, net):
        block = jax.tree.map(jnp.subtract, between(samples, layers(limit)), layers(net))
        smooth = jax.vmap(lambda x: states @ forward(limit, grid, x))(test)
        hidden = smooth - jax.vmap(net.trajectory)(test)
        outputs = smooth[:, -1] @ limit.decoder.weight.T - jax.vmap(net)(test)
        matrices = (
            block.outer,
            block.inner,
            limit.encoder.weight - net.encoder.weight,
            limit.decoder.weight - net.decoder.weight,
            hidden[:, :, None],
            outputs[:, None],
        )
        return jnp.stack([_largest(matrix) for matrix in matrices])

    return jax.vmap(gap)(path, network).max(0)


@eqx.filter_jit
def _along(gradient, path: ResNet) -> ResNet:
    """A gradient at every time of a path."""
    return jax.vmap(gradient)(path)


@eqx.filter_jit
def _losses(path: ResNet, grid: Grid, data: Data) -> Float[Array, " times"]:
    x, y = data

    def loss(model):
        outputs = jax.vmap(lambda x: model.decoder(forward(model, grid, x)[-1]))(x)
        return jnp.sum((outputs - y) ** 2) / len(y)

    return jax.vmap(loss)(path)


def _last(path: ResNet) -> ResNet:
    return jax.tree.map(lambda z: z[-1], path)


def _mismatches(
    config, path, gradients, grid, data
) -> Float[np.ndarray, "rules depths"]:
    """The relative error of the gradient in `V` at the last time, by rule and depth."""
    block = layers(_last(path))
    ours = [layers(_last(gradient)) for gradient in gradients]

    def at(depth):
        matrix = grid.at(np.arange(depth) / depth)
        last = _last(path)
        network = ResNet(between(matrix, block), last.encoder, last.decoder)
        exact = layers(jax.jit(Partial(network_gradient, data=data))(network)).outer
        gaps = [between(matrix, g).outer - exact for g in ours]
        return [float(jnp.linalg.norm(g) / jnp.linalg.norm(exact)) for g in gaps]

    return np.array([at(depth) for depth in config.depths]).T


def _entry(path: ResNet, grid: Grid) -> Float[Array, "times s"]:
    """The entry of $\\mathcal{V}$ that varies most along depth at the last time."""
    values = jnp.einsum(
        "sj,tjab->tsab", jnp.asarray(grid.at(_FINE)), layers(path).outer
    )
    row, column = np.unravel_index(
        jnp.std(values[-1], axis=0).argmax(), values.shape[2:]
    )
    return values[:, :, row, column]
