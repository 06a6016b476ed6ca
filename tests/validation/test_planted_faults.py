"""Faults that files are shipped with, planted one by one: each is caught by its check and named."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.cli import main
from tests.damage import overwrite

SUFFIXES = (".onnx", ".ort", ".mlpackage")
LOCATED = (".onnx", ".mlpackage")  # nothing shows the values inside a .ort file
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


class Net(nn.Module):
    """Pixels to two outputs of one shape; ``middle`` stays dense and, like ``mixed``, is square."""

    scale = 1 / 128

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.middle, self.mixed = nn.Linear(8, 8), nn.Linear(8, 8)
        self.left, self.right = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        x = functional.relu(self.stem(pixels * self.scale - 1)).mean((2, 3))
        x = torch.tanh(self.mixed(functional.relu(self.middle(x))))
        return self.outputs(x)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        return {"left": self.left(x), "right": self.right(x)}


class Swapped(Net):
    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        return {"left": self.right(x), "right": self.left(x)}


class OtherScale(Net):
    scale = 1 / 255


class OtherChannels(Net):
    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        return super().forward(pixels.flip(1))


RECIPE = dkm.Recipe(rules=[dkm.Rule("middle.*", skip=True), dkm.Rule(spec=8)])
PIXELS = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1)).float()
PIXELS[:, 0] /= 4  # channels that differ


def frozen(kind: type[Net] = Net, recipe: dkm.Recipe = RECIPE) -> nn.Module:
    return dkm.palettize(kind().eval(), recipe)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    return {s: dkm.convert(frozen(), PIXELS[:1], folder / f"m{s}").path for s in SUFFIXES}


@pytest.fixture
def copies(files, tmp_path):
    def of(suffix):
        source = files[suffix]
        make = shutil.copytree if source.is_dir() else shutil.copy
        return make(source, tmp_path / source.name)

    return of


def replaced(path, old: np.ndarray, new: np.ndarray) -> None:
    """Write ``new`` over ``old``, which lies in the file once, in half precision or not."""
    if old.dtype.kind == "f" and path.is_dir():
        old, new = old.astype(np.float16), new.astype(np.float16)
    assert old.tobytes() != new.tobytes()
    overwrite(path, old.tobytes(), new.tobytes())


def checked(path, reference: nn.Module | None = None, **limits):
    """The status of every check, and the reasons of those that are missed."""
    model = reference or frozen()
    report = dkm.validate([path], reference=model, inputs=PIXELS, limits=dkm.Limits(**limits))
    checks = report.files[0].checks
    missed = {check.name: check.reason for check in checks if check.status == "failed"}
    assert bool(report) is not bool(missed)
    return {check.name: check.status for check in checks}, missed


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_a_fault_all_is_well(files, suffix):
    statuses, _ = checked(files[suffix], max_bytes=10**6)
    assert statuses.items() >= {"palettes": "passed", "parity": "passed", "size": "passed"}.items()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_flipped_index(copies, suffix):
    path, indices = copies(suffix), dkm.palettes(frozen())["left.weight"].indices
    flipped = indices.copy()
    flipped[2, 3] ^= 1
    replaced(path, indices, flipped)
    _, missed = checked(path)
    assert missed["palettes"] == "left.weight: 1 of 40 indices differ"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_lut_entry_off_by_one_step_of_half_precision(copies, suffix):
    path, lut = copies(suffix), dkm.palettes(frozen())["mixed.weight"].lut
    off, step = lut.copy(), np.spacing(np.float16(lut[0, 0, 40, 0]))
    off[0, 0, 40, 0] += step
    replaced(path, lut, off)
    _, missed = checked(path)
    kind = "float16" if suffix == ".mlpackage" else "float32"
    told = f"mixed.weight: LUT entries differ: 1 of 256 {kind} values, by up to {abs(step):.3g}"
    assert missed["palettes"] == told


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_transposed_palette(copies, suffix):
    path, indices = copies(suffix), dkm.palettes(frozen())["mixed.weight"].indices
    replaced(path, indices, indices.T.copy())
    _, missed = checked(path)
    assert missed["palettes"] == (
        "mixed.weight: it is transposed: its first two dimensions are swapped"
    )
    assert suffix not in LOCATED or "first error in mixed: " in missed["parity"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_transposed_dense_weight(copies, suffix):
    path, weight = copies(suffix), Net().middle.weight.detach().numpy()
    replaced(path, weight, weight.T.copy())
    statuses, missed = checked(path)
    assert statuses["palettes"] == "passed"
    assert suffix not in LOCATED or "first error in middle: " in missed["parity"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_swapped_outputs(tmp_path, suffix):
    path = dkm.convert(frozen(Swapped), PIXELS[:1], tmp_path / f"m{suffix}").path
    statuses, missed = checked(path)
    assert statuses["palettes"] == "passed"
    assert missed["parity"].endswith(
        "outputs are swapped: 'left' has the values of 'right', 'right' has the values of 'left'"
    )


def test_swapped_outputs_in_a_replay(tmp_path):
    dkm.write_golden(tmp_path / "golden", reference=frozen(), inputs=PIXELS)
    path = dkm.convert(frozen(Swapped), PIXELS[:1], tmp_path / "m.onnx").path
    assert "outputs are swapped: " in dkm.validate_golden([path], tmp_path / "golden").failed[0]


@pytest.mark.parametrize(
    ("fault", "layer", "operation"),
    [("middle", "middle", "linear"), (None, "left", "mul")],
)
def test_an_overflow_of_half_precision(tmp_path, fault, layer, operation):
    class Overflows(Net):
        def outputs(self, x: Tensor) -> dict[str, Tensor]:
            return super().outputs(x if fault else (x + 2) * 6e4 / 6e4)

    model = Overflows()
    if fault:
        with torch.no_grad():
            model.stem.weight.mul_(10)
            model.get_parameter(f"{fault}.weight").mul_(1.8e5)
    reference = dkm.palettize(model.eval(), dkm.Recipe.uniform(4))
    options = {"compute_precision": "float16"}
    path = dkm.convert(reference, PIXELS[:1], tmp_path / "m.mlpackage", **options).path
    statuses, missed = checked(path, reference)
    assert statuses["palettes"] == "passed"
    place = f"first error in {layer}: " if fault else f"first error before {layer}, "
    assert place in missed["parity"]
    assert f"where fp16 overflows first in operation {operation} (" in missed["parity"]
    assert not fault or f"layer '{layer}.weight'" in missed["parity"]


def unknown_field(path):
    path.write_bytes(path.read_bytes() + b"\xfa\x3f\xff\x3f" + bytes(0x1FFF))  # field 1023
    return "8,195 in 'unknown fields'"


def unused_tensor(path):
    model = onnx.load(path)
    decoy = numpy_helper.from_array(np.zeros(2048, np.float32), "decoy")
    model.graph.initializer.append(decoy)
    onnx.save(model, path)
    return "8,192 in 'unused decoy'"


def longer_file(path):
    path.write_bytes(path.read_bytes() + bytes(8192))
    return "in 'alignment'"


def longer_weights(path):
    with (path / WEIGHTS).open("ab") as file:
        file.write(bytes(8192))
    return "in '(unreferenced)'"


def gap_in_data(path):
    """The tensors in a file of their own, which goes on behind the last."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=1024)
    with (path.parent / "m.data").open("ab") as file:
        file.write(bytes(8192))
    return "8,192 in 'm.data'"


@pytest.mark.parametrize(
    ("suffix", "pad"),
    [
        (".onnx", unknown_field),
        (".onnx", unused_tensor),
        (".onnx", gap_in_data),
        (".ort", longer_file),
        (".mlpackage", longer_weights),
    ],
)
def test_a_file_padded_to_look_bigger(copies, suffix, pad):
    path = copies(suffix)
    size, padding = (
        dkm.size_breakdown(path).total_bytes,
        dkm.size_breakdown(path).by_kind()["padding"],
    )
    where = pad(path)
    found = dkm.size_breakdown(path)
    assert found.by_kind()["padding"] - padding >= 8192
    statuses, missed = checked(path, max_bytes=size + 4096)
    assert statuses.items() >= {"palettes": "passed", "parity": "passed", "size": "failed"}.items()
    assert f"{found.by_kind()['padding']:,} bytes are padding, " in missed["size"]
    assert missed["size"].endswith(where)


def test_a_file_in_a_package_that_is_no_part_of_it(copies):
    path = copies(".mlpackage")
    (path / "Data/notes.bin").write_bytes(bytes(8192))
    sizes = {e.name: (e.kind, e.size_bytes) for e in dkm.size_breakdown(path).entries}
    assert sizes["Data/notes.bin"] == ("metadata", 8192)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dense_weight_that_should_be_a_palette(tmp_path, suffix):
    rules = [dkm.Rule(f"{name}.*", skip=True) for name in ("middle", "stem")]
    other = frozen(recipe=dkm.Recipe(rules=[*rules, dkm.Rule(spec=8)]))
    path = dkm.convert(other, PIXELS[:1], tmp_path / f"m{suffix}").path
    _, missed = checked(path)
    size = 216 * (2 if suffix == ".mlpackage" else 4)
    assert missed["palettes"] == (
        f"stem.weight is not a palette in the file but dense, {size} bytes"
    )


def test_a_bundle_with_a_changed_byte(files, tmp_path, capsys):
    golden = tmp_path / "golden"
    dkm.write_golden(golden, reference=frozen(), inputs=PIXELS)
    changed = bytearray((golden / "raw/outputs.0.bin").read_bytes())
    changed[7] ^= 1
    (golden / "raw/outputs.0.bin").write_bytes(changed)
    with pytest.raises(dkm.DkmError, match=r"outputs\.0\.bin: changed since the bundle was"):
        dkm.validate_golden([files[".onnx"]], golden)
    assert main(["validate", str(files[".onnx"]), "--golden", str(golden)]) == 2
    assert "changed since the bundle was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (OtherScale, ".mlpackage"),
        (OtherChannels, ".onnx"),
        pytest.param(OtherScale, ".onnx", marks=pytest.mark.slow),
        pytest.param(OtherScale, ".ort", marks=pytest.mark.slow),
    ],
)
def test_another_preprocessing(tmp_path, kind, suffix):
    path = dkm.convert(frozen(kind), PIXELS[:1], tmp_path / f"m{suffix}").path
    statuses, missed = checked(path)
    assert statuses["palettes"] == "passed"
    if suffix in LOCATED:
        assert "first error before stem, the first layer: " in missed["parity"]
        assert "inputs are prepared in another way" in missed["parity"]


def test_each_fault_alone_is_found_among_right_files(files, copies):
    bad = copies(".onnx")
    model = onnx.load(bad)
    bias = next(t for t in model.graph.initializer if t.name == "right.bias")
    assert bias.data_type == TensorProto.FLOAT
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, bad)
    right = [files[".mlpackage"], files[".ort"]]
    report = dkm.validate([*right, bad], reference=copy.deepcopy(frozen()), inputs=PIXELS)
    dense, parity = report.failed
    assert dense.startswith("m.onnx: dense: right.bias: off by up to 1, ")
    assert parity.startswith("m.onnx: parity: right: ")
    assert "first error in right: " in parity
