"""Packages as a whole: wrong ones, outputs in wrong places, writers that stop, planted faults."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import dkm_deploy as dkm
from converters.coreml.rewriting import decode_operation
from converters.coreml.rewriting.checker import check_rewritten
from converters.coreml.rewriting.weight_file import WeightFileWriter
from dkm_deploy.cli import main
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.packing import pack
from tests.converters.coreml.rewriting.packages import files, run, two_layers, values
from tests.formats.mlpackage.packages import MODEL, ct, edit

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
X = values(2, 64, seed=9)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return two_layers(tmp_path_factory.mktemp("dense") / "net.mlpackage", "iOS18")


@pytest.fixture(scope="module")
def small(dense):
    return dkm.palettize_file(dense, dense.with_name("small.mlpackage"), 4).path


@pytest.fixture
def copy(dense, tmp_path):
    """The dense package, to be damaged."""
    return shutil.copytree(dense, tmp_path / "net.mlpackage")


def _cut(package):
    file = package / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def _no_program(package):
    edit(package, lambda model: model.neuralNetwork.layers.add())


def _link(package):
    (package / "Data/more").symlink_to(package / MODEL)


def _not_a_folder(package):
    shutil.rmtree(package)
    package.write_bytes(b"a file")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such file or folder"),
        (lambda package: (package / WEIGHTS).unlink(), "weight.bin: no such weight file"),
        (lambda package: (package / MODEL).unlink(), "the manifest names this model file"),
        (lambda package: (package / "Manifest.json").unlink(), "not a Core ML package"),
        (lambda package: (package / MODEL).write_bytes(b"\xff" * 99), "not a Core ML model"),
        (_cut, "cut short or damaged"),
        (_no_program, "holds neuralNetwork, not an ML program"),
        (_link, "'Data/more' is a link; give a copy without links"),
        (_not_a_folder, "a Core ML package is a folder"),
    ],
)
def test_a_wrong_package_is_one_line_and_nothing_is_written(copy, capsys, damage, message):
    damage(copy)
    out = copy.with_name("small.mlpackage")
    assert main(["palettize", str(copy), "--bits", "4", "-o", str(out)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert {part.name for part in copy.parent.iterdir()} <= {copy.name}


@pytest.mark.parametrize(
    ("suffix", "message"), [(".mlmodel", "single file"), (".mlmodelc", "compiled")]
)
def test_other_kinds_of_core_ml_models_are_told(tmp_path, suffix, message):
    (tmp_path / f"net{suffix}").write_bytes(b"")
    with pytest.raises(dkm.DkmError, match=message):
        dkm.palettize_file(tmp_path / f"net{suffix}", tmp_path / "small.mlpackage", 4)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("net.mlpackage", "this is the input, which is never changed"),
        ("link.mlpackage", "this is the input, which is never changed"),
        ("net.mlpackage/small.mlpackage", "lie in each other"),
        ("net.mlpackage/Data/small.mlpackage", "lie in each other"),
        ("small.onnx", "gives a file with suffix .mlpackage"),
        ("there.mlpackage", "a file cannot replace a folder, nor a folder a file"),
    ],
)
def test_outputs_in_wrong_places(copy, tmp_path, out, message):
    (tmp_path / "link.mlpackage").symlink_to(copy)
    (tmp_path / "there.mlpackage").write_bytes(b"a file")
    before = files(copy)
    with pytest.raises(dkm.DkmError, match=message):
        dkm.palettize_file(copy, tmp_path / out, 4, force=True)
    assert files(copy) == before
    assert (tmp_path / "there.mlpackage").read_bytes() == b"a file"


def test_an_output_that_exists_is_replaced_only_if_asked(dense, small, tmp_path):
    out = shutil.copytree(small, tmp_path / "small.mlpackage")
    with pytest.raises(dkm.DkmError, match="already exists"):
        dkm.palettize_file(dense, out, 2)
    assert files(out) == files(small)
    dkm.palettize_file(dense, out, 2, force=True)
    assert {palette.bits for palette in dkm.read_palettes(out).values()} == {2}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_writer_that_stops_leaves_nothing(copy, monkeypatch, stop):
    def _stops(*_):
        raise stop

    monkeypatch.setattr(WeightFileWriter, "copy", _stops)
    with pytest.raises(stop):
        dkm.palettize_file(copy, copy.with_name("small.mlpackage"), 4)
    assert [part.name for part in copy.parent.iterdir()] == [copy.name]


def test_a_wrong_index_in_the_file_is_found_before_it_gets_its_name(copy, monkeypatch):
    def _wrong(indices, bits):
        changed = indices.copy()
        changed.flat[7] ^= 1
        return pack(changed, bits)

    monkeypatch.setattr(decode_operation, "pack", _wrong)
    with pytest.raises(RuntimeError, match="first_weight: target coreml wrote a wrong file: 1 of"):
        dkm.palettize_file(copy, copy.with_name("small.mlpackage"), 4)
    assert [part.name for part in copy.parent.iterdir()] == [copy.name]


def _other_bias(package):
    found = open_package(package)
    blobs = [
        operation.attributes["val"].blobFileValue.offset
        for operation in found.model.mlProgram.functions["main"]
        .block_specializations["CoreML8"]
        .operations
        if operation.outputs[0].name == "first_bias"
    ]
    with (package / WEIGHTS).open("r+b") as stream:
        stream.seek(blobs[0] + 64)
        stream.write(b"\0\0\x80?")


def _other_activation(model):
    for operation in model.mlProgram.functions["main"].block_specializations["CoreML8"].operations:
        if operation.type == "relu":
            operation.type = "sigmoid"


def _other_interface(model):
    model.description.input[0].name = "other"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (_other_bias, "operation 'first_bias' of function 'main'"),
        (lambda package: edit(package, _other_activation), "operation 'relu_0'"),
        (lambda package: edit(package, _other_interface), "its interface"),
    ],
)
def test_what_changes_beside_the_weights_is_found(dense, small, tmp_path, fault, told):
    bad = shutil.copytree(small, tmp_path / "bad.mlpackage")
    assert list(check_rewritten(dense, bad)) == []
    fault(bad)
    with pytest.raises(RuntimeError, match=f"changed {told}.*; please report"):
        list(check_rewritten(dense, bad))


def test_an_operation_that_no_evaluator_knows_is_told(dense, small, tmp_path):
    def _rename(model):
        for operation in (
            model.mlProgram.functions["main"].block_specializations["CoreML8"].operations
        ):
            if operation.type == "relu":
                operation.type = "relu_of_tomorrow"

    path = shutil.copytree(dense, tmp_path / "net.mlpackage")
    edit(path, _rename)
    result = dkm.palettize_file(path, tmp_path / "small.mlpackage", 4)
    (told,) = result.unchecked
    assert told.startswith("the evaluator has no relu_of_tomorrow, so only Core ML itself")
    report = dkm.validate(result.path, original=path, inputs={"x": X})
    checks = {check.name: check for check in report.files[0].checks}
    assert checks["dense"].status == "passed"
    assert checks["parity"].status == "skipped"
    assert "the original does not run: " in checks["parity"].reason
    assert "operation relu_of_tomorrow (" in checks["parity"].reason
    assert not report  # half a proof is none


def test_a_file_is_validated_against_its_original(dense, small, tmp_path, capsys):
    report = dkm.validate(small, original=dense, inputs={"x": X})
    assert report
    (row,) = report.files
    assert row.errors["y"].relative == 0
    bad = shutil.copytree(small, tmp_path / "bad.mlpackage")
    _other_bias(bad)
    report = dkm.validate(bad, original=dense, inputs={"x": X})
    dense_fault, parity = report.failed
    assert dense_fault.startswith("bad.mlpackage: dense: first_bias: off by up to ")
    assert parity.startswith("bad.mlpackage: parity: ")
    other = two_layers(tmp_path / "other.mlpackage", "iOS18", np.float16)
    with pytest.raises(dkm.DkmError, match="it has no weight 'w' of shape"):
        dkm.validate(_named_w(small, tmp_path), original=other, inputs={"x": X})


def _named_w(small, tmp_path):
    path = shutil.copytree(small, tmp_path / "named.mlpackage")
    names = {"first_weight": "w", "second_weight": "second_weight"}
    edit(
        path,
        lambda model: model.description.metadata.userDefined.update(
            {"dkm_deploy.weights": json.dumps(names)}
        ),
    )
    return path


def test_coremltools_itself_loads_the_program(small):
    from coremltools.converters.mil.frontend.milproto.load import load

    model = ct.models.MLModel(str(small), skip_model_load=True)
    program = load(
        model.get_spec(),
        specification_version=9,
        file_weights_dir=model.weights_dir,
    )
    kinds = [operation.op_type for operation in program.functions["main"].operations]
    assert kinds.count("constexpr_lut_to_dense") == 2


def test_on_the_command_line(dense, tmp_path, capsys):
    out = tmp_path / "small.mlpackage"
    assert main(["palettize", str(dense), "--bits", "3", "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "palettized: 2, left dense: 1" in told
    assert "table" in told
    np.testing.assert_array_equal(run(out, X).shape, (2, 16))
