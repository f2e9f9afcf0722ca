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

from .files import atomic, read_npz


class Checkpoint(NamedTuple):
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

    def save(self, state: PyTree, kept: list) -> None:
        if self.path is None:
            return
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
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
