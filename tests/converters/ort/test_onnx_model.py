"""What becomes of each table in the model, and what tables that make none are told."""

import re

import pytest
from onnx import AttributeProto, TensorProto, helper

from converters.ort.flatbuffer_reader import Table
from converters.ort.onnx_model import to_onnx_model
from dkm_deploy.errors import DkmError


def dim(**value) -> Table:
    return Table("Dimension", {"value": Table("DimensionValue", value)} if value else {})


def typed(kind: str, **value) -> Table:
    return Table("TypeInfo", {"value": Table(kind, value)})


def named(name: bytes, kind: Table | None = None) -> Table:
    return Table("ValueInfo", {"name": name, "type": kind})


def attribute(kind: int, name: bytes = b"a", **value) -> Table:
    return Table("Attribute", {"name": name, "type": kind, **value})


def tensor(**fields) -> Table:
    stored = {"name": b"t", "dims": (2,), "data_type": 1, "raw_data": memoryview(bytes(8))}
    return Table("Tensor", stored | fields)


def node(inputs: str, outputs: str, **fields) -> Table:
    names = {"inputs": inputs, "outputs": outputs}
    split = {key: tuple(text.encode().split()) for key, text in names.items()}
    return Table("Node", {"op_type": b"Neg", "since_version": 13, **split, **fields})


def session(**graph) -> Table:
    model = {"ir_version": 8, "graph": Table("Graph", {"outputs": (b"y",), **graph})}
    model["opset_import"] = (
        Table("OperatorSetId", {"domain": b"", "version": 18}),
        Table("OperatorSetId", {"domain": b"ai.example", "version": 1}),
    )
    return Table("InferenceSession", {"model": Table("Model", model)})


def graph_of(**graph):
    return to_onnx_model(session(**graph)).graph


def refused(reason: str, **graph) -> None:
    with pytest.raises(DkmError, match=f"^{re.escape(reason)}$"):
        to_onnx_model(session(**graph))


def test_a_model_has_versions_and_a_graph():
    model = to_onnx_model(session())
    assert model.ir_version == 8
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18), ("ai.example", 1)]
    assert model.graph.name == "graph"
    assert [value.name for value in model.graph.output] == ["y"]


@pytest.mark.parametrize(
    "root",
    [
        Table("InferenceSession", {}),
        Table("InferenceSession", {"model": Table("Model", {})}),
        session(outputs=()),
    ],
)
def test_a_file_without_a_model_or_outputs(root):
    with pytest.raises(DkmError, match="^it has no model, or one without outputs$"):
        to_onnx_model(root)


SHAPE = Table(
    "Shape", {"dim": (dim(dim_type=1, dim_value=3), dim(dim_type=2, dim_param=b"n"), dim())}
)
FLOATS = typed("TensorTypeAndShape", elem_type=1, shape=SHAPE)
TYPES = {
    "a tensor": (FLOATS, helper.make_tensor_type_proto(1, [3, "n", None])),
    "a tensor of any shape": (
        typed("TensorTypeAndShape", elem_type=7),
        helper.make_tensor_type_proto(7, None),
    ),
    "a number": (
        typed("TensorTypeAndShape", elem_type=7, shape=Table("Shape", {})),
        helper.make_tensor_type_proto(7, []),
    ),
    "a sequence": (
        typed("SequenceType", elem_type=FLOATS),
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [3, "n", None])),
    ),
    "a map": (
        typed("MapType", key_type=8, value_type=FLOATS),
        helper.make_map_type_proto(8, helper.make_tensor_type_proto(1, [3, "n", None])),
    ),
}


@pytest.mark.parametrize("case", TYPES)
def test_inputs_and_outputs_have_their_types(case):
    stored, expected = TYPES[case]
    other = typed("TensorTypeAndShape", elem_type=9)
    values = (named(b"x", stored), named(b"inner", other), named(b"y", stored))
    graph = graph_of(node_args=values, inputs=(b"x",))
    assert [(v.name, v.type) for v in (*graph.input, *graph.output)] == [
        ("x", expected),
        ("y", expected),
    ]


def test_a_value_may_have_no_type():
    graph = graph_of(node_args=(named(b"y"), named(b"x", Table("TypeInfo", {}))), inputs=(b"x",))
    assert not graph.input[0].type.ByteSize()
    assert not graph.output[0].type.ByteSize()


def test_a_node_has_its_names_and_attributes():
    stored = node("x", "y z", name=b"n", domain=b"ai.example", attributes=(attribute(2, i=5),))
    expected = helper.make_node("Neg", ["x"], ["y", "z"], name="n", domain="ai.example", a=5)
    assert list(graph_of(nodes=(stored,)).node) == [expected]


INNER = Table("Graph", {"outputs": (b"z",)})
VALUES = {
    "f": (AttributeProto.FLOAT, 0.5),
    "i": (AttributeProto.INT, 7),
    "s": (AttributeProto.STRING, b"s"),
    "floats": (AttributeProto.FLOATS, (0.5, 2.0)),
    "ints": (AttributeProto.INTS, (1, 2)),
    "strings": (AttributeProto.STRINGS, (b"a", b"b")),
}


@pytest.mark.parametrize("field", VALUES)
def test_attributes_of_plain_values(field):
    kind, value = VALUES[field]
    stored = node("x", "y", attributes=(attribute(kind, **{field: value}),))
    (found,) = graph_of(nodes=(stored,)).node[0].attribute
    assert (found.name, found.type) == ("a", kind)
    assert helper.get_attribute_value(found) == (list(value) if isinstance(value, tuple) else value)


def test_attributes_of_tensors_and_graphs():
    stored = (
        attribute(AttributeProto.TENSOR, b"t", t=tensor()),
        attribute(AttributeProto.TENSORS, b"ts", tensors=(tensor(), tensor(name=b"u"))),
        attribute(AttributeProto.GRAPH, b"g", g=INNER),
        attribute(AttributeProto.GRAPHS, b"gs", graphs=(INNER, INNER)),
    )
    found = {
        a.name: a for a in graph_of(nodes=(node("x", "y", attributes=stored),)).node[0].attribute
    }
    assert found["t"].t == TensorProto(name="t", dims=[2], data_type=1, raw_data=bytes(8))
    assert [t.name for t in found["ts"].tensors] == ["t", "u"]
    assert [value.name for value in found["g"].g.output] == ["z"]
    assert [len(graph.output) for graph in found["gs"].graphs] == [1, 1]


def test_attributes_that_have_their_default_value_are_left_out():
    """ONNX Runtime writes them; only those of the operator's own version are defaults."""
    flatten = {"op_type": b"Flatten", "attributes": (attribute(2, b"axis", i=1),)}
    other = {**flatten, "attributes": (attribute(2, b"axis", i=2),)}
    nodes = [
        node("x", "a", **flatten),
        node("x", "b", **other),
        node("x", "c", **flatten, domain=b"ai.example"),
        node("x", "d", **flatten | {"since_version": 0}),
        node("x", "e", **flatten | {"since_version": 1}),
    ]
    kept = [len(made.attribute) for made in graph_of(nodes=tuple(nodes)).node]
    assert kept == [0, 1, 1, 1, 0]


def test_defaults_are_those_of_the_version_that_the_node_has():
    """Softmax goes along axis 1 by default up to version 11, along the last from 13 on."""
    cases = [(11, 1), (11, -1), (13, 1), (13, -1)]
    softmax = {"op_type": b"Softmax"}
    nodes = [
        node("x", f"{n}", **softmax, since_version=v, attributes=(attribute(2, b"axis", i=axis),))
        for n, (v, axis) in enumerate(cases)
    ]
    kept = [len(made.attribute) for made in graph_of(nodes=tuple(nodes)).node]
    assert kept == [0, 1, 1, 0]


def test_an_operator_of_a_later_version_has_no_defaults():
    """Gelu came with version 20."""
    early = node("x", "a", op_type=b"Gelu", attributes=(attribute(3, b"approximate", s=b"none"),))
    (made,) = graph_of(nodes=(early,)).node
    assert [each.name for each in made.attribute] == ["approximate"]


def test_nodes_run_in_an_order_that_is_as_they_were_made():
    """As near as can be: what waits for nothing keeps its place."""
    nodes = (node("b", "y"), node("x", "a"), node("a", "b"), node("x", "c"))
    made = [list(each.output) for each in graph_of(nodes=nodes).node]
    assert made == [["a"], ["b"], ["y"], ["c"]]


@pytest.mark.parametrize("field", ["g", "graphs"])
def test_nodes_wait_for_what_their_graphs_take_from_outside(field):
    inner = Table("Graph", {"nodes": (node("a", "z"),), "outputs": (b"z",)})
    kind = AttributeProto.GRAPH if field == "g" else AttributeProto.GRAPHS
    body = attribute(kind, **{field: inner if field == "g" else (inner,)})
    nodes = (node("", "y", op_type=b"If", attributes=(body,)), node("x", "a"))
    assert [each.op_type for each in graph_of(nodes=nodes).node] == ["Neg", "If"]


def test_a_node_with_graphs_waits_for_its_own_inputs_too():
    inner = Table("Graph", {"nodes": (node("x", "z"),), "outputs": (b"z",)})
    body = attribute(AttributeProto.GRAPH, g=inner)
    nodes = (node("a", "y", op_type=b"If", attributes=(body,)), node("x", "a"))
    assert [each.op_type for each in graph_of(nodes=nodes).node] == ["Neg", "If"]


def test_nodes_in_a_circle():
    refused("its nodes form a cycle", nodes=(node("b", "a"), node("a", "b")))


TENSORS = {
    "floats": tensor(),
    "no elements": tensor(dims=(0, 4), raw_data=memoryview(b"")),
    "a number": tensor(dims=(), raw_data=memoryview(bytes(4))),
    "the last type": tensor(data_type=20, raw_data=memoryview(b"ab")),
    "bytes": tensor(data_type=2, raw_data=memoryview(b"ab")),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_are_what_they_were(case):
    stored = TENSORS[case]
    expected = TensorProto(
        name="t",
        dims=stored["dims"],
        data_type=stored["data_type"],
        raw_data=bytes(stored["raw_data"]),
    )
    assert list(graph_of(initializers=(stored,)).initializer) == [expected]


def test_tensors_of_texts():
    stored = tensor(data_type=8, string_data=(b"a", b"\xff"))
    expected = TensorProto(name="t", dims=[2], data_type=8, string_data=[b"a", b"\xff"])
    assert list(graph_of(initializers=(stored,)).initializer) == [expected]


LINES, BYTES = "a\n" * 20, b"\xff" * 40  # as much of a name as is shown
REFUSED_TENSORS = {
    "elsewhere": (tensor(external_data_offset=0), "tensor 't' is in another file"),
    "of no type": (
        tensor(data_type=0),
        "tensor 't' of type 0 and shape (2,) is not valid in this format",
    ),
    "of a later type": (
        tensor(data_type=21),
        "tensor 't' of type 21 and shape (2,) is not valid in this format",
    ),
    "of a negative shape": (
        tensor(dims=(2, -1)),
        "tensor 't' of type 1 and shape (2, -1) is not valid in this format",
    ),
    "too short": (tensor(dims=(3,)), "tensor 't' of shape (3,) has 8 of 12 bytes"),
    "with too few texts": (
        tensor(data_type=8, string_data=(b"a",)),
        "tensor 't' of shape (2,) has 1 of 2 bytes",
    ),
    "of a name of several lines": (
        tensor(name=b"a\n" * 30),
        f"the name {LINES!r} has characters that cannot be printed; rename it",
    ),
    "of a name that is not text": (
        tensor(name=b"\xff" * 60),
        f"the name {BYTES!r} is not text",
    ),
}


@pytest.mark.parametrize("case", REFUSED_TENSORS)
def test_a_tensor_that_is_none(case):
    stored, reason = REFUSED_TENSORS[case]
    refused(reason, initializers=(stored,))


ATTRIBUTES = {
    "of an unknown type": (attribute(99), "attribute 'a' has type 99, which is not supported"),
    "of no type": (attribute(0), "attribute 'a' has type 0, which is not supported"),
    "without its tensor": (attribute(4), "attribute 'a' has no value"),
    "without its graph": (attribute(5), "attribute 'a' has no value"),
}


@pytest.mark.parametrize("case", ATTRIBUTES)
def test_an_attribute_that_is_none(case):
    stored, reason = ATTRIBUTES[case]
    refused(reason, nodes=(node("x", "y", attributes=(stored,)),))


def test_sparse_tensors():
    refused(
        "it has sparse tensors, which cannot be read",
        sparse_initializers=(Table("SparseTensor", {}),),
    )
