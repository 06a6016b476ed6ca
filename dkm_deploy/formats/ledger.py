"""Ledger: every byte of a file, by tensor and by kind. It adds up, or it is not made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["indices", "lut", "dense", "graph", "metadata", "padding"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class LedgerEntry:
    """``size_bytes`` bytes of one kind, under the name of the weight or part they belong to."""

    kind: Kind
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Ledger:
    """Every byte of a file, by tensor and by kind.

    The kinds are ``indices`` and ``lut`` of palettes, ``dense`` weights, ``graph`` (operations and
    descriptions of tensors), ``metadata`` (names, versions, manifests) and ``padding`` (alignment
    and headers without a value).

    Attributes:
        path: the file or folder.
        entries: kind, name and bytes of each tensor or part.
        companions: files beside it that hold its data; their bytes are counted too.

    Example:
        >>> ledger = dkm.size_breakdown("model.onnx")
        >>> [(e.name, e.size_bytes) for e in ledger.entries if e.kind == "indices"]
        [('weight', 8)]
    """

    path: Path
    entries: tuple[LedgerEntry, ...]
    companions: tuple[Path, ...] = ()

    @property
    def total_bytes(self) -> int:
        """Sum of all entries, which is the size on disk."""
        return sum(entry.size_bytes for entry in self.entries)

    def by_kind(self) -> dict[Kind, int]:
        """Sum the bytes of each kind.

        Returns:
            Bytes by kind, in the order of ``KINDS``.

        Example:
            >>> list(dkm.size_breakdown("model.onnx").by_kind())
            ['indices', 'lut', 'dense', 'graph', 'metadata', 'padding']
        """
        return {k: sum(e.size_bytes for e in self.entries if e.kind == k) for k in KINDS}


def balanced_ledger(
    path: Path, entries: Iterable[LedgerEntry], companions: Iterable[Path] = ()
) -> Ledger:
    """A ledger whose entries add up to the bytes on disk, those of ``companions`` with them.

    Raises:
        RuntimeError: they do not; a reader of this project has lost or counted a byte twice.
    """
    ledger = Ledger(path, tuple(e for e in entries if e.size_bytes), tuple(companions))
    on_disk = sum(size_on_disk(part) for part in (path, *ledger.companions))
    if ledger.total_bytes != on_disk or any(e.size_bytes < 0 for e in ledger.entries):
        raise RuntimeError(
            f"{path}: the ledger adds up to {ledger.total_bytes} bytes of {on_disk}; please report"
        )
    return ledger


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
