"""The FlatBuffer reader, byte by byte: where parts lie, and what each damage is told."""

import struct

import pytest

from converters.ort.flatbuffer_reader import Span, Table, read
from dkm_deploy.errors import DkmError


def table(slots: list[int], inline: bytes, *, length: int = 0, size: int = 0) -> bytes:
    """A vtable and, right behind it, its table."""
    length, size = length or 4 + 2 * len(slots), size or 4 + len(inline)
    vtable = struct.pack(f"<{2 + len(slots)}H", length, size, *slots)
    return vtable + struct.pack("<i", len(vtable)) + inline


def file(root: bytes, slots: int = 1) -> bytes:
    """A file whose vtable starts at byte 8."""
    return struct.pack("<I", 8 + 4 + 2 * slots) + b"ORTM" + root


def offset(distance: int) -> bytes:
    return struct.pack("<I", distance)


def text(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content + b"\0"


# vtable 8 to 14, table 14 to 22, text 22 to 30
WITH_VERSION = file(table([4], offset(4)) + text(b"1.2"))


def refused(data: bytes, reason: str) -> None:
    with pytest.raises(DkmError, match=f"^{reason}$"):
        read(memoryview(data))


def test_every_part_of_a_file_has_its_place():
    document = read(memoryview(WITH_VERSION))
    assert (document.root.kind, document.root.values) == (
        "InferenceSession",
        {"ort_version": b"1.2"},
    )
    assert document.tables == {14: document.root}
    assert document.spans == (
        Span(0, 8, "table", 0),
        Span(8, 14, "vtable", 14),
        Span(14, 22, "table", 14),
        Span(22, 30, "ort_version", 14),
    )


def test_a_file_of_an_empty_table():
    document = read(memoryview(file(table([], b""), 0)))
    assert document.root.values == {}
    assert document.spans[-1] == Span(12, 16, "table", 12)


def test_fields_that_are_not_stored_have_their_defaults():
    tensor, attribute = Table("Tensor", {"name": b"w"}), Table("Attribute", {})
    assert tensor["name"] == b"w"
    assert tensor["doc_string"] == b""
    assert (tensor["external_data_offset"], tensor["data_type"]) == (-1, 0)
    assert tensor["dims"] == tensor["raw_data"] == ()
    assert attribute["t"] is attribute["g"] is None
    assert Table("TypeInfo", {})["value"] is None


def test_slots_that_are_empty_unused_or_of_later_versions_are_skipped():
    """The third slot is one that the format no longer uses; it has four."""
    inline = offset(0) + offset(8) + offset(0)
    data = file(table([8, 0, 4, 0, 12], inline) + text(b"1.2"), 5)
    assert read(memoryview(data)).root.values == {"ort_version": b"1.2"}


# Model at 16: ir_version 7 and two names, which lie behind it.
def with_names(first: bytes, second: int, behind: bytes) -> bytes:
    root = table([0, 4], offset(4 + 12))
    model = table([4, 0, 12, 16], struct.pack("<q", 7) + first + offset(second))
    return file(root + model + behind, 2)


def model_of(data: bytes) -> dict:
    return read(memoryview(data)).root["model"].values


def test_numbers_and_texts_of_a_table_inside_another():
    data = with_names(offset(8), 4 + 6, text(b"a") + text(b"bc"))
    assert model_of(data) == {"ir_version": 7, "producer_name": b"a", "producer_version": b"bc"}


def test_texts_may_be_shared():
    data = with_names(offset(8), 4, text(b"a"))
    assert model_of(data) == {"ir_version": 7, "producer_name": b"a", "producer_version": b"a"}


def test_texts_may_not_overlap():
    inner = text(b"abc")  # its last bytes are no text of their own
    outer = struct.pack("<I", len(inner)) + inner + b"\0"
    data = with_names(offset(8), 4 + 4, outer)
    refused(data, f"damaged: at byte {len(data) - len(outer) + 4}, two parts of the file overlap")


def with_word(place: int, letters: str, value: int) -> bytes:
    data = bytearray(WITH_VERSION)
    struct.pack_into(f"<{letters}", data, place, value)
    return bytes(data)


OUTSIDE = "an offset points outside the file"
DAMAGES = {
    "the root beyond the end": (with_word(0, "I", 1000), f"at byte 1000, {OUTSIDE}"),
    "the root across the end": (with_word(0, "I", 27), f"at byte 27, {OUTSIDE}"),
    "the layout beyond the end": (with_word(14, "i", -13), f"at byte 27, {OUTSIDE}"),
    "the layout before the start": (with_word(14, "i", 15), f"at byte -1, {OUTSIDE}"),
    "a text beyond the end": (with_word(18, "I", 9), f"at byte 27, {OUTSIDE}"),
    "a layout of an odd length": (
        with_word(8, "H", 5),
        "at byte 8, no table has a layout of 5 bytes for 8",
    ),
    "a layout that is too short": (
        with_word(8, "H", 2),
        "at byte 8, no table has a layout of 2 bytes for 8",
    ),
    "a table that is too short": (
        with_word(10, "H", 3),
        "at byte 8, no table has a layout of 6 bytes for 3",
    ),
    "a field before its table": (
        with_word(12, "H", 3),
        "at byte 12, field InferenceSession.ort_version lies outside its table",
    ),
    "a field across the table's end": (
        with_word(12, "H", 5),
        "at byte 12, field InferenceSession.ort_version lies outside its table",
    ),
    "a text that is longer than the file": (
        with_word(22, "I", 4),
        "at byte 22, a part of the file is longer than the file",
    ),
    "a table that is longer than the file": (
        with_word(10, "H", 17),
        "at byte 14, a part of the file is longer than the file",
    ),
    "a table that covers its text": (
        with_word(10, "H", 10),
        "at byte 22, two parts of the file overlap",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_each_damage_is_named_with_its_place(case):
    data, reason = DAMAGES[case]
    refused(data, f"damaged: {reason}")


def test_another_identifier():
    reason = "not a file of ONNX Runtime's format: its identifier is missing"
    refused(WITH_VERSION.replace(b"ORTM", b"ORTN"), reason)
    refused(b"", reason)
    refused(b"ORTM" + WITH_VERSION, reason)
