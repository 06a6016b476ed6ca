"""Reading packages: every stored type, damage of every kind, and not a byte touched."""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import Constant, functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.runtimes.core_ml.runtime import CoreMLRuntime
from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import MODEL, ct, edit, mb, save, types

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
W = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    path = tmp_path_factory.mktemp("linear") / "m.mlpackage"
    return save(path, lambda x: mb.linear(x=x, weight=W), (2, 8))


@pytest.fixture
def package(linear, tmp_path):
    return shutil.copytree(linear, tmp_path / "m.mlpackage")


def constants(path):
    """All stored constants, be they operations of their own or arguments of others."""
    operations = functions(open_package(path))["main"].body.operations
    operands = [o for operation in operations for os in operation.inputs.values() for o in os]
    return [operand for operand in operands if isinstance(operand, Constant)]


def snapshot(path):
    files = sorted(path.rglob("*"))
    return [
        (f, f.stat().st_mtime_ns, f.stat().st_ino, f.is_file() and f.read_bytes()) for f in files
    ]


def test_reading_and_running_changes_nothing(package):
    before = snapshot(package)
    runtime.load(package).run({"x": np.ones((2, 8), np.float32)})
    assert snapshot(package) == before
    assert len(before) > 4


@pytest.mark.parametrize("count", [3, 12])  # in the program, and in the weight file
@pytest.mark.parametrize("name", ["fp16", "fp32", "int8", "uint8", "int16", "uint16", "int32"])
def test_constants_of_every_type(tmp_path, name, count):
    dtype = types.nptype_from_builtin(types.string_to_builtin(name))
    values = np.linspace(0 if name[0] == "u" else -100, 100, count).astype(dtype)

    def body(x):
        found = mb.gather(x=values, indices=mb.cast(x=x, dtype="int32"), validate_indices=False)
        return mb.cast(x=found, dtype="fp32")

    path = save(tmp_path / "m.mlpackage", body, (1,))
    stored = next(c for c in constants(path) if c.type.shape == (count,))
    assert stored.type.dtype.name == name
    assert (stored.blob is None) == (count < 10)
    np.testing.assert_array_equal(stored.array(), values)
    assert runtime.load(path).run({"x": np.ones(1, np.float32)}).popitem()[1] == values[1]


@pytest.mark.parametrize("count", [8, 21])
@pytest.mark.parametrize("name", ["uint1", "uint2", "uint3", "uint4", "uint6", "int4"])
def test_constants_of_sub_byte_types(tmp_path, name, count):
    kind = types.string_to_builtin(name)
    low, high = (-8, 7) if name == "int4" else (0, 2 ** int(name[4:]) - 1)
    values = np.random.default_rng(count).integers(low, high + 1, count).astype(np.int8)
    values[:2] = low, high
    stored = values.astype(types.nptype_from_builtin(kind))

    def decoded():
        if name in ("int4", "uint4"):
            return mb.constexpr_blockwise_shift_scale(data=stored, scale=np.ones(1, np.float32))
        lut = np.arange(high + 1, dtype=np.float32).reshape(1, -1, 1)
        return mb.constexpr_lut_to_dense(indices=stored, lut=lut)

    path = save(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=decoded()), (1,))
    found = next(c for c in constants(path) if c.type.dtype.name == name)
    np.testing.assert_array_equal(found.array(), values)
    result = runtime.load(path).run({"x": np.zeros(1, np.float32)}).popitem()[1]
    np.testing.assert_array_equal(result, values)


def refusal(package):
    with pytest.raises(DkmError) as caught:
        runtime.load(package).run({"x": np.ones((2, 8), np.float32)})
    message = str(caught.value)
    assert "m.mlpackage" in message
    assert "\n" not in message
    return message


def manifest(package, path):
    file = package / "Manifest.json"
    table = json.loads(file.read_text())
    table["itemInfoEntries"][table["rootModelIdentifier"]]["path"] = path
    file.write_text(json.dumps(table))


def test_missing_package(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"m\.mlpackage: no such file"):
        runtime.load(tmp_path / "m.mlpackage")


def test_not_a_folder(tmp_path):
    (tmp_path / "m.mlpackage").write_text("x")
    assert "not a folder" in refusal(tmp_path / "m.mlpackage")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rootModelIdentifier": "a"}', "\xff\xfe"])
def test_invalid_manifest(package, text):
    (package / "Manifest.json").write_bytes(text.encode("latin-1"))
    assert "not a valid manifest" in refusal(package)


def test_no_manifest(package):
    (package / "Manifest.json").unlink()
    assert "not a Core ML package" in refusal(package)


@pytest.mark.parametrize("path", ["../../x.mlmodel", "/etc/hostname"])
def test_manifest_points_outside(package, path):
    manifest(package, path)
    assert "outside the package" in refusal(package)


def test_manifest_points_outside_through_a_link(package, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (package / "Data/link").symlink_to(tmp_path / "elsewhere")
    manifest(package, "link/model.mlmodel")
    assert "outside the package" in refusal(package)


def test_manifest_names_a_missing_file(package):
    manifest(package, "com.apple.CoreML/other.mlmodel")
    assert "it is missing" in refusal(package)


def test_garbage_model(package):
    (package / MODEL).write_bytes(b"\xff" * 200)
    assert "not a Core ML model" in refusal(package)


def test_neural_network(package):
    edit(package, lambda model: model.neuralNetwork.SetInParent())
    assert "holds neuralNetwork, not an ML program" in refusal(package)


def each_value(model):
    block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
    for operation in block.operations:
        if operation.type == "const":
            yield operation.attributes["val"]


def weight(model):
    return next(v for v in each_value(model) if v.WhichOneof("value") == "blobFileValue")


def test_unknown_type(package):
    def change(model):
        weight(model).type.tensorType.dataType = 99

    edit(package, change)
    assert "element type number 99" in refusal(package)


def test_weight_file_outside(package):
    def change(model):
        weight(model).blobFileValue.fileName = "@model_path/../../../../weight.bin"

    edit(package, change)
    assert "outside the package" in refusal(package)


@pytest.mark.parametrize("offset", [0, 65, 128, 10**6, 2**63])
def test_weight_offset_elsewhere(package, offset):
    def change(model):
        weight(model).blobFileValue.offset = offset

    edit(package, change)
    message = refusal(package)
    assert "lies outside" in message or "no weight starts at byte" in message


def test_shape_does_not_fit(package):
    def change(model):
        weight(model).type.tensorType.dimensions[0].constant.size = 6

    edit(package, change)
    assert "fp32 of shape (6, 8) fills 192 bytes, not 160" in refusal(package)


def test_immediate_does_not_fit(package):
    def change(model):
        for value in each_value(model):
            if value.WhichOneof("value") == "immediateValue":
                value.type.tensorType.dimensions.add().constant.size = 77

    edit(package, change)
    assert "needs" in refusal(package) or "fills" in refusal(package)


@pytest.mark.parametrize("kept", [0, 10, 64, 100, 130, 287])
def test_truncated_weight_file(package, kept):
    data = (package / WEIGHTS).read_bytes()
    assert len(data) > 287
    (package / WEIGHTS).write_bytes(data[:kept])
    message = refusal(package)
    assert "lies outside" in message or "cut short" in message


def test_missing_weight_file(package):
    (package / WEIGHTS).unlink()
    assert "no such weight file" in refusal(package)


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (4, struct.pack("<I", 3), "version 3"),
        (64, struct.pack("<I", 7), "no weight starts"),
        (68, struct.pack("<I", 77), "element type number 77"),
        (68, struct.pack("<I", 1), "its record says fp16"),
        (72, struct.pack("<Q", 2**62), "cut short or damaged"),
        (72, struct.pack("<Q", 8), "not 8"),
        (80, struct.pack("<Q", 0), "cut short or damaged"),
        (80, struct.pack("<Q", 2**63), "cut short or damaged"),
    ],
)
def test_forged_weight_file(package, at, value, expected):
    data = bytearray((package / WEIGHTS).read_bytes())
    data[at : at + len(value)] = value
    (package / WEIGHTS).write_bytes(data)
    assert expected in refusal(package)


def test_a_value_that_nothing_makes(package):
    def change(model):
        block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
        block.operations[-1].inputs["x"].arguments[0].name = "ghost"

    edit(package, change)
    assert "uses 'ghost', which no operation before it makes" in refusal(package)


def test_an_output_that_nothing_makes(package):
    def change(model):
        block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
        block.outputs[0] = "ghost"

    edit(package, change)
    assert "no operation makes output 'ghost'" in refusal(package)


def test_constants_that_are_made_from_themselves(package):
    def change(model):
        block = next(iter(model.mlProgram.functions["main"].block_specializations.values()))
        const = next(o for o in block.operations if o.type == "const")
        const.type = "constexpr_cast"
        const.inputs["source_val"].arguments.add().name = const.outputs[0].name

    edit(package, change)
    assert "input weight must be a constant" in refusal(package)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_anywhere_is_told_or_harmless(linear, data):
    """Whatever bytes are wrong, there is a result or one line about it; never another error."""
    file = data.draw(st.sampled_from(["Manifest.json", MODEL, WEIGHTS]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(linear, Path(folder) / "m.mlpackage"))
        content = bytearray((path / file).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        (path / file).write_bytes(content)
        outcome = attempt(path)
    assert "\n" not in outcome


def attempt(path):
    """What came of running: the outputs' names, or the refusal."""
    try:
        return ", ".join(runtime.load(path).run({"x": np.ones((2, 8), np.float32)}))
    except DkmError as error:
        return str(error)


def test_the_protobuf_classes_are_those_of_coremltools():
    with quiet():
        assert ct.proto.Model_pb2.Model is model_class()


def test_reading_is_quick_and_silent(linear):
    """Opening a package does not start coremltools, and prints nothing."""
    code = (
        "import sys; from pathlib import Path\n"
        "from dkm_deploy.formats.mlpackage.package import open_package\n"
        f"open_package(Path({str(linear)!r}))\n"
        "sys.exit('coremltools' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_core_ml_is_refused_off_macos(linear, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    reason = CoreMLRuntime().unavailable()
    assert reason.startswith("Core ML runs on macOS only; this is ")
    with pytest.raises(DkmError, match="macOS only"):
        CoreMLRuntime("CPU_ONLY").load(linear)
