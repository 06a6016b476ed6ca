"""A ledger adds up to the byte, or it is not made."""

from __future__ import annotations

import pytest

from dkm_deploy.formats.ledger import LedgerEntry, balanced_ledger, size_on_disk


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(100))
    return path


def test_every_byte_is_in_one_kind(file):
    entries = [
        LedgerEntry("lut", "a", 20),
        LedgerEntry("dense", "b", 70),
        LedgerEntry("lut", "c", 10),
    ]
    found = balanced_ledger(file, [*entries, LedgerEntry("padding", "none", 0)])
    assert found.entries == tuple(entries)
    assert found.total_bytes == 100
    kinds = {"indices": 0, "lut": 30, "dense": 70, "graph": 0, "metadata": 0, "padding": 0}
    assert list(found.by_kind().items()) == list(kinds.items())


@pytest.mark.parametrize("off", [-1, 1])
def test_a_single_byte_too_many_or_too_few_is_refused(file, off):
    with pytest.raises(RuntimeError, match=rf"adds up to {100 + off} bytes of 100; please report"):
        balanced_ledger(file, [LedgerEntry("graph", "all", 100 + off)])


def test_what_is_counted_twice_is_not_made_up_for_by_a_negative_entry(file):
    with pytest.raises(RuntimeError):
        balanced_ledger(
            file, [LedgerEntry("graph", "all", 101), LedgerEntry("padding", "less", -1)]
        )


def test_files_beside_it_and_folders_count_too(file, tmp_path):
    beside = tmp_path / "weights" / "data.bin"
    beside.parent.mkdir()
    beside.write_bytes(bytes(7))
    assert balanced_ledger(file, [LedgerEntry("dense", "all", 107)], [beside]).companions == (
        beside,
    )
    assert size_on_disk(tmp_path) == 107
