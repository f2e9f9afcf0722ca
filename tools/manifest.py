"""Write `codecheck.yml`: what an independent check would run, and what should come out.

`python tools/manifest.py` writes it, `--check` only compares. The format is that of
CODECHECK (https://codecheck.org.uk/spec/config/1.0): a list of output files, each with
the command that makes it, the time that it takes, and what must agree.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml
from pages import KINDS, front_matter

from deeplimits import results

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "codecheck.yml"
SPECIFICATION = "https://codecheck.org.uk/spec/config/1.0/"


def records(root: Path) -> list[dict[str, str]]:
    """The executed notebooks: their outputs are compared cell by cell."""
    found = []
    for path in sorted((root / "book").glob("*.ipynb")):
        kind = front_matter(path.with_suffix(".md"))["kind"]
        comment = (
            f"`python tools/records.py {path.stem}`; at most {KINDS[kind].seconds} s "
            "on two CPU cores; every printed number and text as committed, pictures "
            f"apart (`make test-records` compares: pytest --nbval book/{path.name})"
        )
        found.append({"file": f"book/{path.name}", "comment": comment})
    return found


def archives(root: Path) -> list[dict[str, str]]:
    """The archived runs, each of one experiment or of one benchmark."""
    found = []
    for path in sorted((root / "results").glob("*/*.nc")):
        about = results.load(path).attrs
        seconds, seed, device = (about[k] for k in ("wall_seconds", "seed", "device"))
        name = path.relative_to(root / "results").with_suffix("").as_posix()
        identity = json.loads(about.get("identity", "{}"))
        command = f"deeplimits run {identity.get('experiment', name)}"
        command += f" --profile paper --seed {seed}"
        if identity.get("precision") == "float64":  # not the experiment's own choice
            command += " --double"
        expected = "the numbers up to the rounding of the machine, and so each verdict"
        if name.startswith("benchmarks/"):
            command = "python benchmarks/…, as the page on benchmarks says"
            expected = "times of the same order on a like machine"
        took = f"{float(seconds):.0f} s on one {device.split(':')[0]}"
        comment = f"`{command}`; {took}; {expected}"
        found.append({"file": f"results/{name}.nc", "comment": comment})
    return found


def manifest(root: Path = ROOT) -> str:
    """The text of the file."""
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    data = {
        "version": SPECIFICATION,
        "paper": {
            "title": citation["title"],
            "authors": citation["authors"],
            "reference": citation["url"],
        },
        "manifest": [*records(root), *archives(root)],
        "summary": "Not checked by anybody else yet. `make test` executes all records "
        "again and compares them; archives are made again one by one.",
    }
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=88)
    return "# Made by `python tools/manifest.py`.\n" + text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted, path = manifest(), ROOT / MANIFEST
    if not parser.parse_args().check:
        path.write_text(wanted, encoding="utf-8")
    elif not path.is_file() or path.read_text("utf-8") != wanted:
        sys.exit(f"{MANIFEST} has drifted; run python tools/manifest.py")


if __name__ == "__main__":
    main()
