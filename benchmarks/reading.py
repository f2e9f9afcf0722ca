"""Seconds and memory of the whole command `deeplimits diagnose` on a file of 100 MB.

Run `python benchmarks/reading.py`. It writes a transformer of 24 blocks, independent
weights of float32 saved one by one, as `.safetensors` and as `.npz`, runs the command
on each in a process of its own, and prints, and writes to
`results/benchmarks/diagnosis-reading.nc`, the seconds and the most memory that was
resident: of the process, and beyond that of one that only imports what the command
imports. `--megabytes` sets another size.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

from deeplimits import results

BLOCKS = 24
KINDS = ("safetensors", "npz")
_COLUMNS = ("size", "seconds", "processor", "memory")
_IMPORT = "import deeplimits.cli, deeplimits.diagnosis"
_COMMAND = "from deeplimits.cli import main; main()"


def network(megabytes: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Names and shapes as of a language model; blocks of 12 width squared numbers."""
    width = int((megabytes * 1e6 / 4 / BLOCKS / 12) ** 0.5)
    shapes = {f"attn.{name}_proj": (width, width) for name in "qkvo"}
    shapes |= {"mlp.up_proj": (4 * width, width), "mlp.down_proj": (width, 4 * width)}
    rng, found = np.random.default_rng(seed), {}
    for k in range(BLOCKS):
        for name, shape in shapes.items():
            matrix = rng.normal(size=shape) / shape[1] ** 0.5
            found[f"model.layers.{k}.{name}.weight"] = matrix.astype(np.float32)
        found[f"model.layers.{k}.norm.weight"] = np.ones(width, np.float32)
    return found


def write(arrays: dict[str, np.ndarray], path: Path) -> None:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    header, place = {}, 0
    for name, array in arrays.items():
        offsets = [place, place + array.nbytes]
        entry = {"dtype": "F32", "shape": array.shape, "data_offsets": offsets}
        header[name], place = entry, offsets[1]
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays.values():
            file.write(array.tobytes())


def cost(code: str, *arguments: str) -> tuple[float, float, float]:
    """Seconds, those of a processor, and megabytes resident at most, of a process."""
    command = [sys.executable, "-c", code, *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    spent = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {arguments}")
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # bytes there, KiB elsewhere
    return spent, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100.0)
    output = Path("results/benchmarks/diagnosis-reading.nc")
    parser.add_argument("--output", type=Path, default=output)
    options = parser.parse_args()
    start, rows = time.perf_counter(), [("an import", 0.0, *cost(_IMPORT))]
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            path = Path(folder) / f"model.{kind}"
            write(network(options.megabytes), path)
            size = path.stat().st_size / 1e6
            rows.append((f".{kind}", size, *cost(_COMMAND, "diagnose", str(path))))
    for name, size, seconds, busy, memory in rows:
        print(f"{name:14} {size:6.1f} MB {seconds:6.1f} s, of a processor {busy:.1f} s")
        beyond = memory - rows[0][-1]
        print(f"{'':14} resident at most {memory:.0f} MB, {beyond:+.0f} MB", flush=True)
    names, *columns = zip(*rows, strict=True)
    dataset = xr.Dataset(
        {
            name: ("file", list(column))
            for name, column in zip(_COLUMNS, columns, strict=True)
        },
        {"file": list(names)},
    )
    results.save(
        dataset,
        options.output,
        config={"megabytes": options.megabytes, "blocks": BLOCKS},
        seed=0,
        wall_seconds=time.perf_counter() - start,
    )


if __name__ == "__main__":
    main()
