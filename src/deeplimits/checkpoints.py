"""A run of training in one file, from which the same run goes on."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from .files import MOST_BYTES, atomic, read_npz


class Checkpoint(NamedTuple):
    """The state of a run and what it recorded, in one file."""

    path: Path | None
    signature: str

    @classmethod
    def of(cls, path: str | os.PathLike, arrays: PyTree, update: str):
        """The file at `path` of the run with these `arrays` and this `update`.

        `update` is what the compiler is given. Loss, optimiser and record are closures:
        their names and addresses say nothing, and a learning rate is hidden in one of
        them. The compiler's text says it all, with every number that they close over
        written out, and is the same in another process.
        """
        digest = hashlib.sha256(update.encode())
        for leaf in jax.tree.leaves(eqx.filter(arrays, eqx.is_array)):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jr.key_data(leaf)
            digest.update(f"{leaf.shape} {leaf.dtype}".encode())
            digest.update(np.asarray(leaf).tobytes())
        return cls(Path(path), digest.hexdigest())

    def save(self, state: PyTree, kept: list) -> None:
        if self.path is None:
            return
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        if (total := sum(array.nbytes for array in (*leaves, *kept))) > MOST_BYTES:
            raise ValueError(
                f"{self.path} would take {total} bytes, more than the {MOST_BYTES} "
                "that are read again: train without a checkpoint."
            )
        with atomic(self.path) as temporary, open(temporary, "wb") as file:
            np.savez(file, *leaves, *kept, signature=np.array(self.signature))

    def load(self, state: PyTree) -> tuple[PyTree, list]:
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
