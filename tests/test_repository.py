"""What a visitor finds: the files, their sizes, and one story told everywhere."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import require

from deeplimits import ledger, results

ROOT = Path(__file__).resolve().parents[1]
TOP = """\
README.md LICENSE LICENSE-text CHANGELOG.md CITATION.cff CONTRIBUTING.md Makefile
pyproject.toml requirements.lock environment.yml _config.yml _toc.yml book src tests
binder results benchmarks .ci/run""".split()


def listed():
    """Every file that is or would be committed."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    run = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"not a git checkout: {run.stderr.strip()}")
    return [path for line in run.stdout.splitlines() if (path := ROOT / line).is_file()]


@pytest.fixture(scope="module")
def files():
    return listed()


@pytest.fixture(scope="module")
def texts(files):
    """The text of every file that is text, by its path in the repository."""
    found = {}
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data:
            found[str(path.relative_to(ROOT))] = data.decode()
    return found


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("name", TOP)
def test_top_level(name):
    assert (ROOT / name).exists()


def test_no_file_is_large(files):
    assert [p.name for p in files if p.stat().st_size > 2_000_000] == []


def test_records_are_small(files):
    records = [p for p in files if p.suffix == ".ipynb"]
    assert [p.name for p in records if p.stat().st_size > 1_000_000] == []


def test_no_path_of_a_machine(texts):
    own = Path(__file__).relative_to(ROOT).as_posix()
    paths = re.compile(r"(?<![\w.~}])/(root|home|Users|work)/[\w.-]+")
    found = {name: paths.search(text) for name, text in texts.items() if name != own}
    assert {name: hit.group() for name, hit in found.items() if hit} == {}


@pytest.fixture(scope="module")
def address(texts):
    return yaml.safe_load(texts["_config.yml"])["repository"]["url"]


def test_the_public_address_stands_in_one_place(texts, address):
    owner_and_name = "/".join(address.lower().split("/")[-2:])
    # A record is generated, and on Colab it is all there is: it has to repeat it.
    written = {n: t.lower() for n, t in texts.items() if not n.endswith(".ipynb")}
    places = {n: t.count(owner_and_name) for n, t in written.items()}
    assert {n: count for n, count in places.items() if count} == {"_config.yml": 1}


def test_records_install_from_the_public_address(texts, address):
    records = {n: t for n, t in texts.items() if n.endswith(".ipynb")}
    place = re.compile(r"git\+(https?:[^\s\"\\]+)")  # and no letters of a picture
    sources = {n: set(place.findall(t)) for n, t in records.items()}
    assert {n: found for n, found in sources.items() if found != {address}} == {}


def test_every_target_is_short_and_in_the_readme(readme):
    makefile = read("Makefile")
    rules = re.findall(r"^([\w-]+):.*\n((?:\t.*\n)+)", makefile, re.M)
    assert set(makefile.split(".PHONY:")[1].split("\n")[0].split()) == {
        name for name, _ in rules
    }
    for name, recipe in rules:
        assert recipe.count("\n") <= 3, name
        assert f"make {name}" in readme, name


def test_the_two_commands_come_first(readme):
    first = readme.split("\n## ")[0] + readme.split("\n## ")[1]
    assert "make book" in first
    assert "make test" in first


def test_the_readmes_picture_exists_and_is_described(readme):
    [(alt, path)] = re.findall(r"!\[([^]]*)\]\(([^)]+)\)", readme, re.DOTALL)
    assert (ROOT / path).is_file()
    assert len(alt) > 40


def test_the_readmes_number_is_that_of_the_record(readme):
    slope = ledger.values(ROOT / "book" / "euler.ipynb")["slope"]
    assert f"the exponent {slope:.2f}.".replace("-", "−") in readme


def test_the_readme_has_the_chapters_of_the_title_page(readme):
    """Number, question, length and state, word by word; papers by name and year."""
    pages = [(ROOT / "book" / "intro.md").read_text(), readme]
    rows = [line.strip("| ").split(" | ") for p in pages for line in p.splitlines()]
    chapters = [row for row in rows if len(row) == 6 and row[0].isdigit()]
    titled, listed = chapters[:12], chapters[12:]
    for theirs, ours in zip(titled, listed, strict=True):
        assert [theirs[i] for i in (0, 2, 4, 5)] == [ours[i] for i in (0, 2, 4, 5)]
        key = re.search(r"`([a-z]+)(\d{4})", theirs[3])
        names = [key[1].title(), f"({key[2]})"] if key else [theirs[3]]
        assert [name for name in names if name not in ours[3]] == []


def test_the_readme_counts_the_claims_of_the_ledger(readme):
    claims = ledger.load()
    numbers = [len(claims)] + [
        sum(claim.verdict == verdict for claim in claims) for verdict in ledger.VERDICTS
    ]
    said = readme.split("chapters; the last")[1].split("attempted.")[0]
    assert list(map(int, re.findall(r"\d+", said))) == numbers


def test_archives_are_made_from_a_clean_tree():
    """A `+` behind the commit says that files differed from it."""
    paths = sorted((ROOT / "results").rglob("*.nc"))
    made = {path.name: results.load(path).attrs["commit"] for path in paths}
    assert len(made) > 40
    assert {name: commit for name, commit in made.items() if "+" in commit} == {}


def test_the_readmes_links_lead_somewhere(readme):
    links = re.findall(r"\]\((?!http|#)([^)]+)\)", readme)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_plain_commands_are_those_of_the_makefile(readme):
    makefile = read("Makefile")
    plain = {"$(bin)": ".venv/bin", "$(JOBS)": "2", "--quiet ": "", "--no-compile ": ""}
    for ours, theirs in plain.items():
        makefile = makefile.replace(ours, theirs)
    block = readme.split("### Without make")[1].split("```")[1]
    lines = [line for line in block.splitlines() if line.startswith(".venv")]
    assert len(lines) > 2
    assert [line for line in lines if f"{line}\n" not in makefile] == []


def make_test(folder, failing):
    """`make test` with tools that do nothing but write down what they are asked."""
    require(shutil.which("make"), "no make here")
    for name in ("jupyter-book", "pytest", "python"):
        tool = folder / name
        tool.write_text(
            "#!/bin/sh\n"
            f'case $1 in tools/parts.py) exec {sys.executable} "$@";; esac\n'
            f'echo "{name} $*" >> {folder}/asked\n'
            f"exit {int(name == failing)}\n"
        )
        tool.chmod(0o755)
    (folder / "ready").touch()
    # Of its own: under `make test`, a make inside would take the options of that one.
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "test", f"bin={folder}", f"ready={folder}/ready"]
    run = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
    parts = dict(re.findall(r"^(\S+) +(passed|FAILED) +\d+ s$", run.stdout, re.M))
    return run.returncode, parts, (folder / "asked").read_text()


PARTS = ["book", "test-laws", "test-records", "test-smoke"]


@pytest.mark.parametrize(
    ("failing", "lost"),
    [
        ("jupyter-book", {"book"}),
        ("pytest", {"test-laws", "test-records"}),
        ("nothing", set()),
    ],
)
def test_a_part_that_fails_hides_no_other(tmp_path, failing, lost):
    status, parts, asked = make_test(tmp_path, failing)
    assert parts == {p: "FAILED" if p in lost else "passed" for p in PARTS}
    assert bool(status) == bool(lost)
    calls = ["jupyter-book build", "pytest -n", "pytest .*--nbval", "python .* smoke"]
    assert [call for call in calls if not re.search(call, asked)] == []


def test_what_is_missing_is_a_failure_in_ci_alone(monkeypatch):
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        require(None, "no browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        require(None, "no browser")
    require("/usr/bin/browser", "no browser")


def test_ci_run_is_ci():
    said = subprocess.run([ROOT / ".ci/run", "env"], capture_output=True, text=True)
    assert "CI=true" in said.stdout.splitlines()


def test_workflow_runs_the_steps_of_ci_run():
    steps = re.search(r"^steps=\((.*)\)", read(".ci/run"), re.M)[1]
    steps = re.split("[ +]", steps)  # those with a plus run side by side
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert commands(jobs["whole"]) == [f".ci/run {step}" for step in steps]
    assert commands(jobs["library"]) == [".ci/run library"]
    assert commands(jobs["lowest"]) == [".ci/run lowest"]
    assert commands(jobs["colab"]) == [".ci/run colab"]


def test_workflow_tests_every_supported_python(project):
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    versions = jobs["library"]["strategy"]["matrix"]["python"]
    low, high = re.fullmatch(
        r">=3\.(\d+),<3\.(\d+)", project["requires-python"]
    ).groups()
    assert versions == [f"3.{minor}" for minor in range(int(low), int(high))]
    [setup] = [s["with"] for s in jobs["lowest"]["steps"] if "python-version" in str(s)]
    assert setup["python-version"] == versions[0]


@pytest.mark.parametrize("name", ["ci", "weekly"])
def test_every_job_is_on_the_page_for_maintainers(name):
    """By its name, in the row of its workflow."""
    jobs = yaml.safe_load(read(f".github/workflows/{name}.yml"))["jobs"]
    rows = read("book/maintaining.md").split("\n## ")[1].splitlines()
    [row] = [row for row in rows if row.rstrip("| ").endswith(f"{name}.yml`")]
    assert [job for job in jobs if f"`{job}`" not in row] == []


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def workflow_faults(text):
    """What breaks the rules for what runs on the public host, in words.

    Actions are pinned by commit, with their version beside it. Whoever runs our code
    or that of our packages holds no token that can write, and leaves none in the
    checkout; whoever may write runs actions, and `gh` on what was made. Who runs all
    tests has the whole history, since the ledger names commits.
    """
    found, workflow = [], yaml.safe_load(text)
    for action in re.findall(r"uses: (.*)", text):
        if not re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+(\.\d+){2}", action):
            found.append(f"not pinned: {action}")
    if workflow.get("permissions") != {"contents": "read"}:
        found.append("permissions beyond reading")
    for name, job in workflow["jobs"].items():
        writes = "write" in {*job.get("permissions", {}).values()}
        for step in job["steps"]:
            ours = not step.get("run", "gh ").startswith("gh ")
            checkout = "actions/checkout" in step.get("uses", "")
            kept = step.get("with", {}).get("persist-credentials") is not False
            if writes and (ours or checkout or "setup" in step.get("uses", "")):
                found.append(f"{name} may write, and runs {step}")
            if checkout and kept:
                found.append(f"{name} leaves a token in the checkout")
            shallow = step.get("with", {}).get("fetch-depth") != 0
            if checkout and shallow and {".ci/run", ".ci/run test"} & {*commands(job)}:
                found.append(f"{name} lacks the history")
            if not writes and re.search("secrets|github.token", f"{job}"):
                found.append(f"{name} is handed a token")
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_who_publishes_runs_nothing_else(path):
    assert workflow_faults(path.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (r"@[0-9a-f]{40} # v5.*", "@v5", "not pinned"),
        ("contents: read", "contents: write", "beyond reading"),
        ("persist-credentials: false", "lfs: false", "leaves a token"),
        (", fetch-depth: 0", "", "lacks the history"),
        ("    needs: build\n", "", None),
        (r"- run: gh release view", "- run: make book; gh", "publish may write"),
        (r"- run: .ci/run", "- run: .ci/run ${{ github.token }}", "handed a token"),
    ],
)
def test_a_workflow_that_breaks_a_rule_is_seen(old, new, fault):
    text = read(".github/workflows/release.yml")
    broken = re.sub(old, lambda _: new, text, count=1)
    assert broken != text
    found = workflow_faults(broken)
    assert any(fault in line for line in found) if fault else found == []


def test_ci_ignores_only_tests_that_exist():
    names = re.search(r"^beyond=\((.*)\)", read(".ci/run"), re.M).group(1).split()
    assert [n for n in names if not (ROOT / f"tests/test_{n}.py").exists()] == []


def test_ci_run_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_citation_and_changelog_know_the_version(project):
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == project["version"]
    assert citation["license"] == [project["license"], "CC-BY-4.0"]
    day = citation["date-released"]
    heading, text = re.search(
        rf"^## {re.escape(project['version'])} \((.*)\)\n\n(.*)",
        read("CHANGELOG.md"),
        re.M,
    ).groups()
    stands = f"As it stands on {day}" if heading == "unreleased" else ""
    assert heading in ("unreleased", f"{day}")
    assert text.startswith(stands)


def read(path):
    return (ROOT / path).read_text()


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]
