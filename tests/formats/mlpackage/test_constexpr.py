"""Constexpr operations as they come out of files, against coremltools' own decoders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.constexpr import DECODERS, Constants
from dkm_deploy.formats.mlpackage.ml_program import Block, Operation, functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import ct, mb, save, types

WIDTHS = [1, 2, 3, 4, 6, 8]
rng = np.random.default_rng(5)


def stored_as(values, name):
    return values.astype(types.nptype_from_builtin(types.string_to_builtin(name)))


def file_of(tmp_path, decoded, target="iOS18"):
    """A program that adds its input to what ``decoded`` builds."""

    def body(x):
        weight = decoded()
        return mb.add(x=mb.cast(x=x, dtype=types.builtin_to_string(weight.dtype)), y=weight)

    return save(tmp_path / "m.mlpackage", body, (1,), target=target)


def value(path):
    """The decoded weight as the evaluator uses it, and as the file gives it."""
    body = functions(open_package(path))["main"].body
    used = runtime.load(path).run({"x": np.zeros(1, np.float32)}).popitem()[1]
    final = next(o for o in reversed(body.operations) if o.type.startswith("constexpr_"))
    given = Constants(body).get(final.output)
    np.testing.assert_array_equal(used, given)
    return given


def random_palette(bits, shape, groups, vector, dtype):
    indices = rng.integers(0, 2**bits, shape).astype(np.uint8)
    return indices, rng.standard_normal((*groups, 2**bits, vector)).astype(dtype)


def luts_file(tmp_path, palettes, axis):
    """A program with one output for each palette, whose bits are its key."""

    def body(x):
        for bits, (indices, lut) in palettes.items():
            given = {"vector_axis": np.int32(axis)} if lut.shape[-1] > 1 else {}
            yield mb.add(
                x=mb.cast(x=x, dtype="fp16" if lut.dtype == np.float16 else "fp32"),
                y=mb.constexpr_lut_to_dense(
                    indices=stored_as(indices, f"uint{bits}"), lut=lut, name=f"w{bits}", **given
                ),
                name=f"y{bits}",
            )

    return save(tmp_path / "m.mlpackage", lambda x: tuple(body(x)), (1,))


def check_luts(path, palettes, axis):
    """What runs, and what is read, is what coremltools decodes."""
    outputs = runtime.load(path).run({"x": np.zeros(1, np.float32)})
    body = functions(open_package(path))["main"].body
    found = {o.output: o for o in body.operations if o.type == "constexpr_lut_to_dense"}
    assert len(found) == len(palettes)
    for bits, (indices, lut) in palettes.items():
        vector_axis = axis if lut.shape[-1] > 1 else None
        expected = ct.optimize._utils.lut_to_dense(indices, lut, vector_axis)
        assert outputs[f"y{bits}"].dtype == lut.dtype
        np.testing.assert_array_equal(outputs[f"y{bits}"], expected)
        assert Constants(body).palette(found[f"w{bits}"]) == Palette(
            indices, lut, axis % indices.ndim
        )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("shape", "groups", "vector", "axis"),
    [
        ((6, 5, 3), (1, 1, 1), 1, 0),
        ((6, 4), (3, 1), 1, 0),
        ((6, 4), (2, 4), 1, 0),
        ((6, 4), (1, 1), 4, 0),
        ((6, 4), (2, 1), 2, 0),
        ((6, 4, 2), (1, 2, 1), 3, 1),
        ((6, 4, 2), (3, 1, 1), 2, -1),
    ],
)
def test_luts_of_every_width_ios18(tmp_path, shape, groups, vector, axis, dtype):
    palettes = {bits: random_palette(bits, shape, groups, vector, dtype) for bits in WIDTHS}
    check_luts(luts_file(tmp_path, palettes, axis), palettes, axis)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_luts_of_any_layout(tmp_path_factory, data):
    rank = data.draw(st.integers(2, 4))
    groups = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    shape = tuple(g * data.draw(st.integers(1, 4)) for g in groups)
    vector, axis = data.draw(st.integers(1, 4)), data.draw(st.integers(0, rank - 1))
    bits = data.draw(st.sampled_from(WIDTHS))
    # Without vectors a file has no axis, and it is read as 0.
    axis = axis if vector > 1 else 0
    palettes = {bits: random_palette(bits, shape, groups, vector, np.float16)}
    check_luts(luts_file(tmp_path_factory.mktemp("any"), palettes, axis), palettes, axis)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_lut_ios16(tmp_path, bits):
    indices = rng.integers(0, 2**bits, (5, 7)).astype(np.uint8)
    lut = rng.standard_normal(2**bits).astype(np.float16)
    shape = np.array(indices.shape, np.uint32)
    path = file_of(
        tmp_path,
        lambda: mb.constexpr_lut_to_dense(indices=pack(indices, bits), lut=lut, shape=shape),
        "iOS16",
    )
    np.testing.assert_array_equal(value(path), lut[indices])


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
def test_blockwise_shift_scale(tmp_path, name, offset):
    low, high = (-8, 8) if name == "int4" else (0, 16)
    data = rng.integers(low, high, (4, 6))
    scale = rng.standard_normal((2, 3)).astype(np.float16)
    zero = rng.integers(low, high, (2, 3)) if offset else None
    given = {} if zero is None else {"offset": stored_as(zero, name)}
    path = file_of(
        tmp_path,
        lambda: mb.constexpr_blockwise_shift_scale(
            data=stored_as(data, name), scale=scale, **given
        ),
    )
    blocks = np.ones((2, 2))
    shifted = data - (0 if zero is None else np.kron(zero, blocks))
    expected = (shifted * np.kron(scale.astype(np.float64), blocks)).astype(np.float16)
    np.testing.assert_array_equal(value(path), expected)


def test_int8_lut(tmp_path):
    indices = rng.integers(0, 16, (6, 4)).astype(np.uint8)
    codes = rng.integers(-128, 128, (1, 1, 16, 1)).astype(np.int8)
    scale = np.array([0.05], np.float16).reshape(1, 1, 1, 1)

    def decoded():
        lut = mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)
        return mb.constexpr_lut_to_dense(indices=stored_as(indices, "uint4"), lut=lut)

    expected = (codes.astype(np.float32) * scale.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(value(file_of(tmp_path, decoded)), expected.reshape(-1)[indices])


@pytest.mark.parametrize("axis", [0, 1])
def test_affine_dequantize(tmp_path, axis):
    data = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    scale = rng.standard_normal(data.shape[axis]).astype(np.float32)
    zero = rng.integers(0, 256, data.shape[axis]).astype(np.uint8)
    path = file_of(
        tmp_path,
        lambda: mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=zero, scale=scale, axis=axis
        ),
        "iOS16",
    )
    expected = ct.optimize._utils.dequantize_by_scale_and_zp(data, scale, zero, axis)
    np.testing.assert_array_equal(value(path), expected)


def test_cast(tmp_path):
    source = rng.standard_normal(12).astype(np.float16)
    path = file_of(
        tmp_path, lambda: mb.constexpr_cast(source_val=source, output_dtype="fp32"), "iOS16"
    )
    assert value(path).dtype == np.float32
    np.testing.assert_array_equal(value(path), source)


MASK = rng.integers(0, 2, (4, 6)).astype(np.uint8)
NONZERO = rng.standard_normal(int(MASK.sum())).astype(np.float16)
DENSE = np.zeros(MASK.shape, np.float16)
DENSE[MASK != 0] = NONZERO


def test_sparse_ios16(tmp_path):
    path = file_of(
        tmp_path,
        lambda: mb.constexpr_sparse_to_dense(
            nonzero_data=NONZERO, mask=pack(MASK, 1), shape=np.array(MASK.shape, np.uint32)
        ),
        "iOS16",
    )
    np.testing.assert_array_equal(value(path), DENSE)


def test_sparse_ios18(tmp_path):
    path = file_of(
        tmp_path,
        lambda: mb.constexpr_sparse_to_dense(nonzero_data=NONZERO, mask=stored_as(MASK, "uint1")),
    )
    np.testing.assert_array_equal(value(path), DENSE)


def test_sparse_palette(tmp_path):
    lut = rng.standard_normal((1, 1, 4, 2)).astype(np.float16)
    indices = rng.integers(0, 4, NONZERO.size).astype(np.uint8)

    def decoded():
        mask, data = mb.constexpr_lut_to_sparse(
            indices_mask=stored_as(MASK, "uint1"),
            indices_nonzero_data=stored_as(indices, "uint2"),
            lut=lut,
            vector_axis=np.int32(0),
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=data, mask=mask)

    places = np.zeros(MASK.shape, np.uint8)
    places[MASK != 0] = indices
    dense = ct.optimize._utils.lut_to_dense(places, lut, 0)
    expected = np.where(np.repeat(MASK, 2, 0), dense, 0)
    np.testing.assert_array_equal(value(file_of(tmp_path, decoded)), expected)


def test_sparse_quantized(tmp_path):
    data = rng.integers(-128, 128, NONZERO.size).astype(np.int8)
    scale = rng.standard_normal((4, 1)).astype(np.float16)

    def decoded():
        mask, dense = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=stored_as(MASK, "uint1"), nonzero_data=data, scale=scale
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=dense, mask=mask)

    expected = np.zeros(MASK.shape, np.float32)
    expected[MASK != 0] = data
    expected = (expected * scale.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(value(file_of(tmp_path, decoded)), expected)


def test_keep_gives_decoded_weights_but_not_what_they_are_made_from(tmp_path):
    indices = stored_as(rng.integers(0, 4, (6, 4)), "uint2")
    lut = rng.standard_normal(4).astype(np.float32)

    def decoded():
        scaled = mb.constexpr_blockwise_shift_scale(
            data=lut.reshape(1, 1, 4, 1), scale=np.ones((1, 1, 1, 1), np.float32), name="scaled"
        )
        return mb.constexpr_lut_to_dense(indices=indices, lut=scaled, name="w")

    session = runtime.load(file_of(tmp_path, decoded))
    x = {"x": np.zeros(1, np.float32)}
    np.testing.assert_array_equal(session.run(x, keep=["w"])["w"], lut[indices.astype(int)])
    with pytest.raises(DkmError, match="the program has no value 'scaled'"):
        session.run(x, keep=["scaled"])


def test_a_lut_with_infinity_is_refused_by_name(tmp_path):
    lut = np.array([1, np.inf], np.float16).reshape(1, 2, 1)
    indices = stored_as(np.zeros(16, np.uint8), "uint1")
    path = file_of(tmp_path, lambda: mb.constexpr_lut_to_dense(indices=indices, lut=lut, name="w"))
    with pytest.raises(DkmError, match=r"m\.mlpackage: 'w': .* the LUT holds NaN or infinity"):
        runtime.load(path)


def test_constants_that_double_at_every_level_end():
    """Each reads the one before it twice: a thousand lines that would stand for 2**1000 reads."""
    made = [
        Operation(
            "constexpr_cast",
            f"c{i}",
            {"a": (f"c{i - 1}",), "b": (f"c{i - 1}",)},
            ((f"c{i}", None),),
            (),
        )
        for i in range(1, 1000)
    ]
    first = Operation("const", "c0", {}, (("c0", None),), ())
    constants = Constants(Block((), (first, *made), ()))
    assert constants.leaves("c999") == []
    with pytest.raises(DkmError, match="'c999' should be a constant"):
        constants.get("c999")


def test_a_lut_of_long_vectors_does_not_fill_the_memory():
    indices, lut = np.zeros((2**16, 1), np.uint8), np.zeros((1, 1, 2, 2**15), np.float16)
    with pytest.raises(DkmError, match="has more than"):
        DECODERS["constexpr_lut_to_dense"]({"indices": indices, "lut": lut})
