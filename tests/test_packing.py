from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkm_deploy import DkmError
from dkm_deploy.packing import pack, packed_size, unpack


@pytest.mark.parametrize(
    ("bits", "indices", "expected"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], "8d01"),
        (2, [0, 1, 2, 3, 1], "e401"),
        (3, [1, 2, 3, 4, 5], "d158"),
        (4, [1, 2, 3, 4, 5], "214305"),
        (5, [31, 0, 17], "1f44"),
        (6, [1, 2, 3, 4], "813010"),
        (7, [127, 1, 64], "ff0010"),
        (8, [0, 255, 7], "00ff07"),
    ],
)
def test_the_stream_is_lsb_first_and_elements_straddle_bytes(bits, indices, expected):
    packed = pack(np.array(indices, np.uint8), bits)
    assert packed.dtype == np.uint8
    assert packed.tobytes().hex() == expected
    assert unpack(packed, bits, len(indices)).dtype == np.uint8


@st.composite
def _bits_and_indices(draw):
    bits = draw(st.integers(1, 8))
    values = st.integers(0, (1 << bits) - 1)
    return bits, np.array(draw(st.lists(values, max_size=200)), np.uint8)


@given(_bits_and_indices())
def test_unpack_undoes_pack(case):
    bits, indices = case
    packed = pack(indices, bits)
    assert packed.size == packed_size(indices.size, bits)
    assert np.array_equal(unpack(packed, bits, indices.size), indices)


@given(_bits_and_indices())
def test_the_stream_is_what_unpackbits_reads(case):
    bits, indices = case
    stream = np.unpackbits(pack(indices, bits), bitorder="little")[: indices.size * bits]
    weights = 1 << np.arange(bits)
    assert np.array_equal(stream.reshape(-1, bits) @ weights, indices)


def test_an_index_that_needs_more_bits_is_refused():
    with pytest.raises(DkmError, match="index 4 does not fit in 2 bits"):
        pack(np.array([4], np.uint8), 2)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(DkmError, match=f"bits is {bits}"):
        pack(np.zeros(1, np.uint8), bits)


def test_a_stream_of_another_length_is_refused():
    with pytest.raises(DkmError, match="5 indices of 3 bits fill 2 bytes, but 3 bytes"):
        unpack(b"abc", 3, 5)


def test_indices_of_another_type_are_taken_as_bytes():
    assert pack(np.array([[1, 0], [1, 1]], np.int64), 1).tobytes().hex() == "0d"
    assert pack(np.array([3, 255], np.int64), 8).dtype == np.uint8


@pytest.mark.parametrize("bits", [3, 8])
def test_what_comes_out_can_be_written_and_is_no_view(bits):
    data = np.arange(6, dtype=np.uint8)
    packed = pack(data, bits)
    unpack(packed, bits, 6)[:] = 1
    packed[:] = 0
    assert np.array_equal(data, np.arange(6))
