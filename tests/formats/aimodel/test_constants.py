"""Constants of Core AI programs: where their bytes are, and what these stand for."""

import numpy as np
import pytest

from dkm_deploy.formats.aimodel.byte_cursor import DamagedError
from dkm_deploy.formats.aimodel.constants import Constant, Element, constant
from dkm_deploy.formats.aimodel.mlir_sections import sections, tables
from dkm_deploy.packing import pack
from tests.formats.aimodel import mlir_bytecode as ml
from tests.formats.aimodel.mlir_bytecode import Tensor, flagged, listed, number, numbers, strings


def made(kind, bits, shape, data, blob=None):
    return Constant(shape, Element(kind, bits), memoryview(data), 0, blob)


def message(read):
    with pytest.raises(DamagedError) as caught:
        read()
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_floats(dtype):
    values = np.array([[1.5, -2, 3], [0.25, 5, -6]], dtype)
    tensor = made("float", 8 * values.itemsize, (2, 3), values.tobytes())
    found = tensor.floats()
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)
    assert found.flags.writeable
    assert (tensor.size, tensor.is_whole) == (6, True)


def test_one_float_that_stands_for_all():
    tensor = made("float", 16, (2, 3), np.float16(1.5).tobytes())
    assert not tensor.is_whole
    np.testing.assert_array_equal(tensor.floats(), np.full((2, 3), 1.5, np.float16))


def test_one_float_stands_for_16_million_at_most():
    data, most = np.float16(2).tobytes(), 1 << 24
    assert made("float", 16, (most,), data).floats().size == most
    tensor = made("float", 16, (most + 1,), data)
    assert message(tensor.floats) == "2 bytes for a tensor of shape (16777217,)"


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
def test_indices(bits):
    values = (np.arange(15) * 17 % (1 << bits)).reshape(3, 5).astype(np.uint8)
    tensor = made("unsigned", bits, (3, 5), pack(values, bits).tobytes())
    assert tensor.indices().dtype == np.uint8
    np.testing.assert_array_equal(tensor.indices(), values)
    assert tensor.is_whole


@pytest.mark.parametrize("value", [-1, 0, 300])
def test_an_integer(value):
    data = value.to_bytes(4, "little", signed=True)
    assert made("signed", 32, (), data).integer() == value
    assert made("signed", 32, (1,), data).integer() == value


@pytest.mark.parametrize(
    ("tensor", "read", "expected"),
    [
        (made("signed", 32, (1,), bytes(4)), "floats", "signed integers in place of floats"),
        (made("float", 32, (3,), bytes(8)), "floats", "8 bytes for a tensor of shape (3,)"),
        (made("float", 32, (3,), bytes(8)), "indices", "indices are float of 32 bits"),
        (made("float", 8, (8,), bytes(8)), "indices", "indices are float of 8 bits"),
        (made("unsigned", 9, (8,), bytes(9)), "indices", "indices are unsigned of 9 bits"),
        (made("unsigned", 4, (9,), bytes(4)), "indices", "4 bytes for a tensor of shape (9,)"),
        (
            *(made("signed", 32, (2,), bytes(8)), "integer"),
            "a tensor of shape (2,) in place of one integer",
        ),
        (
            *(made("unsigned", 32, (1,), bytes(4)), "integer"),
            "a tensor of shape (1,) in place of one integer",
        ),
        (
            *(made("signed", 32, (1,), bytes(3)), "integer"),
            "a tensor of shape (1,) in place of one integer",
        ),
    ],
)
def test_what_a_tensor_is_not(tensor, read, expected):
    assert message(getattr(tensor, read)) == expected


def test_in_a_resource_and_in_the_program():
    floats = np.array([[1, 2]], "<f4").tobytes()
    data = ml.program([Tensor((1, 2), ml.F32, floats, "key"), Tensor((0, 3), ml.U8, b"xyz")])
    known = tables(sections(memoryview(data)))
    first, second = constant(known, 0, 2), constant(known, 1, 3)
    (blob,) = known.blobs
    assert first == Constant((1, 2), Element("float", 32), blob.data, blob.start, blob)
    assert second.shape == (0, 3)
    assert (second.element, second.blob) == (Element("unsigned", 8), None)
    assert (bytes(second.data), second.start) == (b"xyz", data.index(b"xyz"))
    assert constant(known, 0, 2) == first  # reading leaves the tables as they are


def zigzag(n):
    return n << 1 if n >= 0 else (-n << 1) - 1


def tensor_type(*shape, element=0):
    return number(2) + listed(*(zigzag(n) for n in shape)) + number(element)


def found(attribute, kind=None, *, dialects=(0, 0, 0), custom=(True, True, True)):
    """The constant of an attribute and a type, behind the type of a float; each of a dialect."""
    kind = tensor_type(2) if kind is None else kind
    content = (attribute, number(ml.F32), kind)
    entries = [
        numbers(dialect, 1) + flagged(len(part), flag)
        for dialect, part, flag in zip(dialects, content, custom, strict=True)
    ]
    data = ml.bytecode(
        strings("aicode", "other"),
        ml.section(ml.DIALECTS, number(2), flagged(0), flagged(1), number(0)),
        ml.section(ml.ATTRIBUTES, *content),
        ml.section(ml.ATTRIBUTE_OFFSETS, numbers(1, 2), *entries),
        ml.section(ml.RESOURCES, b"text"),
        ml.section(ml.RESOURCE_OFFSETS, number(0), numbers(0, 1), numbers(1, 4) + b"\1"),
    )
    return constant(tables(sections(memoryview(data))), 0, 1)


INLINE = number(6) + b"\0" + number(8) + bytes(8)


def test_a_tensor_of_the_dialect():
    tensor = found(INLINE)
    assert (tensor.shape, tensor.element, len(tensor.data)) == ((2,), Element("float", 32), 8)
    assert found(INLINE, tensor_type()).shape == ()
    assert found(INLINE, tensor_type(0, 5)).shape == (0, 5)


@pytest.mark.parametrize(
    "other",
    [
        lambda: found(number(5) + b"\0" + number(8) + bytes(8)),  # another attribute
        lambda: found(number(8) + b"\0" + number(8) + bytes(8)),
        lambda: found(numbers(7, 0)),  # a resource that is no blob
        lambda: found(INLINE, number(3) + listed(4) + number(0)),  # another type
        lambda: found(INLINE, tensor_type(-1)),  # of a length not known beforehand
        lambda: found(INLINE, tensor_type(2, element=1)),  # of tensors
        *(lambda d=d: found(INLINE, dialects=d) for d in ((1, 0, 0), (0, 1, 0), (0, 0, 1))),
        lambda: found(INLINE, custom=(False, True, True)),
        lambda: found(INLINE, custom=(True, False, True)),
        lambda: found(INLINE, custom=(True, True, False)),
    ],
)
def test_anything_else_is_no_constant(other):
    assert other() is None


def test_numbers_that_are_in_no_table():
    assert message(lambda: found(numbers(7, 1))) == "index 1 in a table of 1"
    assert message(lambda: found(INLINE, tensor_type(2, element=2))) == "index 2 in a table of 2"
