"""Reading back: tampered files, files of other tools, and files that are no models."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.onnx import target
from converters.onnx.decoding.encode import encode
from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.palette import Palette
from tests.converters.onnx.models import messages


def make(path: Path, shape=(8, 6), bits=3, cluster_dim=1, axis=0, groups=(2, 1)) -> Palette:
    """Write a file with one weight, ``w``."""
    random = np.random.default_rng(0)
    dims = list(shape)
    dims[axis] //= cluster_dim
    lut = random.normal(size=(*groups, 1 << bits, cluster_dim)).astype(np.float32)
    palette = Palette(random.integers(0, 1 << bits, dims, dtype=np.uint8), lut, axis)
    nodes, tensors = messages(encode("w", palette))
    output = helper.make_tensor_value_info("w", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [], [output], initializer=tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return palette


def change(path: Path, name: str, edit) -> None:
    """Edit an initializer's values in the file."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    tensor.CopyFrom(numpy_helper.from_array(edit(values), name))
    onnx.save(model, path)


def flip(values):
    values.reshape(-1)[2] ^= 1
    return values


def test_one_flipped_index_bit_is_one_other_index(tmp_path):
    palette = make(tmp_path / "w.onnx")
    change(tmp_path / "w.onnx", "w.indices.0", flip)
    read = target.read_palettes(tmp_path / "w.onnx")["w"]
    assert np.count_nonzero(read.indices != palette.indices) == 1
    assert np.array_equal(read.lut, palette.lut)


def test_one_changed_lut_value_is_read(tmp_path):
    palette = make(tmp_path / "w.onnx")

    def nudge(lut):
        lut[1, 0, 5, 0] = np.nextafter(lut[1, 0, 5, 0], np.float32(9))
        return lut

    change(tmp_path / "w.onnx", "w.lut", nudge)
    read = target.read_palettes(tmp_path / "w.onnx")["w"]
    assert np.array_equal(read.indices, palette.indices)
    assert np.count_nonzero(read.lut != palette.lut) == 1


FAULTS = {
    "divisors": ("dkm:n2x2x2:p", lambda v: v[::-1].copy()),
    "a divisor of zero": ("dkm:n2x2x2:p", lambda v: v * 0),
    "modulus": ("dkm:int4", lambda v: v - 2),
    "table size": ("dkm:int256", lambda v: v // 2),
    "group offsets": ("dkm:int128", lambda v: v // 2),
    "shape of the indices": ("w.indices.1", lambda v: v.reshape(3, 2)),
    "shape of the weight": ("dkm:shape_8_6", lambda v: v[::-1].copy()),
    "planes cut short": ("w.indices.1", lambda v: v[:-1]),
    "LUT of fewer groups": ("w.lut", lambda v: v[:1]),
    "LUT of other groups": ("w.lut", lambda v: v.reshape(1, 2, 8, 1)),
    "LUT with NaN": ("w.lut", lambda v: v * np.float32("nan")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_changed_graph_constant_does_not_pass(tmp_path, fault):
    palette = make(tmp_path / "w.onnx")
    assert target.read_palettes(tmp_path / "w.onnx") == {"w": palette}
    change(tmp_path / "w.onnx", *FAULTS[fault])
    assert_not_read(tmp_path / "w.onnx", palette)


def assert_not_read(path, palette):
    """The reader gives something else, or one line that names the file."""
    try:
        read = target.read_palettes(path)
    except DkmError as error:
        message = str(error)
    else:
        assert read != {"w": palette}
        return
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("edit", ["transpose", "reshape", "first step", "name"])
def test_a_changed_node_does_not_pass(tmp_path, edit):
    path = tmp_path / "w.onnx"
    palette = make(path, bits=2, cluster_dim=2, groups=(1, 1))
    model = onnx.load(path)
    nodes = {node.op_type: node for node in model.graph.node}
    if edit == "transpose":
        nodes["Transpose"].attribute[0].ints[:] = [2, 0, 1]
    elif edit == "reshape":
        del model.graph.node[-1]
        model.graph.node[-1].output[0] = "w"
    elif edit == "first step":
        nodes["Mod"].op_type = "Add"
    else:
        model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    onnx.save(model, path)
    assert_not_read(path, palette)


def test_groups_that_take_each_others_lut_do_not_pass(tmp_path):
    """Indices and LUTs are as they were; only the decoded weight tells."""
    path = tmp_path / "w.onnx"
    palette = make(path)
    model = onnx.load(path)
    offsets = next(n for n in model.graph.node if n.output[0].startswith("dkm:firsts"))
    for place, value in enumerate((64, -64, -64)):  # 64, 0 in place of 0, 64
        name = f"bound{place}"
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int32), name))
        offsets.input[place] = name
    onnx.save(model, path)
    assert_not_read(path, palette)


def extended(path, nodes, tensors):
    """Add what gives ``extra``, of shape (1, 1), to the decoded weight."""
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "inner"
    model.graph.node.extend([*nodes, helper.make_node("Add", ["inner", "extra"], ["w"])])
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in tensors.items())
    onnx.save(model, path)


CORNER = {"from": np.zeros(2, np.int64), "to": np.ones(2, np.int64)}


def test_many_large_values_do_not_fill_the_memory(tmp_path):
    """Each is small enough; together they would take 800 MB."""
    make(tmp_path / "w.onnx")
    nodes = [helper.make_node("Expand", ["nought", "large"], ["v0"])]
    nodes += [helper.make_node("Add", ["v0", f"v{i}"], [f"v{i + 1}"]) for i in range(100)]
    nodes.append(helper.make_node("Slice", ["v100", "from", "to"], ["extra"]))
    sizes = {"nought": np.zeros((1, 1), np.int64), "large": np.array([1000, 1000])}
    extended(tmp_path / "w.onnx", nodes, sizes | CORNER)
    with pytest.raises(DkmError, match="are more than a file of this size can hold"):
        target.read_palettes(tmp_path / "w.onnx")


def test_a_gather_that_broadcasts_does_not_fill_the_memory(tmp_path):
    make(tmp_path / "w.onnx")
    nodes = [
        helper.make_node("Expand", ["nought", "tall"], ["places"]),
        helper.make_node("GatherElements", ["wide", "places"], ["v"], axis=0),
        helper.make_node("Slice", ["v", "from", "to"], ["extra"]),
    ]
    sizes = {"nought": np.zeros((1, 1), np.int64), "tall": np.array([50_000, 1])}
    extended(tmp_path / "w.onnx", nodes, sizes | CORNER | {"wide": np.zeros((1, 20_000), np.uint8)})
    with pytest.raises(DkmError, match="are more than a file of this size can hold"):
        target.read_palettes(tmp_path / "w.onnx")


def test_a_graph_that_goes_in_circles_ends(tmp_path):
    """Looking for decoded rows follows what is made of a LUT."""
    make(tmp_path / "w.onnx")
    model = onnx.load(tmp_path / "w.onnx")
    model.graph.node[-1].output[0] = model.graph.output[0].name = "other"
    steps = [("w.lut", "a"), ("a", "b"), ("b", "a")]
    model.graph.node.extend(helper.make_node("Cast", [x], [y], to=1) for x, y in steps)
    onnx.save(model, tmp_path / "w.onnx")
    assert target.read_palettes(tmp_path / "w.onnx") == {}


def test_constants_that_a_caller_may_replace_are_no_palette(tmp_path):
    make(tmp_path / "w.onnx")
    model = onnx.load(tmp_path / "w.onnx")
    lut = next(t for t in model.graph.initializer if t.name == "w.lut")
    model.graph.input.append(helper.make_tensor_value_info("w.lut", lut.data_type, lut.dims))
    onnx.save(model, tmp_path / "w.onnx")
    assert target.read_palettes(tmp_path / "w.onnx") == {}


def test_a_file_with_external_data_reads_the_same(tmp_path):
    palette = make(tmp_path / "w.onnx")
    model = onnx.load(tmp_path / "w.onnx")
    onnx.save(model, tmp_path / "x.onnx", save_as_external_data=True, size_threshold=0)
    assert target.read_palettes(tmp_path / "x.onnx") == {"w": palette}
    (tmp_path / next(p.name for p in tmp_path.iterdir() if p.suffix != ".onnx")).unlink()
    with pytest.raises(DkmError, match="refers to"):
        target.read_palettes(tmp_path / "x.onnx")


def test_gathers_that_decode_nothing_are_left_alone(tmp_path):
    """A dense position embedding: float data and constant indices, but no packed bytes."""
    positions = numpy_helper.from_array(np.arange(4), "positions")
    table = numpy_helper.from_array(np.ones((1, 4, 2), np.float32), "table")
    shape = numpy_helper.from_array(np.array([4, 2]), "shape")
    nodes = [
        helper.make_node("Reshape", ["table", "shape"], ["flat"]),
        helper.make_node("Gather", ["flat", "positions"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])
    graph = helper.make_graph(nodes, "g", [], [output], initializer=[positions, table, shape])
    onnx.save(helper.make_model(graph), tmp_path / "dense.onnx")
    assert target.read_palettes(tmp_path / "dense.onnx") == {}


@pytest.mark.parametrize("content", ["empty", "text", "cut", "protobuf"])
def test_what_is_no_model_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "w.onnx"
    make(path)
    whole = path.read_bytes()
    other = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]).SerializeToString()
    contents = {"empty": b"", "text": b"hello\n" * 9, "cut": whole[:-50], "protobuf": other}
    path.write_bytes(contents[content])
    for read in (target.read_palettes, target.ledger):
        with pytest.raises(DkmError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_cut_of_a_file_is_refused(tmp_path):
    path = tmp_path / "w.onnx"
    make(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(DkmError):
            target.read_palettes(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.onnx"):
        target.read_palettes(tmp_path / "gone.onnx")
