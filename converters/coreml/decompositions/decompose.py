"""Take apart the ATen calls that coremltools' torch front end does not know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from coremltools.converters.mil.frontend.torch.utils import sanitize_op_kind
from torch._decomp import decomposition_table
from torch.export import ExportedProgram

from converters.coreml.decompositions.complex_pairs import complex_as_pairs
from converters.coreml.decompositions.corrected_calls import CORRECTED
from converters.coreml.decompositions.dilated_pooling import DILATED_POOLING
from converters.coreml.decompositions.functions import FUNCTIONS
from converters.coreml.decompositions.matrices import MATRICES
from converters.coreml.decompositions.number_types import NUMBER_TYPES
from converters.coreml.decompositions.ordering import ORDERING
from converters.coreml.decompositions.reductions import REDUCTIONS
from converters.coreml.decompositions.shapes import SHAPES
from converters.grouped_products import grouped_products

_aten = torch.ops.aten
_LACKING = (  # known by name, but not in every form
    _aten.affine_grid_generator.default,
    _aten.diff.default,
    _aten.hann_window.default,
    _aten.new_full.default,
    _aten.new_ones.default,
    _aten.new_zeros.default,
)
_OF_COMPLEX = ("fft_", "stft", "istft")
_OURS = {
    **DILATED_POOLING,
    **FUNCTIONS,
    **MATRICES,
    **NUMBER_TYPES,
    **ORDERING,
    **REDUCTIONS,
    **SHAPES,
    **CORRECTED,
}

Decomposition = Callable[..., Any]


def decompose(
    program: ExportedProgram,
    known: Collection[str],
    apart: Collection[Any] = (),
    *,
    in_pairs: bool = False,
) -> ExportedProgram:
    """The program in calls that the front end knows, as far as PyTorch can express it in them.

    Args:
        program: of ``torch.export``; it is left as it was.
        known: the names that the front end and our lowering have calls under.
        apart: calls that PyTorch takes apart though they are known.
        in_pairs: whether complex values become pairs of real ones.
    """
    if in_pairs:
        known = [name for name in known if not name.startswith(_OF_COMPLEX)]
    torch_table = torch_decompositions()
    table = always_apart() | grouped_products()
    for op in apart:
        table[op] = _either(table.get(op), torch_table[op])
    while True:
        table = _unknown(program, known, torch_table) | table
        program = program.run_decompositions(table)
        if _unknown(program, known, torch_table).keys() <= table.keys():
            return complex_as_pairs(program) if in_pairs else program


def always_apart() -> dict[Any, Decomposition]:
    """Calls that are taken apart though the front end may know them, and how."""
    torch_table = torch_decompositions()
    return {op: torch_table[op] for op in _LACKING} | _OURS


def has_decomposition(call: Any) -> bool:
    """Whether PyTorch can take a call apart."""
    return isinstance(call, torch._ops.OpOverload) and call in torch_decompositions()


def _either(first: Decomposition | None, other: Decomposition) -> Decomposition:
    """What ``other`` makes of a call that ``first`` leaves whole."""
    if first is None or first is other:
        return other

    def both(*args: Any, **kwargs: Any) -> Any:
        made = first(*args, **kwargs)
        return other(*args, **kwargs) if made is NotImplemented else made

    return both


def torch_decompositions() -> dict[Any, Decomposition]:
    """PyTorch's own, less its references, which end in primitives that nobody lowers."""
    others = {op: how for op, how in decomposition_table.items() if not _is_reference(how)}
    exported = torch.export.default_decompositions()
    return {**others, **{op: exported[op] for op in exported}}


def _is_reference(decomposition: Decomposition) -> bool:
    return getattr(decomposition, "__module__", "").startswith("torch._refs")


def _unknown(
    program: ExportedProgram, known: Collection[str], torch_table: Mapping[Any, Decomposition]
) -> dict[Any, Decomposition]:
    """How PyTorch decomposes the calls of a program that are not known, where it does."""
    calls = {op for op in _calls(program) if sanitize_op_kind(op.name()) not in known}
    return {op: torch_table[op] for op in calls if op in torch_table}


def _calls(program: ExportedProgram) -> Iterator[Any]:
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            yield node.target
