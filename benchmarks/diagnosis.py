"""How often `deeplimits diagnose` is right: 200 networks drawn from known regimes.

Run `python benchmarks/diagnosis.py`: it draws 40 networks of each regime, over depths
64 to 1024 and square layers of width 2 to 16, and writes the confusion matrix to
`results/benchmarks/diagnosis.nc`. Every network is multiplied by a random size, so that
only its regularity can tell. The thresholds were set on networks from other seeds.
"""

import argparse
import itertools
import time

import jax
import jax.random as jr
import numpy as np
import xarray as xr
from tqdm import tqdm

from deeplimits import diagnosis, initialisation, results

DEPTHS = (64, 128, 256, 512, 1024)
WIDTHS = (2, 4, 8, 16)
TRUTHS = {
    "fBm, H = 0.2": diagnosis.BETWEEN,
    "fBm, H = 0.5": diagnosis.ROUGH,
    "fBm, H = 0.8": diagnosis.BETWEEN,
    "smooth": diagnosis.SMOOTH,
    "tied": diagnosis.SMOOTH,
}


def draw(regime: str, depth: int, width: int, *, key: jax.Array) -> np.ndarray:
    """Weights of one regime, of a size between 1/30 and 30."""
    shape = (width, width)
    noise_key, size_key, length_key = jr.split(key, 3)
    if regime == "smooth":
        length = float(jr.uniform(length_key, minval=0.1, maxval=1.0))
        weights = initialisation.smooth(
            depth, shape, length_scale=length, key=noise_key
        )
    elif regime == "tied":
        weights = initialisation.tied(depth, shape, key=noise_key)
    else:
        hurst = float(regime.rpartition(" ")[2])
        weights = initialisation.fractional_noise(
            depth, shape, hurst=hurst, key=noise_key
        )
    size = 30.0 ** jr.uniform(size_key, minval=-1.0, maxval=1.0)
    return np.asarray(size * weights)


def measure(repeats: int, seed: int) -> xr.Dataset:
    """Counts of verdicts by regime, and one row for every network."""
    cells = list(itertools.product(TRUTHS, DEPTHS, WIDTHS, range(repeats)))
    rows = []
    for n, (regime, depth, width, _) in enumerate(tqdm(cells)):
        weights = draw(regime, depth, width, key=jr.fold_in(jr.key(seed), n))
        [found] = diagnosis.diagnose([{"weight": weights}])
        [network] = found.networks
        h = network.regularity
        numbers = h.numbers if h is not None else 3 * (np.nan,)
        rows.append((regime, depth, width, found.verdict, *numbers))
    columns = dict(zip("rdwvhab", zip(*rows, strict=True), strict=True))
    verdicts = [v for v in diagnosis.VERDICTS if v in columns["v"]]
    pairs = list(zip(columns["r"], columns["v"], strict=True))
    counts = [[pairs.count((r, v)) for v in verdicts] for r in TRUTHS]
    return xr.Dataset(
        {
            "count": (("regime", "verdict"), counts),
            "truth": ("regime", list(TRUTHS.values())),
            "network_regime": ("network", list(columns["r"])),
            "network_depth": ("network", list(columns["d"])),
            "network_width": ("network", list(columns["w"])),
            "network_verdict": ("network", list(columns["v"])),
            "hurst": ("network", list(columns["h"])),
            "low": ("network", list(columns["a"])),
            "high": ("network", list(columns["b"])),
        },
        coords={"regime": list(TRUTHS), "verdict": verdicts},
    )


def rates(dataset: xr.Dataset) -> tuple[float, float]:
    """The share of definite verdicts that are right, and the share of abstentions."""
    definite = dataset["count"].drop_sel(verdict=diagnosis.ABSTAIN, errors="ignore")
    right = sum(
        int(definite.sel(regime=regime, verdict=truth))
        for regime, truth in TRUTHS.items()
    )
    return right / int(definite.sum()), 1 - int(definite.sum()) / int(
        dataset["count"].sum()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--output", default="results/benchmarks/diagnosis.nc")
    options = parser.parse_args()
    start = time.perf_counter()
    dataset = measure(options.repeats, options.seed)
    right, abstained = rates(dataset)
    dataset = dataset.assign(right=right, abstained=abstained)
    seconds = time.perf_counter() - start
    config = {"repeats": options.repeats, "depths": DEPTHS, "widths": WIDTHS}
    results.save(
        dataset, options.output, config=config, seed=options.seed, wall_seconds=seconds
    )
    print(dataset["count"].to_pandas().to_string())
    print(f"right: {right:.1%} of the definite verdicts; abstained: {abstained:.1%}")


if __name__ == "__main__":
    main()
