"""Run chapters as Colab would: their records, in an environment like Colab's, with what
a notebook there has loaded before its first cell.

    python tools/colab.py euler implicit-regularisation

The environment is that of `colab.txt` (`.ci/run colab` makes it). The first cell then
installs the library, here from this checkout, and must replace nothing that is loaded.
All cells run at the profile `smoke`.
"""

import argparse
import importlib
import json
import sys
import types
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

ROOT = Path(__file__).resolve().parents[1]
LOADED = ("matplotlib", "numpy", "pandas", "scipy", "sklearn")


def cells(name: str) -> list[str]:
    """The code of a record, with this checkout as the address of the library."""
    record = json.loads((ROOT / "book" / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [c for c in record["cells"] if c["cell_type"] == "code"]
    texts = ["".join(cell["source"]) for cell in code]
    first, _, rest = texts[0].partition("git+")
    texts[0] = f'{first}{ROOT.as_uri()}"{rest.partition(chr(34))[2]}'
    return [text.replace('profile = "book"', 'profile = "smoke"') for text in texts]


def run(name: str) -> None:
    """Every cell, in one kernel; raises the error of the first that fails."""
    shell = InteractiveShell.instance()
    first, *others = cells(name)
    sys.modules["google.colab"] = types.ModuleType("google.colab")
    shell.run_cell(first).raise_error()
    del sys.modules["google.colab"]  # JAX would ask it for more than there is
    for cell in others:
        shell.run_cell(cell).raise_error()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="+", help="chapters, as in book/")
    names = parser.parse_args().names
    for module in LOADED:
        importlib.import_module(module)
    for name in names:
        run(name)
        print(f"{name}: every cell ran")


if __name__ == "__main__":
    main()
