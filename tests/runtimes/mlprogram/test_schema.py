"""Every parameter of every operation: used or named as of no effect, of a type that is allowed."""

import numpy as np
import pytest

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS
from dkm_deploy.runtimes.mlprogram.schema import check_constant, check_types, schema
from tests.formats.mlpackage.packages import mb, save, types
from tests.runtimes.mlprogram.operation_schema import PATH, table

FP32, INT32 = 11, 23
OPSETS = range(5, 10)


def test_the_table_is_that_of_coremltools():
    assert PATH.read_text("utf-8") == table()


def test_every_parameter_is_used_or_has_no_effect():
    """What an implementation leaves out are types of outputs, which the file declares anyway."""
    ignored = {name: kernel.ignored for name, kernel in KERNELS.items() if kernel.ignored}
    assert ignored == {
        "reduce_argmax": {"output_dtype"},
        "reduce_argmin": {"output_dtype"},
        "topk": {"output_indices_dtype"},
    }
    defined = {}
    for opset in OPSETS:
        for name in KERNELS:
            try:
                defined.setdefault(name, set()).update(schema(name, opset))
            except DkmError:  # it came later
                continue
    taken = {name: kernel.converters.keys() | kernel.ignored for name, kernel in KERNELS.items()}
    assert defined | {"write_state": {"input", "data"}} == taken


@pytest.mark.parametrize(
    ("operation", "opset", "given", "message"),
    [
        ("gather", 6, {"indices": "int8"}, "input indices is int8; it takes int16, int32, uint16"),
        ("gather", 6, {"validate_indices": "bool"}, "input validate_indices is unknown in this"),
        ("sqrt", 8, {"x": "int32"}, "input x is int32; it takes fp16, fp32"),
        ("add", 8, {"x": "fp32", "y": "fp16"}, "input y is fp16 and x fp32; they must be one"),
        ("linear", 6, {"x": "fp32", "weight": "int32"}, "weight is int32 and x fp32; they must"),
        ("lstm", 6, {"x": "fp16"}, "input x is fp16; it takes fp32"),
    ],
)
def test_types_that_an_operation_does_not_take(operation, opset, given, message):
    with pytest.raises(DkmError, match=message):
        check_types(schema(operation, opset), given)


def test_types_that_an_operation_takes():
    check_types(schema("gather", 9), {"x": "fp16", "indices": "uint8", "axis": "int32"})
    check_types(schema("linear", 7), {"x": "fp32", "weight": "int32", "bias": "int32"})
    check_types(schema("concat", 5), {"values": "bool"})


def test_what_must_be_constant():
    check_constant(schema("conv", 7), ["x", "weight", "bias"])
    with pytest.raises(DkmError, match="input bias must be a constant, but the program computes"):
        check_constant(schema("conv", 6), ["x", "weight", "bias"])


def test_an_operation_of_a_later_opset():
    with pytest.raises(DkmError, match="CoreML6 has no such operation; it came with iOS 17"):
        schema("resize", 6)


def changed(path, change):
    """The package after ``change`` was made to the block of its function."""
    file = open_package(path).model_file
    model = model_class().FromString(file.read_bytes())
    function = model.mlProgram.functions["main"]
    change(function)
    file.write_bytes(model.SerializeToString())
    return path


def test_a_package_is_held_to_the_opset_that_it_names(tmp_path):
    """The error names the operation, before anything runs."""

    def body(x):
        return mb.gather(x=x, indices=np.int32([1]), validate_indices=True, name="g")

    def older(function):
        block = function.block_specializations.pop("CoreML8")
        function.block_specializations["CoreML6"].CopyFrom(block)
        function.opset = "CoreML6"

    path = changed(save(tmp_path / "m.mlpackage", body, (3,)), older)
    with pytest.raises(DkmError, match=r"gather \('g'\) failed: input validate_indices is unknown"):
        MLProgramEvaluator(path)


def test_a_package_with_a_wrong_type_is_refused(tmp_path):
    def body(x):
        return mb.sqrt(x=mb.cast(x=x, dtype="fp32", name="c"), name="s")

    def whole(function):
        (block,) = function.block_specializations.values()
        for operation in block.operations:
            if operation.type == "cast":
                operation.outputs[0].type.tensorType.dataType = INT32

    path = save(tmp_path / "m.mlpackage", body, (2,), dtype=types.int32)
    np.testing.assert_allclose(MLProgramEvaluator(path).run({"x": np.int32([4, 9])})["s"], [2, 3])
    with pytest.raises(DkmError, match=r"sqrt \('s'\) failed: input x is int32; it takes fp16"):
        MLProgramEvaluator(changed(path, whole))


def test_weights_of_whole_numbers(tmp_path):
    """Since iOS 17 a linear layer may have them beside floats."""
    weight = np.int32([[1, -2], [3, 4]])
    path = save(tmp_path / "m.mlpackage", lambda x: mb.linear(x=x, weight=weight, name="y"), (2,))
    np.testing.assert_array_equal(
        MLProgramEvaluator(path).run({"x": np.float32([0.5, 2])})["y"], [-3.5, 9.5]
    )
