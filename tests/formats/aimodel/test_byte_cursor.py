"""MLIR bytecode, byte by byte: what each encoding says, and what is said where it cannot be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkm_deploy.formats.aimodel.byte_cursor import Cursor, DamagedError
from tests.formats.aimodel.mlir_bytecode import listed, number


def cursor(data, place=0):
    return Cursor(memoryview(data), place, len(data))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_a_number_of_any_size(value):
    data = number(value)
    found = cursor(data)
    assert found.number() == value
    assert found.remaining == 0


@pytest.mark.parametrize("more", range(8))
def test_numbers_at_the_ends_of_every_length(more):
    smallest, largest = 1 << 7 * more, (1 << 7 * (more + 1)) - 1
    for value in (smallest, largest):
        data = number(value)
        assert len(data) == more + 1
        assert cursor(data).number() == value


def test_a_number_of_nine_bytes_starts_with_a_zero():
    assert cursor(b"\0\1\2\0\0\0\0\0\x80").number() == 0x8000000000000201


def test_a_flag_is_the_lowest_bit():
    found = cursor(number(6) + number(7))
    assert [found.flagged_number(), found.flagged_number()] == [(3, False), (3, True)]


def test_a_count_and_its_numbers():
    found = cursor(listed(5, 300) + number(9))
    assert found.numbers() == [5, 300]
    assert found.number() == 9


def test_a_count_that_the_bytes_can_just_hold():
    assert cursor(listed(1, 2, 3)).numbers() == [1, 2, 3]


def test_a_text_ends_at_the_first_zero():
    found = cursor("xé\0b\0".encode(), 1)
    assert (found.text(), found.place, found.text()) == ("é", 4, "b")


def test_an_empty_text():
    found = cursor(b"\0\1")
    assert (found.text(), found.remaining) == ("", 1)


@pytest.mark.parametrize(("place", "to", "skipped"), [(3, 8, 5), (8, 8, 0), (9, 4, 3), (5, 1, 0)])
def test_alignment_counts_from_the_start_of_the_file(place, to, skipped):
    found = cursor(bytes(16), place)
    assert (found.align(to), found.place) == (skipped, place + skipped)


def test_a_part_ends_where_it_is_told_to():
    found = cursor(b"abcdef", 1)
    part = found.part(3)
    assert (bytes(part.take(3)), part.remaining, found.place) == (b"bcd", 0, 4)
    assert bytes(found.take(2)) == b"ef"


def test_reading_again_leaves_the_first_cursor_where_it_is():
    found = cursor(b"ab", 1)
    again = found.again()
    assert (again.byte(), again.remaining, found.remaining) == (ord("b"), 0, 1)


@pytest.mark.parametrize(
    ("data", "read", "message"),
    [
        (b"ab", lambda c: c.take(3), "byte 0: 3 bytes are needed, 2 left"),
        (b"ab", lambda c: c.take(-1), "byte 0: -1 bytes are needed, 2 left"),
        (b"", Cursor.byte, "byte 0: 1 bytes are needed, 0 left"),
        (b"\0abcdefg", Cursor.number, "byte 1: 8 bytes are needed, 7 left"),
        (b"\4a", Cursor.number, "byte 1: 2 bytes are needed, 1 left"),
        (number(3) + b"\1\1", Cursor.numbers, "byte 1: 3 numbers in 2 bytes"),
        (b"abc", Cursor.text, "byte 0: a name is cut short"),
        (b"abc", lambda c: c.align(0), "byte 0: alignment 0 is not a power of two"),
        (b"abc", lambda c: c.align(6), "byte 0: alignment 6 is not a power of two"),
        (b"abc", lambda c: (c.byte(), c.align(4)), "byte 1: 3 bytes are needed, 2 left"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(data, read, message):
    with pytest.raises(DamagedError) as caught:
        read(cursor(data))
    assert str(caught.value) == message


def test_a_name_that_is_no_text():
    with pytest.raises(DamagedError) as caught:
        cursor(b"\xff\0").text()
    what = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    assert str(caught.value) == f"a name is not UTF-8: {what}"


def test_a_name_ends_within_its_part():
    found = Cursor(memoryview(b"abc\0"), 0, 3)
    with pytest.raises(DamagedError, match="^byte 0: a name is cut short$"):
        found.text()
