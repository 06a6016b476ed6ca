"""A user's graph as onnx_ir edits it: what it tells of uses, and what comes back unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import GraphProto, TensorProto, helper

from converters.onnx.decoding.builder import initializer, make_node
from converters.onnx.graph.consumers import used_elsewhere, users_of
from converters.onnx.graph.editable import editable, write_back
from tests.converters.onnx.models import graph, tensor, value, values


def there_and_back(proto: GraphProto) -> GraphProto:
    """``proto`` after edits that change nothing."""
    after = GraphProto()
    after.CopyFrom(proto)
    edited, _ = editable(after, [])
    write_back(edited, after)
    return after


def unknown_field(message):
    """``message`` with a field that no version of ONNX has, number 1000, of one byte."""
    message.MergeFromString(b"\xc2\x3e\x01\x07")
    return message


def sparse() -> GraphProto:
    held = helper.make_sparse_tensor(
        tensor("", np.ones(1, np.float32)), tensor("", np.zeros((1, 2), np.int64)), [4, 4]
    )
    made = graph([helper.make_node("Constant", [], ["y"], sparse_value=held)])
    made.sparse_initializer.append(held)
    return made


def map_output() -> GraphProto:
    made = graph([helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml")])
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    made.output[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    return made


def notes() -> GraphProto:
    node = helper.make_node("Relu", ["x"], ["y", "", ""], doc_string="a note", overload="one")
    node.metadata_props.add(key="k", value="v")
    made = unknown_field(graph([unknown_field(node)]))
    made.quantization_annotation.add(tensor_name="x")
    return made


def unknown_type() -> GraphProto:
    odd = TensorProto(name="odd", data_type=32768, dims=[2], raw_data=bytes(8))
    unnamed = tensor("", values(2))
    return graph([helper.make_node("Identity", ["odd"], ["y"], value=odd)], [odd, unnamed, odd])


def given_twice() -> GraphProto:
    nodes = [helper.make_node(op, ["x"], ["y"], name="same") for op in ("Relu", "Abs")]
    return graph([*nodes, helper.make_node("Neg", ["later"], ["z"])], inputs=("x", "x"))


@pytest.mark.parametrize("make", [sparse, map_output, notes, unknown_type, given_twice])
def test_what_is_not_edited_comes_back_byte_for_byte(make):
    proto = make()
    wanted = proto.SerializeToString(deterministic=True)
    assert there_and_back(proto).SerializeToString(deterministic=True) == wanted


def test_a_node_that_reads_another_value_keeps_all_else():
    proto = graph([helper.make_node("Relu", ["x"], ["y"], name="n", doc_string="a note")])
    edited, _ = editable(proto, [])
    edited.insert_before(edited[0], make_node("Abs", edited.inputs, ["a"], to=1))
    edited[1].replace_input_with(0, edited[0].outputs[0])
    write_back(edited, proto)
    assert list(proto.node) == [
        helper.make_node("Abs", ["x"], ["a"], to=1),
        helper.make_node("Relu", ["a"], ["y"], name="n", doc_string="a note"),
    ]


def test_a_node_may_get_another_name():
    proto = graph([helper.make_node("Relu", ["x"], ["y"], name="n")])
    edited, _ = editable(proto, [])
    edited[0].name = "other"
    write_back(edited, proto)
    assert list(proto.node) == [helper.make_node("Relu", ["x"], ["y"], name="other")]


def test_new_tensors_go_behind_those_of_the_file_and_are_let_go():
    proto = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("w", values(2, 3))])
    edited, _ = editable(proto, [])
    new = initializer("new", np.arange(3))
    edited.register_initializer(new)
    write_back(edited, proto)
    assert list(proto.initializer) == [tensor("w", values(2, 3)), tensor("new", np.arange(3))]
    assert new.const_value is None


def test_ranks_are_those_that_the_file_tells():
    proto = graph(
        [helper.make_node("Add", ["x", "w"], ["y"]), helper.make_node("Abs", ["y"], ["z"])],
        [tensor("w", values(2, 3, 4))],
        inputs=[value("x", ["n"])],
        outputs=[value("z")],
    )
    proto.value_info.append(value("y", [2, "n"]))
    proto.output.append(value("t", [1, 2, 3, 4]))
    proto.node.append(helper.make_node("Neg", ["z"], ["t"]))
    edited, _ = editable(proto, [])
    assert edited[2].outputs[0].shape.rank() == 4
    known = [*edited[0].inputs, *edited[0].outputs]
    assert [each.shape.rank() for each in known] == [1, 3, 2]
    assert edited[1].outputs[0].shape is None
    assert edited[1].outputs[0].is_graph_output()
    assert [each.is_initializer() for each in known] == [False, True, False]


def branch(read: str, nodes=()) -> GraphProto:
    return graph(nodes, inputs=(), outputs=[value(read)], name="branch")


BODIES = {
    "a node": branch("b", [helper.make_node("Relu", ["w"], ["b"])]),
    "an output": branch("w"),
    "a deeper graph": branch(
        "b",
        [helper.make_node("If", ["x"], ["b"], then_branch=branch("w"), else_branch=branch("w"))],
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_use_inside_a_node_is_a_use_elsewhere(body):
    choice = helper.make_node("If", ["x"], ["y"], then_branch=BODIES[body], else_branch=branch("x"))
    edited, missing = editable(graph([choice, helper.make_node("Abs", ["w"], ["z"])]), ["w"])
    weight = missing["w"]
    assert used_elsewhere(edited, weight)
    assert [node.op_type for node in users_of(edited, weight)] == ["Abs"]


@pytest.mark.parametrize("field", ["input", "initializer"])
def test_a_value_of_a_body_is_not_the_outer_one_of_its_name(field):
    body = branch("b", [helper.make_node("Relu", ["w"], ["b"])])
    getattr(body, field).add(name="w")
    choice = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    edited, missing = editable(graph([choice]), ["w"])
    assert missing["w"].uses() == ()
    assert not used_elsewhere(edited, missing["w"])


def test_only_attributes_that_are_numbers_are_read():
    node = helper.make_node("Op", ["x"], ["y"], i=1, f=0.5, ii=[1, 2], ff=[0.5], s="a")
    edited, _ = editable(graph([node]), [])
    found = {name: attribute.value for name, attribute in edited[0].attributes.items()}
    assert found == {"i": 1, "f": 0.5, "ii": (1, 2), "ff": (0.5,)}
    assert isinstance(edited[0].attributes["i"], ir.Attr)
