"""What a package's description allows its inputs to be, whatever its program could compute."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.dtypes import program_dtype
from dkm_deploy.formats.mlpackage.ml_program import Block, Function, TensorType
from dkm_deploy.formats.mlpackage.package import Package
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.runtimes.batch_sizes import largest_batch, smallest_batch
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.mlprogram.inputs import batch_options, described_inputs, taken_inputs
from tests.formats.mlpackage.packages import ct, mb, save, types

FP32, INT32 = program_dtype(11), program_dtype(23)


def described(describe, dtype=FP32, **shapes):
    """The inputs of a program with these shapes, which ``describe`` has described."""
    model = model_class()()
    for name in shapes:
        model.description.input.add(name=name)
    describe(*(feature.type for feature in model.description.input))
    kinds = {name: TensorType(dtype, shape) for name, shape in shapes.items()}
    function = Function("main", 8, kinds, {}, Block((), (), ()))
    return described_inputs(Package(Path("m"), Path("m"), model), function)


def listed(kind, *shapes):
    for shape in shapes:
        kind.multiArrayType.enumeratedShapes.shapes.add(shape=shape)


def ranged(kind, *ranges):
    for low, high in ranges:
        kind.multiArrayType.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)


def image(kind, space="RGB", height=4, width=6):
    picture = kind.imageType
    picture.colorSpace = picture.ColorSpace.Value(space)
    picture.height, picture.width = height, width
    return picture


def sides(picture, height, width):
    for side, (low, high) in ((picture.heightRange, height), (picture.widthRange, width)):
        side.lowerBound, side.upperBound = low, high


def image_of_sizes(kind):
    for height, width in ((4, 6), (8, 12)):
        image(kind).enumeratedSizes.sizes.add(height=height, width=width)


def image_of_range(kind):
    sides(image(kind).imageSizeRange, (4, 8), (6, -1))


CASES = {  # describe, shape in the program, shapes allowed, shapes that are not, how it is spelled
    "listed": (
        lambda x: listed(x, (1, 16), (2, 32)),
        (None, None),
        [(1, 16), (2, 32)],
        [(1, 32), (2, 16), (1, 24), (16,), (1, 1, 16), ()],
        "(1, 16) or (2, 32)",
    ),
    "range": (
        lambda x: ranged(x, (1, 1), (4, 64)),
        (1, None),
        [(1, 4), (1, 17), (1, 64)],
        [(1, 3), (1, 65), (2, 8), (8,)],
        "(1, 4 to 64)",
    ),
    "open range": (
        lambda x: ranged(x, (2, -1), (1, 2**31 - 1)),
        (None, None),
        [(2, 1), (900, 5000)],
        [(1, 1), (2, 0)],
        "(2 or more, 1 to 2147483647)",
    ),
    "fixed, though the program takes any": (
        lambda x: x.multiArrayType.shape.extend((3, 2)),
        (None, 2),
        [(3, 2)],
        [(4, 2)],
        "(3, 2)",
    ),
    "image": (image, (1, 3, 4, 6), [(1, 3, 4, 6)], [(1, 3, 6, 4), (1, 1, 4, 6)], "(1, 3, 4, 6)"),
    "grayscale": (
        lambda x: image(x, "GRAYSCALE"),
        (1, 1, 4, 6),
        [(1, 1, 4, 6)],
        [(1, 3, 4, 6), (2, 1, 4, 6)],
        "(1, 1, 4, 6)",
    ),
    "image of listed sizes": (
        image_of_sizes,
        (1, 3, None, None),
        [(1, 3, 4, 6), (1, 3, 8, 12)],
        [(1, 3, 4, 12), (1, 3, 6, 9)],
        "(1, 3, 4, 6) or (1, 3, 8, 12)",
    ),
    "image of a range of sizes": (
        image_of_range,
        (1, 3, None, None),
        [(1, 3, 4, 6), (1, 3, 8, 600)],
        [(1, 3, 3, 6), (1, 3, 9, 6), (1, 3, 4, 5)],
        "(1, 3, 4 to 8, 6 or more)",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_description_allows_is_taken(case):
    describe, shape, allowed, others, spelled = CASES[case]
    inputs = described(describe, x=shape)
    for each in allowed:
        assert taken_inputs(inputs, {"x": np.zeros(each)})["x"].shape == each
    for each in others:
        with pytest.raises(DkmError) as error:
            taken_inputs(inputs, {"x": np.zeros(each)})
        assert str(error.value) == f"input 'x' has shape {each}; the file takes {spelled}"


def test_listed_shapes_of_several_inputs_go_together():
    def describe(x, y, z):
        listed(x, (1, 4), (1, 8))
        listed(y, (4,), (8,))
        ranged(z, (1, 9))

    inputs = described(describe, x=(1, None), y=(None,), z=(None,))
    z = np.zeros(5)
    taken_inputs(inputs, {"x": np.zeros((1, 8)), "y": np.zeros(8), "z": z})
    with pytest.raises(DkmError) as error:
        taken_inputs(inputs, {"x": np.zeros((1, 8)), "y": np.zeros(4), "z": z})
    assert str(error.value) == (
        "inputs 'x', 'y' have shapes (1, 8) with (4,); "
        "the file takes (1, 4) with (4,); (1, 8) with (8,)"
    )


def test_shapes_that_may_change_are_those_of_the_description():
    def describe(x, y):
        ranged(x, (1, 1), (4, 64), (7, 7))
        listed(y, (2, 3), (2, 5))

    inputs = described(describe, x=(None, None, 7), y=(None, None))
    assert {name: each.shape for name, each in inputs.items()} == {
        "x": (1, None, 7),
        "y": (2, None),
    }
    assert batch_options(inputs) == ((1, 1),)


def test_a_single_number_may_be_given_in_either_shape():
    inputs = described(lambda x: x.multiArrayType.shape.append(1), x=())
    assert inputs["x"].shape == ()
    for given in (np.float32(3), np.float32([3])):
        (taken,) = taken_inputs(inputs, {"x": given}).values()
        assert taken.shape == ()
        assert taken == 3
    with pytest.raises(DkmError, match=r"'x' has shape \(2,\); the file takes \(1,\) or \(\)"):
        taken_inputs(inputs, {"x": np.float32([3, 4])})


@pytest.mark.parametrize(
    ("dtype", "array", "match"),
    [
        (INT32, np.float32([1]), "input 'x' is float32; the program takes int32"),
        (INT32, np.int64([2**31]), "input 'x' has the value 2147483648, too large for int32"),
        (
            INT32,
            np.int64([-(2**40)]),
            "input 'x' has the value -1099511627776, too large for int32",
        ),
        (FP32, np.complex64([1]), "input 'x' is complex64; the program takes fp32"),
        (FP32, np.array(["a"]), "input 'x' is text; the program takes fp32"),
    ],
)
def test_values_of_another_kind_are_refused(dtype, array, match):
    inputs = described(lambda x: x.multiArrayType.shape.append(1), dtype, x=(1,))
    with pytest.raises(DkmError, match=match):
        taken_inputs(inputs, {"x": array})


def test_whole_numbers_and_truth_values_are_taken_as_such():
    floats = described(lambda x: x.multiArrayType.shape.append(2), x=(2,))
    whole = described(lambda x: x.multiArrayType.shape.append(2), INT32, x=(2,))
    for array in (np.array([True, False]), np.int64([2**31 - 1, -(2**31)]), np.uint8([0, 255])):
        np.testing.assert_array_equal(taken_inputs(whole, {"x": array})["x"], array)
        np.testing.assert_array_equal(taken_inputs(floats, {"x": array})["x"], array)


def test_an_input_with_a_default_may_be_left_out():
    def describe(x, y):
        x.multiArrayType.shape.append(2)
        y.multiArrayType.shape.extend((1, 2))
        y.multiArrayType.floatDefaultValue = 1.5
        y.isOptional = True

    inputs = described(describe, x=(2,), y=(1, 2))
    np.testing.assert_array_equal(taken_inputs(inputs, {"x": np.zeros(2)})["y"], [[1.5, 1.5]])
    with pytest.raises(DkmError, match="inputs are y; the file takes x, y"):
        taken_inputs(inputs, {"y": np.zeros((1, 2))})
    with pytest.raises(DkmError, match="inputs are w, x; the file takes x, y"):
        taken_inputs(inputs, {"x": np.zeros(2), "w": np.zeros(2)})


def test_a_description_that_contradicts_the_program_is_refused():
    with pytest.raises(DkmError, match=r"'x' is \(2, None\) in the program, described as \(2\,\)"):
        described(lambda x: x.multiArrayType.shape.append(2), x=(2, None))
    with pytest.raises(DkmError, match="input 'x' is described as stringType"):
        described(lambda x: x.stringType.SetInParent(), x=(2,))
    model = model_class()()
    function = Function("main", 8, {"x": TensorType(FP32, (2,))}, {}, Block((), (), ()))
    with pytest.raises(DkmError, match="an input 'x', which the description lacks"):
        described_inputs(Package(Path("m"), Path("m"), model), function)


def test_a_default_of_a_converted_package_is_used(tmp_path):
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    given = [
        ct.TensorType("x", (2,), dtype=np.float32),
        ct.TensorType("y", (2,), dtype=np.float32, default_value=np.float32([3, 3])),
    ]
    with quiet():
        program = torch.export.export(Sum(), (torch.ones(2), torch.zeros(2))).run_decompositions({})
        options = {"minimum_deployment_target": ct.target.iOS17, "skip_model_load": True}
        ct.convert(program, inputs=given, outputs=[ct.TensorType("z")], **options).save(
            str(tmp_path / "m.mlpackage")
        )
    session = MLProgramEvaluator(tmp_path / "m.mlpackage")
    np.testing.assert_array_equal(session.run({"x": np.ones(2)})["z"], [4, 4])
    np.testing.assert_array_equal(session.run({"x": np.ones(2), "y": np.ones(2)})["z"], [2, 2])


def test_integers_are_not_cut(tmp_path):
    path = save(tmp_path / "m.mlpackage", lambda x: mb.add(x=x, y=1), (2,), dtype=types.int32)
    with pytest.raises(DkmError, match="input 'x' has the value"):
        MLProgramEvaluator(path).run({"x": np.int64([0, 2**32 + 1])})


@pytest.mark.parametrize(
    ("allowed", "count", "batch"),
    [
        ([(1, 8)], 8, 8),
        ([(1, 8)], 100, 8),  # the last batch has 4
        ([(3, 8)], 9, 6),  # 8 and 7 would leave 1 and 2
        ([(1, 1), (4, 4)], 12, 4),
        ([(1, 1), (4, 4)], 6, 1),
        ([(2, 2)], 3, 3),  # no number will do; the file says so itself
        ([(2, None)], 1, 1),
        ([], 5, 5),
        ([], 300, 100),  # as many as the model is run on
        ([(1, 256)], 250, 100),
        ([(7, None)], 103, 96),  # 97 to 100 would leave fewer than 7
    ],
)
def test_samples_are_cut_into_batches_that_are_allowed(allowed, count, batch):
    assert largest_batch(allowed, count, most=100) == batch


def test_the_smallest_batch():
    assert smallest_batch([(4, 8), (2, 2)]) == 2
    assert smallest_batch([(0, 8)]) == 1
    assert smallest_batch([]) == 1
