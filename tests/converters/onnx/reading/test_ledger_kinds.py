"""What each part of an ONNX file counts as: one part is added, and its bytes show."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from converters.onnx import target
from converters.onnx.decoding.encode import encode
from converters.onnx.reading.ledger import tensor_names
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from tests.converters.onnx.models import messages

MODEL, NODES, TENSOR = ("graph", "model"), ("graph", "nodes"), ("graph", "tensor headers")
INTERFACE, CONSTANTS = ("graph", "inputs and outputs"), ("graph", "constants")
FRAME = 2  # bytes of a tag and a length


def base() -> ModelProto:
    """A model with one node that reads ``t``."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Neg", ["t"], ["y"])], "g", [], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def counted(path, proto) -> Counter:
    path.write_bytes(proto.SerializeToString())
    found = target.ledger(path)
    assert found.total_bytes == path.stat().st_size
    return Counter({(entry.kind, entry.name): entry.size_bytes for entry in found.entries})


def added(path, change: Callable[[ModelProto], object]) -> dict:
    """The bytes that a change of the model adds; those of longer lengths around it left out."""
    before, proto = counted(path, base()), base()
    change(proto)
    longer = _length(proto.graph) - _length(base().graph)
    return dict(counted(path, proto) - before - Counter({MODEL: longer}))


def _length(graph: GraphProto) -> int:
    """Bytes of the number that says how long the graph is."""
    return -(-graph.ByteSize().bit_length() // 7)


def tensor(values, dtype=np.float32, name="t") -> TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def header(proto: TensorProto, payload: int) -> int:
    return proto.ByteSize() - payload


def initializer(proto: TensorProto) -> Callable[[ModelProto], None]:
    return lambda model: model.graph.initializer.extend([proto])


NODE = helper.make_node("Cast", ["y"], ["z"], to=1)
INPUT = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 3])
CHANGES = {
    "a node and its attributes": (
        lambda model: model.graph.node.extend([NODE]),
        {NODES: NODE.ByteSize(), MODEL: FRAME},
    ),
    "an input with its type and shape": (
        lambda model: model.graph.input.extend([INPUT]),
        {INTERFACE: INPUT.ByteSize(), MODEL: FRAME},
    ),
    "a note on a node": (
        lambda model: model.graph.node[0].MergeFrom(onnx.NodeProto(doc_string="note")),
        {("metadata", "doc_string"): 4, NODES: FRAME},
    ),
    "a note on the graph": (
        lambda model: model.graph.MergeFrom(GraphProto(doc_string="note")),
        {("metadata", "doc_string"): 4, MODEL: FRAME},
    ),
    "who made the model": (
        lambda model: model.MergeFrom(ModelProto(producer_name="me", producer_version="1.0")),
        {
            ("metadata", "producer_name"): 2,
            ("metadata", "producer_version"): 3,
            MODEL: 2 * FRAME,
        },
    ),
    "the model's version": (
        lambda model: model.MergeFrom(ModelProto(model_version=7)),
        {("metadata", "model_version"): 1, MODEL: 1},
    ),
    "properties of the model": (
        lambda model: model.metadata_props.add(key="k", value="v"),
        {("metadata", "metadata_props"): 6, MODEL: FRAME},
    ),
    "a domain": (
        lambda model: model.MergeFrom(ModelProto(domain="ai")),
        {MODEL: 2 + FRAME},
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_parts_of_a_model_count_by_what_they_are(tmp_path, case):
    change, expected = CHANGES[case]
    assert added(tmp_path / "m.onnx", change) == expected


TENSORS = {
    "floats": (tensor([1, 2]), ("dense", "t"), 8),
    "one float": (tensor([1]), CONSTANTS, 4),
    "a float of no dimensions": (tensor(1), CONSTANTS, 4),
    "64 integers, a shape or axes": (tensor(range(64), np.int64), CONSTANTS, 512),
    "65 integers, a table": (tensor(range(65), np.int64), ("dense", "t"), 520),
    "int32": (tensor([1, 2], np.int32), CONSTANTS, 8),
    "flags": (tensor([True, False], np.bool_), CONSTANTS, 2),
    "bytes, which may be weights": (tensor([1, 2], np.uint8), ("dense", "t"), 2),
    "float_data": (
        TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[2], float_data=[1, 2]),
        *(("dense", "t"), 8),
    ),
    "int32_data": (
        TensorProto(name="t", data_type=TensorProto.INT8, dims=[2], int32_data=[1, 2]),
        *(("dense", "t"), 2),
    ),
    "int64_data": (
        TensorProto(name="t", data_type=TensorProto.INT64, dims=[2], int64_data=[1, 2]),
        *(CONSTANTS, 2),
    ),
    "double_data": (
        TensorProto(name="t", data_type=TensorProto.DOUBLE, dims=[2], double_data=[1, 2]),
        *(("dense", "t"), 16),
    ),
    "uint64_data": (
        TensorProto(name="t", data_type=TensorProto.UINT64, dims=[2], uint64_data=[1, 2]),
        *(("dense", "t"), 2),
    ),
    "texts": (
        TensorProto(name="t", data_type=TensorProto.STRING, dims=[2], string_data=[b"ab", b"c"]),
        *(("dense", "t"), 3),
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensors_values_are_dense_or_constants_and_the_rest_its_header(tmp_path, case):
    proto, key, payload = TENSORS[case]
    frame = 1 + -(-proto.ByteSize().bit_length() // 7)
    expected = {key: payload, TENSOR: header(proto, payload), MODEL: frame}
    assert added(tmp_path / "m.onnx", initializer(proto)) == expected


def test_a_note_on_a_tensor_is_metadata(tmp_path):
    proto = tensor([1, 2])
    proto.doc_string = "note"
    expected = {
        ("dense", "t"): 8,
        ("metadata", "doc_string"): 4,
        TENSOR: header(proto, 12),
        MODEL: FRAME,
    }
    assert added(tmp_path / "m.onnx", initializer(proto)) == expected


def test_values_in_a_node_are_dense_too(tmp_path):
    node = helper.make_node("Constant", [], ["c"], value=tensor([1, 2], name="held"))
    found = added(tmp_path / "m.onnx", lambda model: model.graph.node.extend([node]))
    held = node.attribute[0].t
    assert found == {
        ("dense", "held"): 8,
        TENSOR: header(held, 8),
        NODES: node.ByteSize() - held.ByteSize(),
        MODEL: FRAME,
    }


def test_fields_that_onnx_does_not_know_are_padding(tmp_path):
    path = tmp_path / "m.onnx"
    before = counted(path, base())
    unknown = b"\xfa\x3f\x03abc"  # field 1023, three bytes
    path.write_bytes(unknown + path.read_bytes() + unknown)
    after = {(entry.kind, entry.name): entry.size_bytes for entry in target.ledger(path).entries}
    assert after == {**before, ("padding", "unknown fields"): 12}


def test_a_number_where_a_message_belongs_is_no_message(tmp_path):
    """Protobuf takes it for a field that it does not know."""
    path = tmp_path / "m.onnx"
    before = counted(path, base())
    path.write_bytes(path.read_bytes() + b"\x38\x05")  # field 7, the graph, as the number 5
    after = Counter({(e.kind, e.name): e.size_bytes for e in target.ledger(path).entries})
    assert after - before == {MODEL: 2}


def test_what_protobuf_reads_and_this_reader_does_not_is_refused(tmp_path):
    """A group, which proto2 had before messages in messages."""
    path = tmp_path / "m.onnx"
    path.write_bytes(base().SerializeToString() + b"\xfb\x3f\xfc\x3f")
    place = path.stat().st_size - 4
    reason = rf"^{path}: byte {place}: no field of a protobuf message starts here$"
    with pytest.raises(DkmError, match=reason):
        target.ledger(path)


def test_a_single_byte_in_a_data_file_is_counted_there(tmp_path):
    outer = TensorProto(name="t", data_type=TensorProto.UINT8, dims=[1])
    outer.data_location = TensorProto.EXTERNAL
    outer.external_data.add(key="location", value="d.bin")
    (tmp_path / "d.bin").write_bytes(b"a")
    proto = base()
    proto.graph.initializer.append(outer)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    found = target.ledger(tmp_path / "m.onnx")
    assert found.companions == (tmp_path / "d.bin",)
    assert [e.size_bytes for e in found.entries if (e.kind, e.name) == CONSTANTS] == [1]


def body(nodes, outputs, tensors=()):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(nodes, "body", [], values, initializer=tensors)


def test_initializers_that_nothing_uses_are_padding(tmp_path):
    """Used are those that a node, a graph's output, or a body or its output reads."""
    names = ("t", "y", "inner", "shown", "unused")
    tensors = [tensor([1, 2], name=name) for name in names]
    graph = body([helper.make_node("Neg", ["inner"], ["z"])], ["shown"])
    proto = base()
    proto.graph.node.add(op_type="If", output=["w"]).attribute.extend(
        [helper.make_attribute("then_branch", graph)]
    )
    proto.graph.node[0].output[0] = "v"
    proto.graph.initializer.extend(tensors)
    assert tensor_names(proto) == {"unused": ("padding", "unused unused")}
    sizes = counted(tmp_path / "m.onnx", proto)
    assert sizes["padding", "unused unused"] == 8
    assert {name for kind, name in sizes if kind == "dense"} == set(names) - {"unused"}


def test_what_palettes_are_decoded_from_counts_as_theirs():
    random = np.random.default_rng(0)
    lut = random.normal(size=(1, 1, 8, 1)).astype(np.float32)
    indices, scale = random.integers(0, 8, (8, 6), dtype=np.uint8), np.ones((8, 1), np.float32)
    nodes, tensors = messages(
        encode("w", Palette(indices, lut, scale=2 * scale)), encode("v", Palette(indices, lut))
    )
    proto = base()
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(tensors)
    for name in ("w", "v"):
        proto.graph.output.add(name=name)
    assert tensor_names(proto) == {
        "w.lut": ("lut", "w"),
        "w.scale": ("lut", "w"),
        "w.indices.0": ("indices", "w"),
        "w.indices.1": ("indices", "w"),
        "v.lut": ("lut", "v"),
        "v.indices.0": ("indices", "v"),
        "v.indices.1": ("indices", "v"),
    }
