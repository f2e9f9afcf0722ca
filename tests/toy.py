"""A small experiment for other processes, which write down what they compute."""

import dataclasses
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr

from deeplimits import experiments


@dataclasses.dataclass(frozen=True)
class Sums:
    """`waits` and `fails` are places: the first attempt at the one waits to be killed,
    the other cannot be computed."""

    log: str
    pieces: int = 8
    waits: int = -1
    fails: int = -1


def draw(config, point, key):
    _note(config, "shared")
    return {"noise": jr.normal(key, (64, 64))}


def summed(config, point, key, shared):
    place = point["place"]
    _note(config, f"piece{place}")
    if place == config.waits:
        _wait(Path(config.log, "victim"))
    if place == config.fails:
        raise ValueError(f"place {place} cannot be computed.")
    noise = jnp.asarray(shared["noise"])
    sums = jax.jit(lambda z: jnp.tanh(z @ z * (place + 1)).sum(axis=1))(noise)
    settings = (jax.config.jax_default_matmul_precision, jax.default_backend())
    assert settings == ("float32", "cpu"), settings
    return {"sums": ("row", sums)}


def compute(config, run):
    """In float64, whatever the process around it computes in."""
    with jax.enable_x64(True):
        return run.each("sums", {"place": range(config.pieces)}, summed, shared=draw)


def sums(log, **fields):
    """The experiment, its configuration as all its presets."""
    presets = dict.fromkeys(experiments.PROFILES, Sums(str(log), **fields))
    return experiments.Experiment("toy/sums", "", presets, compute, "deeplimits.checks")


def _note(config, name):
    with open(Path(config.log, f"{name}-{os.getpid()}-{time.monotonic_ns()}"), "x"):
        pass


def _wait(victim):
    try:
        with open(victim, "x") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        return
    while True:
        time.sleep(0.01)
