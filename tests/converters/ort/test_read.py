"""Reading ``.ort`` files of ONNX Runtime's own making, changed ones, and what is no such file."""

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.tools.ort_format_model import create_config_from_models
from onnxruntime.tools.reduced_build_config_parser import parse_config

import dkm_deploy as dkm
from converters.ort import target
from converters.ort.flatbuffer_reader import Table, read
from converters.ort.load import load
from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime
from tests.converters.ort.files import graph_of, operators, rebuilt, root_of, small_file


@pytest.fixture
def whole():
    """The bytes of a small file; its weight is ``0.weight``."""
    return small_file()


@pytest.fixture
def root(whole):
    """The tables of that file, to be changed."""
    return root_of(whole)


def made_by_onnx_runtime(model: onnx.ModelProto, path, level="ORT_DISABLE_ALL") -> Path:
    """Let ONNX Runtime write ``model`` as it does by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return path


def of_onnx(nodes, tensors=(), inputs=("x",)) -> onnx.ModelProto:
    """A model from ``inputs`` of shape (2, 2) to ``y``."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in inputs]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", values, [output], initializer=tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_file_that_onnx_runtime_wrote_reads_the_same(whole, tmp_path):
    """The same palettes and kinds of bytes; ours is smaller, for it has equal parts once."""
    (tmp_path / "ours.ort").write_bytes(whole)
    model = load(tmp_path / "ours.ort")[1]
    theirs = made_by_onnx_runtime(model, tmp_path / "theirs.ort")
    assert target.read_palettes(theirs) == target.read_palettes(tmp_path / "ours.ort")
    assert dkm.read_palettes(theirs).keys() == {"0.weight"}
    ours, other = target.ledger(tmp_path / "ours.ort"), target.ledger(theirs)
    assert other.total_bytes == theirs.stat().st_size
    for kind in ("indices", "lut", "dense"):
        assert ours.by_kind()[kind] == other.by_kind()[kind]
    assert ours.total_bytes < other.total_bytes


def test_a_file_with_folded_weights_has_no_palette(whole, tmp_path):
    """What ONNX Runtime's converter makes of a packed file by default."""
    (tmp_path / "ours.ort").write_bytes(whole)
    model = load(tmp_path / "ours.ort")[1]
    folded = made_by_onnx_runtime(model, tmp_path / "folded.ort", "ORT_ENABLE_BASIC")
    assert target.read_palettes(folded) == {}
    assert target.ledger(folded).by_kind()["indices"] == 0
    assert target.ledger(folded).by_kind()["dense"] >= 4 * (8 * 6 + 8)


# The script leaves its files open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_operators_are_those_that_onnx_runtimes_own_script_finds(whole, tmp_path):
    (tmp_path / "m.ort").write_bytes(whole)
    (tmp_path / "ours.config").write_text(operators(tmp_path / "m.ort"))
    create_config_from_models([tmp_path / "m.ort"], tmp_path / "theirs.config", False)
    ours, theirs = (parse_config(str(tmp_path / f"{n}.config"))[0] for n in ("ours", "theirs"))
    assert ours == theirs
    stored = {node["op_type"].decode() for node in graph_of(root_of(whole))["nodes"]}
    assert {name for names in ours["ai.onnx"].values() for name in names} == stored
    assert "Gather" in stored


def test_graphs_strings_and_sequences_come_through(tmp_path):
    """Parts of ONNX that our own files seldom have, through the file and back."""
    then, other = (
        helper.make_graph(
            [helper.make_node("Mul", ["x", name], [f"{name}_out"], doc_string="a note")],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [2, 2])],
            [numpy_helper.from_array(np.full((2, 2), value, np.float32), name)],
        )
        for name, value in (("then", 2), ("other", 3))
    )
    true = numpy_helper.from_array(np.array([True]), "true")
    nodes = [
        helper.make_node("Constant", [], ["words"], value_strings=["a", "b"]),
        helper.make_node("SequenceConstruct", ["x"], ["sequence"]),
        helper.make_node("ConstantOfShape", ["shape"], ["one"], value=true),
        helper.make_node("If", ["one"], ["y"], then_branch=then, else_branch=other),
    ]
    shape = numpy_helper.from_array(np.zeros(0, np.int64), "shape")
    model = of_onnx(nodes, [shape])
    model.graph.output.add(name="sequence").type.sequence_type.elem_type.tensor_type.elem_type = 1
    model.graph.output.add(name="words").type.tensor_type.elem_type = TensorProto.STRING
    path = made_by_onnx_runtime(model, tmp_path / "m.ort")
    _, back = load(path)
    branches = {a.name: a.g for n in back.graph.node if n.op_type == "If" for a in n.attribute}
    assert branches["then_branch"].node[0].input == ["x", "then"]
    assert branches["else_branch"].initializer[0].dims == [2, 2]
    assert back.graph.output[1].type.sequence_type.elem_type.tensor_type.elem_type == 1
    assert [b"a", b"b"] in [list(t.string_data) for t in back.graph.initializer]
    x = np.ones((2, 2), np.float32)
    results = [
        onnxruntime.InferenceSession(content).run(["y", "words"], {"x": x})
        for content in (model.SerializeToString(), back.SerializeToString())
    ]
    assert results[0][0].tolist() == results[1][0].tolist() == (2 * x).tolist()
    assert results[0][1].tolist() == results[1][1].tolist()
    ledger = target.ledger(path)
    assert ledger.by_kind()["metadata"] > len("a note")
    assert "Mul" in operators(path)


def test_constants_that_a_caller_may_replace_stay_inputs(tmp_path):
    tensor = numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    model = of_onnx([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor], ("x", "w"))
    path = made_by_onnx_runtime(model, tmp_path / "m.ort")
    assert [value.name for value in load(path)[1].graph.input] == ["x", "w"]


def test_one_flipped_index_bit_is_one_other_index(whole, tmp_path):
    (tmp_path / "m.ort").write_bytes(whole)
    before = target.read_palettes(tmp_path / "m.ort")["0.weight"]
    document = read(memoryview(whole))
    span = next(
        span
        for span in document.spans
        if span.part == "raw_data" and document.tables[span.owner]["data_type"] == TensorProto.UINT8
    )
    changed = bytearray(whole)
    changed[span.start + 4] ^= 1
    (tmp_path / "m.ort").write_bytes(changed)
    after = target.read_palettes(tmp_path / "m.ort")["0.weight"]
    assert np.count_nonzero(before.indices != after.indices) == 1
    assert np.array_equal(before.lut, after.lut)


def tensor_of(root: Table) -> dict:
    """The fields of the bias."""
    tensors = graph_of(root)["initializers"]
    return next(t for t in tensors if t["name"] == b"0.bias").values


def circle(root):
    first, second = graph_of(root)["nodes"][:2]
    first.values["inputs"] = second["outputs"]
    second.values["inputs"] = first["outputs"]


def deep(root):
    kind = graph_of(root)["node_args"][0]["type"]
    for _ in range(70):
        value = Table("SequenceType", {"elem_type": kind})
        kind = Table("TypeInfo", {"value_type": 2, "value": value})
    graph_of(root)["node_args"][0].values["type"] = kind


FAULTS = {
    "no model": (lambda r: r.values.pop("model"), "it has no model"),
    "no graph": (lambda r: r["model"].values.pop("graph"), "it has no model"),
    "no outputs": (lambda r: graph_of(r).values.update(outputs=()), "one without outputs"),
    "a name that is not text": (lambda r: tensor_of(r).update(name=b"\xff\n"), "is not text"),
    "a name of two lines": (lambda r: tensor_of(r).update(name=b"a\nb"), "cannot be printed"),
    "a shape too large": (lambda r: tensor_of(r).update(dims=(1 << 62,)), "of shape .* has 32 of"),
    "a negative shape": (lambda r: tensor_of(r).update(dims=(-8,)), "is not valid in this format"),
    "a type of later days": (
        lambda r: tensor_of(r).update(data_type=21),
        "type 21 .* is not valid",
    ),
    "no type": (lambda r: tensor_of(r).update(data_type=0), "type 0 .* is not valid"),
    "data elsewhere": (lambda r: tensor_of(r).update(external_data_offset=0), "another file"),
    "nodes in a circle": (circle, "form a cycle"),
    "types nested without end": (deep, "nested more than 64 deep"),
    "an operator without inputs": (
        lambda r: graph_of(r)["nodes"][0].values.update(inputs=()),
        "its model is not valid: .*input",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_changed_table_is_refused_in_one_line(root, tmp_path, fault):
    change, reason = FAULTS[fault]
    assert target.read_palettes(rebuilt(root, tmp_path / "m.ort")).keys() == {"0.weight"}
    change(root)
    path = rebuilt(root, tmp_path / "m.ort")
    for reader in (target.read_palettes, target.ledger, operators):
        with pytest.raises(DkmError, match=reason) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attribute", [{"type": 99}, {"type": 4}])
def test_an_attribute_without_a_known_value_is_refused(root, tmp_path, attribute):
    node = next(node for node in graph_of(root)["nodes"] if node["attributes"])
    node["attributes"][0].values.update(attribute)
    with pytest.raises(DkmError, match="attribute '.*' has (type 99|no value)"):
        target.read_palettes(rebuilt(root, tmp_path / "m.ort"))


def test_what_an_attribute_does_not_use_is_only_weighed(root, tmp_path):
    """Values of other types than the attribute's own; nothing reads them, and they have names."""
    node = next(node for node in graph_of(root)["nodes"] if node["attributes"])
    tensor = Table("Tensor", {"name": b"\xff", "dims": (400,), "raw_data": memoryview(bytes(400))})
    inner = Table("Node", {"op_type": b"\xff"})
    unused = {"t": tensor, "g": Table("Graph", {"nodes": (inner,)})}
    attribute, *others = node["attributes"]
    node.values["attributes"] = (Table("Attribute", attribute.values | unused), *others)
    path = rebuilt(root, tmp_path / "m.ort")
    assert target.read_palettes(path).keys() == {"0.weight"}
    assert "\ufffd" not in operators(path)
    sizes = {entry.name: entry.size_bytes for entry in target.ledger(path).entries}
    assert sizes["\ufffd"] == 400


def test_graphs_that_double_at_every_level_are_refused(tmp_path):
    """A few hundred bytes that stand for 2**40 graphs: each level refers to the next twice."""
    builder = flatbuffers.Builder()

    def vector(*places):
        builder.StartVector(4, len(places), 4)
        for place in reversed(places):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()

    def table(slots, slot, place):
        builder.StartObject(slots)
        builder.PrependUOffsetTRelativeSlot(slot, place, 0)
        return builder.EndObject()

    name = builder.CreateString("n" * 64)
    graph = table(9, 6, vector(name))
    for _ in range(20):  # graph -> node -> attribute -> two graphs
        attribute = table(13, 12, vector(graph, graph))
        graph = table(9, 2, vector(table(13, 10, vector(attribute))))
    builder.Finish(table(4, 1, table(10, 7, graph)), b"ORTM")
    (tmp_path / "m.ort").write_bytes(bytes(builder.Output()))
    with pytest.raises(DkmError, match="refer to each other over and over"):
        target.read_palettes(tmp_path / "m.ort")


@pytest.mark.parametrize("content", [b"", b"ORTM", b"hello\n" * 9, b"\x08\x08" * 99])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    path = tmp_path / "m.ort"
    path.write_bytes(content)
    for reader in (dkm.read_palettes, dkm.size_breakdown, runtime.load):
        with pytest.raises(DkmError, match=r"m\.ort: ") as caught:
            reader(path)
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.ort"):
        target.read_palettes(tmp_path / "gone.ort")
