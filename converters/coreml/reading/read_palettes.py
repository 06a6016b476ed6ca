"""Read the palettes of a Core ML package back from its bytes, on any OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from converters.coreml.tables.row_blocks import behind, drop_leading_dims, inverse, reorder
from converters.coreml.tables.table_rows import TableRows, join_parts
from converters.coreml.tables.unread_rows import restore
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.constexpr import Constants
from dkm_deploy.formats.mlpackage.ml_program import Operand, Operation, chosen, functions
from dkm_deploy.formats.mlpackage.package import Package, open_package
from dkm_deploy.palette import Palette

_T = TypeVar("_T")

# User-defined metadata, each a JSON object.
ORDERS_KEY = "dkm_deploy.orders"
"""By the same outputs, where the rows are not in the parameter's order, such as the gates of an
LSTM: the block of the parameter that each block of rows holds."""
TRANSPOSED_KEY = "dkm_deploy.transposed"
"""By the same outputs, true where the rows are the parameter's columns."""
STACKED_KEY = "dkm_deploy.stacked"
"""By the same outputs, how many dimensions of length 1 stand before the parameter's own."""
ROWS_KEY = "dkm_deploy.rows"
"""By the same outputs, where only some rows of a parameter are held: how many equal ``blocks`` of
rows the parameter has, whether each has ``luts`` of its own, and the ``runs`` of blocks held."""
UNREAD_KEY = "dkm_deploy.unread"
"""By parameter name, of rows that no operation reads: where records of the weight file hold their
``indices``, a bit stream, and their ``lut`` and ``scale`` where they have their own. All rows that
no output holds are there, in order."""
SAME_KEY = "dkm_deploy.same"
"""Of parameters whose palette is another one's too, and stored once: the name of that one."""

RECIPE_KEY = "dkm_deploy.recipe"
"""The recipe that gives palettes of these layouts, as TOML; this one is no JSON."""


@dataclass(frozen=True)
class PaletteSite:
    """Where a program decodes a palette.

    Attributes:
        function: the one that it is in.
        name: the qualified parameter name, or the operation's own where the file does not say.
        operation: the ``constexpr_lut_to_dense``, or the ``constexpr_lut_to_sparse``.
        output: the name of the decoded weight.
        constants: of the function it is in.
        order: see ``ORDERS_KEY``; None is the parameter's own.
        transposed: whether it holds the parameter's columns as rows.
        ones: how many dimensions of length 1 stand before the parameter's own.
        held: which rows of the parameter it holds; None is all, as they are.
        scale: what the decoded weight is multiplied with, channel by channel, if it is.
    """

    function: str
    name: str
    operation: Operation
    output: str
    constants: Constants
    order: tuple[int, ...] | None
    transposed: bool
    ones: int
    held: TableRows | None
    scale: Operand | None

    def palette(self) -> Palette:
        """The palette, in the parameter's order. Raises DkmError if it is damaged."""
        stored = self.constants.palette(self.operation)
        stored = stored.transpose() if self.transposed else stored
        stored = drop_leading_dims(stored, self.ones) if self.ones else stored
        if self.scale is not None:
            scale = self.constants.get(self.scale)
            stored = replace(stored, scale=behind(scale, self.ones))
        return stored if self.order is None else reorder(stored, inverse(self.order))


def read_palettes(path: Path, function: str | None = None) -> dict[str, Palette]:
    """The palettes of a package by qualified parameter name.

    A palette that the package has no parameter name for (a file of another tool) goes by the name
    of its operation's output. What such a file does to the decoded weight afterwards, such as a
    scale for each channel, is not part of the palette. Where functions have different palettes of
    one name, the later ones have the function's name in front: ``second.head_weight``.

    Args:
        path: the package.
        function: the one whose palettes are wanted; None is all, ``""`` the default one.

    Raises:
        DkmError: the package is damaged, has no such function, or gives one name to two different
            palettes.
    """
    found: dict[str, Palette] = {}
    parts: dict[str, list[tuple[TableRows, Palette]]] = {}
    package = open_package(path)
    first: dict[str, str] = {}  # function by name of a palette
    for site in palette_sites(package, function):
        try:
            palette = site.palette()
        except DkmError as error:
            raise DkmError(f"{path}: {error}") from error
        name = site.name
        if site.held is not None:
            parts.setdefault(name, []).append((site.held, palette))
            continue
        if first.setdefault(name, site.function) != site.function and found[name] != palette:
            name = f"{site.function}.{name}"
        if found.setdefault(name, palette) != palette:
            raise DkmError(f"{path}: two different palettes are called {name!r}")
    for name, held in parts.items():
        found[name] = _table(package, name, held, found.get(name))
    for name, other in package.metadata(SAME_KEY, str).items():
        if other not in found and function is not None and len(functions(package)) > 1:
            continue
        if other not in found:
            raise DkmError(f"{path}: metadata {SAME_KEY!r} names {other!r}, which is not a palette")
        found[name] = found[other]
    return found


def palette_sites(package: Package, function: str | None = None) -> list[PaletteSite]:
    """All places where a palette is decoded: of a function, or of all."""
    every = functions(package)
    wanted = every.values() if function is None else [chosen(every, function)]
    names = package.weight_names
    listed = package.metadata(ORDERS_KEY, tuple[int, ...])
    orders = {name: _order(package, order) for name, order in listed.items()}
    transposed = package.metadata(TRANSPOSED_KEY, bool)
    ones = package.metadata(STACKED_KEY, int)
    held = package.metadata(ROWS_KEY, TableRows)
    sites = []
    for each in wanted:
        constants, operations = Constants(each.body), list(each.body.walk())
        scales = dict(_scales(operations)) if names else {}
        sites += [
            PaletteSite(
                each.name,
                names.get(output, output),
                operation,
                output,
                constants,
                orders.get(output),
                transposed.get(output, False),
                ones.get(output, 0),
                held.get(output),
                scales.get(output),
            )
            for operation, output in _decodes(operations, constants)
        ]
    return sites


def _decodes(
    operations: Sequence[Operation], constants: Constants
) -> Iterator[tuple[Operation, str]]:
    """The operations that decode a palette, and the names of the weights that they give.

    A sparse one of another tool, whose LUT has no zero, is no palette.
    """
    sparse: dict[str, Operation] = {}  # by the name of its values
    for operation in operations:
        if operation.type == "constexpr_lut_to_dense":
            yield operation, operation.output
        elif operation.type == "constexpr_lut_to_sparse":
            sparse.update((name, operation) for name, _ in operation.outputs[1:])
        elif operation.type == "constexpr_sparse_to_dense":
            for values in operation.inputs.get("nonzero_data", ()):
                made_by = sparse.get(values) if isinstance(values, str) else None
                if made_by is not None and constants.leaves_out_zeros(made_by):
                    yield made_by, operation.output


def unread_rows(package: Package) -> dict[str, dict[str, int]]:
    """By parameter name, where the rows are that no operation reads."""
    return package.metadata(UNREAD_KEY, dict[str, int])


def _table(
    package: Package, name: str, parts: list[tuple[TableRows, Palette]], whole: Palette | None
) -> Palette:
    """The palette of which these are parts, and ``whole`` all of it where the program has it."""
    first, like = parts[0]
    if whole is not None:
        parts = [*parts, (replace(first, runs=((0, first.blocks),)), whole)]
    offsets = unread_rows(package).get(name, {})
    try:
        return join_parts(parts, lambda count: restore(package, offsets, first, like, count))
    except DkmError as error:
        raise DkmError(f"{package.path}: {name}: {error}") from error


def _scales(operations: Iterable[Operation]) -> Iterator[tuple[str, Operand]]:
    """The names of decoded weights and the scales they are multiplied with afterwards."""
    for operation in operations:
        data, scale = operation.inputs.get("data"), operation.inputs.get("scale")
        shifts = operation.inputs.get("offset")
        if operation.type != "constexpr_blockwise_shift_scale" or shifts or not data or not scale:
            continue
        if isinstance(data[0], str):  # not integers of a LUT, written in place
            yield data[0], scale[0]


def _order(package: Package, order: tuple[int, ...]) -> tuple[int, ...]:
    if not order or sorted(order) != list(range(len(order))):
        told = f"holds {list(order)}, no order of blocks"
        raise DkmError(f"{package.path}: metadata {ORDERS_KEY!r} {told}")
    return order
