"""Laws of reading weights: names into stages, files that lie, limits, live models."""

import itertools
import json
import tracemalloc
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplimits import cli, diagnosis, files
from deeplimits.diagnosis import assembly, stages

# Names into stages.


def layer(k, *shape):
    """Every layer another number, so that their order can be read."""
    return np.full(shape or (3, 2), k, np.float32)


def numbers(weights, name):
    return [int(z.flat[0]) for z in weights.layers(name)]


def test_layers_saved_one_by_one_are_read_in_numeric_order():
    arrays = {f"encoder.layers.{k}.attn.weight": layer(k) for k in range(12)}
    shuffled = dict(sorted(arrays.items()))  # 0, 1, 10, 11, 2, ...
    found = diagnosis.of(shuffled | {"embed.weight": layer(99, 50, 2)})
    [name] = found
    assert name == "encoder.layers.#.attn.weight"
    assert found.shapes[name] == found[name].shape == (12, 3, 2)
    assert numbers(found, name) == list(range(12))
    assert found.stages == {"encoder.layers.#": (name,)}
    assert found.notes == ("left out, outside the layers: embed.weight",)


def test_eight_linear_layers_are_eight_and_never_sixty_four():
    for name in ("layers.{}.weight", "fc_{}.weight", "net/{}/kernel", "{}.weight"):
        found = diagnosis.of({name.format(k): layer(k, 64, 64) for k in range(8)})
        [shape] = found.shapes.values()
        assert shape == (8, 64, 64), name
    for name in ("fc{}.weight", "linear{}"):  # the digits are part of a word
        arrays = {name.format(k): layer(k, 64, 64) for k in range(8)}
        with pytest.raises(ValueError, match="saved one by one, or stacks"):
            diagnosis.of(arrays)
        found = diagnosis.of(arrays, pattern=name.format("#"))
        assert found.shapes == {name.format("#"): (8, 64, 64)}


def residual_stages(lengths, prefix="layer{}.{}."):
    """The names of a residual network for images, as torchvision saves it."""
    arrays = {"conv1.weight": layer(0, 8, 3, 7, 7), "fc.weight": layer(0, 10, 64)}
    for i, length in enumerate(lengths, 1):
        for k in range(length):
            width, before = 8 * 2**i, 8 * 2 ** max(i - (k == 0), 1)
            block = prefix.format(i, k)
            arrays[f"{block}conv1.weight"] = layer(k, width, before, 3, 3)
            arrays[f"{block}conv2.weight"] = layer(k, width, width, 3, 3)
            arrays[f"{block}bn1.running_mean"] = layer(k, width)
            arrays[f"{block}bn1.num_batches_tracked"] = np.array(7)
            if before < width:
                arrays[f"{block}downsample.0.weight"] = layer(k, width, before, 1, 1)
    return arrays


@pytest.mark.parametrize("prefix", ["layer{}.{}.", "blocks.{}.{}."])
def test_stages_of_another_width_are_stages(prefix):
    found = diagnosis.of(residual_stages((3, 4, 6, 3), prefix))
    expected = [f"{prefix.format(i, '#')[:-1]}" for i in (1, 2, 3, 4)]
    assert list(found.stages) == expected
    depths = [found.shapes[names[0]][0] for names in found.stages.values()]
    assert depths == [3, 3, 5, 2]  # the first block of a stage has other shapes
    assert numbers(found, f"{expected[2]}.conv2.weight") == [1, 2, 3, 4, 5]
    notes = " ".join(found.notes)
    assert "a buffer: " in notes
    assert "running_mean" in notes
    assert "type int64" in notes


def test_stages_that_are_alike_are_not_taken_for_blocks():
    arrays = {
        f"blocks.{i}.{k}.conv.weight": layer(10 * i + k)
        for i, k in itertools.product(range(3), range(4))
    }
    found = diagnosis.of(arrays)
    assert list(found.stages) == [f"blocks.{i}.#" for i in range(3)]
    assert numbers(found, "blocks.2.#.conv.weight") == [20, 21, 22, 23]


def test_a_block_may_list_layers_of_its_own():
    """Whether linear layers, experts, or a block inside a block."""
    for rest in ("mlp.{}.weight", "{}.weight", "experts.{}.w", "body.{}.weight"):
        arrays = {
            f"body.{k}.{rest.format(n)}": layer(k, 5, 5, 3)
            for k, n in itertools.product(range(6), (0, 2))
        }
        found = diagnosis.of(arrays)
        assert set(found.shapes.values()) == {(6, 5, 5, 3)}, rest
        assert list(found) == [f"body.#.{rest.format(n)}" for n in (0, 2)]


def test_kinds_that_alternate_are_kept_apart():
    arrays = {}
    for k in range(24):
        kind = ("attn.weight", (4, 4)) if k % 2 else ("conv.weight", (4, 4, 3))
        arrays[f"layers.{k}.{kind[0]}"] = layer(k, *kind[1])
        arrays[f"layers.{k}.mlp.weight"] = layer(k, 4, 8)
    found = diagnosis.of(arrays)
    assert list(found.stages) == ["layers.# (kind 1)", "layers.# (kind 2)"]
    assert numbers(found, "layers.#.conv.weight (kind 1)") == list(range(0, 24, 2))
    assert numbers(found, "layers.#.mlp.weight (kind 2)") == list(range(1, 24, 2))
    assert found.notes[0] == "layers.# (kind 1): 12 layers, numbers 0, 2, 4 … 22"


def test_a_first_block_with_more_belongs_to_the_others():
    arrays = {f"block.{k}.q.weight": layer(k) for k in range(6)}
    found = diagnosis.of(arrays | {"block.0.bias.weight": layer(0)})
    assert found.shapes == {"block.#.q.weight": (6, 3, 2)}
    assert found.notes == ("left out, outside the layers: block.0.bias.weight",)


def test_what_wrappers_put_before_a_name_is_taken_off():
    plain = {f"blocks.{k}.w": layer(k) for k in range(4)}
    for wrapped in ("module.{}", "_orig_mod.{}", "module._orig_mod.{}"):
        found = diagnosis.of({wrapped.format(k): z for k, z in plain.items()})
        assert list(found) == ["blocks.#.w"], wrapped


def test_a_pattern_chooses():
    arrays = {f"encoder.{k}.w": layer(k) for k in range(4)}
    arrays |= {f"decoder.{k}.w": layer(k) for k in range(3)}
    arrays |= {f"decoder.{k}.wide": layer(k) for k in range(3)}
    assert len(diagnosis.of(arrays)) == 3
    for pattern in ("encoder.#", "enc*.#.w", "*coder.#.w", "decoder.#.w"):
        found = diagnosis.of(arrays, pattern=pattern)
        assert all(name.endswith("coder.#.w") for name in found), pattern
    assert diagnosis.of(arrays, pattern="encoder.#").shapes == {
        "encoder.#.w": (4, 3, 2)
    }
    inner = {f"s.{i}.b.{k}.w": layer(k) for i in range(3) for k in range(5)}
    assert set(diagnosis.of(inner).shapes.values()) == {(3, 3, 2)}
    assert set(diagnosis.of(inner, pattern="s.*.b.#").shapes.values()) == {(5, 3, 2)}
    for pattern, message in (("#.#", "one #"), ("x.#", "nothing in .* matches x.#")):
        with pytest.raises(ValueError, match=message):
            diagnosis.of(arrays, pattern=pattern)


def test_a_pattern_without_number_chooses_stacks():
    arrays = {"0.weight": layer(0, 6, 3, 3), "2.weight": layer(2, 6, 3, 3)}
    with pytest.raises(ValueError, match=r"'#.weight', stacks with '\*'"):
        diagnosis.of(arrays)
    assert set(diagnosis.of(arrays, pattern="*").shapes) == set(arrays)
    arrays = {"blocks.w": layer(0, 6, 3), "embed.w": layer(0, 50, 3)}
    with pytest.raises(ValueError, match="differ in depth"):
        diagnosis.of(arrays)
    assert diagnosis.of(arrays, pattern="blocks").shapes == {"blocks.w": (6, 3)}


def test_ten_thousand_layers_and_none(as_in_use):
    arrays = {f"h.{k}.w": layer(k, 2) for k in range(10_000)}
    found = diagnosis.of(arrays)
    assert numbers(found, "h.#.w") == list(range(10_000))
    with pytest.raises(ValueError, match="holds no array"):
        diagnosis.of({})


@pytest.mark.parametrize("name", ["h.0.w", "w.7"])
def test_one_layer_is_no_stack(name):
    arrays = {name: layer(0, 64, 64), f"{name}.bias": layer(1, 64)}
    with pytest.raises(ValueError, match=r"such as '(h\.#\.w|w\.#)', stacks with"):
        diagnosis.of(arrays)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.lists(
            st.sampled_from(["a", "0", "1", "01", "12", "b2", "é", "\n", "#("]),
            max_size=5,
        ).map(".".join),
        st.sampled_from([(), (2,), (2, 2), (3, 2), (64, 3, 3), (0, 2)]),
        max_size=12,
    ),
    st.one_of(st.none(), st.text("a0.#*(", max_size=6)),
)
def test_whatever_the_names_each_array_is_read_once_or_named(shapes, pattern):
    arrays = {name: np.ones(shape) for name, shape in shapes.items()}
    try:
        found = diagnosis.of(arrays, pattern=pattern)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert len(refusal) <= 300
    assert not refusal or refusal.isprintable()
    if refusal:
        return
    placed = [n for names in found.stages.values() for n in names]
    assert sorted(placed) == sorted(found)
    for names in found.stages.values():
        depths = {found.shapes[name][0] for name in names}
        assert len(depths) == 1
        assert min(depths) >= 2
        assert all(found[name].shape == found.shapes[name] for name in names)
    assert all(note.isprintable() and len(note) <= 300 for note in found.notes)


# Types.


def safetensors(arrays, types):
    """The format as its authors describe it, written without their package."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        span = [len(body), len(body) + array.nbytes]
        entry = {"dtype": types[name], "shape": list(array.shape), "data_offsets": span}
        header[name], body = entry, body + array.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


ARRAYS = {
    "a": np.sin(np.arange(384, dtype=np.float32)).reshape(64, 3, 2),
    "b": np.cos(np.arange(320.0)).reshape(64, 5).astype(ml_dtypes.bfloat16),
    "c": np.cos(np.arange(320.0)).reshape(64, 5).astype(ml_dtypes.float8_e4m3fn),
    "d": np.cos(np.arange(320.0)).reshape(64, 5).astype(ml_dtypes.float8_e5m2),
    "mask": np.ones((4, 4), bool),
    "counter": np.arange(3),
}
TYPES = {"a": "F32", "b": "BF16", "c": "F8_E4M3", "d": "F8_E5M2"}
TYPES |= {"mask": "BOOL", "counter": "I64"}


def test_both_formats_are_read(tmp_path):
    path = tmp_path / "depth-64.safetensors"
    path.write_bytes(safetensors(ARRAYS, TYPES))
    found = diagnosis.read(path)
    assert list(found) == ["a", "b", "c", "d"]
    for name in found:
        assert found[name].dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(found[name], ARRAYS[name])
    assert found.notes[:2] == (
        "left out, type BOOL: mask",
        "left out, type I64: counter",
    )
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "depth-64.npz", a=ARRAYS["a"], mask=ARRAYS["mask"])
        found = diagnosis.read(tmp_path / "depth-64.npz")
        np.testing.assert_array_equal(found["a"], ARRAYS["a"])
        assert found.notes[0] == "left out, type bool: mask"


def test_safetensors_are_those_of_the_package(tmp_path):
    package = pytest.importorskip("safetensors.numpy", reason="not needed to read them")
    package.save_file({"a": ARRAYS["a"]}, tmp_path / "x.safetensors")
    found = diagnosis.read(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])


def test_types_that_mix_over_layers_are_read_as_doubles():
    arrays = {f"h.{k}.w": layer(k).astype(t) for k, t in enumerate("ef")}
    arrays["h.2.w"] = layer(2).astype(ml_dtypes.bfloat16)
    found = diagnosis.of(arrays)["h.#.w"]
    assert found.dtype == np.float64
    assert found[:, 0, 0].tolist() == [0, 1, 2]


codes = np.ones((4, 4), np.int8)


@pytest.mark.parametrize(
    "block",
    [
        {"q_proj.weight": codes, "q_proj.weight_scale": layer(1, 4)},
        {"q_proj.weight": codes.astype(np.uint8), "q_proj.weight.absmax": layer(1, 4)},
        {"q_proj.qweight": codes.astype(np.int32), "q_proj.scales": layer(1, 4)},
        {"q_proj.weight": codes.astype(ml_dtypes.int4), "norm.weight": layer(1, 4)},
        {"q_proj.weight": codes, "norm.weight": layer(1, 4)},
        {
            "q_proj.weight": codes.astype(ml_dtypes.float8_e4m3fn),
            "q_proj.weight_scale_inv": layer(1, 1),
        },
    ],
)
def test_quantised_weights_are_refused_with_the_reason(block):
    arrays = {f"layers.{k}.{name}": z for k in range(4) for name, z in block.items()}
    with pytest.raises(ValueError, match=r"is quantised \(layers.*codes, not weights"):
        diagnosis.of(arrays)


def test_scales_alone_are_weights():
    arrays = {f"layers.{k}.scale": layer(k, 4) for k in range(4)}
    arrays |= {"position_ids": np.arange(4), "mask": np.ones((1, 4), np.uint8)}
    assert diagnosis.of(arrays).shapes == {"layers.#.scale": (4, 4)}


def test_a_mask_of_floats_is_no_weight():
    arrays = {f"h.{k}.attn.bias": layer(1, 1, 1, 8, 8) for k in range(3)}
    arrays |= {f"h.{k}.attn.c_attn.bias": layer(k, 8) for k in range(3)}
    assert list(diagnosis.of(arrays)) == ["h.#.attn.c_attn.bias"]


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.state.{}.exp_avg",
        "opt_state/0/mu/layers/{}/weight",
        "optim.layers.{}.weight",
        "layers.{}.weight.exp_avg_sq",
        "optimizer_state.layers.{}.weight.momentum_buffer",
    ],
)
def test_the_state_of_an_optimiser_is_no_weight(name):
    arrays = {f"layers.{k}.weight": layer(k) for k in range(4)}
    state = {name.format(k): layer(k) for k in range(4)}
    found = diagnosis.of(arrays | state)
    assert list(found) == ["layers.#.weight"]
    assert [n for n in found.notes if n.startswith("left out, state of the optimiser")]
    named = {f"optimisation.{k}.weight": layer(k) for k in range(4)}
    assert list(diagnosis.of(named)) == ["optimisation.#.weight"]


# Files that are damaged, or lie.


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_no_truncation_passes(suffix, tmp_path):
    path = tmp_path / f"whole{suffix}"
    if suffix == ".npz":
        np.savez(path, a=ARRAYS["a"])
    else:
        path.write_bytes(safetensors(ARRAYS, TYPES))
    content = path.read_bytes()
    for end in (0, 5, 9, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cannot be read"):
            diagnosis.read(path)


@pytest.mark.parametrize("kind", ["npz", "compressed", "safetensors"])
def test_damaged_bytes_are_read_or_refused_in_one_line(kind, tmp_path, as_in_use):
    path = tmp_path / f"x.{'safetensors' if kind == 'safetensors' else 'npz'}"
    if kind == "safetensors":
        path.write_bytes(safetensors(ARRAYS, TYPES))
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, a=ARRAYS["a"])
    content, rng, refusals = path.read_bytes(), np.random.default_rng(0), []
    for n in range(100):
        damaged = bytearray(content)
        # in the middle, or among the headers at both ends
        place = rng.integers(len(content)) if n % 2 else rng.integers(-150, 150)
        damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = diagnosis.read(path)
            [found[name] for name in found]
        except ValueError as error:
            refusals.append(str(error).replace(str(path), ""))
    assert len(refusals) > 15
    assert all(line.isprintable() and len(line) <= 280 for line in refusals)


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content := safetensors(ARRAYS, TYPES))
    found = diagnosis.read(path)
    path.write_bytes(content[:400])
    with pytest.raises(ValueError, match="has become shorter"):
        found["b"]


def lying(tmp_path, header, body=1536):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(body))
    return path


ENTRY = {"dtype": "F32", "shape": [64, 6], "data_offsets": [0, 1536]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F9"}, "left out, type F9: a"),
        ({"dtype": 9}, "a: no type, shape and two offsets"),
        ({"shape": [64, -1]}, "a: no type, shape and two offsets"),
        ({"shape": [True, 384]}, "a: no type, shape and two offsets"),
        ({"shape": [1.0, 384]}, "a: no type, shape and two offsets"),
        ({"shape": [1] * 40}, "a: no type, shape and two offsets"),
        ({"shape": [64, 4]}, "a: 1536 bytes for the shape"),
        ({"shape": [10**20, 10**20]}, "a: 1536 bytes for the shape"),
        ({"data_offsets": [0, 10**9]}, "a: bytes 0 to 1000000000 of 1536"),
        ({"data_offsets": [1536, 0]}, "a: bytes 1536 to 0"),
        ({"data_offsets": [0]}, "a: no type, shape and two offsets"),
    ],
)
def test_headers_that_lie_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        diagnosis.read(lying(tmp_path, {"a": ENTRY | change}))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"[" * 100_000, "its header is no JSON"),
        (b"\xff\xfe", "its header is no JSON"),
        (b"[]", "its header is no list of arrays"),
        (b"{}", "holds no array"),
        ({"a": ENTRY, "b": ENTRY}, "two of its arrays overlap"),
        (b'{"a": 1, "a": 2}', "two of its arrays have one name"),
        ({"a": 7}, "a: no type, shape and two offsets"),
        ({"a" * 2000: ENTRY}, "has a name of 2000 characters"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
    ],
)
def test_headers_that_are_none_are_refused(header, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        diagnosis.read(lying(tmp_path, header))
    assert len(str(caught.value).replace(str(tmp_path), "")) <= 280


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("aF32_", max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(JSON, st.binary(max_size=20))
def test_no_header_does_more_than_be_refused(tmp_path_factory, header, body):
    path = lying(tmp_path_factory.getbasetemp(), {"a": ENTRY, "b": header}, 0)
    path.write_bytes(path.read_bytes() + body)
    with pytest.raises(ValueError, match=r"cannot be read"):
        diagnosis.read(path)


def test_a_file_may_not_declare_more_than_memory_should_hold(tmp_path):
    """Zeros compress a thousandfold: 4 GB would be 4 MB. They are never unpacked."""
    path = tmp_path / "x.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**15, 2**15)}
    for declared, message in (
        (header, "w declares 4294967296 bytes, more than the limit of 2147483648"),
        (header | {"shape": (2**9, 2**9)}, "w declares 1048576 of 64 bytes"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("w.npy", "w") as member:
                np.lib.format.write_array_header_1_0(member, declared)
                member.write(bytes(64))
        tracemalloc.start()
        with pytest.raises(ValueError, match=message):
            diagnosis.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def test_nor_may_its_arrays_together_unless_the_file_is_as_large(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis.formats, "_MOST_UNPACKED", 4000)
    layers = {f"h.{k}.w": np.zeros((8, 8, 2)) for k in range(9)}
    np.savez_compressed(tmp_path / "x.npz", **layers)
    with pytest.raises(ValueError, match="declare 9216 bytes together, more than the"):
        diagnosis.read(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **layers)
    assert diagnosis.read(tmp_path / "x.npz").shapes["h.#.w"] == (9, 8, 8, 2)


def test_nor_may_layers_that_become_one_array(monkeypatch):
    monkeypatch.setattr(diagnosis.weights, "MOST_BYTES", 100)
    found = diagnosis.of({f"h.{k}.w": layer(k) for k in range(5)})
    with pytest.raises(
        ValueError, match=r"h\.#\.w in the network takes 1.2e\+02 bytes"
    ):
        found["h.#.w"]
    assert len(list(found.layers("h.#.w"))) == 5


def test_all_of_a_file_is_read_only_within_the_limit(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", a=np.ones(8), b=np.ones(8))
    assert set(files.read_npz(tmp_path / "x.npz")) == {"a", "b"}
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="the file declares 128 bytes"):
        files.read_npz(tmp_path / "x.npz")
    monkeypatch.setattr(files, "MOST_ARRAYS", 1)
    with pytest.raises(ValueError, match="2 arrays: more than 1"):
        files.open_npz(tmp_path / "x.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for _ in range(2):
            with archive.open("w.npy", "w") as member:
                np.save(member, np.ones((4, 4)))
    with pytest.raises(ValueError, match="two arrays have the name w"):
        diagnosis.read(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"h\.1\.w and h\.01\.w have the same number"):
        diagnosis.of({f"h.{k}.w": layer(1) for k in ("0", "1", "01")})


def test_one_layer_at_a_time_is_in_memory(tmp_path):
    """Of 64 layers of 32 kB: reading them takes one, stacking takes all and one."""
    arrays = {f"h.{k}.w": np.ones((64, 128), np.float32) for k in range(64)}
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(arrays, dict.fromkeys(arrays, "F32")))
    found = diagnosis.read(path)
    one, stack = arrays["h.0.w"].nbytes, 64 * arrays["h.0.w"].nbytes
    for use, most in (
        (lambda: list(map(np.sum, found.layers("h.#.w"))), 3 * one),
        (lambda: found["h.#.w"], stack + 3 * one),
    ):
        tracemalloc.start()
        use()
        assert tracemalloc.get_traced_memory()[1] < most
        tracemalloc.stop()


def test_a_diagnosis_takes_twice_the_largest_array_at_most(tmp_path):
    """Of 24 layers of 1.4 MB: as they were saved, and stacked in one array."""
    rng = np.random.default_rng(0)
    stack = rng.normal(size=(24, 588, 588)).astype(np.float32)
    path = tmp_path / "layers.safetensors"
    layers = {f"h.{k}.w": layer for k, layer in enumerate(stack)}
    path.write_bytes(safetensors(layers, dict.fromkeys(layers, "F32")))
    np.savez(tmp_path / "stack.npz", w=stack)
    for file in (path, tmp_path / "stack.npz"):
        tracemalloc.start()
        (found,) = diagnosis.diagnose([diagnosis.read(file)])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.verdict == diagnosis.ROUGH
        assert most < 2 * stack.nbytes


# The command.

NUMBERS = np.arange(64.0 * 64).reshape(64, 8, 8)
FORGED = "w\nThe network: smooth: neural ODE\x1b[2K"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"w": np.where(NUMBERS == 9, np.nan, NUMBERS)},
            "w in w.npz holds NaN or infinity",
        ),
        ({"w": NUMBERS[:1]}, "fewer than two layers on its first axis: (1, 8, 8)"),
        ({"w": np.float64(3)}, "fewer than two layers on its first axis: ()"),
        ({"w": NUMBERS, "v": NUMBERS[:32]}, "differ in depth, their first size"),
        (
            {"w": np.array(["a", "b"])},
            "no array of real floats (left out, type <U1: w)",
        ),
        ({"w": NUMBERS * 1j}, "left out, type complex128: w"),
        ({"w": np.array([{}, {}])}, "pickled objects"),
        ({"w": np.zeros((4, 0))}, "left out, empty: w"),
        ({}, "holds no array"),
        (
            {f"{'n' * 900}{k}": NUMBERS for k in range(40)},
            "saved one by one, or stacks",
        ),
        ({f"{'n' * 99}{k}": NUMBERS[k:] for k in range(9)}, "saved one by one"),
        ({FORGED: NUMBERS[:1]}, r"w\nThe network: smooth: neural ODE\x1b[2K"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    arrays, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.savez("w.npz", **arrays)
    assert cli.main(["diagnose", "w.npz"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert len(captured.err) <= 301
    assert captured.err[:-1].isprintable()
    assert captured.out == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("w.pt", "must end in .npz or .safetensors"),
        ("missing.npz", "there is no file missing.npz"),
        ("depth-32.npz", "named for another depth: it has 64 layers"),
        ("text.npz", "text.npz cannot be read"),
        ("one.npz", "one.npz cannot be read: one array without a name"),
    ],
)
def test_bad_files_are_one_line_too(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("depth-32.npz", w=NUMBERS)
    (tmp_path / "text.npz").write_text("weights")
    with open("one.npz", "wb") as file:
        np.save(file, NUMBERS)
    assert cli.main(["diagnose", name]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_no_name_forges_a_line(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", **{FORGED: NUMBERS[:4], "mask\n": NUMBERS > 0})
    assert cli.main(["diagnose", str(tmp_path / "x.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("The network:") for line in lines) == 1
    assert r"Note: left out, type bool: mask\n." in lines


def test_the_command_reads_a_checkpoint_as_it_was_saved(tmp_path, capsys):
    arrays = {f"model.layers.{k}.w": layer(k) for k in range(5)}
    arrays |= {f"model.layers.{k}.v": layer(k) for k in range(5)}
    arrays["embed"] = layer(0, 20, 3)
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors(arrays, dict.fromkeys(arrays, "F32")))
    command = ["diagnose", str(path), "--pattern", "model.layers.#.w"]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "model.layers.#.w " in text
    assert "Note: left out, outside the layers: " in text
    assert cli.main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    [found] = json.loads(captured.out)["parameters"]
    assert found["networks"][0]["depth"] == 5
    assert "Note: " in captured.err


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "network 2 holds no array"),
        ({"w": NUMBERS, "v": NUMBERS[:32]}, "of network 2 differ in depth"),
        ({"w": NUMBERS[:1]}, "w in network 2 has fewer than two layers"),
        ({"w": np.full((64, 8, 8), np.nan)}, "w in network 2 holds NaN"),
        ({"w": NUMBERS * 1j}, "no array of real floats .*type complex128"),
        ({"w": [[1.0], [2.0]]}, "network 2 holds no array"),
        (
            {f"blocks.{k}.weight": NUMBERS for k in range(3)},
            r"blocks\.0\.weight, blocks\.1\.weight and 1 more in network 2",
        ),
    ],
)
def test_what_a_file_may_not_hold_is_refused_in_memory_too(weights, message, as_in_use):
    with pytest.raises(ValueError, match=message):
        diagnosis.diagnose([{"w": NUMBERS}, weights])


# Live models.


class Block(eqx.Module):
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear
    activation: object = jnp.tanh


class Net(eqx.Module):
    stem: eqx.nn.Linear
    stages: list


def net(lengths):
    """Linear layers whose weights are numbered, in stages of another width."""
    made = []
    for width, length in zip((3, 4), lengths, strict=True):
        linear = eqx.nn.Linear(width, width, key=jr.key(0))
        blocks = [
            eqx.tree_at(numbers_of, linear, filled(width, k)) for k in range(length)
        ]
        made.append([Block(block, block) for block in blocks])
    return Net(eqx.nn.Linear(2, 3, key=jr.key(0)), made)


def numbers_of(linear):
    return linear.weight, linear.bias


def filled(width, k):
    return layer(k, width, width), layer(k, width)


def test_an_equinox_model_is_read_by_its_stages():
    found = diagnosis.of(net((12, 5)))
    assert list(found.stages) == ["stages.0.#", "stages.1.#"]
    assert found.shapes["stages.0.#.inner.weight"] == (12, 3, 3)
    assert numbers(found, "stages.1.#.outer.bias") == list(range(5))
    assert found.notes == ("left out, outside the layers: stem.weight, stem.bias",)
    first = found["stages.0.#.inner.weight"]
    assert first[:, 0, 0].tolist() == list(range(12))


def test_a_scanned_equinox_model_needs_a_pattern():
    model = {"blocks": net((2, 2)).stages[0][0], "stem": jnp.ones((9, 2))}
    assert diagnosis.of(model, pattern="blocks").shapes["blocks.inner.weight"] == (3, 3)


# What the packages give their arrays, written out, so that it holds where they are
# missing; where they are there, below.
TORCH = {
    "module._orig_mod.stem.weight": layer(0, 3, 2),
    **{
        f"module._orig_mod.blocks.{i}.{k}.{name}": layer(k, *shape)
        for i, width in enumerate((3, 4))
        for k in range(3)
        for name, shape in (
            ("net.0.weight", (width, width)),
            ("net.0.bias", (width,)),
            ("net.2.weight", (width, width)),
            ("norm.num_batches_tracked", ()),
        )
    },
}
FLAX = {"params": {"Dense_0": {"kernel": layer(0, 2, 3)}}} | {
    "batch_stats": {f"Block_{k}": {"BatchNorm_0": {"mean": layer(k)}} for k in range(4)}
}
for k in range(12):
    FLAX["params"][f"Block_{k}"] = {"Dense_0": {"kernel": layer(k, 3, 3)}}


def test_the_names_of_pytorch_and_flax_are_understood():
    found = diagnosis.of(TORCH)
    assert list(found.stages) == ["blocks.0.#", "blocks.1.#"]
    assert found.shapes["blocks.1.#.net.2.weight"] == (3, 4, 4)
    found = diagnosis.of(FLAX)
    assert list(found) == ["params.Block_#.Dense_0.kernel"]
    assert numbers(found, "params.Block_#.Dense_0.kernel") == list(range(12))
    nested = {
        "blocks": [{"w": layer(k)} for k in range(4)],
        "step": 3,
        "rng": jr.key(0),
    }
    assert diagnosis.of(nested).shapes == {"blocks.#.w": (4, 3, 2)}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package's own
def test_a_model_of_pytorch():
    torch = pytest.importorskip("torch", reason="not needed to read its names")

    def block(width):
        linear = torch.nn.Linear(width, width)
        return torch.nn.Sequential(linear, torch.nn.BatchNorm1d(width))

    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList(
        [torch.nn.Sequential(*map(block, 5 * [width])) for width in (3, 4)]
    ).to(torch.bfloat16)
    for wrapped in (model, torch.nn.DataParallel(model), torch.compile(model)):
        found = diagnosis.of(wrapped)
        name = "blocks.1.#.0.weight"
        assert found.shapes[name] == (5, 4, 4)
        assert found[name].dtype == np.float32
        expected = model.blocks[1][4][0].weight.detach().float().numpy()
        np.testing.assert_array_equal(found[name][4], expected)
        assert len(found.stages) == 2
        assert not any("running" in name for name in found)
    assert list(diagnosis.of(model.state_dict())) == list(diagnosis.of(model))
    with pytest.raises(ValueError, match="has no values to read"):
        diagnosis.of(model.to("meta"))["blocks.0.#.0.weight"]


def test_models_of_flax():
    flax = pytest.importorskip("flax", reason="not needed to read its names")
    from flax import nnx

    class Dense(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            return x + flax.linen.Dense(3)(x)

    class Linen(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            for _ in range(11):
                x = Dense()(x)
            return x

    with jax.numpy_dtype_promotion("standard"):
        variables = Linen().init(jr.key(0), jnp.ones(3))
    found = diagnosis.of(variables)
    assert found.shapes["params.Dense_#.Dense_0.kernel"] == (11, 3, 3)
    last = variables["params"]["Dense_10"]["Dense_0"]["kernel"]
    np.testing.assert_array_equal(found["params.Dense_#.Dense_0.kernel"][10], last)

    class Net(nnx.Module):
        def __init__(self, rngs):
            layers = [nnx.Linear(3, 3, rngs=rngs) for _ in range(11)]
            self.layers = nnx.List(layers)

    found = diagnosis.of(Net(nnx.Rngs(0)))
    assert found.shapes == {"layers.#.kernel": (11, 3, 3), "layers.#.bias": (11, 3)}


def test_what_is_no_model_is_refused():
    for thing in (3, "text", None, lambda x: x, [1.0, 2.0]):
        with pytest.raises(ValueError, match="holds no array"):
            diagnosis.of(thing)


def test_a_name_in_a_report_is_a_pattern():
    arrays = residual_stages((3, 4))
    for name in diagnosis.of(arrays):
        assert list(diagnosis.of(arrays, pattern=name)) == [name]
    assert stages.chosen(["a.b", "a.c"], "a.b") == ["a.b"]
    assert assembly.listed(["x" * 80, "b", "c", "d", "e"]).endswith("b, c and 2 more")


def test_digits_of_all_kinds_number_names():
    for names in (["w₁", "w₂"], ["w①", "w②"], ["w\u0661", "w\u0662"]):
        assert stages.numbered([*names, "other"]) == names


def test_raised_digits_are_numbers_and_letters_are_none():
    stacks = {"w₁": layer(1, 8, 3, 2), "w₂": layer(2, 8, 3, 2)}
    with pytest.raises(ValueError, match=r"or stacks\? Choose stacks with '\*'"):
        diagnosis.of(stacks)
    assert list(diagnosis.of(stacks, pattern="*")) == ["w₁", "w₂"]
    for pair in (("\u212a", "K"), ("\ufb01x", "fix")):  # Kelvin, and a ligature
        arrays = dict.fromkeys(pair, layer(1, 8, 3, 2))
        assert list(diagnosis.of(arrays)) == list(pair)


def test_two_stages_of_one_name_are_refused():
    """One would stand for both, and its verdict for the network."""
    arrays = {f"a.{k}.#.w": layer(k) for k in range(8)}
    assert list(diagnosis.of(arrays)) == ["a.#.#.w"]
    arrays |= {f"a.#.{k}.w": layer(k, 2, 2) for k in range(8)}
    with pytest.raises(ValueError, match=r"two stages of .* have the name a\.#\.#\.w"):
        diagnosis.of(arrays)
    assert len(diagnosis.of(arrays, pattern="a.#.*")) == 1


def test_more_digits_than_a_double_has_are_read_as_doubles(tmp_path):
    weights = np.linspace(1, 2, 64 * 9, dtype=np.longdouble).reshape(64, 9)
    np.savez(tmp_path / "x.npz", w=weights)
    assert diagnosis.read(tmp_path / "x.npz")["w"].dtype == np.float64
    if np.finfo(np.longdouble).max > np.finfo(np.float64).max:
        weights[0, 0] = np.longdouble(10) ** 400
        np.savez(tmp_path / "x.npz", w=weights)
        with pytest.raises(ValueError, match="holds NaN or infinity"):
            diagnosis.read(tmp_path / "x.npz")["w"]
