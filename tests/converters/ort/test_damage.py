"""Damaged ``.ort`` files: one line each, whatever is wrong and wherever it is."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.ort import target
from converters.ort.flatbuffer_reader import read
from dkm_deploy.errors import DkmError
from tests.converters.ort.files import operators, small_file


@pytest.fixture(scope="module")
def whole():
    return small_file()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("ort") / "damaged.ort"


def survives(path, content: bytes) -> None:
    """Each reader gives an answer, or one line that names the file."""
    path.write_bytes(content)
    for reader in (target.read_palettes, target.ledger, operators):
        try:
            reader(path)
        except DkmError as error:
            message = str(error)
            assert message.startswith(f"{path}: ")
            assert "\n" not in message


EDITS = st.lists(st.tuples(st.integers(0), st.integers(0, 7)), min_size=1, max_size=8)
NUMBERS = st.sampled_from([0, 1, 4, 0x7FFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF])


@given(edits=EDITS)
@settings(max_examples=50, deadline=None)
def test_flipped_bits(whole, path, edits):
    content = bytearray(whole)
    for place, bit in edits:
        content[place % len(content)] ^= 1 << bit
    survives(path, content)


@given(start=st.integers(0), end=st.integers(0), into=st.integers(0))
@settings(max_examples=30, deadline=None)
def test_spliced_parts(whole, path, start, end, into):
    start, end, into = start % len(whole), end % len(whole), into % len(whole)
    survives(path, whole[:into] + whole[start:end] + whole[into:])


@given(part=st.integers(0), word=st.integers(0), number=NUMBERS | st.integers(0, 0xFFFFFFFF))
@settings(max_examples=50, deadline=None)
def test_other_offsets_lengths_and_layouts(whole, path, part, word, number):
    """Words of the parts that hold the file together; data is left as it is."""
    spans = [span for span in read(memoryview(whole)).spans if span.part != "raw_data"]
    span = spans[part % len(spans)]
    words = (span.end - span.start) // 4
    content = bytearray(whole)
    struct.pack_into("<I", content, span.start + 4 * (word % max(words, 1)), number)
    survives(path, content[: len(whole)])


@given(content=st.binary(max_size=200))
@settings(max_examples=30, deadline=None)
def test_random_bytes_behind_the_right_identifier(path, content):
    path.write_bytes(content[:4].ljust(4, b"\x08") + b"ORTM" + content[4:])
    with pytest.raises(DkmError):
        target.read_palettes(path)


def test_every_cut_is_refused(whole, path):
    """The builder puts what the root refers to last at the end, so that no byte is left over."""
    for length in range(0, len(whole) - 8, 41):
        path.write_bytes(whole[:length])
        for reader in (target.read_palettes, target.ledger):
            with pytest.raises(DkmError):
                reader(path)


def test_bytes_behind_the_end_are_counted(whole, path):
    path.write_bytes(whole + bytes(1000))
    assert target.ledger(path).by_kind()["padding"] >= 1000
