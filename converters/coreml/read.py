"""Read the palettes of a Core ML package back from its bytes, on any OS."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from converters.coreml.blocks import inverse, reorder, unstacked
from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.mlprogram.constexpr import Constants
from dkm_deploy.runtimes.mlprogram.package import Package, open_package
from dkm_deploy.runtimes.mlprogram.program import Operand, Operation, functions

_T = TypeVar("_T")

# User-defined metadata, each a JSON object.
WEIGHTS_KEY = "dkm_deploy.weights"
"""The qualified parameter name by the output of the operation that decodes its palette."""
ORDERS_KEY = "dkm_deploy.orders"
"""By the same outputs, where the rows are not in the parameter's order, such as the gates of an
LSTM: the block of the parameter that each block of rows holds."""
TRANSPOSED_KEY = "dkm_deploy.transposed"
"""By the same outputs, true where the rows are the parameter's columns."""
STACKED_KEY = "dkm_deploy.stacked"
"""By the same outputs, how many dimensions of length 1 stand before the parameter's own."""
SAME_KEY = "dkm_deploy.same"
"""Of parameters whose palette is another one's too, and stored once: the name of that one."""


@dataclass(frozen=True)
class PaletteSite:
    """Where a program decodes a palette.

    Attributes:
        name: the qualified parameter name, or the operation's own where the file does not say.
        operation: the ``constexpr_lut_to_dense``.
        constants: of the function it is in.
        order: see ``ORDERS_KEY``; None is the parameter's own.
        transposed: whether it holds the parameter's columns as rows.
        ones: how many dimensions of length 1 stand before the parameter's own.
        scale: what the decoded weight is multiplied with, channel by channel, if it is.
    """

    name: str
    operation: Operation
    constants: Constants
    order: tuple[int, ...] | None
    transposed: bool
    ones: int
    scale: Operand | None

    def palette(self) -> Palette:
        """The palette, in the parameter's order. Raises DkmError if it is damaged."""
        stored = self.constants.palette(self.operation)
        if self.scale is not None:
            stored = replace(stored, scale=self.constants.get(self.scale))
        stored = stored.transposed() if self.transposed else stored
        stored = unstacked(stored, self.ones) if self.ones else stored
        return stored if self.order is None else reorder(stored, inverse(self.order))


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of a package by qualified parameter name.

    A palette that the package has no parameter name for (a file of another tool) goes by the name
    of its operation's output. What such a file does to the decoded weight afterwards, such as a
    scale for each channel, is not part of the palette.

    Raises:
        DkmError: the package is damaged, or gives one name to two different palettes.
    """
    found: dict[str, Palette] = {}
    package = open_package(path)
    for site in palette_sites(package):
        try:
            palette = site.palette()
        except DkmError as error:
            raise DkmError(f"{path}: {error}") from error
        if found.setdefault(site.name, palette) != palette:
            raise DkmError(f"{path}: two different palettes are called {site.name!r}")
    for name, other in _metadata(package, SAME_KEY, str).items():
        if other not in found:
            raise DkmError(f"{path}: metadata {SAME_KEY!r} names {other!r}, which is no palette")
        found[name] = found[other]
    return found


def palette_sites(package: Package) -> list[PaletteSite]:
    """All places of all functions where a palette is decoded."""
    names = _metadata(package, WEIGHTS_KEY, str)
    orders = {name: _order(package, o) for name, o in _metadata(package, ORDERS_KEY, list).items()}
    transposed = _metadata(package, TRANSPOSED_KEY, bool)
    ones = _metadata(package, STACKED_KEY, int)
    sites = []
    for function in functions(package).values():
        constants, operations = Constants(function.body), list(function.body.walk())
        scales = dict(_scales(operations)) if names else {}
        sites += [
            PaletteSite(
                names.get(o.output, o.output),
                o,
                constants,
                orders.get(o.output),
                transposed.get(o.output, False),
                ones.get(o.output, 0),
                scales.get(o.output),
            )
            for o in operations
            if o.type == "constexpr_lut_to_dense"
        ]
    return sites


def _scales(operations: Iterable[Operation]) -> Iterator[tuple[str, Operand]]:
    """The names of decoded weights and the scales they are multiplied with afterwards."""
    for operation in operations:
        data, scale = operation.inputs.get("data"), operation.inputs.get("scale")
        shifts = operation.inputs.get("offset")
        if operation.type != "constexpr_blockwise_shift_scale" or shifts or not data or not scale:
            continue
        if isinstance(data[0], str):  # not integers of a LUT, written in place
            yield data[0], scale[0]


def _metadata(package: Package, key: str, kind: type[_T]) -> dict[str, _T]:
    """A JSON object of the metadata whose values are of ``kind``; empty where it is absent."""
    text = package.user_metadata.get(key, "{}")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DkmError(f"{package.path}: metadata {key!r} is not JSON: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(v, kind) for v in table.values()):
        raise DkmError(f"{package.path}: metadata {key!r} is not an object of {kind.__name__}s")
    return table


def _order(package: Package, order: list[object]) -> tuple[int, ...]:
    if not order or sorted(order, key=repr) != list(range(len(order))):
        raise DkmError(f"{package.path}: metadata {ORDERS_KEY!r} holds {order}, no order of blocks")
    return tuple(order)  # type: ignore[arg-type]  # integers, as just compared
