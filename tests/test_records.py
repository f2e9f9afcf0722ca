"""From source to record: every way in which a record could mislead is closed."""

import base64
import importlib
import io
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# By path and name, since its worker processes import it too.
sys.path.insert(0, str(ROOT / "tools"))
records = importlib.import_module("records")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FRONT = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# Toy
"""
PARAMETERS = ["parameters", 'profile = "book"\nseed = 2024']
CELLS = [
    ["colab", records.COLAB],
    PARAMETERS,
    ["", 'from deeplimits import ledger\n\nledger.glue("profile", profile)'],
    ["", "print(6 * 7)"],
]


def source(cells):
    """A chapter with these cells, each a tag and its code."""
    parts = [
        f"```{{code-cell}} ipython3\n:tags: [{tag}]\n\n{code.rstrip()}\n```\n"
        for tag, code in cells
    ]
    return "\n".join([FRONT, *parts])


def plant(root, cells=CELLS):
    """A small book with one chapter, `toy`."""
    (root / "book").mkdir()
    (root / "results" / "toy").mkdir(parents=True)
    library = root / "src" / "deeplimits"
    (library / "experiments").mkdir(parents=True)
    for path in ["_config.yml", "requirements.lock"]:
        shutil.copy(ROOT / path, root / path)
    shutil.copy(ROOT / "src" / "deeplimits" / "ledger.py", library)
    (root / "book" / "toy.md").write_text(source(cells))
    (root / "book" / "prose.md").write_text("# Prose\n\nNo kernel here.\n")
    return root


@pytest.fixture
def book(tmp_path):
    return plant(tmp_path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A book whose chapter was executed once, for all tests of this file."""
    root = plant(tmp_path_factory.mktemp("executed"))
    assert records.record(root, "toy", {}, root / "book") is None
    return root


@pytest.fixture
def recorded(executed, tmp_path):
    return shutil.copytree(executed, tmp_path / "copy")


def edit(root, change):
    path = root / "book" / "toy.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


# ----------------------------------------------------------------- the record


def test_a_fresh_record_is_not_stale(recorded):
    assert records.stale(recorded, "toy") == []
    assert records.main(["--root", str(recorded), "--check"]) == 0


def test_the_record_says_where_it_comes_from(recorded):
    path = recorded / "book" / "toy.ipynb"
    about = nbformat.read(path, as_version=4).metadata.deeplimits.provenance
    assert set(about) == {
        *("version", "commit", "profile", "seed", "device", "dtype"),
        *("wall_seconds", "peak_mib"),
    }
    assert (about.profile, about.seed) == ("book", 2024)
    assert 20 < about.peak_mib < 4000


def test_the_record_holds_nothing_that_changes_by_itself(recorded):
    text = (recorded / "book" / "toy.ipynb").read_text()
    for word in ['papermill":', "start_time", "duration", "injected", "iopub", "/tmp/"]:
        assert word not in text
    assert '"id": "probe"' not in text


@pytest.mark.parametrize(("alpha", "mode"), [(255, "RGB"), (200, "RGBA")])
def test_a_packed_picture_is_smaller_and_has_the_same_pixels(alpha, mode):
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[..., :3] = np.arange(64 * 64 * 3).reshape(64, 64, 3) // 7 % 256
    pixels[5, 5, 3] = alpha
    Image.fromarray(pixels).save(file := io.BytesIO(), "PNG", compress_level=1)
    before = base64.b64encode(file.getvalue()).decode()
    after = records.packed(before)
    image = Image.open(io.BytesIO(base64.b64decode(after)))
    assert len(after) < len(before)
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image.convert("RGBA")), pixels)


def test_the_colab_cell_gets_the_address_in_the_record_alone(recorded):
    address = records.address(recorded)
    assert address not in (recorded / "book" / "toy.md").read_text()
    assert f"git+{address}" in (recorded / "book" / "toy.ipynb").read_text()


def test_a_chapter_names_a_kernel_and_prose_does_not(book):
    assert records.chapters(book) == ["toy"]


# ----------------------------------------------------------------- staleness


def test_a_chapter_without_record_is_stale(book, capsys):
    assert records.main(["--root", str(book), "--check"]) == 1
    assert "toy: there is no record" in capsys.readouterr().out


def test_an_edited_source_is_noticed(recorded):
    (recorded / "book" / "toy.md").write_text(source([*CELLS, ["", "print(1)"]]))
    reasons = records.stale(recorded, "toy")
    assert "book/toy.md has changed" in reasons
    assert "source and record have different cells" in reasons


def test_other_prose_keeps_the_outputs(recorded, monkeypatch):
    """They are of the code alone, and so is what the record says of their making."""
    path, page = recorded / "book" / "toy.ipynb", recorded / "book" / "toy.md"
    before = nbformat.read(path, as_version=4)
    page.write_text(page.read_text().replace("# Toy", "# Another") + "\nMore.\n")
    assert records.stale(recorded, "toy") != []
    monkeypatch.setattr(records, "execute", None)  # it must not be needed
    assert records.main(["--root", str(recorded)]) == 0
    after = nbformat.read(path, as_version=4)
    assert records.stale(recorded, "toy") == []
    assert "More." in after.cells[-1].source
    ran = [[cell for cell in n.cells if "outputs" in cell] for n in (before, after)]
    assert ran[0] == ran[1] != []
    about = [each.metadata.deeplimits.provenance for each in (before, after)]
    assert about[0] == about[1]


def test_other_code_or_another_library_takes_more_than_new_prose(recorded):
    page = recorded / "book" / "toy.md"
    old = page.read_text()
    page.write_text(old.replace("print(", "print( "))
    assert records.reworded(recorded, "toy") is None
    page.write_text(old + "\nMore.\n")
    assert records.reworded(recorded, "toy") is not None
    ledger = recorded / "src" / "deeplimits" / "ledger.py"
    ledger.write_text(ledger.read_text() + "\nMORE = 7\n")
    assert records.reworded(recorded, "toy") is None


@pytest.mark.parametrize(
    ("tag", "runs"), [("nbval-ignore-output", False), ("raises-exception", True)]
)
def test_a_tag_that_does_not_change_the_run_needs_none(recorded, tag, runs):
    *others, (_, code) = CELLS
    (recorded / "book" / "toy.md").write_text(source([*others, [tag, code]]))
    assert records.stale(recorded, "toy") != []
    assert (records.reworded(recorded, "toy") is None) == runs


def test_an_edited_record_is_noticed(recorded):
    edit(recorded, lambda n: n.cells[-1].update(source="print(7 * 6)"))
    assert records.stale(recorded, "toy") == ["source and record have different cells"]


def test_an_edit_of_an_imported_module_is_noticed(recorded):
    path = recorded / "src" / "deeplimits" / "ledger.py"
    path.write_text(path.read_text() + "\nedited = True\n")
    assert records.stale(recorded, "toy") == ["src/deeplimits/ledger.py has changed"]


def test_a_new_lock_is_noticed_where_the_library_needs_it(recorded):
    lock = recorded / "requirements.lock"
    before = lock.read_text()
    lock.write_text(before.replace("ruff==", "ruff==0."))
    assert records.stale(recorded, "toy") == []
    lock.write_text(re.sub(r"(?m)^jax==", "jax==0.", before))
    assert records.stale(recorded, "toy") == ["requirements.lock has changed"]


def test_a_new_address_is_noticed(recorded):
    path = recorded / "_config.yml"
    path.write_text(path.read_text().replace(records.address(recorded), "https://a.b"))
    assert "book/toy.md has changed" in records.stale(recorded, "toy")


def test_missing_outputs_are_noticed(recorded):
    edit(recorded, lambda n: n.cells[-1].update(outputs=[], execution_count=None))
    [reason] = records.stale(recorded, "toy")
    assert "has not been executed" in reason


def test_a_traceback_is_noticed(recorded):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="no")
    edit(recorded, lambda n: n.cells[-1].update(outputs=[error]))
    assert records.stale(recorded, "toy") == ["a cell shows ValueError: no"]


def test_a_record_of_another_profile_is_noticed(recorded):
    edit(recorded, lambda n: n.metadata.deeplimits.provenance.update(profile="smoke"))
    assert records.stale(recorded, "toy") == ["the profile is not book"]


def test_a_large_record_is_noticed_and_refused(recorded, monkeypatch):
    path = recorded / "book" / "toy.ipynb"
    monkeypatch.setattr(records, "LIMIT", 100)
    assert records.stale(recorded, "toy") == ["the record is larger than 100 bytes"]
    with pytest.raises(records.RecordError, match="over 100"):
        records.write(nbformat.read(path, as_version=4), path)


# ----------------------------------------------------------------- dependencies


def library(root, files):
    for name, text in files.items():
        (root / "src" / "deeplimits" / f"{name}.py").write_text(text)


@pytest.mark.parametrize(
    "line",
    [
        "from deeplimits import a",
        "import deeplimits.a",
        "import deeplimits.a as first",
        "from deeplimits.a import thing",
        "def f():\n    from deeplimits import a",
    ],
)
def test_imports_are_followed_through(book, line):
    files = {
        "a": "from . import b\n",
        "b": "from .experiments.c import run\n",
        "d": "",
        "e": "",
        "experiments/__init__": "from deeplimits import e\n",
        "experiments/c": "import numpy\n",
    }
    library(book, files)
    cells = [PARAMETERS, ["", f"%matplotlib inline\n{line}"]]
    (book / "book" / "toy.md").write_text(source(cells))
    found = records.modules(book, records.read_source(book, "toy"))
    names = {name.removeprefix("deeplimits.") for name in found}
    assert names == {"a", "b", "e", "experiments", "experiments.c"}


def test_data_beside_a_module_counts(book):
    (book / "src" / "deeplimits" / "ledger.yml").write_text("a: 1\n")
    assert "src/deeplimits/ledger.yml" in records.fingerprint(book, "toy")


@pytest.mark.parametrize(
    "code", ['results.archive("toy/run.nc")', 'experiments.archive("toy/run")']
)
def test_an_archive_counts_where_the_code_names_it(book, code):
    (book / "results" / "toy" / "run.nc").write_bytes(b"1")
    assert "results/toy/run.nc" not in records.fingerprint(book, "toy")
    (book / "book" / "toy.md").write_text(source([*CELLS, ["", f"found = {code}"]]))
    assert "results/toy/run.nc" in records.fingerprint(book, "toy")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ('results.archive("toy/none.nc")', "there is no archive results/toy/none.nc"),
        ('experiments.archive(f"toy/{name}")', "must name a file or an experiment"),
        ("experiments.run(name, profile)", "must name a file or an experiment"),
    ],
)
def test_what_a_chapter_reads_is_written_out(book, code, message):
    (book / "book" / "toy.md").write_text(source([*CELLS, ["", f"found = {code}"]]))
    assert message in records.record(book, "toy", {}, book / "out")


EXPERIMENT = 'from . import help{number}\nfound = experiment("toy/{name}", "s", 1)(f)\n'


def test_an_edit_of_one_experiment_makes_stale_only_what_runs_it(book):
    """The package of experiments imports no paper; the name leads to the module."""
    library(book, {"experiments/__init__": ""})
    (book / "src" / "deeplimits" / "experiments" / "toy").mkdir()
    for number, name in enumerate(("one", "two")):
        text = EXPERIMENT.format(number=number, name=name)
        library(book, {f"experiments/toy/{name}": text})
        library(book, {f"experiments/toy/help{number}": ""})
    code = 'from deeplimits import experiments\nexperiments.run("toy/two", profile)'
    (book / "book" / "toy.md").write_text(source([*CELLS, ["", code]]))
    found = {path for path in records.fingerprint(book, "toy") if "/toy/" in path}
    folder = "src/deeplimits/experiments/toy"
    assert found == {f"{folder}/two.py", f"{folder}/help1.py"}


def test_cells_keep_their_names_while_others_come(book):
    before = [cell.id for cell in records.read_source(book, "toy").cells]
    (book / "book" / "toy.md").write_text(source([["", "1"], *CELLS]))
    after = [cell.id for cell in records.read_source(book, "toy").cells]
    assert set(before) < set(after)
    assert len(set(after)) == len(after)


def test_the_commit_marks_edited_files(tmp_path):
    def git(*args):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *args]
        records.subprocess.run(command, check=True, capture_output=True)

    path = tmp_path / "a.md"
    path.write_text("1")
    assert records.commit(tmp_path, [path]) == "unknown"
    git("init")
    git("add", "a.md")
    git("commit", "-m", "one")
    clean = records.commit(tmp_path, [path])
    path.write_text("2")
    assert records.commit(tmp_path, [path]) == clean + "+"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("book/*.ipynb")), ids=lambda p: p.stem
)
def test_a_record_is_made_from_what_is_committed(path):
    about = json.loads(path.read_text("utf-8"))["metadata"]["deeplimits"]
    assert not about["provenance"]["commit"].endswith("+")


# ----------------------------------------------------------------- execution


def test_an_unknown_parameter_is_an_error(book):
    failure = records.record(book, "toy", {"proflie": "smoke"}, book / "out")
    assert failure == (
        "toy: RecordError: no parameter ['proflie']; the cell has ['profile', 'seed']."
    )
    assert not (book / "out").exists()


@pytest.mark.parametrize("cells", [[["", "1"]], [PARAMETERS, PARAMETERS]])
def test_one_cell_holds_the_parameters(book, cells):
    (book / "book" / "toy.md").write_text(source(cells))
    failure = records.record(book, "toy", {}, book / "book")
    assert "tagged parameters, one is needed" in failure


def test_a_raising_cell_is_named_and_the_old_record_stays(recorded, capsys):
    before = (recorded / "book" / "toy.ipynb").read_bytes()
    raising = [PARAMETERS, ["", "x = 1\n1 / 0"]]
    (recorded / "book" / "toy.md").write_text(source(raising))
    assert records.main(["--root", str(recorded)]) == 1
    message = capsys.readouterr().err
    assert "toy: cell 2 (x = 1) raised ZeroDivisionError" in message
    assert (recorded / "book" / "toy.ipynb").read_bytes() == before


def test_another_profile_leaves_the_record_alone(recorded):
    before = (recorded / "book" / "toy.ipynb").read_bytes()
    output = recorded / "smoke"
    options = ["--profile", "smoke", "--output", str(output)]
    assert records.main(["--root", str(recorded), *options]) == 0
    assert (recorded / "book" / "toy.ipynb").read_bytes() == before
    assert "'smoke'" in (output / "toy.ipynb").read_text()


def test_another_profile_needs_an_output(book, capsys):
    with pytest.raises(SystemExit):
        records.main(["--root", str(book), "--profile", "smoke"])
    assert "--output" in capsys.readouterr().err


def test_an_unknown_chapter_is_refused(book, capsys):
    with pytest.raises(SystemExit):
        records.main(["--root", str(book), "nosuch"])
    assert "no chapter ['nosuch']: ['toy']" in capsys.readouterr().err


# ----------------------------------------------------------------- this book


@pytest.mark.parametrize("name", records.chapters(ROOT))
def test_every_record_is_fresh(name):
    assert records.stale(ROOT, name) == []


@pytest.mark.parametrize("name", records.chapters(ROOT))
def test_every_chapter_begins_with_the_colab_cell(name):
    cells = records.read_source(ROOT, name).cells
    first = next(cell for cell in cells if cell.cell_type == "code")
    address = records.address(ROOT)
    assert first.source.strip() == records.COLAB.replace("REPOSITORY", address).strip()
    assert set(first.metadata.tags) >= {"remove-cell", "colab"}


@pytest.mark.parametrize("name", records.chapters(ROOT))
def test_keeping_the_books_is_short(name):
    for cell in records.read_source(ROOT, name).cells:
        tags = set(cell.metadata.get("tags", []))
        if "remove-cell" in tags and not tags & {"colab", "parameters"}:
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= 25, lines[0]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("book/*.ipynb")), ids=lambda p: p.stem
)
def test_every_record_has_a_source_and_is_quiet(path):
    assert path.stem in records.chapters(ROOT)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs
    assert not [o for o in outputs if o.get("name") == "stderr"]
    texts = ["".join(o.get("data", {}).get("text/plain", "")) for o in outputs]
    assert not [text for text in texts if " at 0x" in text]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("book/*.ipynb")), ids=lambda p: p.stem
)
def test_a_cell_with_a_caption_shows_one_thing(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "figure" in cell["metadata"].get("mystnb", {}):
            glued = "application/papermill.record/"
            shown = [o for o in cell["outputs"] if glued not in str(o.get("data"))]
            assert len(shown) == 1, "".join(cell["source"]).splitlines()[-1]


@pytest.mark.parametrize("name", records.chapters(ROOT))
def test_no_output_is_held_back_by_a_semicolon(name):
    """nbval keeps no history of the inputs, where IPython looks for it."""
    for cell in records.read_source(ROOT, name).cells:
        if cell.cell_type == "code":
            assert not cell.source.rstrip().endswith(";"), cell.source
