"""Decodings in a graph: where they stand, and how often the graph is gone through."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from converters.onnx.decoding.insert import insert
from converters.onnx.graph.editable import editable, write_back
from dkm_deploy.clustering.quantizers.int8_lut import round_lut
from dkm_deploy.palette import Palette
from tests.converters.onnx.models import graph, tensor, value, values


def palette(*shape: int) -> Palette:
    random = np.random.default_rng(0)
    lut = round_lut(random.normal(size=(*[1] * len(shape), 16, 1)).astype(np.float32))
    return Palette(random.integers(0, 16, shape, dtype=np.uint8), lut)


def chain(count: int) -> tuple[ir.Graph, dict[str, ir.Value]]:
    """Products one behind the other, every second one of a transposed weight."""
    nodes = []
    for number in range(count):
        weight = f"w{number}"
        if number % 2:
            nodes.append(helper.make_node("Transpose", [weight], [f"t{number}"], perm=[1, 0]))
            weight = f"t{number}"
        nodes.append(helper.make_node("MatMul", [f"x{number}", weight], [f"x{number + 1}"]))
    proto = graph(nodes, inputs=["x0"], outputs=[f"x{count}"])
    return editable(proto, [f"w{number}" for number in range(count)])


def check_order(edited: ir.Graph) -> None:
    """Every node stands behind what gives its inputs."""
    there = {None, *edited.inputs, *edited.initializers.values()}
    for node in edited:
        assert there.issuperset(node.inputs), node
        there.update(node.outputs)
    assert there.issuperset(edited.outputs)


@pytest.mark.parametrize("decode", ["load", "packed", "int8"])
def test_the_graph_is_gone_through_as_often_for_many_weights_as_for_few(decode, monkeypatch):
    times: list[int] = []
    walk = ir.Graph.__iter__

    def counted(self):
        times.append(len(self))
        return walk(self)

    counts = []
    for count in (2, 12):
        edited, weights = chain(count)
        times.clear()
        with monkeypatch.context() as patch:
            patch.setattr(ir.Graph, "__iter__", counted)
            insert(edited, weights, {name: palette(32, 32) for name in weights}, decode)
        counts.append(len(times))
        check_order(edited)
    assert counts[0] == counts[1] > 0


def turn_uses_around(weight: ir.Value) -> None:
    """Let the users be told in the other order than that in which they run."""
    for node, place in list(weight.uses())[:-1]:
        node.replace_input_with(place, None)
        node.replace_input_with(place, weight)


USES = {
    "load": [helper.make_node("Gather", ["w", ids], [f"of {ids}"]) for ids in ("x", "y")],
    "int8": [helper.make_node("Gemm", [of, "w"], [f"of {of}"], transB=1) for of in ("x", "y")],
}


@pytest.mark.parametrize("decode", USES)
def test_what_two_uses_share_stands_before_the_first(decode):
    inputs = [value(name, ["n", 32]) for name in ("x", "y")]
    proto = graph(USES[decode], inputs=inputs, outputs=["of x", "of y"])
    edited, weights = editable(proto, ["w"])
    turn_uses_around(weights["w"])
    assert [use.node.outputs[0].name for use in weights["w"].uses()] == ["of y", "of x"]
    insert(edited, weights, {"w": palette(32, 32)}, decode)
    check_order(edited)
    assert [(each.name, each.shape.rank()) for each in edited.outputs] == [("of x", 2), ("of y", 2)]
    assert not {"Gemm"}.intersection(node.op_type for node in edited)
    assert weights["w"].uses() == ()


def test_shared_parts_stand_first_and_then_whole_weights():
    edited, weights = chain(3)
    insert(edited, weights, {name: palette(32, 32) for name in weights})
    order = [node.outputs[0].name for node in edited]
    shared = [name.startswith("dkm:") for name in order]
    assert shared == sorted(shared, reverse=True)
    assert sum(shared) > 0
    assert order.index("w0") < order.index("w1.T") < order.index("w2") < order.index("x1")
    check_order(edited)


def names_in(proto, decode, *shape: int) -> set[str]:
    """Names of all values once ``w`` of this shape is decoded in a graph."""
    edited, weights = editable(proto, ["w"])
    for each in edited.inputs:
        each.type = ir.TensorType(ir.DataType.FLOAT)
    insert(edited, weights, {"w": palette(*(shape or (32, 32)))}, decode)
    check_order(edited)
    return {output.name for node in edited for output in node.outputs}


GATHERS = {
    "by one number": graph(
        [helper.make_node("Gather", ["w", "x"], ["y"])], inputs=[value("x", [])]
    ),
    "of columns": graph([helper.make_node("Gather", ["w", "x"], ["y"], axis=1)]),
    "by constants": graph(
        [helper.make_node("Gather", ["w", "c"], ["y"])], [tensor("c", np.arange(3))]
    ),
    "of unknown rank": graph([helper.make_node("Gather", ["w", "x"], ["y"])], inputs=[value("x")]),
}


@pytest.mark.parametrize("gather", GATHERS)
def test_other_gathers_than_of_rows_read_the_whole_weight(gather):
    assert "w" in names_in(GATHERS[gather], "load")


@pytest.mark.parametrize("first", ["c", "w"])
def test_a_packed_weight_hangs_on_an_input_where_its_user_has_a_constant(first):
    node = helper.make_node("MatMul", [first, "w"], ["y"])
    names = names_in(graph([node], [tensor("c", values(4, 32))]), "packed")
    assert "dkm:zero" in names
    assert "w:zero" not in names


def test_a_packed_weight_hangs_on_what_it_is_applied_to():
    names = names_in(graph([helper.make_node("MatMul", ["x", "w"], ["y"])]), "packed")
    assert "w:zero" in names
    assert "dkm:zero" not in names


@pytest.mark.parametrize(
    ("groups", "bias", "parts"),
    [(1, (), True), (1, ("b",), True), (1, ("x",), False), (2, (), False)],
)
def test_a_convolution_in_parts_has_one_group_and_a_constant_bias(groups, bias, parts):
    node = helper.make_node("Conv", ["x", "w", *bias], ["y"], group=groups)
    names = names_in(graph([node], [tensor("b", values(128))]), "packed", 128, 1 << 13, 1, 1)
    assert ("w.part.0" in names) is parts


@pytest.mark.parametrize(("bias", "kernel"), [((32,), True), ((1, 32), False)])
def test_a_kernel_takes_a_bias_of_one_dimension(bias, kernel):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    names = names_in(graph([node], [tensor("b", values(*bias))]), "int8")
    assert ("w.codes" in names) is kernel


def test_a_weight_on_both_sides_of_a_product_is_decoded_whole():
    node = helper.make_node("Gemm", ["w", "w"], ["y"], transB=1)
    assert "w" in names_in(graph([node]), "int8")


def test_a_transpose_that_is_an_output_stays():
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    assert {"w", "t"} <= names_in(graph(nodes, outputs=("y", "t")), "int8")


def test_halves_of_a_product_keep_its_notes():
    proto = graph([helper.make_node("Gemm", ["x", "w"], ["y"], transB=1, doc_string="a note")])
    edited, weights = editable(proto, ["w"])
    insert(edited, weights, {"w": palette(1024, 1024)})
    write_back(edited, proto)
    notes = [node.doc_string for node in proto.node if node.op_type == "Gemm"]
    assert notes == ["a note", "a note"]


@pytest.mark.parametrize(
    ("kind", "inputs", "shape"),
    [("Gather", ["w", "ids"], (8, 4)), ("Gemm", ["x", "w"], (1024, 1024))],
)
def test_a_node_of_a_damaged_file_that_gives_two_values_keeps_both(kind, inputs, shape):
    nodes = [
        helper.make_node(
            kind, inputs, ["first", "second"], **({"transB": 1} if kind == "Gemm" else {})
        ),
        helper.make_node("Identity", ["second"], ["y"]),
    ]
    ids = value("ids", ["n"], 7)
    proto = graph(nodes)
    proto.input.append(ids)
    edited, weights = editable(proto, ["w"])
    insert(edited, weights, {"w": palette(*shape)})
    write_back(edited, proto)
    (kept,) = [node for node in proto.node if "second" in node.output]
    assert (kept.op_type, list(kept.output)) == (kind, ["first", "second"])
    assert "w" in kept.input
