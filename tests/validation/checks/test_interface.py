"""What an app reads by name: changed, it is missed; known from the file alone, it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
import torch
from coremltools.proto import Model_pb2
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.conversion.registry import reader_for
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import INTERFACE_KEY, Feature, Image, Interface, interface_from
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks.interface import interface_check

MODEL = "Data/com.apple.CoreML/model.mlmodel"
LABELS = [f"c{i}" for i in range(5)]
IMAGE = {"scale": 1 / 57, "bias": [-2.1, -2.0, -1.8], "color": "RGB"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class Two(Net):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = super().forward(x)
        return {"left": y, "right": -y}


def check(path, wanted=None, outputs=("output",), reference=("output",)) -> Check:
    return interface_check(path, reader_for(path), wanted, outputs, reference)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    frozen, x = dkm.palettize(Net().eval(), 4), torch.rand(1, 3, 16, 16)
    path = tmp_path_factory.mktemp("files") / "m.mlpackage"
    return dkm.convert(frozen, x, path, images={"x": IMAGE}, class_labels=LABELS)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    frozen, folder = dkm.palettize(Two().eval(), 4), tmp_path_factory.mktemp("two")
    free = {"x": {2: torch.export.Dim("h", min=16, max=64)}}
    x = torch.rand(1, 3, 16, 16)
    return {
        s: dkm.convert(frozen, x, folder / f"m{s}", dynamic_shapes=free)
        for s in (".onnx", ".mlpackage")
    }


@pytest.fixture
def edited(tmp_path):
    """A copy of a package whose specification is changed."""

    def of(artifact, change):
        copy = shutil.copytree(artifact.path, tmp_path / "edited.mlpackage")
        spec = Model_pb2.Model.FromString((copy / MODEL).read_bytes())
        change(spec)
        (copy / MODEL).write_bytes(spec.SerializeToString())
        return copy

    return of


def _values(spec, name: str):
    """The values of the constant whose name starts with ``name``."""
    function = spec.mlProgram.functions["main"]
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "const" and operation.outputs[0].name.startswith(name):
            return operation.attributes["val"].immediateValue
    raise AssertionError(name)


def _classes(spec):
    function = spec.mlProgram.functions["main"]
    operations = function.block_specializations[function.opset].operations
    classify = next(o for o in operations if o.type == "classify")
    return classify.inputs["classes"].arguments[0].value.immediateValue.list.values


def permute(spec) -> None:
    second, fourth = (_classes(spec)[i].immediateValue.tensor.strings for i in (2, 4))
    second.values[0], fourth.values[0] = fourth.values[0], second.values[0]


def bias(spec) -> None:
    values = _values(spec, "x__biased__").tensor.floats.values
    values[1] *= 0.98


def color(spec) -> None:
    spec.description.input[0].type.imageType.colorSpace = 30  # BGR


def size(spec) -> None:
    spec.description.input[0].type.imageType.width = 32


def predicted(spec) -> None:
    spec.description.predictedFeatureName = "other"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (permute, "class label 2 is 'c4', wanted 'c2'; class label 4 is 'c2', wanted 'c4'"),
        (bias, "input 'x': the bias of channel 1 is -1.96, wanted -2"),
        (color, "input 'x' is a BGR image, wanted RGB"),
        (size, "input 'x' has the shape 32 x 16, wanted 16 x 16"),
        (predicted, "predicted are 'other', 'classLabel_probs', wanted 'classLabel', "),
    ],
)
def test_a_changed_classifier_fails(classifier, edited, change, told):
    found = check(edited(classifier, change))
    assert found.status == "failed"
    assert told in found.reason


def test_what_is_known_from_the_file_alone_is_said(classifier):
    found = check(classifier.path, outputs=["classLabel_probs"])
    assert found.status == "passed"
    assert "image 'x' RGB, 5 class labels (known from the file alone; " in found.reason
    assert "'classLabel_probs' is matched by its place with PyTorch's 'output'" in found.reason
    assert "as wanted: " in check(classifier.path, classifier.interface).reason


def test_a_file_that_was_asked_for_otherwise(classifier, tmp_path):
    """Parity says nothing of it: inputs go through what the file says of its own images."""
    frozen, pixels = dkm.palettize(Net().eval(), 4), torch.randint(256, (1, 3, 16, 16)).float()
    x = pixels / 57 + torch.tensor(IMAGE["bias"]).reshape(3, 1, 1)
    images = {"x": IMAGE | {"color": "BGR"}}
    other = dkm.convert(
        frozen, x, tmp_path / "m.mlpackage", images=images, class_labels=LABELS[::-1]
    )
    how = {"reference": frozen, "inputs": x}
    assert dkm.validate([other], **how)
    report = dkm.validate([other], **how, interface=classifier.interface)
    [missed] = report.failed
    assert "interface: input 'x' is a BGR image, wanted RGB; class label 0 is 'c4', " in missed
    dkm.write_golden(tmp_path / "golden", **how, interface=classifier.interface)
    assert dkm.validate_golden([other], tmp_path / "golden").failed == report.failed
    dkm.write_golden(tmp_path / "other", **how, interface=other.interface)
    assert dkm.validate_golden([other], tmp_path / "other")


def reorder(spec) -> None:
    outputs = spec.description.output
    first = type(outputs[0])()
    first.CopyFrom(outputs[0])
    outputs[0].CopyFrom(outputs[1])
    outputs[1].CopyFrom(first)


def widen(spec) -> None:
    spec.description.input[0].type.multiArrayType.shapeRange.sizeRanges[2].upperBound = 128


def whole(spec) -> None:
    spec.description.output[0].type.multiArrayType.dataType = 131104  # INT32


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reorder, "outputs are 'right', 'left', wanted 'left', 'right'"),
        (widen, "input 'x' has the shape 1 x 3 x 16..128 x 16, wanted 1 x 3 x 16..64 x 16"),
        (whole, "output 'left' is int32, wanted float32"),
    ],
)
def test_a_changed_package_fails(two, edited, change, told):
    found = check(edited(two[".mlpackage"], change))
    assert found.status == "failed"
    assert told in found.reason


def test_onnx_outputs_in_another_order_or_renamed(two, tmp_path):
    names = ("left", "right")
    assert check(two[".onnx"].path, None, names, names).status == "passed"
    model = onnx.load(two[".onnx"].path)
    first = onnx.ValueInfoProto()
    first.CopyFrom(model.graph.output[0])
    model.graph.output[0].CopyFrom(model.graph.output[1])
    model.graph.output[1].CopyFrom(first)
    onnx.save(model, tmp_path / "m.onnx")
    assert "outputs are 'right', 'left', wanted" in check(tmp_path / "m.onnx").reason
    model.graph.output[0].name = "other"
    del model.metadata_props[:]  # as of another tool
    onnx.save(model, tmp_path / "m.onnx")
    found = check(tmp_path / "m.onnx", None, ("other", "left"), names)
    assert found.status == "passed"
    assert "the file does not say what was asked for" in found.reason
    assert "output 'other' is matched by its place with PyTorch's 'left'" in found.reason
    assert check(tmp_path / "m.onnx", two[".onnx"].interface).status == "failed"
    assert check(tmp_path / "m.onnx", two[".mlpackage"].interface).status == "passed"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version":2}', '{"version":1,"inputs":[3]}'])
def test_damaged_metadata(two, tmp_path, text):
    with pytest.raises(DkmError):
        interface_from(text, ".onnx")
    model = onnx.load(two[".onnx"].path)
    next(e for e in model.metadata_props if e.key == INTERFACE_KEY).value = text
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(DkmError, match=r"m\.onnx: "):
        check(tmp_path / "m.onnx")


def test_the_metadata_is_small_and_the_interface_comes_back(classifier, two):
    for artifact in (classifier, *two.values()):
        text = artifact.interface.to_json()
        assert interface_from(text, artifact.path.suffix) == artifact.interface
        assert len(text) < 500


class _Reader:
    """A reader that tells what it is given to tell."""

    def __init__(self, found: Interface, asked: Interface | None) -> None:
        self.found, self.asked = found, asked

    def read_interface(self, path: Path) -> tuple[Interface, Interface | None]:
        return self.found, self.asked


def _interface(*outputs: str, labels=(), image=None, suffix=".x") -> Interface:
    features = tuple(Feature(name, "float32", "1 x 5") for name in outputs)
    return Interface(suffix, (Feature("x", "float32", "1 x 3", image),), features, labels)


PLAIN = _interface("a", "b")
NAMES = ("a", "b")


def _told(found, asked=None, wanted=None, outputs=NAMES, reference=NAMES):
    told = interface_check(Path("m.x"), _Reader(found, asked), wanted, outputs, reference)
    assert told.name == "interface"
    return told.status, told.reason


INSIDE = (
    " (known from the file alone; give an Artifact's interface to validate or to write_golden "
    "to check it)"
)
RENAMED = (
    "output 'c' is matched by its place with PyTorch's 'a'; "
    "output 'd' is matched by its place with PyTorch's 'b'"
)


def test_what_is_right_is_told_with_where_it_is_known_from():
    has = "inputs: 1, outputs: 2"
    unasked = f"the file does not say what was asked for; it has {has}"
    assert _told(PLAIN) == ("passed", unasked)
    assert _told(PLAIN, PLAIN) == ("passed", f"as the file says it was asked for: {has}")
    assert _told(PLAIN, wanted=PLAIN) == ("passed", f"as wanted: {has}")
    other = _interface("z", suffix=".y")  # of another kind of file
    assert _told(PLAIN, wanted=other) == ("passed", unasked)
    labelled, shown = _interface("a", labels=("u", "v")), _interface("a", image=Image("RGB"))
    for found, what in ((labelled, "2 class labels"), (shown, "image 'x' RGB")):
        told = f"inputs: 1, outputs: 1, {what}"
        assert _told(found, found)[1] == f"as the file says it was asked for: {told}{INSIDE}"
        assert _told(found, found, found)[1] == f"as wanted: {told}"


def test_outputs_of_other_names_are_told_by_their_place():
    assert _told(PLAIN, wanted=PLAIN, outputs=("c", "d"))[1].endswith(f"outputs: 2; {RENAMED}")
    assert _told(PLAIN, wanted=PLAIN, outputs=("c", "b"))[1].count("matched") == 1
    for outputs in (("b", "a"), ("c", "d", "e"), ("c",), None, ()):
        assert "matched" not in _told(PLAIN, wanted=PLAIN, outputs=outputs)[1]


def test_what_is_wrong_is_told_once():
    wrong = "outputs are 'a', 'b', wanted 'b', 'a'"
    asked = _interface("b", "a")
    assert _told(PLAIN, asked, asked) == ("failed", wrong)
    assert _told(PLAIN, asked, outputs=("c", "d")) == ("failed", f"{wrong}; {RENAMED}")
    both = _told(PLAIN, asked, _interface("a"))
    assert both == ("failed", f"outputs are 'a', 'b', wanted 'a'; {wrong}")


def test_where_nothing_reads_an_interface_names_of_outputs_are_compared():
    def told(*outputs):
        found = interface_check(Path("m.x"), object(), PLAIN, outputs or None, NAMES)
        assert found.name == "interface"
        return found.status, found.reason

    assert told() == ("skipped", "the interface of .x files cannot be read")
    alone = "names of outputs alone are compared, of .x files"
    assert told("a", "b") == ("passed", alone)
    assert told("c", "d") == ("passed", f"{alone}; {RENAMED}")
