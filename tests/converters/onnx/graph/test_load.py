"""Any ONNX file: data in other files, and files that are damaged, forged or too new."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import dkm_deploy as dkm
from converters.onnx.decoding.encode import encode
from converters.onnx.graph.load import fill, load, outside
from tests.converters.onnx.models import messages

READERS = (dkm.read_palettes, dkm.size_breakdown)
RANDOM = np.random.default_rng(0)


def palettes() -> dict[str, dkm.Palette]:
    scalar = RANDOM.integers(0, 8, (8, 6), dtype=np.uint8)
    vector = RANDOM.integers(0, 4, (4, 3), dtype=np.uint8)
    return {
        "w": dkm.Palette(scalar, RANDOM.normal(size=(2, 1, 8, 1)).astype(np.float32)),
        "v": dkm.Palette(vector, RANDOM.normal(size=(1, 1, 4, 2)).astype(np.float32), 1),
    }


PALETTES = palettes()


def model() -> onnx.ModelProto:
    """Two palettes and a dense weight in a subgraph's node."""
    nodes, tensors = messages(*(encode(name, palette) for name, palette in PALETTES.items()))
    dense = numpy_helper.from_array(np.ones((3, 3), np.float32), "dense")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["d"], value=dense)],
        "branch",
        [],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, [3, 3])],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    choice = helper.make_node("If", ["condition"], ["c"], then_branch=branch, else_branch=branch)
    shapes = {"w": (8, 6), "v": (4, 6), "c": (3, 3)}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    tensors = [*tensors, condition]
    graph = helper.make_graph([*nodes, choice], "g", [], outputs, initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    """The model in one file."""
    onnx.save(model(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def pair(tmp_path):
    """The model with all tensors in ``m.data``, in a folder of its own."""
    (tmp_path / "in").mkdir()
    onnx.save(
        model(),
        tmp_path / "in" / "m.onnx",
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
        convert_attribute=True,
    )
    return tmp_path / "in" / "m.onnx"


def refused(path, reason):
    """Both readers give one line that names the file and says ``reason``."""
    for read in READERS:
        with pytest.raises(dkm.DkmError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def set_place(path, name, **entries):
    """Change where a tensor of the model at ``path`` lies; None removes an entry."""
    changed = onnx.load(path, load_external_data=False)
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    places = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in places.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    onnx.save(changed, path)


class TestDataFiles:
    def test_they_are_read(self, path, pair):
        assert dkm.read_palettes(pair) == dkm.read_palettes(path) == PALETTES
        assert load(pair) == load(path)

    def test_large_tensors_stay_outside_until_they_are_asked_for(self, path, pair):
        whole = {tensor.name: tensor for tensor in load(path).graph.initializer}
        part = load(pair, largest=16)
        far = [tensor for tensor, _ in outside(part, pair)]
        assert {tensor.name for tensor in far} == {"w.lut", "v.lut", "dense"} | (
            {name for name, tensor in whole.items() if len(tensor.raw_data) > 16}
        )
        fill(far, pair)
        assert part == load(path)
        assert not list(outside(part, pair))

    def test_a_missing_one_is_named(self, pair):
        (pair.parent / "m.data").unlink()
        refused(pair, f"refers to '{pair.parent / 'm.data'}', which is missing")
        with pytest.raises(FileNotFoundError):
            dkm.read_palettes(pair)

    def test_one_that_is_cut_short(self, pair):
        data = pair.parent / "m.data"
        data.write_bytes(data.read_bytes()[:-20])
        refused(pair, f"lie outside {data}, which has {data.stat().st_size}")

    @pytest.mark.parametrize(
        "location", ["../m.data", "../in/m.data", "sub/../../m.data", "..", "", "."]
    )
    def test_a_path_out_of_the_folder_is_refused(self, pair, location):
        (pair.parent.parent / "m.data").write_bytes((pair.parent / "m.data").read_bytes())
        (pair.parent / "sub").mkdir()
        set_place(pair, "w.lut", location=location)
        refused(pair, "w.lut")

    def test_an_absolute_path_is_refused_even_into_the_folder(self, pair):
        set_place(pair, "w.lut", location=str(pair.parent / "m.data"))
        refused(pair, "is not in the folder of the model")

    def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_read(self, pair):
        data = pair.parent / "m.data"
        inside = data.rename(pair.parent / "real.data")
        data.symlink_to("real.data")
        assert dkm.read_palettes(pair) == PALETTES
        inside.rename(pair.parent.parent / "real.data")
        data.unlink()
        data.symlink_to("../real.data")
        refused(pair, "is not in the folder of the model")

    def test_a_loop_of_links_and_impossible_names(self, pair):
        (pair.parent / "loop").symlink_to("loop")
        for location in ("loop", "x" * 5000, "null\0byte"):
            set_place(pair, "w.lut", location=location)
            refused(pair, "w.lut")

    def test_a_pipe_is_no_data_file(self, pair):
        os.mkfifo(pair.parent / "pipe")
        set_place(pair, "w.lut", location="pipe")
        refused(pair, "which is missing")

    @pytest.mark.parametrize(
        ("place", "reason"),
        [
            ({"offset": "1000000"}, "lie outside"),
            ({"offset": "-4"}, "the offset of its data is '-4', which is not a number"),
            ({"offset": "1e3"}, "the offset of its data is '1e3'"),
            ({"length": "12"}, "its shape needs 64 bytes, but the file records 12"),
            ({"length": "9" * 5000}, "the length of its data"),
            ({"length": "many"}, "the length of its data is 'many'"),
        ],
    )
    def test_a_place_that_is_none_is_refused(self, pair, place, reason):
        set_place(pair, "w.lut", **place)
        refused(pair, reason)

    def test_a_length_may_be_left_out(self, pair):
        set_place(pair, "w.lut", length=None)
        assert dkm.read_palettes(pair) == PALETTES

    @pytest.mark.parametrize("dims", [[10**6, 10**6], [2**62, 2**62, 2**62], [-4, 4]])
    def test_a_shape_that_claims_more_is_refused_before_memory_is_asked_for(self, pair, dims):
        forged = onnx.load(pair, load_external_data=False)
        tensor = next(t for t in forged.graph.initializer if t.name == "w.lut")
        tensor.dims[:] = dims
        onnx.save(forged, pair)
        refused(pair, "w.lut: its shape")

    @pytest.mark.parametrize("kind", [TensorProto.STRING, 99])
    def test_types_that_have_no_bytes_are_refused(self, pair, kind):
        forged = onnx.load(pair, load_external_data=False)
        forged.graph.initializer[0].data_type = kind
        onnx.save(forged, pair)
        refused(pair, f"values of type {kind} cannot be stored in another file")


class TestDamagedFiles:
    def test_a_folder(self, tmp_path):
        (tmp_path / "m.onnx").mkdir()
        refused(tmp_path / "m.onnx", "a folder, not an ONNX file")

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("ir_version", 999, "IR version 999; the installed onnx"),
            ("ir_version", -1, "no IR version or no graph"),
            ("opset", 999, "opset 999; the installed onnx"),
            ("opset", 0, "opset 0"),
        ],
    )
    def test_versions_that_are_too_new_or_none(self, path, field, value, reason):
        changed = onnx.load(path)
        if field == "opset":
            changed.opset_import[0].version = value
        else:
            changed.ir_version = value
        onnx.save(changed, path)
        refused(path, reason)

    def test_an_opset_of_another_domain_may_be_any(self, path):
        changed = onnx.load(path)
        changed.opset_import.add(domain="com.example", version=12345)
        onnx.save(changed, path)
        assert dkm.read_palettes(path) == PALETTES

    @pytest.mark.parametrize("old", [b"w.lut", b"Reshape", b"dkm:int256"])
    def test_names_that_are_no_text(self, path, old):
        path.write_bytes(path.read_bytes().replace(old, b"\xff" * len(old)))
        refused(path, "a name in it is not valid text")

    def test_a_shape_that_claims_more_than_the_bytes(self, path):
        forged = onnx.load(path)
        next(t for t in forged.graph.initializer if t.name == "w.lut").dims[:] = [2, 1, 10**12, 1]
        onnx.save(forged, path)
        with pytest.raises(dkm.DkmError, match="w"):
            dkm.read_palettes(path)
        assert dkm.size_breakdown(path).total_bytes == path.stat().st_size


WHOLE = model().SerializeToString()


@st.composite
def damaged(draw):
    """A file with a few bits flipped, bytes replaced, cut out, doubled or moved."""
    data = bytearray(WHOLE)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data) - 1))
        size = draw(st.integers(1, 40))
        change = draw(st.sampled_from(["flip", "set", "splice", "drop", "cut"]))
        if change == "flip":
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "set":
            data[start] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif change == "splice":
            source = draw(st.integers(0, len(data) - 1))
            data[start : start + size] = data[source : source + size]
        elif change == "drop":
            del data[start : start + size]
        else:
            del data[max(start, 1) :]
        data = data or bytearray(1)
    return bytes(data)


@settings(
    max_examples=150,
    deadline=timedelta(seconds=10),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=damaged())
def test_a_damaged_file_is_read_or_refused(tmp_path, data):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for read in READERS:
        with contextlib.suppress(dkm.DkmError):
            read(path)
