"""Descent: compiled scans in chunks, records streamed to the host."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Int, Key, PRNGKeyArray, PyTree
from tqdm import tqdm

from .checkpoints import Checkpoint
from .checks import is_whole, require_finite, require_floats
from .devices import over_devices
from .losses import Loss


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
    """The filter of `train` that trains the layers and freezes all else.

    ```pycon
    >>> from deeplimits import residual
    >>> network = residual.ResNet(residual.OneLayer(jnp.zeros((2, 3, 3))))
    >>> jax.tree.leaves(only_layers(network).block)
    [True, True]
    ```
    """
    frozen = jax.tree.map(lambda _: False, model)
    layers = jax.tree.map(eqx.is_inexact_array, model.block)
    return eqx.tree_at(lambda m: m.block, frozen, layers)


def split_trainable(
    model: Any, trainable: PyTree | Callable[[Any], PyTree]
) -> tuple[PyTree, PyTree]:
    """The leaves that `trainable` marks, and all others; see `train`. Raises
    `ValueError` where there are none, and for those that are not real."""
    if callable(trainable) and not isinstance(trainable, type(model)):
        chosen = trainable(model)
        # what says true or false of the whole model judges single leaves
        trainable = trainable if isinstance(chosen, bool) else chosen
    params, fixed = eqx.partition(model, trainable)
    _require_trainable(params)
    return params, fixed


def _require_trainable(params: PyTree) -> None:
    """Raise `ValueError` where nothing is trained, and for weights that are no floats:
    along what JAX calls their gradient complex ones climb."""
    if not jax.tree.leaves(params):
        raise ValueError("nothing is trained: mark arrays of floats in the model.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(leaf, float):
            require_floats(f"what is trained{jax.tree_util.keystr(path)}", leaf)


class Run(NamedTuple):
    """What `train` returns.

    `records` are those of the steps `recorded` (the last state's among them), `losses`
    those before each update. A run whose loss stops being finite ends there: it is
    `diverged`, and keeps all that was recorded; so is one whose last update took the
    loss there. With `ensemble`, the arrays carry the
    members in front, and a member that diverged holds still, its losses NaN.

    ```pycon
    >>> import optax
    >>> run = train(jnp.ones(1), None, lambda z, *_: z @ z, optax.sgd(0.25), 3)
    >>> run.losses.tolist(), run.model.tolist(), run.diverged  # z halves
    ([1.0, 0.25, 0.0625], [0.125], False)
    ```
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
            advice = "try a smaller learning rate" if step else "look at the data"
            raise ValueError(
                f"the loss stopped being finite after {step} of {self.planned} steps: "
                f"{advice}."
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
    key: PRNGKeyArray | Key[Array, " members"] | None = None,
) -> Run:
    r"""Train for `steps` updates; record a function of the model every `every` updates.

    `loss(model, data, key)` is minimised over the leaves that `trainable` marks (a
    filter of Equinox, or a function of the model that returns one). One compiled scan
    makes `chunk` records (by default a twentieth of all); between chunks the records
    go to the host, the progress bar moves and, where `checkpoint` names a file, the run
    is saved. Called again with that file, on as many devices of the same kind, it goes
    on from there and ends with the same numbers. `ensemble=True` trains several models
    at once, `over_devices`: model, data and key carry a leading axis. Raises
    `ValueError` for bad sizes, weights or data that are not finite, where nothing or
    what is no float is to be trained, and for a checkpoint of another run.

    ```pycon
    >>> import optax
    >>> options = {"record": lambda z: z[0], "every": 2}
    >>> loss = lambda z, *_: z @ z
    >>> run = train(jnp.ones(1), None, loss, optax.sgd(0.25), 4, **options)
    >>> run.recorded.tolist(), run.records.tolist()
    ([0, 2, 4], [1.0, 0.25, 0.0625])
    ```
    """
    sizes = _sizes(steps, every, chunk, ensemble)
    require_finite("model", model)
    require_finite("data", data)
    params, fixed = split_trainable(model, trainable)
    functions = (loss, optimiser, _nothing if record is None else record)
    state = (eqx.filter_vmap if ensemble else _plain)(_start)(params, optimiser)
    rest = (fixed, data, key)
    saved = _saved(checkpoint, (state, *rest), functions, steps, sizes)
    state, kept = saved.load(state)
    with tqdm(total=steps, disable=None if progress else True, unit="step") as bar:
        while bool(jnp.any(state.alive & (state.step < steps))):
            bar.update(int(state.step.max()) - bar.n)
            state, part = _chunk((state, *rest), functions, jnp.asarray(steps), sizes)
            kept = _joined(kept, jax.device_get(jax.tree.leaves(part)), ensemble)
            saved.save(state, kept)
        bar.update(int(state.step.max()) - bar.n)
    return _finish(state, kept, rest, functions, steps, sizes)


def _sizes(
    steps: int, every: int, chunk: int | None, ensemble: bool
) -> tuple[int, int, bool]:
    """What a compiled chunk is made for: updates a record, records, and whether it
    trains an ensemble."""
    if not is_whole(steps) or not is_whole(every) or steps % every:
        raise ValueError(
            f"steps must be a positive multiple of every: {steps=}, {every=}."
        )
    if chunk is not None and not is_whole(chunk):
        raise ValueError(f"chunk must be positive: got {chunk}.")
    count = chunk or -(-steps // (20 * every))
    return every, min(count, steps // every), ensemble


def _saved(path, arrays, functions, steps: int, sizes) -> Checkpoint:
    if path is None:
        return Checkpoint(None, "")
    every, _, ensemble = sizes
    # lowered for one record, so that a run may go on in chunks of another size
    update = _chunk.lower(arrays, functions, jnp.asarray(steps), (every, 1, ensemble))
    return Checkpoint.of(path, arrays, f"{steps} {every} {update.as_text()}")


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
        # chosen, not multiplied by 0 or 1: gradients of NaN would stay NaN
        return jax.lax.cond(jnp.isfinite(value), update, end, state, grads), value

    value = jax.eval_shape(attempt, state)[1]
    missing = jnp.full(value.shape, jnp.nan, value.dtype)
    active = state.alive & (state.step < steps)
    # A chunk has a fixed length, so that it is compiled once. This outer condition
    # saves a run that has ended the gradients of what is left; the inner one, on the
    # loss, comes too late for that. (`vmap` turns both into choices between results:
    # all members of an ensemble pay until the last has ended.)
    return jax.lax.cond(active, attempt, lambda state: (state, missing), state)


def _joined(kept: list, part: list, ensemble: bool) -> list:
    axis = 1 if ensemble else 0
    part = [np.asarray(leaf) for leaf in part]
    if not kept:
        return part
    return [np.concatenate(pair, axis) for pair in zip(kept, part, strict=True)]


def _finish(state, kept, rest, functions, planned: int, sizes) -> Run:
    """Judge and record the last state; cut what was not reached."""
    (fixed, data, key), (loss, _, record), (every, _, ensemble) = rest, functions, sizes
    model = eqx.combine(state.params, fixed)
    ends = _value((state.params, fixed, data, key), loss, state.step, ensemble)
    diverged = not bool((state.alive & jnp.isfinite(ends)).all())
    last = (eqx.filter_vmap if ensemble else _plain)(record)(model)
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
    return Run(model, records, recorded, losses, reached, planned, diverged)
