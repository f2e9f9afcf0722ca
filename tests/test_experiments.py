"""Laws of the runner: what a piece is, whose it is, and what a run is made of."""

import ast
import dataclasses
import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

from deeplimits import experiments, results, sources
from deeplimits.checks import require_positive
from deeplimits.experiments.runner import Runner


@dataclasses.dataclass(frozen=True)
class Toy:
    depths: tuple[int, ...] = (2, 4, 8)
    rate: float = 0.5

    def __post_init__(self):
        require_positive(self, "depths", "rate")


CALLS = []


def draws(config, point, key):
    CALLS.append("shared")
    return {"noise": jr.normal(key, (max(config.depths),))}


def measured(config, point, key, shared):
    CALLS.append(point["depth"])
    noise = shared["noise"][: point["depth"]]
    return {"mean": config.rate * noise.mean(), "layers": ("layer", noise)}


def compute(config, run):
    """Two measurements of the first layers of one draw."""
    return run.each("toy", {"depth": config.depths}, measured, shared=draws)


TOY = experiments.Experiment("toy/noise", "a toy", {}, compute, "deeplimits.checks")


@pytest.fixture(autouse=True)
def no_calls():
    CALLS.clear()


# ----------------------------------------------------------------- grids


def test_a_grid_is_labelled_and_filled_up_with_nan():
    found = TOY.run(Toy(), key=jr.key(0))
    assert found["layers"].dims == ("depth", "layer")
    assert found["depth"].values.tolist() == [2, 4, 8]
    whole = jr.normal(jr.key(0), (8,))
    for depth in (2, 4, 8):
        row = found["layers"].sel(depth=depth).values
        np.testing.assert_array_equal(row[:depth], whole[:depth])
        assert np.isnan(row[depth:]).all()
        assert float(found["mean"].sel(depth=depth)) == 0.5 * float(
            np.asarray(whole)[:depth].mean()
        )
    assert CALLS == [2, "shared", 4, 8] or CALLS == ["shared", 2, 4, 8]


def runner(**options):
    return Runner(Toy(), jr.key(0), {"experiment": "toy"}, **options)


def product(config, point, key):
    return {"product": point["a"] * point["b"]}


def test_a_grid_of_two_dimensions_is_in_its_order():
    found = runner().each("toy", {"a": (1, 2), "b": (10, 20, 30)}, product)
    assert found["product"].dims == ("a", "b")
    assert found["product"].values.tolist() == [[10, 20, 30], [20, 40, 60]]
    assert found["product"].dtype.kind == "i"


def mixed(config, point, key):
    return {"x": np.asarray(1 / 3, point["type"])}


def test_precisions_join_in_the_finer_one():
    found = runner().each("toy", {"type": ("float32", "float64")}, mixed)
    assert found["x"].values.tolist() == [float(np.float32(1 / 3)), 1 / 3]


def counts(config, point, key):
    return {"count": ("layer", np.arange(point["depth"]))}


def test_integers_are_not_filled_up():
    with pytest.raises(ValueError, match="count differs in shape"):
        runner().each("toy", {"depth": (2, 3)}, counts)


def test_a_label_occurs_once():
    with pytest.raises(ValueError, match="depth names 4 twice"):
        TOY.run(Toy(depths=(4, 2, 4)), key=jr.key(0))


def texts(config, point, key):
    return {"length": len(point["text"])}


def test_labels_that_a_file_name_cannot_tell_apart_are_two_pieces(tmp_path):
    grid = {"text": ("a, b", "a. b!", "a/b")}
    for _ in range(2):
        found = runner(scratch=tmp_path).each("toy", grid, texts)
        assert found["length"].values.tolist() == [4, 5, 3]
    assert len(list(tmp_path.iterdir())) == 3


# ----------------------------------------------------------------- pieces


def test_a_killed_run_goes_on_at_the_piece_where_it_stopped(tmp_path, monkeypatch):
    whole = TOY.run(Toy(), key=jr.key(0))

    def dying(config, point, key, shared):
        if point["depth"] == 8:
            raise KeyboardInterrupt
        return measured(config, point, key, shared)

    first = dataclasses.replace(
        TOY,
        compute=lambda c, r: r.each("toy", {"depth": c.depths}, dying, shared=draws),
    )
    with pytest.raises(KeyboardInterrupt):
        first.run(Toy(), key=jr.key(0), scratch=tmp_path)
    CALLS.clear()
    again = TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    assert CALLS == [8]
    xr.testing.assert_identical(again, whole)
    CALLS.clear()
    xr.testing.assert_identical(TOY.run(Toy(), key=jr.key(0), scratch=tmp_path), whole)
    assert CALLS == []


def other_code(monkeypatch):
    monkeypatch.setattr(sources, "running_hash", lambda module: "edited")


@pytest.mark.parametrize(
    ("config", "key", "double", "edited", "differing"),
    [
        (Toy(rate=0.25), 0, True, False, "config"),
        (Toy(), 1, True, False, "key"),
        (Toy(), 0, False, False, "precision"),
        (Toy(), 0, True, True, "code"),
        (Toy(rate=2.0), 3, True, True, "config, key, code"),
    ],
)
def test_pieces_of_another_computation_are_refused(
    tmp_path, monkeypatch, config, key, double, edited, differing
):
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    if edited:
        other_code(monkeypatch)
    with jax.enable_x64(double):
        with pytest.raises(ValueError, match=rf"\(its {differing} differs\)") as error:
            TOY.run(config, key=jr.key(key), scratch=tmp_path)
    assert "\n" not in str(error.value)


def test_a_commit_is_no_part_of_an_identity(tmp_path, monkeypatch):
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    CALLS.clear()
    monkeypatch.setattr(results, "commit", lambda: "9876543210+")
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    assert CALLS == []


def test_a_damaged_piece_is_refused_in_one_line(tmp_path):
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    [piece] = tmp_path.glob("*depth-4*")
    content = piece.read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK not an archive"):
        piece.write_bytes(damaged)
        with pytest.raises(ValueError, match="truncated, damaged") as error:
            TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
        assert "\n" not in str(error.value)


def test_a_piece_under_the_name_of_another_is_refused(tmp_path):
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    first, second, *_ = sorted(tmp_path.glob("*depth-*.nc"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match="its piece differs"):
        TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)


def test_what_is_found_says_which_computation_it_is():
    found = json.loads(TOY.run(Toy(), key=jr.key(0)).attrs["identity"])
    assert found == TOY.identity(Toy(), jr.key(0))
    assert found["precision"] == "float64"
    assert json.loads(found["config"]) == {"depths": [2, 4, 8], "rate": 0.5}


def precision(config, point, key):
    names = ("float32", "tensorfloat32", "None")
    return {"precision": names.index(str(jax.config.jax_default_matmul_precision))}


def test_products_in_an_experiment_are_float32_on_every_device():
    compute = lambda config, run: run.each("toy", {}, precision)  # noqa: E731
    toy = dataclasses.replace(TOY, compute=compute)
    with jax.default_matmul_precision("tensorfloat32"):
        assert toy.run(Toy(), key=jr.key(0))["precision"] == 0


# ----------------------------------------------------------------- the code behind


def test_an_edit_of_a_module_changes_the_hash_of_those_that_lead_to_it(tmp_path):
    package = tmp_path / "deeplimits"
    package.mkdir()
    texts = {"a": "from . import b\n", "b": "x = 1\n", "c": "x = 2\n"}
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    found = sources.closure(["deeplimits.a"], tmp_path)
    assert found == {f"deeplimits.{n}": package / f"{n}.py" for n in "ab"}


def test_a_file_that_was_edited_after_the_import_stamps_nothing(monkeypatch):
    """What runs may be older than what is read: the numbers would bear a wrong hash."""
    module, stamps = "deeplimits.experiments.runner", sources._AT_IMPORT
    assert sources.running_hash(module) == sources.code_hash(module)
    for name, led_to in (("results.py", True), ("epochs.py", False)):
        path = sources.ROOT / "deeplimits" / name
        monkeypatch.setitem(stamps, path, (0, 0))
        sources.running_hash.cache_clear()
        if led_to:
            with pytest.raises(ValueError, match=r"results\.py was edited after"):
                sources.running_hash(module)
        else:
            assert sources.running_hash(module) == sources.code_hash(module)
        monkeypatch.undo()
    sources.running_hash.cache_clear()


def test_an_archive_that_is_read_belongs_to_the_identity(tmp_path, monkeypatch):
    """Another one, and pieces that began with the first are refused."""
    given = xr.Dataset({"start": ((), 2.0)}, attrs={"checksum": "a"})
    monkeypatch.setattr(results, "archive", lambda name: given)
    reading = dataclasses.replace(
        TOY,
        reads=("toy/first",),
        compute=lambda c, run: run.archive("toy/first") * run.each("x", {}, ones),
    )
    place = {"key": jr.key(0), "scratch": tmp_path}
    assert float(reading.run(Toy(), **place)["start"]) == 2.0
    given = given.assign_attrs(checksum="b")
    with pytest.raises(ValueError, match=r"\(its archives differs\)"):
        reading.run(Toy(), **place)
    undeclared = dataclasses.replace(reading, reads=())
    with pytest.raises(ValueError, match="unknown archive 'toy/first'"):
        undeclared.run(Toy(), key=jr.key(0))
    rate = sources.experiments()["thorpe2023/rate"]
    assert rate.reads == experiments.find("thorpe2023/rate").reads != ()


def ones(config, point, key):
    return {"start": 1.0}


def test_the_hash_sees_every_file_that_a_module_leads_to_and_no_other(tmp_path):
    package = tmp_path / "deeplimits"
    package.mkdir()
    (package / "a.py").write_text("from . import b\n")
    (package / "b.py").write_text("")

    def hashed():
        sources.code_hash.cache_clear()
        return sources.code_hash("deeplimits.a", tmp_path)

    seen = {hashed()}
    for name, text in {
        "b.py": "x = 1\n",
        "b.yml": "a: 1\n",
        "a.py": "from . import b as c\n",
    }.items():
        (package / name).write_text(text)
        seen.add(hashed())
    (package / "c.py").write_text("nobody leads here\n")
    seen.add(hashed())
    assert len(seen) == 4


CODE = '''"""A module."""
A = """one

two"""  # text


def f(x):
    """Twice."""
    # a comment
    return "#" + x
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A module.", "What\n\nit does.", True),
        ('    """Twice."""\n', "", True),
        ("  # text", "", True),
        ("a comment", "another", True),
        ("\n\n\n", "\n", True),
        ("one\n\n", "one\n", False),
        ('"#"', '"##"', False),
        ("return", "return x +", False),
    ],
)
def test_the_hash_sees_what_runs_and_no_comment(tmp_path, old, new, same):
    marks = set()
    for text in (CODE, CODE.replace(old, new)):
        (tmp_path / "a.py").write_text(text)
        marks.add(sources.mark(tmp_path / "a.py"))
    assert CODE.count(old) == 1
    assert len(marks) == (1 if same else 2)


def test_the_index_is_what_the_modules_register():
    index = sources.experiments()
    for name, entry in index.items():
        found = experiments.find(name)
        assert (found.name, found.summary) == (name, entry.summary)
        assert found.module == entry.module
        assert name.startswith(entry.module.split(".")[-2] + "/")
    for module in {entry.module for entry in index.values()}:
        values = vars(importlib.import_module(module)).values()
        here = {v.name for v in values if isinstance(v, experiments.Experiment)}
        assert here == {n for n, e in index.items() if e.module == module}


def test_importing_the_experiments_imports_no_paper():
    code = "import sys, deeplimits.experiments; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    packages = {Path(p.module.replace(".", "/")).parent.name for p in INDEX.values()}
    loaded = [m for m in run.stdout.split() if m.startswith("deeplimits.experiments.")]
    assert packages
    assert {m.split(".")[2] for m in loaded} & packages == set()


def test_an_unknown_experiment_or_field_is_named():
    with pytest.raises(ValueError, match="unknown experiment 'toy/x'; known: li2018/t"):
        experiments.run("toy/x", "smoke", key=jr.key(0))
    with pytest.raises(ValueError, match="unknown profile 'huge'; known: smoke"):
        experiments.run("marion2024/digits", "huge", key=jr.key(0))
    with pytest.raises(ValueError, match="unknown parameter 'width'; known: activ"):
        experiments.run("marion2024/digits", "smoke", key=jr.key(0), width=3)


def test_fields_are_replaced_in_the_preset():
    found = experiments.run(
        "marion2024/relu-counterexample", "smoke", key=jr.key(0), half_depths=(3,)
    )
    assert found["half_depth"].values.tolist() == [3]
    assert found.sizes["iteration"] == 2


def test_archives_are_found_by_the_experiments_name():
    found = experiments.archive("marion2024/long-time")
    assert found.sizes["iteration"] == 201
    with pytest.raises(ValueError, match="no archived result"):
        experiments.archive("marion2024/none")


# ----------------------------------------------------------------- every experiment

INDEX = sources.experiments()
NAMES = list(INDEX)


def presets():
    for name in NAMES:
        for profile in experiments.PROFILES:
            yield pytest.param(name, profile, id=f"{name}-{profile}")


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_three_sizes_of_one_configuration(name):
    found = experiments.find(name)
    assert tuple(found.presets) == experiments.PROFILES
    assert len({type(preset) for preset in found.presets.values()}) == 1


def numbers(value):
    """What a field may be set to that it must refuse, or mean."""
    if isinstance(value, bool):
        return []
    if isinstance(value, str):
        return [""]
    if isinstance(value, tuple):
        nested = value and isinstance(value[0], tuple)
        entries = [0, ()] if nested else numbers(value[0]) if value else []
        return [(), *((entry,) for entry in entries)]
    more = [10**12, 2.5] if isinstance(value, int) else [1e300]
    return [0, -1, float("nan"), float("inf"), *more]


def trials():
    for name in NAMES:
        preset = experiments.find(name).preset("smoke")
        for field in dataclasses.fields(preset):
            for value in numbers(getattr(preset, field.name)):
                yield name, field.name, value


INDICES = ("row", "column")  # of an entry that is kept: these begin at 0


def refusal(preset, field, value):
    """What the configuration says of a value, if it refuses it."""
    try:
        dataclasses.replace(preset, **{field: value})
    except ValueError as error:
        return str(error)
    return None


def test_sizes_that_mean_nothing_are_refused_where_they_are_named(as_in_use):
    """Of every field of every configuration: a count of 0, below 0, NaN, infinity, 2.5,
    none or 10^12 is refused in one line, and a size for which no machine has room with
    the bytes that it would take. What is accepted a formula can take."""
    for name, field, value in trials():
        preset, where = experiments.find(name).preset("smoke"), (name, field, value)
        whole = getattr(preset, field)
        kind = type(whole[0] if isinstance(whole, tuple) and whole else whole)
        entry = value[0] if isinstance(value, tuple) and value else value
        said = refusal(preset, field, value)
        if said is None:
            assert kind is float or (field in INDICES and value == 0), where
            assert entry not in ((), ""), where
            assert np.isfinite(entry), where
            continue
        assert "\n" not in said, where
        if kind is int and entry == 10**12 and field not in INDICES:
            words = ("bytes", "multiple", "divide", "most", "hold", "one of")
            assert any(word in said for word in words), (*where, said)


def functions():
    """Every function that a module of an experiment hands to `each`."""
    for entry in {e.module: e for e in INDEX.values()}.values():
        module = importlib.import_module(entry.module)
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".each"):
                shared = [k.value for k in node.keywords if k.arg == "shared"]
                for given in (node.args[2], *shared):
                    yield module, ast.unparse(_applied(given))


def _applied(node):
    """The function itself, where what is given is a `functools.partial` of it."""
    partial = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("partial")
    return node.args[0] if partial else node


def test_what_a_point_computes_can_be_sent_to_another_process():
    found = list(functions())
    assert len(found) > 5
    for module, name in found:
        value = getattr(module, name, None)
        if value is None:  # made of functions of the module, by `functools.partial`
            source = Path(module.__file__).read_text(encoding="utf-8")
            assert f"{name} = functools.partial(" in source, (module, name)
        else:
            assert pickle.loads(pickle.dumps(value)) is value


# Compilations at `smoke` before there was a runner, or when the experiment was made:
# more would be a program that is built anew for every point of a grid.
COMPILATIONS = json.loads((Path(__file__).parent / "compilations.json").read_text())
ENDS = {"losses"}  # NaN after the last epoch
UNLABELLED = {
    "draw",
    "ode_draw",
    "network",
    "repetition",
    "row",
    "column",
    "entry",
    "layer",
    "node",
    "branch",
    "start",
    "case",
    "step",
    "epoch",
}


in_caches = []  # the module whose programs this process has last compiled


@pytest.fixture
def compiled():
    """The programs that XLA has compiled since the test began."""
    counted, event = [], "/jax/core/compile/backend_compile_duration"

    def listen(name, *_, **__):
        if name == event:
            counted.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counted
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_runs_at_its_smallest(name, compiled, promoting):
    """Finite, labelled, the same twice, and with no more compilations than need be."""
    if name.endswith("-mnist"):
        pytest.importorskip("mnist", reason="MNIST is not installed")
    found = experiments.find(name)
    # experiments of one module share programs: counted where the first is run
    if in_caches != [INDEX[name].module]:
        jax.clear_caches()
        in_caches[:] = [INDEX[name].module]
    first = found.run(found.preset("smoke"), key=jr.key(11))
    count = len(compiled)
    second = found.run(found.preset("smoke"), key=jr.key(11))
    assert first.identical(second)
    assert set(first.dims) <= set(first.coords) | UNLABELLED
    for variable, values in first.data_vars.items():
        assert variable in ENDS or np.isfinite(values).all(), variable
    assert count <= COMPILATIONS[name]


# ------------------------------------------------- what makes a computation this one


MINE = """
from deeplimits import experiments

def value(config, point, key):
    return {"value": 1.0}

def compute(config, run):
    return run.each("one", {}, value)

run = experiments.Experiment("mine/one", "", {}, compute, __name__)
"""


def mine(folder, monkeypatch, text=MINE):
    """The experiment of a module outside the library, with data beside it."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (folder / "mine.py").write_text(text)
    return importlib.import_module("mine").run


def test_code_outside_the_library_is_part_of_the_identity(tmp_path, monkeypatch):
    """Edited and read anew it is another computation, edited alone it is refused."""
    place = {"key": jr.key(0), "scratch": tmp_path / "kept"}
    old = mine(tmp_path, monkeypatch)
    assert old.run(Toy(), **place)["value"] == 1.0
    edited = mine(tmp_path, monkeypatch, MINE.replace("1.0", "222.0"))
    with pytest.raises(ValueError, match="mine was edited after this process"):
        old.run(Toy(), **place)
    with pytest.raises(ValueError, match="its code differs"):
        edited.run(Toy(), **place)
    assert edited.run(Toy(), key=jr.key(0))["value"] == 222.0
    (tmp_path / "mine.yml").write_text("a: 1")
    with pytest.raises(ValueError, match="mine was edited after this process"):
        edited.run(Toy(), key=jr.key(0))
    assert sources.foreign_hash("mine") != sources.foreign_hash("toy")


def test_all_of_the_library_is_behind_code_outside_it(tmp_path, monkeypatch):
    """It may reach any module through the package."""
    found = mine(tmp_path, monkeypatch)
    before = sources.foreign_hash("mine")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sources, "tree", lambda: "edited")
        assert sources.foreign_hash("mine") != before
    monkeypatch.setitem(
        sources._AT_IMPORT, sources.ROOT / "deeplimits/films.py", (0, 0)
    )
    with pytest.raises(ValueError, match=r"films\.py was edited after"):
        found.run(Toy(), key=jr.key(0))


def test_what_is_typed_into_a_notebook_runs_and_is_not_kept(tmp_path):
    typed = dataclasses.replace(TOY, module="nowhere.at.all")
    typed.run(Toy(), key=jr.key(0))
    with pytest.raises(ValueError, match="the code of toy/noise is in no file"):
        typed.run(Toy(), key=jr.key(0), scratch=tmp_path)


def test_bits_that_are_drawn_otherwise_are_of_another_computation(tmp_path):
    TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)
    with jax.threefry_partitionable(not jax.config.jax_threefry_partitionable):
        with pytest.raises(ValueError, match="its key differs"):
            TOY.run(Toy(), key=jr.key(0), scratch=tmp_path)


@pytest.mark.parametrize("key", [0, None, "0", jr.split(jr.key(0), 2)])
def test_an_experiment_has_one_key(key, as_in_use):
    with pytest.raises(ValueError, match="key must be one"):
        TOY.run(Toy(), key=key)


def test_two_pieces_of_one_name_are_refused(tmp_path):
    def twice(config, run):
        first = run.each("a b", {"depth": [2]}, ones)
        run.each("a b", {"depth": [4]}, ones)
        return first + run.each("a_b", {"depth": [2]}, draws)

    both = dataclasses.replace(TOY, compute=twice)
    for scratch in (None, tmp_path):
        with pytest.raises(
            ValueError, match=r"two pieces .* have the name a_b--0--depth-2"
        ):
            both.run(Toy(), key=jr.key(0), scratch=scratch)


def test_numbers_of_numpy_and_lists_are_configurations():
    plain = TOY.identity(Toy(depths=(2,), rate=0.5), jr.key(0))
    assert TOY.identity(Toy((np.int64(2),), np.float64(0.5)), jr.key(0)) == plain
    assert TOY.identity(Toy([2], 0.5), jr.key(0)) == plain
    wide = {"rate": np.longdouble(0.5)}
    assert results.config_json(wide) == results.config_json({"rate": 0.5})
    anyhow = dataclasses.replace(TOY, compute=lambda config, run: xr.Dataset({"x": 1}))
    for config in ({"rate": 0.5}, None):
        anyhow.run(config, key=jr.key(0))
    with pytest.raises(ValueError, match="rate is beyond float64"):
        anyhow.run({"rate": (10**400,)}, key=jr.key(0))
    with pytest.raises(ValueError, match=r"depths must be positive, .* got \[0\]"):
        Toy([0])


def test_a_piece_with_an_odd_identity_is_refused(tmp_path):
    for odd in ("{", "1", "[1]", "[" * 100_000):
        found = xr.Dataset({"x": 1.0}, attrs={"identity": odd})
        with pytest.raises(ValueError, match="does not say soundly"):
            results.require_same({"experiment": "toy"}, found, tmp_path / "x.nc")
