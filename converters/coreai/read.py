"""Read the palettes of a Core AI asset back from its bytes, on any OS, without Apple's packages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.coreai.constants import Constant, constant
from converters.coreai.cursor import DamagedError
from converters.coreai.program import Operation, Program, parse
from converters.coreai.sections import Tables
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.aimodel.asset import open_asset

CONSTANT = "aicode.primitive.constant_v1"
DECODE = "aicode.primitive.lut_to_dense_v1"
SCALE = "aicode.primitive.blockwise_shift_scale_v1"
INDICES_KEY, LUT_KEY, SCALE_KEY = ".indices", ".lut", ".scale"
"""Endings of the keys of a palette's resources; before them stands the parameter's name."""


@dataclass(frozen=True)
class PaletteSite:
    """Where a program decodes a palette.

    Attributes:
        name: the qualified parameter name, or the key of the indices where the file does not say.
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


@dataclass(frozen=True)
class Contents:
    """A parsed asset: its program, and where that decodes palettes."""

    program: Program
    sites: tuple[PaletteSite, ...]


def contents(path: Path) -> Contents:
    """Open and parse an asset. Raises DkmError if it is damaged or of a newer kind."""
    asset = open_asset(path)
    try:
        program = parse(asset.program)
        return Contents(program, tuple(_sites(program)))
    except DamagedError as error:
        raise DkmError(f"{path}: its program is damaged or of an unknown kind: {error}") from error


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of an asset by qualified parameter name.

    A palette that the asset has no parameter name for (a file of another tool) goes by the key of
    its indices or, where they have none, by its number.

    Raises:
        DkmError: the asset is damaged, or gives one name to two different palettes.
    """
    found: dict[str, Palette] = {}
    for site in contents(path).sites:
        try:
            palette = site.palette()
        except (DkmError, DamagedError) as error:
            raise DkmError(f"{path}: {site.name}: {error}") from error
        if found.setdefault(site.name, palette) != palette:
            raise DkmError(f"{path}: two different palettes are called {site.name!r}")
    return found


def value(tables: Tables, operation: Operation | None) -> Constant | None:
    """The tensor that a constant holds; None for other operations and other values."""
    if operation is None or operation.name != CONSTANT or operation.properties is None:
        return None
    if len(operation.results) != 1:
        return None
    return constant(tables, operation.properties.again().number(), operation.results[0])


def _sites(program: Program) -> Iterable[PaletteSite]:
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
        yield PaletteSite(_name(indices, number), indices, lut, axis, scale)


def _name(indices: Constant, number: int) -> str:
    return f"{number}" if indices.blob is None else indices.blob.key.removesuffix(INDICES_KEY)


def _scale(tables: Tables, users: list[Operation]) -> Constant | None:
    """What all users of a decoded weight multiply it with, without any shift."""
    if not users or any(user.name != SCALE or len(user.operands) != 4 for user in users):
        return None
    _, scale, *shifts = (value(tables, operand) for operand in users[0].operands)
    none = all(shift is not None and not np.any(shift.floats()) for shift in shifts)
    return scale if none else None
