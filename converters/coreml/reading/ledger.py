"""Account for every byte of a Core ML package."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from converters.coreml.reading.read_palettes import palette_sites, unread_rows
from converters.coreml.tables.unread_rows import stored_blobs
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import Kind, Ledger, LedgerEntry, balanced_ledger
from dkm_deploy.formats.mlpackage.ml_program import Constant, functions
from dkm_deploy.formats.mlpackage.package import Package, open_package
from dkm_deploy.formats.mlpackage.weight_blobs import ALIGNMENT, WeightBlob

_PARTS: Mapping[str, Kind] = {  # by what the operation calls its inputs
    **dict.fromkeys(("indices", "indices_mask", "indices_nonzero_data"), "indices"),
    "lut": "lut",
}
_SMALL = 10  # elements; shorter constants written in the program count as graph


@dataclass(frozen=True)
class _Claim:
    """A constant, and what its bytes count as."""

    kind: Kind
    name: str
    constant: Constant


def ledger(path: Path) -> Ledger:
    """Every byte of a package, by weight and by kind.

    Bytes that several operations share are counted once, under the first of them.

    Raises:
        DkmError: the package is damaged.
    """
    package = open_package(path)
    blobs: dict[WeightBlob, _Claim] = {}
    written: dict[int, _Claim] = {}  # in the program itself
    for claim in _claims(package):
        blob = claim.constant.blob
        if blob is None:
            written.setdefault(id(claim.constant.proto), claim)
        else:
            blobs.setdefault(blob, claim)
    entries = [_entry(claim) for claim in (*blobs.values(), *written.values())]
    unread = {blob: entry for blob, entry in _unread(package) if blob not in blobs}
    entries += unread.values()
    in_program = sum(claim.constant.size_bytes for claim in written.values())
    return balanced_ledger(path, entries + _files(package, [*blobs, *unread], in_program))


def _claims(package: Package) -> Iterator[_Claim]:
    """Palettes first, so that nothing else claims their bytes."""
    for site in palette_sites(package):
        for key, kind in _PARTS.items():
            for operand in site.operation.inputs.get(key, ()):
                for leaf in site.constants.leaves(operand):
                    yield _Claim(kind, site.name, leaf)
        for leaf in () if site.scale is None else site.constants.leaves(site.scale):
            yield _Claim("lut", site.name, leaf)
    for function in functions(package).values():
        for operation in function.body.walk():
            for operands in operation.inputs.values():
                for operand in operands:
                    if isinstance(operand, Constant) and _is_weight(operand):
                        yield _Claim("dense", operation.output, operand)


def _unread(package: Package) -> Iterator[tuple[WeightBlob, LedgerEntry]]:
    """Rows of palettes that no operation reads."""
    for name, offsets in unread_rows(package).items():
        try:
            found = stored_blobs(package, offsets)
        except DkmError as error:
            raise DkmError(f"{package.path}: {name}: {error}") from error
        for blob, kind in found.items():
            yield blob, LedgerEntry(kind, name, blob.size_bytes)


def _is_weight(constant: Constant) -> bool:
    if constant.proto.WhichOneof("value") == "blobFileValue":
        return True
    if constant.proto.type.WhichOneof("type") != "tensorType":
        return False
    kind = constant.type
    return kind.dtype.is_floating and math.prod(n or 0 for n in kind.shape) >= _SMALL


def _entry(claim: _Claim) -> LedgerEntry:
    return LedgerEntry(claim.kind, claim.name, claim.constant.size_bytes)


def _files(package: Package, blobs: list[WeightBlob], in_program: int) -> list[LedgerEntry]:
    """What is left of every file once the weights are taken out."""
    entries = []
    for file in sorted(p for p in package.path.rglob("*") if p.is_file()):
        name, size = file.relative_to(package.path).as_posix(), file.stat().st_size
        inside = sorted((b for b in blobs if b.file == file), key=lambda blob: blob.start)
        if file == package.model_file:
            entries.append(LedgerEntry("graph", name, size - in_program))
        elif inside:
            entries += _weight_file(file, name, inside)
        else:
            entries.append(LedgerEntry("metadata", name, size))
    return entries


def _weight_file(file: Path, name: str, blobs: list[WeightBlob]) -> list[LedgerEntry]:
    """Header, records and alignment are padding; so is what nothing refers to, named as such."""
    for before, after in pairwise(blobs):
        if before.start + before.size_bytes > after.start:
            raise DkmError(f"{file}: two weights overlap at byte {after.start}")
    rest = file.stat().st_size - sum(blob.size_bytes for blob in blobs)
    overhead = ALIGNMENT + sum(ALIGNMENT + -blob.size_bytes % ALIGNMENT for blob in blobs)
    padding = min(rest, overhead)
    return [
        LedgerEntry("padding", name, padding),
        LedgerEntry("padding", "(unreferenced)", rest - padding),
    ]
