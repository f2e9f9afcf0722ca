"""Data: synthetic sets drawn from a key, handwritten digits, MNIST."""

import math

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Num, PRNGKeyArray

from .checks import (
    as_floats,
    is_whole,
    require_finite,
    require_sizes,
    require_whole,
    require_within,
)
from .images import Images as Images
from .images import mnist as mnist


def gaussian_pairs(
    n: int, d: int, *, key: PRNGKeyArray
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    """Inputs and targets, standard normal and independent of each other.

    The synthetic set of `marion2024`, section 5.

    ```pycon
    >>> x, y = gaussian_pairs(1000, 3, key=jr.key(0))
    >>> x.shape, y.shape, round(float((x * y).mean()), 1), round(float(x.std()), 1)
    ((1000, 3), (1000, 3), 0.0, 1.0)
    ```
    """
    require_whole(n=n, d=d)
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

    ```pycon
    >>> (draws,) = torch_normals(0, (16,))
    >>> [round(z, 2) for z in draws[:3].tolist()]  # as torch.randn(16) after that seed
    [-1.13, -1.15, -0.25]
    ```
    """
    require_whole(0, seed=seed)
    # The twister of the script, not a source of randomness for the book's experiments.
    twister = np.random.RandomState(seed)
    draws = []
    for shape in shapes:
        require_sizes(sizes=shape)
        if (size := math.prod(shape)) % 16:
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

    ```pycon
    >>> train, test = digits(key=jr.key(0))
    >>> train[0].shape, test[0].shape, int(train[1].max())
    ((1437, 1, 8, 8), (360, 1, 8, 8), 9)
    ```
    """
    from sklearn.datasets import load_digits  # a second, which other sets need not pay

    images, labels = load_digits(return_X_y=True)
    if not is_whole(test) or test >= len(labels):
        raise ValueError(f"test must lie between 1 and {len(labels) - 1}: got {test}.")
    order = np.asarray(jr.permutation(key, len(labels)))
    pixels = jnp.asarray(images[order].reshape(-1, 1, 8, 8) / 16)
    classes = jnp.asarray(labels[order])
    return (pixels[test:], classes[test:]), (pixels[:test], classes[:test])


def flow_pairs(
    n: int, *, d: int = 10, noise: float = 0.0, steps: int = 100, key: PRNGKeyArray
) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
    r"""Inputs $x \sim \mathcal{U}(-1, 1)^d$ and where a scalar recursion takes them:

    $$ \begin{gathered} z_0 = x, \qquad z_{t+1} = z_t + K^{-1/2} \tanh\bigl( \\
       \sin(5\pi t/K)\, z_t + \cos(5\pi t/K)\bigr), \quad t < K, \end{gathered} $$

    componentwise, with the target $z_K$ plus `noise` times a standard normal; then
    both are scaled to Euclidean norm one. The step is $K^{-1/2}$, not $1/K$.
    The synthetic set of `cohen2021` has $d = 10$, $K = 100$, and 1,024 + 256 examples.

    ```pycon
    >>> x, y = flow_pairs(4, d=1, key=jr.key(0))
    >>> x.shape, abs(x).ravel().tolist()  # of norm one: signs
    ((4, 1), [1.0, 1.0, 1.0, 1.0])
    ```
    """
    require_whole(n=n, d=d, steps=steps)
    require_within("[0, inf)", noise=noise)
    input_key, noise_key = jr.split(key)
    x = jr.uniform(input_key, (n, d), minval=-1.0)

    def step(z, angle):
        return z + steps**-0.5 * jnp.tanh(jnp.sin(angle) * z + jnp.cos(angle)), None

    angles = 5 * jnp.pi * jnp.arange(steps, dtype=x.dtype) / steps
    z, _ = jax.lax.scan(step, x, angles)
    return _unit(x), _unit(z + noise * jr.normal(noise_key, (n, d)))


def untrained_embedding(
    images: Num[Array | np.ndarray, "n 1 28 28"], *, key: PRNGKeyArray
) -> Float[Array, "n 25"]:
    r"""Images through two untrained convolutions: 25 numbers of Euclidean norm one.

    $5 \times 5$, then $3 \times 3$, both of stride 2 with one channel and a bias, all
    uniform on $\pm\text{fan-in}^{-1/2}$ (PyTorch's initialisation), on the pixels
    as they are, 0 to 255. The embedding of MNIST of `cohen2021`.
    """
    pixels = as_floats("images", images, shape=(None, 1, 28, 28))
    require_finite("images", pixels)
    first_key, second_key = jr.split(key)
    hidden = pixels.astype(float)
    for size, layer_key in ((5, first_key), (3, second_key)):
        draws = jr.uniform(layer_key, (size**2 + 1,), minval=-1 / size, maxval=1 / size)
        kernel = draws[:-1].reshape(1, 1, size, size)
        hidden = jax.lax.conv(hidden, kernel, (2, 2), "VALID") + draws[-1]
    return _unit(hidden.reshape(len(images), 25))


def embedded_digits(
    images: Num[Array | np.ndarray, "n 1 28 28"],
    labels: Int[Array | np.ndarray, " n"],
    *,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "n 25"], Float[Array, "n 25"]]:
    """`untrained_embedding`, and as targets 25 numbers with a 1 at the class."""
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"every image needs one class: {images.shape} and {labels.shape}."
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be whole numbers: got {labels.dtype}.")
    if not ((labels >= 0) & (labels < 25)).all():
        raise ValueError("classes must lie between 0 and 24.")
    return untrained_embedding(images, key=key), jax.nn.one_hot(labels, 25)


def _unit(rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
    return rows / jnp.linalg.norm(rows, axis=1, keepdims=True)


def rings(
    n: int = 10, *, radii: tuple[float, float] = (0.5, 1.5)
) -> tuple[Float[Array, "{2*n} 2"], Float[Array, " {2*n}"]]:
    r"""Two rings of `n` points in the plane, and labels: $+1$ inside, $-1$ outside.

    The inner points lie at angles $2\pi j/n$, the outer ones at $2\pi(j + \frac12)/n$.
    For an even `n` the set is symmetric under $x \mapsto -x$ and in the first axis; all
    its labels, and all its points times labels, sum to zero.

    ```pycon
    >>> points, labels = rings(10)
    >>> points.shape, float(labels.sum()), jnp.hypot(*points.T).round(2)[::10]
    ((20, 2), 0.0, Array([0.5, 1.5], dtype=float32))
    ```
    """
    require_whole(n=n)
    if len(radii) != 2:
        raise ValueError(f"radii must be two: got {radii}.")
    require_within("(0, inf)", inner=radii[0], outer=radii[1])
    angles = 2 * np.pi * (np.arange(n) + np.array([[0.0], [0.5]])) / n
    points = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    points *= np.asarray(radii)[:, None, None]
    return jnp.asarray(points.reshape(-1, 2)), jnp.repeat(jnp.asarray([1.0, -1.0]), n)
