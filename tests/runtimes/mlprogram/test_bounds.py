"""What Core ML refuses or leaves undefined is refused: indices, axes, shapes, modes."""

import inspect

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from tests.formats.mlpackage.packages import ct, mb, n, rand, save, types

X = np.arange(6, dtype=np.float32).reshape(2, 3)
INT = np.int32


@pytest.fixture(autouse=True)
def folder(tmp_path):
    made.path = tmp_path / "m.mlpackage"


def made(body, *arrays, target="iOS18"):
    """The first output of a program on these inputs, whose names are those of the body."""
    names = tuple(inspect.signature(body).parameters)
    specs = [mb.TensorSpec(a.shape, types.numpy_type_to_builtin_type(a.dtype)) for a in arrays]
    save(made.path, body, *specs, target=target)
    (first, *_) = MLProgramEvaluator(made.path).run(dict(zip(names, arrays, strict=True))).values()
    return first


def at(index, target="iOS18", **options):
    return made(
        lambda x, y: mb.gather(x=x, indices=y, axis=1, **options), X, INT([index]), target=target
    ).tolist()


def test_a_negative_index_counts_from_the_end_before_ios_17():
    assert at(-1, "iOS16") == [[2], [5]]
    assert at(-3, "iOS16") == [[0], [3]]
    assert at(2) == [[2], [5]]


@pytest.mark.parametrize(
    ("index", "target", "options", "message"),
    [
        (3, "iOS16", {}, "index 3 lies outside -3 to 2: Core ML does not define what it reads"),
        (-4, "iOS16", {}, "index -4 lies outside -3 to 2"),
        (-1, "iOS17", {}, "index -1 lies outside 0 to 2: Core ML does not define what it reads"),
        (3, "iOS18", {"validate_indices": True}, "index 3 .* 0 to 2: validate_indices refuses it"),
        (-1, "iOS18", {"validate_indices": True}, "index -1 .*: validate_indices refuses it"),
    ],
)
def test_an_index_outside_is_refused(index, target, options, message):
    with pytest.raises(DkmError, match=rf"operation gather \('gather_0'\) failed: {message}"):
        at(index, target, **options)


INDEXED = {  # by operation: what builds it of x, indices y and updates z; right indices; result
    "gather_along_axis": (
        lambda x, y, z: mb.gather_along_axis(x=x, indices=y, axis=1),
        INT([[2, 0, 1], [1, 1, 0]]),
        [[2, 0, 1], [4, 4, 3]],
    ),
    "gather_nd": (lambda x, y, z: mb.gather_nd(x=x, indices=y), INT([[1, 2], [0, 1]]), [5, 1]),
    "scatter": (
        lambda x, y, z: mb.scatter(data=x, indices=y, updates=z, axis=1, mode="update"),
        INT([2, 0, 1]),
        [[7, 8, 6], [10, 11, 9]],
    ),
    "scatter_along_axis": (
        lambda x, y, z: mb.scatter_along_axis(data=x, indices=y, updates=z, axis=1, mode="add"),
        INT([[2, 0, 1], [1, 1, 0]]),
        [[7, 9, 8], [14, 23, 5]],
    ),
    "scatter_nd": (
        lambda x, y, z: mb.scatter_nd(data=x, indices=y, updates=z, mode="update"),
        INT([[1], [0]]),
        [[9, 10, 11], [6, 7, 8]],
    ),
}
UPDATES = np.arange(6, 12, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("name", INDEXED)
def test_every_operation_with_indices_checks_them(name):
    build, right, expected = INDEXED[name]
    assert made(build, X, right, UPDATES).tolist() == expected
    session = MLProgramEvaluator(made.path)
    for wrong in (3, -1):
        indices = right.copy()
        indices.flat[-1] = wrong
        with pytest.raises(DkmError, match=rf"operation {name} .* index {wrong} lies outside 0 to"):
            session.run({"x": X, "y": indices, "z": UPDATES})


def test_one_hot_of_a_class_that_there_is_not():
    def body(x):
        return mb.one_hot(indices=x, one_hot_vector_size=3, on_value=2.0, off_value=-1.0)

    assert made(body, INT([2, 0])).tolist() == [[-1, -1, 2], [2, -1, -1]]
    for wrong in (3, -1):
        with pytest.raises(DkmError, match=f"index {wrong} lies outside 0 to 2"):
            MLProgramEvaluator(made.path).run({"x": INT([0, wrong])})


@pytest.mark.parametrize(
    ("old", "new", "mode", "places"),
    [
        (2, 3, "DEFAULT", [0, 1, 1]),  # coremltools' own test: 0, 2/3 and 4/3
        (4, 3, "DEFAULT", [0, 1, 3]),  # 0, 4/3, 8/3
        (2, 4, "UNALIGN_CORNERS", [0, 0, 1, 1]),  # -1/4, 1/4, 3/4, 5/4
        (3, 2, "UNALIGN_CORNERS", [0, 2]),  # 1/4, 7/4
        (4, 2, "ALIGN_CORNERS", [0, 3]),
        (3, 1, "ALIGN_CORNERS", [1]),
        (3, 1, "STRICT_ALIGN_CORNERS", [0]),
        (4, 3, "STRICT_ALIGN_CORNERS", None),  # 0, 3/2, 3
        (4, 2, "OFFSET_CORNERS", [1, 2]),  # 3/4, 9/4
        (2, 3, "ALIGN_CORNERS", None),  # 0, 1/2, 1
        (2, 4, "DEFAULT", None),  # 0, 1/2, 1, 3/2
    ],
)
def test_resize_takes_the_nearest_sample_of_each_mode(old, new, mode, places):
    x = np.arange(old, dtype=np.float32).reshape(1, 1, old, 1)

    def body(x):
        how = {"interpolation_mode": "NEAREST_NEIGHBOR", "sampling_mode": mode}
        return mb.resize(x=x, shape=[new, 1], resized_dims=np.uint32(2), **how)

    if places is not None:
        assert made(body, x).ravel().tolist() == places
        return
    with pytest.raises(DkmError, match=f"resize .* sampling_mode '{mode}' .* midway between two"):
        made(body, x)


@pytest.mark.parametrize(
    ("old", "factor", "places"),
    [
        (3, 1.12, [0, 1, 2]),  # this one and the next are coremltools' own test
        (3, 0.67, [0, 1]),
        (4, 1.6, [0, 0, 1, 2, 2, 3]),
        (3, (5 + 1e-4) / 3, [0, 0, 1, 1, 2]),  # as coremltools writes the size 5
        (10, 2.3, [n * 10 // 23 for n in range(23)]),  # 22.9999995 but for float32
    ],
)
def test_upsampling_by_a_factor_that_is_not_whole(old, factor, places):
    x = np.arange(old, dtype=np.float32).reshape(1, 1, old)

    def body(x):
        return mb.upsample_nearest_neighbor(x=x, scale_factor_height=1.0, scale_factor_width=factor)

    assert made(body, x).ravel().tolist() == places


@pytest.mark.parametrize("shape", [(2, 7, 3, 4), (7, 3, 4), (2, 2, 7, 3, 4)])
@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_local_response_norm_is_pytorchs_over_dimension_minus_3(shape, size):
    x = 20 * rand(*shape)
    found = made(lambda x: mb.local_response_norm(x=x, size=size), n(x))
    expected = f.local_response_norm(x.reshape(-1, 7, 3, 4), size).reshape(shape)
    torch.testing.assert_close(torch.from_numpy(found), expected)


@pytest.mark.parametrize(
    ("size", "expected"),  # of coremltools' own test, for what Core ML made of it
    [
        (2, [[0.99996257, -6.98716545], [4.99531746, -5.99191284], [-2.99898791, -4.99531746]]),
        (3, [[0.99997497, -6.99143696], [4.99687672, -5.99460602], [-2.99932504, -4.99687672]]),
    ],
)
def test_local_response_norm_of_three_dimensions(size, expected):
    x = np.float32([[[1, -7], [5, -6], [-3, -5]]])
    found = made(lambda x: mb.local_response_norm(x=x, size=size), x)
    np.testing.assert_allclose(found, [expected], rtol=1e-7)


def test_a_crop_for_an_image_that_there_is_not():
    def body(x, y):
        return mb.crop_resize(x=x, boxes=np.zeros((2, 4), np.float32), box_indices=y)

    x = n(rand(2, 1, 3, 3))
    found = made(body, x, INT([1, 0])).ravel()
    np.testing.assert_allclose(found, x[::-1, 0, 0, 0], rtol=1e-5, atol=1e-6)
    for wrong in (2, -1):
        with pytest.raises(DkmError, match=f"a box is for image {wrong}; there are 2"):
            MLProgramEvaluator(made.path).run({"x": x, "y": INT([0, wrong])})


def test_a_crop_is_scaled_whatever_its_coordinates():
    def body(x):
        size = {"target_height": 2, "target_width": 3, "sampling_mode": "ALIGN_CORNERS"}
        boxes = np.float32([[0, 0, 1, 1]])
        return mb.crop_resize(
            x=x, boxes=boxes, normalized_coordinates=True, spatial_scale=0.5, **size
        )

    x = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    np.testing.assert_array_equal(made(body, x)[0, 0], x[0, 0, :3:2, :3])


REFUSED = {
    "squeeze outside": (
        lambda x: mb.slice_by_index(
            x=x, begin=mb.shape(x=x), end=[0, 0], squeeze_mask=[True, False], end_mask=[False, True]
        ),
        "axis 2 lies outside 2 dimensions|2 lies outside",
    ),
    "a division by zero": (
        lambda x: mb.real_div(x=mb.shape(x=x), y=mb.sub(x=mb.shape(x=x), y=[2, 0])),
        "an integer is divided by 0",
    ),
    "a place outside a list": (
        lambda x: mb.list_read(
            ls=mb.make_list(init_length=2, elem_shape=(2,), dynamic_length=False), index=-1
        ),
        "place -1 lies outside a list of 2 elements",
    ),
    "a list that may not grow": (
        lambda x: mb.list_length(
            ls=mb.list_write(
                ls=mb.make_list(init_length=2, elem_shape=(2,), dynamic_length=False),
                index=2,
                value=mb.reduce_sum(x=x, axes=[1]),
            )
        ),
        "place 2 lies outside a list of 2 elements",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_defined_is_refused(case):
    body, message = REFUSED[case]
    with pytest.raises(DkmError, match=message):
        made(body, X)


@pytest.mark.parametrize(
    ("body", "numbers", "message"),
    [
        (lambda x, y: mb.tile(x=x, reps=y), [1, 0], r"reps are \(1, 0\)"),
        (lambda x, y: mb.pad(x=x, pad=y), [0, -1, 0, 0], r"pad is \(0, -1, 0, 0\)"),
        (
            lambda x, y: mb.pad(x=x, pad=y, mode="reflect"),
            [0, 2, 0, 0],
            "more than mode 'reflect' has values for, 1",
        ),
        (
            lambda x, y: mb.pad(x=x, pad=y, mode="replicate"),
            [0, 0, 4, 0],
            "more than mode 'replicate' has values for, 3",
        ),
        (lambda x, y: mb.slice_by_size(x=x, begin=y, size=[1, 1]), [-3, 0], "-3 lies outside 2"),
    ],
)
def test_numbers_that_a_run_computes_are_checked(body, numbers, message):
    with pytest.raises(DkmError, match=message):
        made(body, X, INT(numbers))


def test_an_update_of_another_shape_is_refused():
    def body(x, y):
        update = mb.reshape(x=x, shape=y)  # its shape is not known before
        return mb.slice_update(x=x, update=update, begin=[0, 0], end=[2, 3])

    assert made(body, X, INT([2, 3])).tolist() == X.tolist()
    with pytest.raises(DkmError, match=r"update has shape \(3, 2\); the slice \(2, 3\)"):
        MLProgramEvaluator(made.path).run({"x": X, "y": INT([3, 2])})


@pytest.mark.parametrize("shape", [[2], [1, 2]])
def test_a_shape_of_any_rank(shape):
    """How many numbers a shape has may be known in the run only."""
    symbol = ct.converters.mil.mil.get_new_symbol()
    spec = mb.TensorSpec((symbol,), types.int32)
    save(made.path, lambda x: (mb.fill(shape=x, value=2.5), mb.shape(x=x)), spec)
    first, _ = MLProgramEvaluator(made.path).run({"x": INT(shape)}).values()
    np.testing.assert_array_equal(first, np.full(shape, 2.5))


def test_a_linear_layer_of_whole_numbers():
    weight = INT([[1, -2, 3], [4, 5, -6]])
    x = INT([[1, 2, 3], [2**24, 1, 0]])
    body = {"weight": weight, "bias": INT([10, 20])}
    assert made(lambda x: mb.linear(x=x, **body), x).tolist() == [
        [16, 16],
        [2**24 + 8, 2**26 + 25],
    ]


def test_a_product_of_integers_and_floats_has_the_type_of_what_is_no_constant():
    whole, half = INT([[0, 1, 2], [3, 4, 5]]), np.full((3, 2), 0.5, np.float32)
    assert made(lambda x: mb.matmul(x=x, y=4 * half), whole).tolist() == [[6, 6], [24, 24]]
    assert made(lambda x: mb.matmul(x=whole, y=x), half).tolist() == [[1.5, 1.5], [6.0, 6.0]]
    with pytest.raises(DkmError, match="has fractions; how they become integers"):
        made(lambda x: mb.matmul(x=x, y=half), whole)
