"""Damaged, absurd and foreign packages: one clear line, exit code 2, nothing written."""

import json
import shutil
import struct

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.cli import main
from dkm_deploy.formats.mlpackage.proto import model_class
from tests.formats.mlpackage.packages import mb, n, rand, save, types

MANIFEST = "Manifest.json"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
X = {"x": np.ones((2, 16), np.float32)}


def program(x):
    """A palette, and operations whose attributes, blocks and shapes can be damaged."""
    kind = types.nptype_from_builtin(types.string_to_builtin("uint2"))
    indices = np.random.default_rng(0).integers(0, 4, (8, 16)).astype(kind)
    lut = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 4, 1)
    weight = mb.constexpr_lut_to_dense(indices=indices, lut=lut, name="weight")
    y = mb.reshape(x=mb.linear(x=x, weight=weight), shape=[1, 2, 2, -1])
    y = mb.conv(x=y, weight=n(rand(4, 2, 2, 2)), pad_type="same")
    y = mb.upsample_nearest_neighbor(x=y, scale_factor_height=2.0, scale_factor_width=3.0)
    y = mb.tile(x=mb.pad(x=y, pad=[1, 1, 2, 0]), reps=[1, 1, 2, 1])
    y = mb.concat(values=mb.split(x=y, num_splits=2, axis=1), axis=-1)
    _, y = mb.while_loop(
        _cond=lambda i, y: mb.less(x=i, y=3),
        _body=lambda i, y: (mb.add(x=i, y=1), mb.mul(x=y, y=0.5)),
        loop_vars=(0, y),
    )
    filled = mb.fill(shape=[3, 4], value=1.0)
    hot = mb.one_hot(indices=mb.cast(x=x, dtype="int32"), one_hot_vector_size=5)
    return y, mb.identity(x=hot), mb.add(x=filled, y=1.0)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = save(tmp_path_factory.mktemp("sound") / "m.mlpackage", program, (2, 16))
    assert len(dkm.MLProgramEvaluator(path).run(X)) == 3
    assert list(dkm.read_palettes(path)) == ["weight"]
    return path


@pytest.fixture
def package(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "m.mlpackage")


def outcome(path):
    """The refusals that running and reading a package gives."""
    refusals = []
    acts = (
        lambda: dkm.MLProgramEvaluator(path, numerics="fp16").run(X),
        lambda: dkm.read_palettes(path),
        lambda: dkm.size_breakdown(path),
    )
    for act in acts:
        try:
            act()
        except dkm.DkmError as error:
            refusals.append(str(error))
    return refusals


@pytest.mark.parametrize("file", [MANIFEST, MODEL, WEIGHTS])
@pytest.mark.parametrize("value", [0x00, 0xFF])
def test_a_wrong_byte_anywhere_gives_a_refusal_or_a_result(package, file, value):
    content = (package / file).read_bytes()
    refusals = []
    for at in range(value % 7, len(content), len(content) // 25):
        (package / file).write_bytes(content[:at] + bytes([value]) + content[at + 1 :])
        refusals += outcome(package)
    assert refusals
    assert not any("\n" in line for line in refusals)


@pytest.mark.parametrize("file", [MANIFEST, MODEL, WEIGHTS])
def test_a_file_cut_short_is_refused(package, file):
    content = (package / file).read_bytes()
    for kept in range(0, len(content) - 64, len(content) // 10):
        (package / file).write_bytes(content[:kept])
        assert outcome(package), f"{file} cut to {kept} bytes"


def edit(package, change):
    model = model_class().FromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


def function(model):
    return model.mlProgram.functions["main"]


def operation(model, kind):
    block = function(model).block_specializations[function(model).opset]
    return next(o for o in block.operations if o.type == kind)


def constant(model, name):
    block = function(model).block_specializations[function(model).opset]
    return next(o for o in block.operations if o.outputs and o.outputs[0].name == name)


def numbers(model, kind, parameter):
    """The integers of a constant argument, to be changed."""
    name = operation(model, kind).inputs[parameter].arguments[0].name
    tensor = constant(model, name).attributes["val"].immediateValue.tensor
    return getattr(tensor, tensor.WhichOneof("value")).values


def absurd_input(model):
    function(model).inputs[0].type.tensorType.dimensions[0].constant.size = 2**40


def absurd_output(model):
    operation(model, "conv").outputs[0].type.tensorType.dimensions[1].constant.size = 2**60


def absurd_fill(model):
    numbers(model, "fill", "shape")[0] = 2**30


def absurd_tile(model):
    numbers(model, "tile", "reps")[2] = 2**30


def absurd_pad(model):
    numbers(model, "pad", "pad")[0] = 2**30


def absurd_one_hot(model):
    numbers(model, "one_hot", "one_hot_vector_size")[0] = 2**31 - 1


def absurd_scale(model):
    numbers(model, "upsample_nearest_neighbor", "scale_factor_height")[0] = 1e9


def absurd_weight(model):
    weight = constant(model, "weight")
    given = weight.attributes if "indices" in weight.attributes else weight.inputs
    value = given["indices"]
    value = value if hasattr(value, "type") else value.arguments[0].value
    value.type.tensorType.dimensions[0].constant.size = 2**50


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (absurd_input, "input 'x': shape .* has more than"),
        (absurd_output, "operation conv .* has more than"),
        (absurd_fill, "operation fill .* has more than"),
        (absurd_tile, "operation tile .* has more than"),
        (absurd_pad, "operation pad .* has more than"),
        (absurd_one_hot, "operation one_hot .* has more than"),
        (absurd_scale, "operation upsample_nearest_neighbor .* has more than"),
        (absurd_weight, "uint2 of shape .* fills"),
    ],
)
def test_absurd_shapes_are_refused_before_anything_is_allocated(package, change, said):
    edit(package, change)
    with pytest.raises(dkm.DkmError, match=said):
        dkm.MLProgramEvaluator(package).run(X)


def test_a_shape_that_is_not_the_declared_one_is_told(package):
    def change(model):
        operation(model, "concat").outputs[0].type.tensorType.dimensions[3].constant.size = 5

    edit(package, change)
    with pytest.raises(dkm.DkmError, match=r"has shape \(1, 2, .*\); the program declares .*, 5\)"):
        dkm.MLProgramEvaluator(package).run(X)


def truncated(package):
    (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:130])


def offset_outside(package):
    data = bytearray((package / WEIGHTS).read_bytes())
    data[80:88] = struct.pack("<Q", 2**40)  # where the first blob says its data starts
    (package / WEIGHTS).write_bytes(data)


def manifest_outside(package):
    table = json.loads((package / MANIFEST).read_text())
    table["itemInfoEntries"][table["rootModelIdentifier"]]["path"] = "../../../etc/passwd"
    (package / MANIFEST).write_text(json.dumps(table))


def no_file_name(package):
    table = json.loads((package / MANIFEST).read_text())
    table["itemInfoEntries"][table["rootModelIdentifier"]]["path"] = "a\0b"
    (package / MANIFEST).write_text(json.dumps(table))


def unknown_opset(package):
    def change(model):
        main_function = function(model)
        body = main_function.block_specializations[main_function.opset]
        main_function.block_specializations["CoreML99"].CopyFrom(body)
        main_function.opset = "CoreML99"

    edit(package, change)


def neural_network(package):
    edit(package, lambda model: model.neuralNetwork.SetInParent())


def compiled(package):
    (package / "coremldata.bin").write_bytes(b"\0" * 8)


BAD = [
    (truncated, "cut short or damaged"),
    (offset_outside, "cut short or damaged"),
    (manifest_outside, "outside the package"),
    (no_file_name, "which is not a file name"),
    (unknown_opset, "the opset 'CoreML99', which is unknown; known: CoreML5, "),
    (neural_network, "holds neuralNetwork, not an ML program"),
    (compiled, r"a compiled model \(.mlmodelc\), which only Core ML reads"),
]


def snapshot(path):
    return [(f, f.stat().st_mtime_ns, f.stat().st_ino) for f in sorted(path.rglob("*"))]


@pytest.mark.parametrize(("damage", "said"), BAD)
def test_bad_input_is_one_line_and_exit_code_2(package, capsys, damage, said):
    damage(package)
    before = snapshot(package.parent)
    with pytest.raises(dkm.DkmError, match=said):
        dkm.MLProgramEvaluator(package)
    assert main(["inspect", str(package)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("dkm-deploy: error: ")
    assert printed.err.count("\n") == 1
    assert "m.mlpackage" in printed.err
    assert snapshot(package.parent) == before


def test_a_compiled_model_is_told_by_its_suffix(package, capsys):
    path = package.rename(package.with_suffix(".mlmodelc"))
    with pytest.raises(dkm.DkmError, match=r"compiled model .* give the .mlpackage"):
        dkm.MLProgramEvaluator(path)
    assert main(["inspect", str(path)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "m.mlmodelc: a compiled model (.mlmodelc), which only Core ML reads; give the" in printed
    with pytest.raises(dkm.DkmError, match="a compiled model .* give the .mlpackage"):
        dkm.validate([path], reference=torch.nn.Linear(2, 2), inputs=torch.zeros(1, 2))


def test_a_model_in_a_single_file_is_told_by_its_suffix(tmp_path, capsys):
    path = tmp_path / "old.mlmodel"
    path.write_bytes(b"\x08\x01")
    assert main(["inspect", str(path)]) == 2
    assert "old.mlmodel: a model in a single file is not an ML program; " in capsys.readouterr().err
