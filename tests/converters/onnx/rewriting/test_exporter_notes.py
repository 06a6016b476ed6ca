"""What PyTorch's exporters note about nodes and values is no part of a palettized file."""

from __future__ import annotations

import onnx
from onnx import helper

import dkm_deploy as dkm
from converters.onnx.rewriting.plan_subject import OnnxSubject
from tests.converters.onnx.models import constant, graph, linear, save, values
from tests.converters.onnx.rewriting.palettized import X

TRACE = 'File "/home/me/secret/net.py", line 253, in forward\n    input = module(input)'
OLD_TRACE = "/home/me/secret/net.py(114): linear\n/home/me/secret/net.py(1501): forward\n"


def note(message):
    message.metadata_props.add(key="namespace", value=": Net/fc: Linear")
    message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=TRACE)
    message.metadata_props.add(key="pkg.onnxscript.optimizer.folded_from", value="['a']")


def palettized(tmp_path, proto):
    source = save(tmp_path / "model.onnx", proto)
    return dkm.palettize_file(source, tmp_path / "small.onnx", 4)


def test_notes_of_the_exporter_go_from_every_part_and_are_told(tmp_path):
    proto = linear()
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, [2]))
    parts = (proto.graph, proto.graph.node[0], proto.graph.input[0], proto.graph.value_info[0])
    for part in parts:
        note(part)
    result = palettized(tmp_path, proto)
    data = result.path.read_bytes()
    for text in (b"secret", b"namespace", b"pkg.torch", b"folded_from"):
        assert text not in data
    dropped = 4 * sum(entry.ByteSize() for entry in proto.graph.metadata_props)
    (told,) = result.notes
    assert told.startswith(f"dropped {dropped:,} bytes of notes")
    plain = dkm.palettize_file(
        save(tmp_path / "plain.onnx", cleared(proto)), tmp_path / "plain_small.onnx", 4
    )
    assert plain.path.read_bytes() == data
    assert not plain.notes


def cleared(proto):
    for part in (proto.graph, proto.graph.node[0], proto.graph.input[0], proto.graph.value_info[0]):
        del part.metadata_props[:]
    return proto


def test_stack_traces_of_the_older_exporter_go_in_subgraphs_too(tmp_path):
    nodes = [constant("v", values(64, 32)), helper.make_node("MatMul", ["x", "v"], ["t"])]
    nodes[1].doc_string = OLD_TRACE
    nodes[0].doc_string = "twice the first one (see net.py)"
    branch = {
        "then_branch": graph(nodes, inputs=(), outputs=["t"], name="then"),
        "else_branch": graph(
            [helper.make_node("MatMul", ["x", "w"], ["e"])], inputs=(), outputs=["e"], name="else"
        ),
    }
    proto = linear()
    proto.graph.node.append(helper.make_node("If", ["flag"], ["z"], **branch))
    proto.graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    proto.graph.output.append(helper.make_tensor_value_info("z", 1, None))
    data = palettized(tmp_path, proto).path.read_bytes()
    assert b"secret" not in data


def test_what_the_user_says_of_a_model_stays(tmp_path):
    proto = linear()
    proto.doc_string = "net.py has the model"
    proto.graph.node[0].doc_string = "the only product"
    proto.graph.node[0].metadata_props.add(key="namespace", value="mine")
    proto.metadata_props.add(key="labels", value="cat,dog")
    result = palettized(tmp_path, proto)
    small = onnx.load(result.path)
    assert not result.notes
    assert (small.doc_string, small.metadata_props) == (proto.doc_string, proto.metadata_props)
    assert small.graph.node[-1] == proto.graph.node[0]


def test_a_plan_predicts_the_bytes_without_the_notes(tmp_path):
    proto = linear()
    note(proto.graph.node[0])
    result = palettized(tmp_path, proto)
    subject = OnnxSubject(tmp_path / "model.onnx", [({"x": X}, None)], None)
    assert subject.weigh("onnx", {"w": dkm.PaletteSpec(4)}).total == result.bytes_after
