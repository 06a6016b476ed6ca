"""What encodings have in common is given once."""

from __future__ import annotations

import numpy as np

from converters.onnx.decoding.builder import Builder
from converters.onnx.decoding.encoding import Encoding, SharedParts, finish, merge


def piece(name: str) -> Encoding:
    """``name = Reshape(dkm:to4, [2, 2])``, of a Range that all pieces have."""
    graph = Builder(name)
    graph.node("Reshape", graph.up_to(4), graph.int64([2, 2]), into=name)
    return finish(graph)


def names(encoding: Encoding) -> list[str]:
    return [node.outputs[0].name for node in encoding.nodes]


def test_what_two_pieces_share_is_in_them_once_and_read_by_both():
    whole = merge([piece("a"), piece("b")])
    assert names(whole) == ["dkm:to4", "a", "b"]
    assert [value.name for value in whole.tensors] == [
        "dkm:int0",
        "dkm:int4",
        "dkm:int1",
        "dkm:shape_2_2",
    ]
    shared, first, second = whole.nodes
    assert list(first.inputs) == list(second.inputs) == [shared.outputs[0], whole.tensors[3]]


def test_what_is_taken_off_uses_nothing():
    whole = merge([piece("a"), piece("b"), piece("c")])
    users = {node for value in whole.tensors for node in value.consumers()}
    assert users == set(whole.nodes)


def test_what_is_new_depends_on_what_came_before():
    shared = SharedParts()
    assert names(shared.new(piece("a"))) == ["dkm:to4", "a"]
    assert names(shared.new(piece("b"))) == ["b"]
    assert shared.new(piece("b")) == Encoding()


def test_the_result_is_what_the_last_node_gives():
    assert piece("a").result.name == "a"


def test_a_tensor_is_not_copied():
    array = np.arange(6)
    value = Builder("w").tensor("w.lut", array)
    assert np.shares_memory(value.const_value.numpy(), array)
    assert value.const_value.name == value.name == "w.lut"
