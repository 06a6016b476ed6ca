"""Read the palettes of a Core AI asset back from its bytes, on any OS, without Apple's packages."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dkm_deploy._support.records import from_plain
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.aimodel.asset import Asset, open_asset
from dkm_deploy.formats.aimodel.byte_cursor import DamagedError
from dkm_deploy.formats.aimodel.constants import Constant, constant
from dkm_deploy.formats.aimodel.mlir_program import (
    MLIRProgram,
    Operation,
    damage_error,
    open_program,
)
from dkm_deploy.formats.aimodel.mlir_sections import Tables
from dkm_deploy.palette import Palette

CONSTANT = "aicode.primitive.constant_v1"
DECODE = "aicode.primitive.lut_to_dense_v1"
SCALE = "aicode.primitive.blockwise_shift_scale_v2"
INDICES_KEY, LUT_KEY, SCALE_KEY = ".indices", ".lut", ".scale"
"""Endings of the keys of a palette's resources; before them stands the parameter's name."""
SAME_KEY = "dkm_deploy.same"
"""Custom metadata. Bytes that are equal are stored once, under one of their keys: by the name of a
parameter whose own is lost or taken that way, the name that its palette goes by."""

_ENDINGS = (INDICES_KEY, LUT_KEY, SCALE_KEY)
BETWEEN = " / "


@dataclass(frozen=True)
class PaletteSite:
    """Where a program decodes a palette.

    Attributes:
        name: the qualified parameter name that the keys of all parts give; where these differ,
            all of them. Without keys, or where these are another palette's too, with a number.
        indices: unsigned integers of 1 to 8 bits.
        lut: of rank K + 2.
        axis: the dimension that an entry fills.
        scale: what the decoded weight is multiplied with, channel by channel, if it is.
    """

    name: str
    indices: Constant
    lut: Constant
    axis: Constant
    scale: Constant | None

    def palette(self) -> Palette:
        """The palette. Raises DkmError or DamagedError if there is none in these tensors."""
        scale = None if self.scale is None else self.scale.floats()
        return Palette(self.indices.indices(), self.lut.floats(), self.axis.integer(), scale=scale)

    @property
    def parts(self) -> tuple[object, ...]:
        """What the palette is made of."""
        return self.indices, self.lut, bytes(self.axis.data), self.scale


@dataclass(frozen=True)
class Contents:
    """A parsed asset.

    Attributes:
        tables: of its program.
        constants: the tensors in it.
        sites: where it decodes palettes.
        same: see ``SAME_KEY``.
    """

    tables: Tables
    constants: tuple[Constant, ...]
    sites: tuple[PaletteSite, ...]
    same: dict[str, str]


def contents(path: Path) -> Contents:
    """Open and parse an asset. Raises DkmError if it is damaged or of a newer kind."""
    asset = open_asset(path)
    program = open_program(asset)
    try:
        _check_keys(program.tables)
        tensors = [value(program.tables, operation) for operation in program.operations]
        constants = tuple(tensor for tensor in tensors if tensor is not None)
        return Contents(
            program.tables, constants, tuple(_number_subsets(_sites(program))), _same_weights(asset)
        )
    except DamagedError as error:
        raise damage_error(path, error) from error


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of an asset by qualified parameter name.

    A palette that the asset has no parameter name for (a file of another tool) goes by the key of
    its indices or, where they have none, by its number.

    Raises:
        DkmError: the asset is damaged.
    """
    stored: dict[str, Palette] = {}
    held = contents(path)
    for site in held.sites:
        try:
            stored[site.name] = site.palette()
        except (DkmError, DamagedError) as error:
            raise DkmError(f"{path}: {site.name}: {error}") from error
    for other in held.same.values():
        if other not in stored:
            raise DkmError(f"{path}: metadata {SAME_KEY!r} names {other!r}, which is not a palette")
    found = stored | {name: stored[other] for name, other in held.same.items()}
    return {name: palette for name, palette in found.items() if BETWEEN not in name}


def value(tables: Tables, operation: Operation | None) -> Constant | None:
    """The tensor that a constant holds; None for other operations and other values."""
    if operation is None or operation.name != CONSTANT or operation.properties is None:
        return None
    if len(operation.results) != 1:
        return None
    return constant(tables, operation.properties.again().number(), operation.results[0])


def _check_keys(tables: Tables) -> None:
    """Raise DamagedError if two resources have one key: no name could be told by it."""
    keys = Counter(blob.key for blob in tables.blobs if blob is not None)
    for key, count in keys.items():
        if count > 1:
            raise DamagedError(f"{count} resources are called {key!r}")


def _number_subsets(sites: Iterable[PaletteSite]) -> Iterator[PaletteSite]:
    """Number the palettes whose keys all are another one's, such as the same without its scale."""
    first: dict[str, PaletteSite] = {}
    for number, site in enumerate(sites):
        same = first.setdefault(site.name, site).parts == site.parts
        yield site if same else replace(site, name=f"{site.name}{BETWEEN}number {number}")


def _sites(program: MLIRProgram) -> Iterable[PaletteSite]:
    users: dict[Operation, list[Operation]] = defaultdict(list)
    for operation in program.operations:
        for maker in operation.operands:
            if maker is not None and maker.name == DECODE:
                users[maker].append(operation)
    decodes = [operation for operation in program.operations if operation.name == DECODE]
    for number, decode in enumerate(decodes):
        parts = [value(program.tables, operand) for operand in decode.operands]
        indices, lut, axis = parts if len(parts) == 3 else (None, None, None)
        if indices is None or lut is None or axis is None:
            raise DamagedError(f"{DECODE} number {number} does not take three constants")
        scale = _scale(program.tables, users[decode])
        yield PaletteSite(_name(number, indices, lut, scale), indices, lut, axis, scale)


def _name(number: int, *parts: Constant | None) -> str:
    """What the keys of the parts have in common before their endings."""
    keys = [part.blob.key for part in parts if part is not None and part.blob is not None]
    stems = dict.fromkeys(
        key.removesuffix(ending) for key, ending in zip(keys, _ENDINGS, strict=False)
    )
    return BETWEEN.join(stems) or str(number)


def _same_weights(asset: Asset) -> dict[str, str]:
    custom = asset.metadata.get("creatorDefinedMetadata")
    table = custom.get(SAME_KEY, {}) if isinstance(custom, dict) else {}
    try:
        return from_plain(table, dict[str, str], f"metadata {SAME_KEY!r}")
    except DkmError as error:
        raise DkmError(f"{asset.path}: {error}") from error


def _scale(tables: Tables, users: list[Operation]) -> Constant | None:
    """What all users of a decoded weight multiply it with, without any shift."""
    if not users or any(user.name != SCALE or len(user.operands) != 4 for user in users):
        return None
    _, scale, *shifts = (value(tables, operand) for operand in users[0].operands)
    none = all(shift is not None and not np.any(shift.floats()) for shift in shifts)
    return scale if none else None
