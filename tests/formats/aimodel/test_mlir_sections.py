"""Sections of MLIR bytecode and the tables in them."""

import pytest

from dkm_deploy.formats.aimodel.byte_cursor import Cursor, DamagedError
from dkm_deploy.formats.aimodel.mlir_sections import at, section, sections, tables
from tests.formats.aimodel import mlir_bytecode as ml
from tests.formats.aimodel.mlir_bytecode import bytecode, flagged, number, numbers, strings

NAMES = ("aicode", "add", "mul", "other", "key", "more")
DIALECTS = ml.section(
    ml.DIALECTS,
    number(2),
    flagged(0),
    flagged(3, True) + ml.section(9, b"version"),
    number(3),  # operations, in two groups
    numbers(0, 2) + flagged(1) + flagged(2, True),
    numbers(1, 1) + flagged(1),
)
ENTRIES = (
    ml.section(ml.ATTRIBUTES, b"a1", b"b22", b"c"),
    ml.section(
        ml.ATTRIBUTE_OFFSETS,
        numbers(2, 1),
        numbers(1, 1) + flagged(2, True),
        numbers(0, 1) + flagged(3),
        numbers(1, 1) + flagged(1, True),
    ),
)


def read(*parts):
    return tables(sections(memoryview(bytecode(*parts))))


def message(*parts, version=6):
    with pytest.raises(DamagedError) as caught:
        tables(sections(memoryview(bytecode(*parts, version=version))))
    return str(caught.value)


def test_tables_of_names_operations_attributes_and_types():
    found = read(strings(*NAMES), DIALECTS, *ENTRIES)
    assert found.strings == [*NAMES]
    assert found.operations == ["aicode.add", "aicode.mul", "other.add"]
    held = [(e.dialect, e.custom, bytes(e.data.take(e.data.remaining))) for e in found.attributes]
    assert held == [("other", True, b"a1"), ("aicode", False, b"b22")]
    (kind,) = found.types
    assert (kind.dialect, kind.custom, bytes(kind.data.take(kind.data.remaining))) == (
        *("other", True),
        b"c",
    )
    assert (found.properties, found.blobs) == ([], [])


def test_properties_are_parts_of_their_section():
    owned = ml.section(ml.PROPERTIES, number(2), number(1) + b"p", number(3) + b"qrs")
    found = read(strings(*NAMES), DIALECTS, *ENTRIES, owned).properties
    assert [bytes(part.take(part.remaining)) for part in found] == [b"p", b"qrs"]


def test_resources_of_dialects_come_after_those_of_others():
    """Each starts with its alignment and its length; bytes that align it are its overhead."""
    before = bytecode(strings(*NAMES), DIALECTS, *ENTRIES)
    first = numbers(1, 4) + b"1234"
    place = len(before) + 2 + len(b"external" + first)  # number and length of the section
    skipped = -(place + 2) % 32
    second = numbers(32, 2) + bytes(skipped) + b"56"
    content = [b"external", first, second, b"text"]
    sizes = [len(part) for part in content]
    found = read(
        strings(*NAMES),
        DIALECTS,
        *ENTRIES,
        ml.section(ml.RESOURCES, *content),
        ml.section(
            ml.RESOURCE_OFFSETS,
            number(1),
            numbers(3, 1) + numbers(0, sizes[0]) + b"\0",
            numbers(0, 1) + numbers(4, sizes[1]) + b"\0",
            numbers(1, 2) + numbers(5, sizes[2]) + b"\0" + numbers(1, sizes[3]) + b"\2",
        ),
    )
    one, two, text = found.blobs
    assert (one.key, bytes(one.data), one.start, one.overhead) == ("key", b"1234", place - 4, 2)
    assert (two.key, bytes(two.data), two.overhead) == ("more", b"56", 2 + skipped)
    assert two.start == place + 2 + skipped
    assert text is None


def test_a_section_may_be_aligned():
    """Its highest bit says so; the alignment stands behind the length, and is not part of it."""
    data = b"x" + bytes([0x80 | 3]) + number(2) + number(8) + bytes(4) + b"ab"
    cursor = Cursor(memoryview(data), 1, len(data))
    kind, part = section(cursor)
    assert (kind, part.place, bytes(part.take(2)), part.remaining, cursor.remaining) == (
        3,
        8,
        b"ab",
        0,
        0,
    )


def test_names_behind_the_last_one_are_left_alone():
    data = memoryview(bytecode(ml.section(ml.STRINGS, b"abc"), ml.section(127)))
    found = sections(data)
    assert sorted(found) == [0, 127]
    assert bytes(found[0].take(3)) == b"abc"


def test_a_number_is_looked_up_in_its_table():
    assert [at("ab", 0), at("ab", 1)] == ["a", "b"]
    for number_ in (-1, 2):
        with pytest.raises(DamagedError) as caught:
            at("ab", number_)
        assert str(caught.value) == f"index {number_} in a table of 2"


@pytest.mark.parametrize("data", [b"ML\xefr\x0d", b"PK\3\4....."])
def test_another_kind_of_file(data):
    with pytest.raises(DamagedError) as caught:
        sections(memoryview(data))
    assert str(caught.value) == "it is not MLIR bytecode"


@pytest.mark.parametrize("version", [5, 6])
def test_versions_that_are_known(version):
    assert sections(memoryview(bytecode(version=version))) == {}


@pytest.mark.parametrize("version", [4, 7])
def test_versions_that_are_not(version):
    expected = f"bytecode version {version} is unknown; 5 and 6 are known"
    assert message(version=version) == expected


def test_a_section_that_is_there_twice():
    parts = strings("a"), strings("b")
    end = len(bytecode(*parts))
    assert message(*parts) == f"byte {end}: section 0 is there twice"


RESOURCES = ml.section(ml.RESOURCES, numbers(3, 0))
OFFSETS = ml.section(ml.RESOURCE_OFFSETS, number(0), numbers(0, 1), numbers(4, 2) + b"\0")
EVERY = {
    0: strings(*NAMES),
    1: DIALECTS,
    2: ENTRIES[0],
    3: ENTRIES[1],
    5: RESOURCES,
    6: OFFSETS,
}


@pytest.mark.parametrize("missing", [0, 1, 2, 3, 5])
def test_a_section_that_is_missing(missing):
    parts = [part for kind, part in EVERY.items() if kind != missing]
    assert message(*parts) == f"section {missing} is missing"


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (1, number(1) + flagged(6), "index 6 in a table of 6"),
        (1, number(1) + flagged(0) + number(1) + numbers(1, 1), "index 1 in a table of 1"),
        (3, numbers(1, 0) + numbers(2, 1), "index 2 in a table of 2"),
        (6, number(0) + numbers(0, 1) + numbers(6, 2) + b"\0", "index 6 in a table of 6"),
        (6, number(0) + numbers(0, 1) + numbers(4, 2) + b"\0", "alignment 3 is not a power of two"),
    ],
)
def test_a_number_that_its_table_does_not_have(kind, content, expected):
    parts = EVERY | {kind: ml.section(kind, content)}
    assert message(*parts.values()).endswith(expected)
