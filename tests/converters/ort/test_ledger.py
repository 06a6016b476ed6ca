"""What each part of a ``.ort`` file counts as, and what a file is told that does not open."""

from collections import Counter

import pytest

from converters.ort import target
from converters.ort.flatbuffer_reader import Table, read
from converters.ort.flatbuffer_writer import build_file
from converters.ort.load import load
from dkm_deploy.errors import DkmError, MissingFileError
from tests.converters.ort.test_onnx_model import SHAPE, named, node, tensor, typed


def session(**model) -> Table:
    """A model with one node, which reads ``t``, and a weight that nothing reads."""
    floats = typed("TensorTypeAndShape", elem_type=1, shape=SHAPE).values | {"value_type": 1}
    graph = {
        "nodes": (node("t", "y", doc_string=b"note"),),
        "initializers": (tensor(), tensor(name=b"unread")),
        "outputs": (b"y",),
        "node_args": (named(b"y", Table("TypeInfo", floats)),),
        "node_edges": (Table("NodeEdge", {"node_index": 0}),),
    }
    notes = {"producer_name": b"me", "metadata_props": (prop(b"key", b"value"),)}
    opsets = (Table("OperatorSetId", {"domain": b"", "version": 18}),)
    stored = {"ir_version": 8, "opset_import": opsets, "graph": Table("Graph", graph)}
    return Table(
        "InferenceSession",
        {"ort_version": b"1.2", "model": Table("Model", stored | notes | model)},
    )


def prop(key: bytes, value: bytes) -> Table:
    return Table("StringStringEntry", {"key": key, "value": value})


@pytest.fixture
def path(tmp_path):
    (tmp_path / "m.ort").write_bytes(build_file(session()))
    return tmp_path / "m.ort"


def test_parts_count_by_the_table_that_they_belong_to(path):
    """Each has the bytes of its spans; data without the length that they start with."""
    document = read(memoryview(path.read_bytes()))
    owners = {
        "Node": "nodes",
        "NodeEdge": "nodes",
        "Tensor": "tensor headers",
        "ValueInfo": "types of values",
        "TypeInfo": "types of values",
        "TensorTypeAndShape": "types of values",
        "Shape": "types of values",
        "Dimension": "types of values",
        "DimensionValue": "types of values",
    }
    expected: Counter = Counter()
    for span in document.spans:
        owner = document.tables[span.owner].kind if span.owner in document.tables else "header"
        size = span.end - span.start
        if span.part in ("doc_string", "producer_name", "ort_version"):
            expected["metadata", span.part] += size
        elif owner == "StringStringEntry":
            expected["metadata", "metadata_props"] += size
        elif span.part == "raw_data":
            name = document.tables[span.owner]["name"].decode()
            kind = ("dense", name) if name == "t" else ("padding", "unused unread")
            expected[kind] += size - 4
            expected["graph", "tensor headers"] += 4
        else:
            expected["graph", owners.get(owner, "model")] += size
    expected["padding", "alignment"] = path.stat().st_size - sum(expected.values())
    found = target.ledger(path)
    assert {(e.kind, e.name): e.size_bytes for e in found.entries} == dict(expected)
    assert expected["dense", "t"] == expected["padding", "unused unread"] == 8
    assert expected["metadata", "doc_string"] == 4 + len("note") + 1
    assert found.total_bytes == path.stat().st_size


def test_texts_of_a_tensor_are_its_data_and_small_integers_are_constants(tmp_path):
    """Each text has its length, its bytes and a zero; both tensors are read, by ``Neg``."""
    words = tensor(name=b"words", data_type=8, string_data=(b"ab", b"cde"))
    del words.values["raw_data"]
    shape = tensor(name=b"shape", data_type=7, raw_data=memoryview(bytes(16)))
    read_them = tuple(node(name, f"{name}2") for name in ("words", "shape"))
    whole = session()
    graph = whole["model"]["graph"].values
    graph["initializers"] += (words, shape)
    graph["nodes"] += read_them
    path = tmp_path / "m.ort"
    path.write_bytes(build_file(whole))
    found = {(e.kind, e.name): e.size_bytes for e in target.ledger(path).entries}
    # The list of places, without its length; each text without the length it starts with.
    assert found["dense", "words"] == 2 * 4 + 3 + 4
    assert found["graph", "constants"] == 16
    assert ("dense", "shape") not in found


def test_a_missing_file_and_a_folder(tmp_path):
    for gone in (tmp_path / "gone.ort", tmp_path):
        with pytest.raises(MissingFileError, match=f"^{gone}: no such file$"):
            load(gone)


def test_damage_is_told_with_the_file(path):
    path.write_bytes(b"hello")
    reason = f"^{path}: not a file of ONNX Runtime's format: its identifier is missing$"
    with pytest.raises(DkmError, match=reason):
        load(path)


def test_a_model_that_is_not_valid_is_refused_in_one_line(tmp_path):
    path = tmp_path / "m.ort"
    path.write_bytes(build_file(session(ir_version=0)))
    with pytest.raises(DkmError, match=rf"^{path}: its model is not valid: \S+( \S+)*$"):
        load(path)


def test_the_document_and_the_model_are_of_the_same_file(path):
    document, model = load(path)
    assert document.root["ort_version"] == b"1.2"
    assert [made.op_type for made in model.graph.node] == ["Neg"]
