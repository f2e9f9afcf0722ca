"""Data: synthetic sets drawn from a key, and handwritten digits from scikit-learn."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from sklearn import datasets as sklearn_datasets


def gaussian_pairs(
    n: int, d: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Inputs and targets, standard normal and independent of each other.

    The synthetic set of `marion2024`, section 5.
    """
    if n < 1 or d < 1:
        raise ValueError(f"n and d must be positive: {n=}, {d=}.")
    input_key, target_key = jr.split(key)
    return jr.normal(input_key, (n, d)), jr.normal(target_key, (n, d))


def torch_normals(
    seed: int, *shapes: tuple[int, ...]
) -> tuple[Float[np.ndarray, "..."], ...]:
    r"""What `torch.manual_seed(seed)` and then one `torch.randn` a shape give on a CPU.

    PyTorch turns the low 24 bits of a Mersenne twister into uniforms $u \in [0, 1)$
    and, sixteen at a time, into $\sqrt{-2\log(1 - u_j)}\,(\cos, \sin)(2\pi u_{j+8})$.
    It lets us run a published script on its own arrays without PyTorch. The last digits
    of float32 may differ. Raises `ValueError` for a size that sixteen does not divide.
    """
    # The twister of the script, not a source of randomness for the book's experiments.
    twister = np.random.RandomState(seed)
    draws = []
    for shape in shapes:
        size = int(np.prod(shape))
        if size < 16 or size % 16:
            raise ValueError(f"sizes must be multiples of 16: got {shape}.")
        bits = twister.randint(0, 2**32, size, dtype=np.uint32) & (2**24 - 1)
        u = (bits / 2**24).reshape(-1, 2, 8)
        radius, angle = np.sqrt(-2 * np.log1p(-u[:, 0])), 2 * np.pi * u[:, 1]
        pairs = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        draws.append(pairs.reshape(shape).astype(np.float32))
    return tuple(draws)


def digits(
    *, test: int = 360, key: PRNGKeyArray
) -> tuple[
    tuple[Float[Array, "train 1 8 8"], Int[Array, " train"]],
    tuple[Float[Array, "test 1 8 8"], Int[Array, " test"]],
]:
    """The 1,797 handwritten digits of scikit-learn, split at random: `(train, test)`.

    Images of 8 by 8 pixels with one channel, scaled to $[0, 1]$.
    """
    images, labels = sklearn_datasets.load_digits(return_X_y=True)
    if not 0 < test < len(labels):
        raise ValueError(f"test must lie between 1 and {len(labels) - 1}: got {test}.")
    order = np.asarray(jr.permutation(key, len(labels)))
    pixels = jnp.asarray(images[order].reshape(-1, 1, 8, 8) / 16)
    classes = jnp.asarray(labels[order])
    return (pixels[test:], classes[test:]), (pixels[:test], classes[:test])
