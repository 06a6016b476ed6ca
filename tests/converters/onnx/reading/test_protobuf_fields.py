"""The wire format: every field with its place, and bytes that are no message."""

import pytest

from converters.onnx.reading.protobuf_fields import Field, fields


def read(data: bytes, start: int = 0, end: int | None = None) -> list[Field]:
    return list(fields(memoryview(data), start, len(data) if end is None else end))


FIELDS = {
    "a number": (b"\x08\x05", Field(1, False, 0, 1, 2)),
    "a number of two bytes": (b"\x08\x80\x01", Field(1, False, 0, 1, 3)),
    "a number of ten bytes": (b"\x08" + b"\xff" * 9 + b"\x01", Field(1, False, 0, 1, 11)),
    "eight bytes": (b"\x11" + bytes(8), Field(2, False, 0, 1, 9)),
    "four bytes": (b"\x1d" + bytes(4), Field(3, False, 0, 1, 5)),
    "a text": (b"\x22\x03abc", Field(4, True, 0, 2, 5)),
    "an empty text": (b"\x22\x00", Field(4, True, 0, 2, 2)),
    "a text of 300 bytes": (b"\x22\xac\x02" + bytes(300), Field(4, True, 0, 3, 303)),
    "a text of 20000 bytes": (
        b"\x22\xa0\x9c\x01" + bytes(20000),
        Field(4, True, 0, 4, 20004),
    ),
    "field 16": (b"\x80\x01\x05", Field(16, False, 0, 2, 3)),
    "field 1023": (b"\xfa\x3f\x01a", Field(1023, True, 0, 3, 4)),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_has_a_tag_and_an_end(case):
    data, field = FIELDS[case]
    assert read(data) == [field]


def test_fields_follow_each_other():
    assert read(b"\x22\x01a\x08\x05") == [Field(4, True, 0, 2, 3), Field(1, False, 3, 4, 5)]


def test_a_message_inside_another_is_read_where_it_lies():
    data = b"\x22\x02\x08\x05\x10\x01"
    assert read(data, 2, 4) == [Field(1, False, 2, 3, 4)]


def test_no_bytes_are_a_message_without_fields():
    assert read(b"") == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\x05\x22\x05ab", "byte 2: a field is longer than the message around it"),
        (b"\x1d\x00\x00\x00", "byte 0: a field is longer than the message around it"),
        (b"\x11" + bytes(7), "byte 0: a field is longer than the message around it"),
        (b"\x08\xff", "byte 1: an integer is cut short"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "byte 1: an integer is cut short"),
        (b"\x80", "byte 0: an integer is cut short"),
        *(
            (bytes([8 | kind]), "byte 0: no field of a protobuf message starts here")
            for kind in (3, 4, 6, 7)
        ),
    ],
)
def test_bytes_that_are_no_message_are_refused(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read(data)


def test_a_field_may_not_leave_the_message_it_lies_in():
    data = b"\x22\x02abc"
    with pytest.raises(ValueError, match="^byte 0: a field is longer than the message around it$"):
        read(data, 0, 3)
