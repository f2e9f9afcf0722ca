"""Lower what networks, training and experiments compile, for devices that are not here;
print as JSON how many programs of each were lowered.

A program, not a test: `test_platforms.py` runs it in an interpreter of its own, with
`EQX_ON_ERROR=nan`, since the default checks of Equinox call back to the host, and with
an experiment of each paper; weekly, `--all` takes one of each module, and every example
of the reference: all public networks and solvers. Nothing is compiled and nothing runs
on such a device: the text of each program is made, and zeros are returned in its place.
What the zeros provoke afterwards is no matter.
"""

import collections
import contextlib
import doctest
import io
import json
import sys
import time
import warnings

import diffrax  # noqa: F401  (its own programs are parts of ours)
import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

PLATFORMS = ("cuda", "tpu")
MOST = 12  # calls of one experiment: no search for a minimum ends on zeros
PAPERS = (
    "cohen2021/tanh-depth",
    "herty2022/sampling",
    "isobe2024/width",
    "li2018/toy",
    "marion2024/initialisation",
    "marion2025/histogram",
    "ours/four-ways",
    "thorpe2023/digits",
)
SOLVERS = (  # whose examples lead to programs
    "control",
    "meanfield",
    "measures",
    "steering",
    "training",
    "transport",
    "variational",
)
original = jax.jit
lowered = collections.Counter()
calls = collections.Counter()
current = ""


class NotLowered(BaseException):
    """A program that these platforms have no rule for."""


class Enough(BaseException):
    """An experiment that has called its programs often enough."""


def lower(jitted, *arguments, **named):
    """The program for both platforms."""
    try:
        return jax.export.export(jitted, platforms=PLATFORMS)(*arguments, **named)
    except Exception as error:
        raise NotLowered(f"{current}: {str(error)[:500]}") from error


def jit(function=None, **options):
    """`jax.jit`, whose result is lowered where it is called, not run."""
    if function is None:
        return lambda function: jit(function, **options)
    return Lowered(original(function, **options))


class Lowered:
    def __init__(self, jitted):
        self.jitted, self.known = jitted, {}
        self.__wrapped__ = jitted

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        return lambda *arguments, **named: self(instance, *arguments, **named)

    def __getattr__(self, name):
        return getattr(self.jitted, name)

    def __call__(self, *arguments, **named):
        leaves, tree = jax.tree.flatten((arguments, named))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*arguments, **named)
        calls[current] += 1
        if calls[current] > MOST:
            raise Enough
        kinds = [
            (leaf.shape, str(leaf.dtype)) if eqx.is_array(leaf) else repr(leaf)
            for leaf in leaves
        ]
        key = f"{kinds} {tree}"
        if key not in self.known:
            self.known[key] = lower(self.jitted, *arguments, **named)
            lowered[current] += 1
        found = self.known[key]
        return jax.tree.unflatten(found.out_tree, [zeros(a) for a in found.out_avals])


def zeros(aval):
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return jr.split(jr.key(0), aval.shape)
    return jnp.zeros(aval.shape, aval.dtype)


def experiments(names):
    """Each at its smallest, to its end or to where zeros lead it."""
    global current
    from deeplimits import experiments

    for name in names:
        current, found = name, experiments.find(name)
        start = time.process_time()
        try:
            found.run(found.preset("smoke"), key=jr.key(0))
        except (Enough, Exception) as error:
            print(name, type(error).__name__, str(error)[:80], file=sys.stderr)
        print(f"{name} {time.process_time() - start:.1f} s", file=sys.stderr)


def a_module():
    """The name of an experiment of each module: the others have its programs."""
    from deeplimits import sources

    return {e.module: n for n, e in sources.experiments().items()}.values()


def library():
    """What no experiment leads to."""
    global current
    from deeplimits import continuous, initialisation, losses, residual, training

    key, x = jr.key(0), jnp.ones(3)
    weights = initialisation.smooth(4, (3, 3), length_scale=0.5, key=key)
    kernels = initialisation.smooth(4, (2, 2, 2, 3, 3), length_scale=0.5, key=key)
    blocks = {
        "OneLayer": (residual.OneLayer(weights), x),
        "OuterLayer": (residual.OuterLayer(weights), x),
        "TwoLayer": (residual.TwoLayer(weights, weights), x),
        "Convolution": (residual.Convolution(kernels), jnp.ones((2, 5, 5))),
    }
    start = time.process_time()
    for name, (block, inputs) in blocks.items():
        current, network = name, residual.ResNet(block)
        jit(jax.grad(lambda x, network=network: jnp.sum(network(x))))(inputs)
    current, network = "NeuralODE", residual.ResNet(blocks["TwoLayer"][0])
    ode = continuous.from_network(network)
    jit(jax.grad(lambda x: jnp.sum(ode(x))))(x)
    current, sde = "NeuralSDE", continuous.NeuralSDE("tanh")
    jit(jax.grad(lambda x: jnp.sum(sde(x, weights))))(x)
    current = "train"
    data = (jnp.ones((8, 3)), jnp.ones((8, 3)))
    training.train(network, data, losses.mean_square, optax.adam(1e-2), 2, key=key)
    print(f"library {time.process_time() - start:.1f} s", file=sys.stderr)


def examples():
    """Those of the docstrings, as far as zeros lead, and which ended in an error."""
    global current
    from test_docstrings import EXAMPLES, importlib

    start, ended = time.process_time(), {}
    for name, text in EXAMPLES.items():
        current = name
        module = importlib.import_module(name.rpartition(".")[0])
        names = {"jax": jax, "jnp": jnp, "jr": jr, "np": np, **vars(module)}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                for example in doctest.DocTestParser().get_examples(text):
                    exec(compile(example.source, name, "single"), names)
        except (Enough, Exception) as error:
            ended[name] = f"{type(error).__name__} {str(error)[:80]}"
    print(f"{len(ended)} of {len(EXAMPLES)} examples ended early:", file=sys.stderr)
    for name, error in ended.items():
        print(f"  {name} {error}", file=sys.stderr)
    print(f"examples {time.process_time() - start:.1f} s", file=sys.stderr)


def lacking(names):
    """The solvers of which nothing was lowered."""
    return [s for s in SOLVERS if not any(f"deeplimits.{s}." in name for name in names)]


def refused():
    """What these platforms must be refused for, or the rest would mean nothing."""
    global current
    current = "refused"
    shape = jax.ShapeDtypeStruct((3,), np.dtype("float32"))
    programs = {
        "schur": (lambda x: jax.scipy.linalg.schur(x)[0], jnp.eye(3)),
        "callback": (lambda x: jax.pure_callback(np.sin, shape, x), jnp.ones(3)),
    }
    for name, (function, argument) in programs.items():
        try:
            lower(original(function), argument)
        except NotLowered as error:
            yield name, str(error.__cause__)[:200]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    jax.jit = jit
    library()
    if sys.argv[1:] == ["--all"]:
        examples()
        assert not lacking(lowered), f"nothing of {lacking(lowered)} was lowered"
        experiments(a_module())
    else:
        experiments(PAPERS)
    print(json.dumps({"lowered": lowered, "refused": dict(refused())}))
