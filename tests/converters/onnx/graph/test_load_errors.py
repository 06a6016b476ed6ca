"""What each damaged or forged ONNX file is told, and the last value that is still read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto

from converters.onnx.graph.load import load
from dkm_deploy.errors import DkmError, MissingFileError

NEWEST = onnx.defs.onnx_opset_version()


def model(ir_version: int = 8, opset: int = 18, domain: str = "") -> ModelProto:
    """A model with one output, ``t``, and nothing that gives it."""
    proto = ModelProto(ir_version=ir_version)
    proto.opset_import.add(domain=domain, version=opset)
    proto.graph.output.add(name="t")
    return proto


def outer(
    name: str = "t", dims: tuple[int, ...] = (3,), kind: int = TensorProto.FLOAT, **entries: str
) -> TensorProto:
    """A tensor in ``d.bin``, or where ``entries`` say; an empty one is left out."""
    tensor = TensorProto(name=name, data_type=kind, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "d.bin"} | entries).items():
        if value != "left out":
            tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def path(tmp_path) -> Path:
    """Where the model is to be."""
    return tmp_path / "m.onnx"


def saved(path: Path, proto: ModelProto) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def holding(path: Path, *tensors: TensorProto) -> Path:
    proto = model()
    proto.graph.initializer.extend(tensors)
    return saved(path, proto)


def refused(path: Path, reason: str) -> None:
    """The whole message is the file and ``reason``."""
    with pytest.raises(DkmError, match=f"^{re.escape(f'{path}: {reason}')}$"):
        load(path)


def test_a_folder(tmp_path):
    refused(tmp_path, "a folder, not an ONNX file")


def test_a_missing_file(tmp_path):
    refused(tmp_path / "gone.onnx", "no such file")
    with pytest.raises(MissingFileError):
        load(tmp_path / "gone.onnx")


def test_a_file_that_is_too_large_for_a_message(path, monkeypatch):
    size = saved(path, model()).stat().st_size
    monkeypatch.setattr(sys.modules["converters.onnx.graph.load"], "_LARGEST", size)
    assert load(path) == model()
    monkeypatch.setattr(sys.modules["converters.onnx.graph.load"], "_LARGEST", size - 1)
    refused(path, "not an ONNX model: without external data it has at most 2 GiB")


def unreadable(*_, **__):
    raise OSError(5, "Input/output error")


def test_a_file_that_the_system_does_not_read(path, monkeypatch):
    saved(path, model())
    monkeypatch.setattr(onnx, "load", unreadable)
    refused(path, "cannot be read: Input/output error")


@pytest.mark.parametrize("name", ["m", "m.json", "m.textproto"])
def test_a_model_is_read_whatever_its_name_ends_in(tmp_path, name):
    assert load(saved(tmp_path / name, model())) == model()


def test_bytes_that_are_no_message(path):
    path.write_bytes(b"\xff" * 9)
    start = re.escape(f"{path}: not an ONNX model, or cut short: ")
    with pytest.raises(DkmError, match=rf"^{start}.*\w.*$"):
        load(path)


def without_outputs() -> ModelProto:
    proto = model()
    del proto.graph.output[:]
    return proto


@pytest.mark.parametrize("proto", [ModelProto(), without_outputs(), model(0), model(-1)])
def test_messages_that_are_no_model(path, proto):
    refused(saved(path, proto), "not an ONNX model: it has no IR version or no graph")


@pytest.mark.parametrize("ir_version", [1, onnx.IR_VERSION])
def test_the_first_and_the_last_ir_version_are_read(path, ir_version):
    assert load(saved(path, model(ir_version))).ir_version == ir_version


def test_a_newer_ir_version(path):
    newer = onnx.IR_VERSION + 1
    refused(
        saved(path, model(newer)),
        f"IR version {newer}; the installed onnx {onnx.__version__} reads "
        f"up to {onnx.IR_VERSION}: update it",
    )


@pytest.mark.parametrize(
    ("domain", "opset"), [("", 1), ("ai.onnx", NEWEST), ("ai.example", 0), ("ai.example", 999)]
)
def test_the_first_and_the_last_opset_are_read_and_any_of_another_domain(path, domain, opset):
    assert load(saved(path, model(opset=opset, domain=domain))).opset_import[0].version == opset


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
@pytest.mark.parametrize("opset", [0, NEWEST + 1])
def test_a_newer_opset_or_none(path, domain, opset):
    refused(
        saved(path, model(opset=opset, domain=domain)),
        f"opset {opset}; the installed onnx {onnx.__version__} reads "
        f"1 to {NEWEST}: update it, or export the model at one of these",
    )


def worded() -> ModelProto:
    """A model with a word of its own in every kind of place that holds text."""
    proto = model()
    proto.producer_name = "@producer@"
    proto.metadata_props.add(key="@key@", value="@value@")
    node = proto.graph.node.add(name="@node@", op_type="@operator@", input=["x", "@input@"])
    node.attribute.add(name="@attribute@", strings=[b"@bytes@"])
    inner = node.attribute.add(name="body").g
    inner.node.add(output=["@inner@"])
    tensor = outer("@tensor@")
    tensor.doc_string = "@note@"
    tensor.external_data.add(key="@entry@", value="@place@")
    proto.graph.initializer.extend([tensor])
    return proto


WORDS = sorted({word.decode() for word in re.findall(rb"@[a-z]+@", worded().SerializeToString())})


@pytest.mark.parametrize("word", [word for word in WORDS if word != "@bytes@"])
def test_a_text_that_is_no_text(path, word):
    (path.parent / "d.bin").write_bytes(bytes(12))
    assert load(saved(path, worded())).graph.initializer[0].name == "@tensor@"
    path.write_bytes(path.read_bytes().replace(word.encode(), b"\xff" * len(word)))
    refused(path, "a name in it is not valid text (UTF-8)")


def test_bytes_of_an_attribute_and_of_values_may_be_no_text(path):
    proto = model()
    proto.graph.node.add().attribute.add(name="a", strings=[b"\xff"], s=b"\xff")
    proto.graph.initializer.add(name="t", data_type=TensorProto.STRING, string_data=[b"\xff"])
    assert load(saved(path, proto)) == proto
