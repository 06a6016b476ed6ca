"""ONNX Runtime behind the runtime protocol."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime


@pytest.fixture
def path(tmp_path):
    """``sum = a + b`` and ``twice = 2 (a + b)``, with a free first dimension."""
    shape = ["batch", 3]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "ab"]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("sum", "twice")]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Add", ["sum", "sum"], ["twice"]),
    ]
    graph = helper.make_graph(nodes, "g", values, outputs)
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def ones(rows, dtype=np.float32):
    return np.ones((rows, 3), dtype)


def test_it_says_what_it_is():
    assert runtime.name == f"ONNX Runtime {onnxruntime.__version__}"
    assert runtime.suffixes == (".onnx", ".ort")
    assert runtime.native
    assert runtime.unavailable() is None


def test_outputs_come_by_name_at_any_batch(path):
    session = runtime.load(path)
    assert session.input_shapes == {"a": (None, 3), "b": (None, 3)}
    for rows in (1, 4):
        outputs = session.run({"b": ones(rows), "a": ones(rows)})
        assert list(outputs) == ["sum", "twice"]
        assert np.array_equal(outputs["sum"], 2 * ones(rows))
        assert np.array_equal(outputs["twice"], 4 * ones(rows))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"a": ones(2)}, "the file takes a, b"),
        ({"a": ones(2), "b": ones(2), "c": ones(2)}, "inputs are a, b, c"),
        ({"a": ones(2), "b": np.ones((2, 4), np.float32)}, "input 'b' has shape"),
        ({"a": ones(2), "b": ones(2, np.float64)}, "m.onnx: cannot run: .*double"),
        ({"a": ones(2), "b": ones(3)}, "m.onnx: cannot run"),
    ],
)
def test_wrong_inputs_are_refused(path, capfd, inputs, reason):
    with pytest.raises(DkmError, match=reason) as caught:
        runtime.load(path).run(inputs)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08"])
def test_files_that_do_not_load_are_named(tmp_path, capfd, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(DkmError, match=r"bad\.onnx: ONNX Runtime cannot load it: .+") as caught:
        runtime.load(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_what_fails_is_not_tried_again(path, capfd, monkeypatch):
    """ONNX Runtime would, and prints it, where the reason is none of its own errors."""
    tried = []

    def fails(*given):
        tried.append(given)
        raise RuntimeError("Invalid tensor data type 40.")

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", fails)
    with pytest.raises(DkmError, match="cannot load it: Invalid tensor data type 40"):
        runtime.load(path)
    assert len(tried) == 1
    assert capfd.readouterr() == ("", "")


def test_an_unknown_operator_is_named(path):
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, path)
    with pytest.raises(DkmError, match="NoSuchOperator"):
        runtime.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.onnx"):
        runtime.load(tmp_path / "gone.onnx")
