"""Account for every byte of a Core AI asset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.coreai.read_palettes import BETWEEN, Contents, contents
from dkm_deploy.formats.aimodel.asset import PROGRAM
from dkm_deploy.formats.aimodel.constants import Constant
from dkm_deploy.formats.aimodel.mlir_sections import ResourceBlob
from dkm_deploy.formats.ledger import Kind, Ledger, LedgerEntry, balanced_ledger

_SMALL = 10  # elements; shorter constants in the program itself count as graph


@dataclass(frozen=True)
class _Claim:
    """A tensor, and what its bytes count as."""

    kind: Kind
    name: str
    tensor: Constant


def ledger(path: Path) -> Ledger:
    """Every byte of an asset, by weight and by kind.

    Bytes that several operations share are counted once, under the first of them.

    Raises:
        DkmError: the asset is damaged.
    """
    held = contents(path)
    claims: dict[int, _Claim] = {}
    for claim in _claims(held):
        claims.setdefault(claim.tensor.start, claim)
    weights = [LedgerEntry(c.kind, c.name, len(c.tensor.data)) for c in claims.values()]
    blobs = [blob for blob in held.tables.blobs if blob is not None]
    weights += [_unclaimed_entry(blob) for blob in blobs if blob.start not in claims]
    padding = LedgerEntry("padding", PROGRAM, sum(blob.overhead for blob in blobs))
    return balanced_ledger(path, [*weights, padding, *_files(path, [*weights, padding])])


def _claims(held: Contents) -> Iterator[_Claim]:
    """Palettes first, so that nothing else claims their bytes."""
    names = {other: name for name, other in held.same.items() if BETWEEN in other}
    for site in held.sites:
        name = names.get(site.name, site.name)
        yield _Claim("indices", name, site.indices)
        yield _Claim("lut", name, site.lut)
        if site.scale is not None:
            yield _Claim("lut", name, site.scale)
    for number, tensor in enumerate(held.constants):
        if _is_weight(tensor):
            yield _Claim("dense", tensor.blob.key if tensor.blob else f"constant {number}", tensor)


def _is_weight(tensor: Constant) -> bool:
    floats = tensor.element.kind == "float" and tensor.is_whole and tensor.size >= _SMALL
    return tensor.blob is not None or floats


def _unclaimed_entry(blob: ResourceBlob) -> LedgerEntry:
    return LedgerEntry("dense", f"{blob.key} (unreferenced)", len(blob.data))


def _files(path: Path, taken: list[LedgerEntry]) -> Iterator[LedgerEntry]:
    """What is left of every file once the weights are taken out."""
    for file in sorted(part for part in path.rglob("*") if part.is_file()):
        name, size = file.relative_to(path).as_posix(), file.stat().st_size
        if name == PROGRAM:
            yield LedgerEntry("graph", name, size - sum(entry.size_bytes for entry in taken))
        else:
            yield LedgerEntry("metadata", name, size)
