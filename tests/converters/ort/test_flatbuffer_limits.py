"""The FlatBuffer reader at its limits: overlaps, large lengths, depth, and parts used twice."""

import struct

import pytest

from converters.ort import flatbuffer_reader
from converters.ort.flatbuffer_reader import Span, Table, read
from converters.ort.flatbuffer_writer import build_file
from dkm_deploy.errors import DkmError
from tests.converters.ort.test_flatbuffer_reader import (
    WITH_VERSION,
    file,
    offset,
    refused,
    table,
    text,
    with_names,
    with_word,
)
from tests.converters.ort.test_onnx_model import attribute, named, node, session, tensor, typed

OUTSIDE = "an offset points outside the file"
LONGER = "a part of the file is longer than the file"
REPEATED = "parts of the file refer to each other over and over"


def graph_of(data: bytes) -> Table:
    return read(memoryview(data)).root["model"]["graph"]


def reason_of(data: bytes) -> str:
    with pytest.raises(DkmError) as raised:
        read(memoryview(data))
    return str(raised.value)


def test_texts_may_not_overlap_where_the_file_has_room_for_both():
    inner = text(b"abc")
    outer = struct.pack("<I", len(inner)) + inner + b"\0"
    data = with_names(offset(8), 4 + 4, outer) + bytes(64)
    place = len(data) - 64 - len(outer) + 4
    refused(data, f"damaged: at byte {place}, two parts of the file overlap")


def test_two_parts_that_start_at_one_place_end_at_one_place():
    """An empty vector has 4 bytes, an empty text one more."""
    root = table([0, 4], offset(4 + 10))
    model = table([0, 4, 8], offset(8) + offset(4))
    data = file(root + model + text(b"") + bytes(64), 2)
    place = len(data) - 64 - len(text(b""))
    refused(data, f"damaged: at byte {place}, two parts of the file overlap")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_word(18, "I", 2**32 - 16), f"at byte {18 + 2**32 - 16}, {OUTSIDE}"),
        (with_word(22, "I", 2**32 - 1), f"at byte 22, {LONGER}"),
        (with_word(8, "H", 2**16 - 2), f"at byte 8, {LONGER}"),
    ],
    ids=["an offset", "a text", "a layout"],
)
def test_lengths_and_offsets_have_no_sign(data, reason):
    refused(data, f"damaged: {reason}")


def test_the_length_of_a_vector_has_no_sign():
    root = table([0, 4], offset(4 + 8))
    model = table([0, 4], offset(4))
    data = file(root + model + struct.pack("<I", 2**32 - 1) + bytes(8), 2)
    refused(data, f"damaged: at byte {len(data) - 12}, {LONGER}")


def test_a_field_may_lie_far_into_its_table():
    far = 40_000
    data = file(table([4 + far], bytes(far) + offset(4)) + text(b"1.2"))
    assert read(memoryview(data)).root.values == {"ort_version": b"1.2"}


@pytest.mark.parametrize("tag", [None, 4, 255])
def test_a_union_without_a_known_tag(tag):
    tags = {} if tag is None else {"value_type": tag}
    value = {"value": Table("Shape", {})}
    stored = build_file(session(node_args=(named(b"y", Table("TypeInfo", tags | value)),)))
    reason = rf"damaged: at byte \d+, field value holds a table of unknown kind {tag or 0}"
    refused(stored, reason)


def test_bytes_stay_where_they_are_and_texts_of_a_list_have_their_places():
    document = read(memoryview(build_file(session(initializers=(tensor(),), inputs=(b"in",)))))
    graph = document.root["model"]["graph"]
    data = graph["initializers"][0]["raw_data"]
    assert isinstance(data, memoryview)
    assert bytes(data) == bytes(8)
    (place,) = (start for start, found in document.tables.items() if found is graph)
    parts = {span.part: span for span in document.spans if span.owner == place}
    assert {"inputs", "outputs"} <= set(parts)
    assert parts["inputs"].end > parts["inputs"].start


def test_a_text_of_a_list_belongs_to_the_table_with_the_list():
    data = build_file(session(inputs=(b"in",)))
    document = read(memoryview(data))
    start = data.index(text(b"in"))
    (span,) = (span for span in document.spans if span.start == start)
    assert span == Span(start, start + len(text(b"in")), "inputs", span.owner)
    assert document.tables[span.owner].kind == "Graph"


# Attribute's fields: name, doc_string, type, f, i, s, t, g, floats, ints, strings, tensors, graphs
def with_attribute(fields: list[int], inline: bytes, behind: bytes) -> Table:
    """The one attribute of a file, whose last part is its table and ``behind``."""
    # Distances count from an offset to its table, which stands behind its layout.
    root = table([0, 4], offset(4 + 20))
    model = table([0, 0, 0, 0, 0, 0, 0, 4], offset(4 + 10))  # its graph
    graph = table([0, 0, 4], offset(4)) + struct.pack("<I", 1) + offset(4 + 26)  # its nodes
    stored = table([0] * 10 + [4], offset(4))  # a node's attributes
    attributes = struct.pack("<I", 1) + offset(4 + 4 + 2 * len(fields))
    data = root + model + graph + stored + attributes + table(fields, inline) + behind
    document = read(memoryview(file(data, 2)))
    (found,) = (each for each in document.tables.values() if each.kind == "Attribute")
    return found


def test_one_part_that_two_fields_refer_to_is_read_as_each_of_them_has_it():
    """Here an empty table as a tensor and as a graph, and its list as tensors and as graphs."""
    fields = [0, 0, 0, 0, 0, 0, 4, 8, 0, 0, 0, 12, 16]
    # Behind four offsets: the list (8 bytes), then the empty table's layout and table.
    inline = offset(16 + 8 + 4) + offset(12 + 8 + 4) + offset(8) + offset(4)
    behind = struct.pack("<I", 1) + offset(4 + 4) + table([], b"")
    found = with_attribute(fields, inline, behind)
    assert (found["t"].kind, found["g"].kind) == ("Tensor", "Graph")
    assert [each.kind for each in found["tensors"]] == ["Tensor"]
    assert [each.kind for each in found["graphs"]] == ["Graph"]


def test_one_list_that_two_fields_refer_to_is_read_as_numbers_of_either_kind():
    fields = [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]
    found = with_attribute(fields, offset(4), struct.pack("<If", 1, 0.5))
    assert found["floats"] == (0.5,)
    both = build_file(
        session(nodes=(node("x", "y", attributes=(attribute(6, floats=(), ints=()),)),)),
    )
    (read_back,) = graph_of(both)["nodes"][0]["attributes"]
    assert (read_back["floats"], read_back["ints"]) == ((), ())


def test_content_counts_whenever_it_is_referred_to(monkeypatch):
    """A text of two fields counts twice: its 6 bytes make up for the 8 of the header but two."""
    data = with_names(offset(8), 4, text(b"a"))
    monkeypatch.setattr(flatbuffer_reader, "_REPEATS", 1)
    monkeypatch.setattr(flatbuffer_reader, "_ALWAYS", -2)
    assert read(memoryview(data)).root["model"]["producer_version"] == b"a"
    monkeypatch.setattr(flatbuffer_reader, "_ALWAYS", -3)
    refused(data, f"damaged: at byte {len(data) - 6}, {REPEATED}")


def test_the_content_that_is_allowed_grows_with_the_file(monkeypatch):
    monkeypatch.setattr(flatbuffer_reader, "_REPEATS", 2)
    monkeypatch.setattr(flatbuffer_reader, "_ALWAYS", 22 - 2 * len(WITH_VERSION))
    assert read(memoryview(WITH_VERSION)).root["ort_version"] == b"1.2"
    monkeypatch.setattr(flatbuffer_reader, "_ALWAYS", 21 - 2 * len(WITH_VERSION))
    refused(WITH_VERSION, f"damaged: at byte 22, {REPEATED}")


def test_a_shared_table_counts_whenever_it_is_referred_to(monkeypatch):
    shared = node("x", "y")
    one, ten = (build_file(session(nodes=(shared,) * times)) for times in (1, 10))
    monkeypatch.setattr(flatbuffer_reader, "_REPEATS", 1)
    monkeypatch.setattr(flatbuffer_reader, "_ALWAYS", 0)
    assert len(graph_of(one)["nodes"]) == 1
    assert reason_of(ten).endswith(REPEATED)


def sequence(depth: int) -> Table:
    """A type inside ``depth`` sequences; each adds two tables."""
    inner = typed("TensorTypeAndShape", elem_type=1)
    inner = Table("TypeInfo", inner.values | {"value_type": 1})
    for _ in range(depth):
        inner = Table(
            "TypeInfo", {"value": Table("SequenceType", {"elem_type": inner}), "value_type": 2}
        )
    return inner


# The file, its model, graph, a value, its type and the tensor in it: the last is inside five.
INNERMOST = 5


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_tables_may_be_nested_as_deep_as_the_limit(monkeypatch, depth):
    data = build_file(session(node_args=(named(b"y", sequence(depth)),)))
    limit = INNERMOST + 2 * depth
    monkeypatch.setattr(flatbuffer_reader, "_DEPTH", limit)
    assert graph_of(data)["node_args"][0]["type"].kind == "TypeInfo"
    monkeypatch.setattr(flatbuffer_reader, "_DEPTH", limit - 1)
    reason = rf"damaged: at byte \d+, tables are nested more than {limit - 1} deep"
    refused(data, reason)


def test_a_shared_table_is_nested_as_deep_as_its_deepest_use(monkeypatch):
    """It is read where it lies shallow, and used again two tables further in."""
    values = (named(b"x", sequence(2)), named(b"y", sequence(3)))
    data = build_file(session(node_args=values))
    monkeypatch.setattr(flatbuffer_reader, "_DEPTH", INNERMOST + 6)
    assert len(graph_of(data)["node_args"]) == 2
    monkeypatch.setattr(flatbuffer_reader, "_DEPTH", INNERMOST + 5)
    reason = rf"damaged: at byte \d+, tables are nested more than {INNERMOST + 5} deep"
    refused(data, reason)


def test_a_shared_table_that_was_read_deep_may_be_used_shallow(monkeypatch):
    values = (named(b"x", sequence(3)), named(b"y", sequence(2)), named(b"z", sequence(0)))
    data = build_file(session(node_args=values))
    monkeypatch.setattr(flatbuffer_reader, "_DEPTH", INNERMOST + 6)
    assert len(graph_of(data)["node_args"]) == 3
