"""Gradient flow and descent: compiled scans in chunks, records streamed to the host."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree
from tqdm import tqdm

from .checks import require_finite
from .files import atomic, read_npz

Loss = Callable[[Any, Any, PRNGKeyArray | None], Float[Array, ""]]


def mean_square(model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None):
    r"""The loss $\ell = \frac1n \sum_i \|F(x_i) - y_i\|^2$ of `marion2024`."""
    x, y = data
    outputs = jax.vmap(model)(x)
    if outputs.shape != y.shape:
        raise ValueError(
            f"targets must have the outputs' shape {outputs.shape}: got {y.shape}."
        )
    return jnp.sum((outputs - y) ** 2) / x.shape[0]


def mean_square_entry(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""The mean of all entries' squares: `mean_square` over the targets' dimension."""
    return mean_square(model, data) / data[1][0].size


def cross_entropy(
    model: Any, data: tuple[Array, Array], key: PRNGKeyArray | None = None
):
    r"""$\ell = -\frac1n \sum_i \log \operatorname{softmax}(F(x_i))_{y_i}$."""
    x, labels = data
    logits = jax.vmap(model)(x)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels must have the shape {logits.shape[:-1]}: got {labels.shape}."
        )
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def on_batches(loss: Loss, size: int) -> Loss:
    """`loss` on `size` examples, drawn anew without replacement at each step."""
    if size < 1:
        raise ValueError(f"a batch needs a positive size: got {size}.")

    def batch_loss(model, data, key):
        if key is None:
            raise ValueError("batches are drawn: give train a key.")
        chosen = jr.choice(
            key, jax.tree.leaves(data)[0].shape[0], (size,), replace=False
        )
        return loss(model, jax.tree.map(lambda a: a[chosen], data), None)

    return batch_loss


def depth_factor() -> optax.GradientTransformation:
    r"""Multiply the gradients of the layers by $L$, for the flow
    $\dot Z_k = -L\,\partial_{Z_k} \ell$.

    The factor undoes the step $1/L$, so that every layer moves by an amount that does
    not depend on depth. Put it before the learning rate in `optax.chain`; with
    `optax.clip` after it the flow is clipped. Source: `marion2024`, equations (4), (5).
    """

    def multiply(updates, params=None):
        block = jax.tree.map(lambda u: u * u.shape[0], updates.block)
        return eqx.tree_at(lambda u: u.block, updates, block)

    return optax.stateless(multiply)


def only_layers(model: Any) -> PyTree:
    """The filter of `train` that trains the layers and freezes all else."""
    frozen = jax.tree.map(lambda _: False, model)
    layers = jax.tree.map(eqx.is_inexact_array, model.block)
    return eqx.tree_at(lambda m: m.block, frozen, layers)


def over_devices(function: Callable) -> Callable:
    """`jax.vmap(function)`, the members of the leading axis spread over all devices.

    These are several graphics cards, or the cores of a processor if
    `JAX_NUM_CPU_DEVICES` says how many before JAX starts. Every array of an argument
    has the leading axis; what is no array goes to all members. Each device takes an
    equal number of members, made up by copies that the result leaves out.
    """

    def mapped(*arguments):
        arrays, others = eqx.partition(arguments, eqx.is_array)
        each = jax.vmap(lambda arrays: function(*eqx.combine(arrays, others)))
        devices = jax.devices()
        if len(devices) == 1:
            return each(arrays)
        members = jax.tree.leaves(arrays)[0].shape[0]
        whole = np.arange(-(-members // len(devices)) * len(devices)) % members
        mesh, along = Mesh(devices, ("members",)), PartitionSpec("members")
        spread = jax.shard_map(
            each, mesh=mesh, in_specs=(along,), out_specs=along, check_vma=False
        )
        found = spread(jax.tree.map(lambda a: a[whole], arrays))
        return jax.tree.map(lambda a: a[:members], found)

    return mapped


def over_examples(loss: Loss) -> Loss:
    """`loss`, a mean over examples, with the examples spread over all devices.

    Each device goes through all layers with its share, forwards and backwards; their
    gradients are averaged once, at the end. Devices are those of `over_devices`. Raises
    `ValueError` for a number of examples that they do not divide.
    """

    def spread(model, data, key):
        devices = jax.devices()
        examples = jax.tree.leaves(data)[0].shape[0]
        if len(devices) == 1:
            return loss(model, data, key)
        if examples % len(devices):
            raise ValueError(
                f"{examples} examples do not divide over {len(devices)} devices."
            )
        arrays, others = eqx.partition(model, eqx.is_array)

        def mean(arrays, data, key):
            # here, once: where it is left to JAX, gradients are summed at each layer
            arrays = jax.lax.pcast(arrays, "examples", to="varying")
            part = loss(eqx.combine(arrays, others), data, key)
            return jax.lax.pmean(part, "examples")

        mesh, along = Mesh(devices, ("examples",)), PartitionSpec("examples")
        specs = (PartitionSpec(), along, PartitionSpec())
        mapped = jax.shard_map(mean, mesh=mesh, in_specs=specs, out_specs=specs[0])
        return mapped(arrays, data, key)

    return spread


class Run(NamedTuple):
    """What `train` returns.

    `records` are those of the steps `recorded` (the last state's among them), `losses`
    those before each update. A run whose loss stops being finite ends there: it is
    `diverged`, and keeps all that was recorded; so is one whose last update took the
    loss there. With `ensemble`, the arrays carry the
    members in front, and a member that diverged holds still, its losses NaN.
    """

    model: Any
    records: Any
    recorded: np.ndarray
    losses: np.ndarray
    steps: int
    planned: int
    diverged: bool

    def finished(self) -> "Run":
        """This run; `ValueError` where it (or a member of it) diverged."""
        if self.diverged:
            # of an ensemble, the member that ended first
            step = np.isfinite(self.losses).sum(-1).min()
            raise ValueError(
                f"the loss stopped being finite after {step} of {self.planned} steps: "
                "try a smaller learning rate."
            )
        return self


class _State(NamedTuple):
    params: PyTree
    optimiser: PyTree
    step: Int[Array, ""]
    alive: Array


def train(
    model: Any,
    data: PyTree,
    loss: Loss,
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    record: Callable[[Any], PyTree] | None = None,
    every: int = 1,
    trainable: PyTree | Callable[[Any], PyTree] = eqx.is_inexact_array,
    ensemble: bool = False,
    chunk: int | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
    key: PRNGKeyArray | None = None,
) -> Run:
    r"""Train for `steps` updates; record a function of the model every `every` updates.

    `loss(model, data, key)` is minimised over the leaves that `trainable` marks (a
    filter of Equinox, or a function of the model that returns one). One compiled scan
    makes `chunk` records (by default a twentieth of all); between chunks the records
    go to the host, the progress bar moves and, where `checkpoint` names a file, the run
    is saved. Called again with that file, on as many devices of the same kind, it goes
    on from there and ends with the same numbers. `ensemble=True` trains several models
    at once, `over_devices`: model, data and key carry a leading axis. Raises
    `ValueError` for bad sizes, weights or data that are not finite, and for a
    checkpoint that belongs to another run.
    """
    if steps < 1 or every < 1 or steps % every:
        raise ValueError(
            f"steps must be a positive multiple of every: {steps=}, {every=}."
        )
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be positive: got {chunk}.")
    require_finite("model", model)
    require_finite("data", data)
    params, fixed = eqx.partition(model, _filter(model, trainable))
    record = _nothing if record is None else record
    each = eqx.filter_vmap if ensemble else _plain
    sizes = (every, min(chunk or -(-steps // (20 * every)), steps // every), ensemble)

    state = each(_start)(params, optimiser)
    functions = (loss, optimiser, record)
    saved = _Checkpoint(None, "")
    if checkpoint is not None:
        arrays, rows = (state, fixed, data, key), (every, 1, ensemble)
        update = _chunk.lower(arrays, functions, jnp.asarray(steps), rows).as_text()
        saved = _Checkpoint.of(checkpoint, arrays, f"{steps} {every} {update}")
    state, kept = saved.load(state)
    with tqdm(total=steps, disable=None if progress else True, unit="step") as bar:
        while bool(jnp.any(state.alive & (state.step < steps))):
            bar.update(int(state.step.max()) - bar.n)
            arrays = (state, fixed, data, key)
            state, part = _chunk(arrays, functions, jnp.asarray(steps), sizes)
            kept = _joined(kept, jax.device_get(jax.tree.leaves(part)), ensemble)
            saved.save(state, kept)
        bar.update(int(state.step.max()) - bar.n)
    model = eqx.combine(state.params, fixed)
    ends = _value((state.params, fixed, data, key), loss, state.step, ensemble)
    state = state._replace(alive=state.alive & jnp.isfinite(ends))
    run = _finish(model, state, kept, each(record)(model), every, ensemble)
    return run._replace(planned=steps)


def flow(
    model: Any,
    data: PyTree,
    loss: Loss,
    times: Float[Array, " times"],
    *,
    rule: optax.GradientTransformation | None = None,
    trainable: PyTree | Callable[[Any], PyTree] = eqx.is_inexact_array,
    solver: diffrax.AbstractSolver | None = None,
    tolerance: float = 1e-8,
) -> Any:
    r"""The gradient flow $\dot Z_k = -L\,\partial_{Z_k} \ell$ from training time 0.

    Returns the model at the increasing `times`, stacked on a leading axis.
    `rule` turns gradients into the direction of motion (a stateless transformation of
    optax; by default `depth_factor`, and `optax.chain(depth_factor(), optax.clip(c))`
    is the clipped flow). The flow is integrated by diffrax to the `tolerance`.
    Source: `marion2024`, equations (4) and (5).
    """
    params, fixed = eqx.partition(model, _filter(model, trainable))
    rule = depth_factor() if rule is None else rule

    def velocity(t, params, args):
        grads = jax.grad(lambda p: loss(eqx.combine(p, fixed), data, None))(params)
        return jax.tree.map(jnp.negative, rule.update(grads, rule.init(params))[0])

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        diffrax.Tsit5() if solver is None else solver,
        t0=0.0,
        t1=times[-1],
        dt0=None,
        y0=params,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=2**16,
    )
    return eqx.combine(solution.ys, fixed)


def _filter(model: Any, trainable: PyTree | Callable[[Any], PyTree]) -> PyTree:
    """The filter itself; what says true or false of the model judges single leaves."""
    if not callable(trainable) or isinstance(trainable, type(model)):
        return trainable
    chosen = trainable(model)
    return trainable if isinstance(chosen, bool) else chosen


def _nothing(model: Any) -> None:
    return None


def _plain(function: Callable) -> Callable:
    return function


def _start(params: PyTree, optimiser: optax.GradientTransformation) -> _State:
    return _State(params, optimiser.init(params), jnp.asarray(0), jnp.asarray(True))


@eqx.filter_jit
def _chunk(arrays, functions, steps, sizes):
    """`count` records, each followed by `every` updates; see `train`."""
    (loss, optimiser, record), (every, count, ensemble) = functions, sizes

    def scan(state, fixed, data, key):
        def updates(state, _):
            return _guarded_update(state, fixed, data, key, loss, optimiser, steps)

        def recorded(state, _):
            kept = record(eqx.combine(state.params, fixed))
            state, losses = jax.lax.scan(updates, state, length=every)
            return state, (kept, losses)

        return jax.lax.scan(recorded, state, length=count)

    return (over_devices if ensemble else _plain)(scan)(*arrays)


@eqx.filter_jit
def _value(arrays, loss, step, ensemble):
    """The loss of the last state, with the key of the update that would follow."""

    def value(params, fixed, data, key, step):
        step_key = None if key is None else jr.fold_in(key, step)
        return loss(eqx.combine(params, fixed), data, step_key)

    return (over_devices if ensemble else _plain)(value)(*arrays, step)


def _guarded_update(state, fixed, data, key, loss, optimiser, steps):
    """One update, and the loss before it; none past the end or once the loss is not
    finite, when the loss is NaN."""

    def objective(params, key):
        return loss(eqx.combine(params, fixed), data, key)

    def update(state, grads):
        changes, inner = optimiser.update(grads, state.optimiser, state.params)
        params = eqx.apply_updates(state.params, changes)
        return state._replace(params=params, optimiser=inner, step=state.step + 1)

    def end(state, grads):
        return state._replace(alive=jnp.zeros_like(state.alive))

    def attempt(state):
        step_key = None if key is None else jr.fold_in(key, state.step)
        value, grads = eqx.filter_value_and_grad(objective)(state.params, step_key)
        return jax.lax.cond(jnp.isfinite(value), update, end, state, grads), value

    value = jax.eval_shape(attempt, state)[1]
    missing = jnp.full(value.shape, jnp.nan, value.dtype)
    active = state.alive & (state.step < steps)
    return jax.lax.cond(active, attempt, lambda state: (state, missing), state)


def _joined(kept: list, part: list, ensemble: bool) -> list:
    axis = 1 if ensemble else 0
    part = [np.asarray(leaf) for leaf in part]
    if not kept:
        return part
    return [np.concatenate(pair, axis) for pair in zip(kept, part, strict=True)]


def _finish(model, state, kept, last, every: int, ensemble: bool) -> Run:
    """Add the record of the last state; cut what was not reached."""
    axis = 1 if ensemble else 0
    reached = int(state.step.max())
    rows = -(-reached // every)
    *records, losses = kept or [np.zeros((len(state.step), 0) if ensemble else 0)]
    leaves, structure = jax.tree.flatten(jax.device_get(last))
    records = [
        np.append(np.take(a, range(rows), axis), np.expand_dims(b, axis), axis)
        for a, b in zip(records, leaves, strict=True)
    ]
    losses = losses.reshape(*losses.shape[:axis], -1)[..., :reached]
    recorded = np.append(np.arange(rows) * every, reached)
    records = jax.tree.unflatten(structure, records)
    diverged = not bool(state.alive.all())
    return Run(model, records, recorded, losses, reached, reached, diverged)


class _Checkpoint(NamedTuple):
    """The state of a run and what it recorded, in one file."""

    path: Path | None
    signature: str

    @classmethod
    def of(cls, path: str | os.PathLike, arrays: PyTree, update: str):
        """`update` is a compiler's text: loss, optimiser and all that is static."""
        digest = hashlib.sha256(update.encode())
        for leaf in jax.tree.leaves(eqx.filter(arrays, eqx.is_array)):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jr.key_data(leaf)
            digest.update(f"{leaf.shape} {leaf.dtype}".encode())
            digest.update(np.asarray(leaf).tobytes())
        return cls(Path(path), digest.hexdigest())

    def save(self, state: _State, kept: list) -> None:
        if self.path is None:
            return
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, *leaves, *kept, signature=np.array(self.signature))

    def load(self, state: _State) -> tuple[_State, list]:
        if self.path is None or not self.path.exists():
            return state, []
        try:
            file = read_npz(self.path)
            found = str(file["signature"])
            arrays = [file[f"arr_{i}"] for i in range(len(file) - 1)]
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{self.path} is not a readable checkpoint ({error}): delete it to "
                "start the run again."
            ) from error
        if found != self.signature:
            raise ValueError(
                f"{self.path} belongs to another run (other weights, data, key, sizes, "
                "network, loss or optimiser): delete it or name another file."
            )
        leaves, structure = jax.tree.flatten(state)
        restored = [jnp.asarray(a) for a in arrays[: len(leaves)]]
        return jax.tree.unflatten(structure, restored), arrays[len(leaves) :]
