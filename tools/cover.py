"""Draw the book's cover: one grid carried by the same weights at three depths.

`python tools/cover.py` writes book/_static/cover.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import matplotlib.pyplot as plt
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

from deeplimits.continuous import NeuralODE, to_network
from deeplimits.residual import OneLayer

matplotlib.use("Agg")
COVER = Path(__file__).resolve().parents[1] / "book" / "_static" / "cover.png"
SEED = 5
ACROSS, ALONG = "#0072B2", "#E69F00"  # told apart in every colour vision, and in grey


def flow(key: PRNGKeyArray) -> NeuralODE:
    """A neural ODE on the plane whose weights are three cosines of depth."""
    weight_key, bias_key = jr.split(key)
    weights = 2.5 * jr.normal(weight_key, (3, 2, 2))
    biases = 0.5 * jr.normal(bias_key, (3, 2))

    def block_at(s: Float[Array, ""]) -> OneLayer:
        waves = jnp.cos(jnp.pi * s * jnp.arange(3))
        return OneLayer(jnp.tensordot(waves, weights, 1), waves @ biases)

    return NeuralODE(block_at)


def lines(count: int = 17, points: int = 400) -> Float[Array, "count points plane"]:
    """Horizontal lines of the square; the vertical ones swap its coordinates."""
    level, along = jnp.linspace(-1, 1, count), jnp.linspace(-1, 1, points)
    return jnp.stack(jnp.meshgrid(along, level), axis=-1)


def draw(ode: NeuralODE) -> Figure:
    """Three panels: depth 2, depth 8, and the limit."""
    panels = {f"$L = {L}$": to_network(ode, L) for L in (2, 8)} | {r"$L = \infty$": ode}
    together = {"sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.6), **together)
    for ax, (title, network) in zip(axes, panels.items(), strict=True):
        carry = jax.jit(jax.vmap(jax.vmap(network)))
        for grid, colour in ((lines(), ACROSS), (lines()[..., ::-1], ALONG)):
            for line in carry(grid):
                ax.plot(*line.T, color=colour, linewidth=0.9)
        ax.set_title(title, fontsize=17)  # 9 CSS pixels on a phone
        ax.set_aspect("equal")
        ax.axis("off")
    return figure


def main() -> None:
    COVER.parent.mkdir(parents=True, exist_ok=True)
    # without the drawing tool's version, another one would write another file
    draw(flow(jr.key(SEED))).savefig(
        COVER, dpi=130, facecolor="white", metadata={"Software": None}
    )


if __name__ == "__main__":
    main()
