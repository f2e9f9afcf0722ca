"""Strict JAX for every test, and shapes checked while the package is imported."""

import os

# Several workers share one GPU: left to itself, JAX takes most of its memory for each.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# A recent GPU would multiply float32 in TensorFloat-32, to three digits.
jax.config.update("jax_default_matmul_precision", "float32")

# For `tools/mutants.py`: the first failure is enough. Each smaller example that would
# be looked for after it has other shapes, and so is compiled.
phases = hypothesis.Phase.explicit, hypothesis.Phase.generate
hypothesis.settings.register_profile("first-failure", phases=phases)
if profile := os.environ.get("HYPOTHESIS_PROFILE"):
    hypothesis.settings.load_profile(profile)

# Only here: in use, the annotations cost nothing.
jaxtyping.install_import_hook("deeplimits", "beartype.beartype")

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Both precisions; `TOLERANCE` says what agreement they owe."""
    return request.param


@pytest.fixture
def as_in_use():
    """No check of annotations, so that the library's own messages are heard."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def require(found, reason):
    """A skip where something is missing; in CI, where nothing may be, a failure."""
    if not found:
        in_ci = os.environ.get("CI", "") not in ("", "0", "false")
        (pytest.fail if in_ci else pytest.skip)(reason)


@pytest.fixture
def promoting():
    """Adam of optax raises a float to the power of its count, an integer."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def gpu():
    """An NVIDIA GPU, or a skip that says there is none."""
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX sees no GPU on this machine")


def assert_mean(samples, expected):
    """A Monte-Carlo mean within five measured standard errors."""
    samples = np.asarray(samples)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) < 5 * error, (samples.mean(), expected, error)


@pytest.fixture
def ax():
    """Axes in the style of the book."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    from deeplimits import plots

    mpl.use("agg")
    with mpl.rc_context():
        plots.use_style()
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)
