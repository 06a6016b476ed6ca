"""Where an ML program computes which layer: the operations that read a weight, in their order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from dkm_deploy.formats.mlpackage.ml_program import Operand, Operation
from dkm_deploy.runtimes import Tap

_SUFFIXES = ("_to_fp16", "_palettized", "_quantized", "_sparsified")


def find_taps(
    operations: Iterable[Operation],
    names: Mapping[str, str],
    constants: Collection[str],
    values: Collection[str],
    weights: Collection[str],
) -> tuple[Tap, ...]:
    """A tap for every operation that computes something from data and a weight.

    Args:
        operations: of the function's body.
        names: qualified parameter name by the name of a weight in the program, where it is known.
        constants: names of the values that do not depend on an input.
        values: names of all values that a run can keep.
        weights: qualified parameter names that are looked for.
    """
    spelled = {_coremltools_name(weight): weight for weight in weights}
    found = []
    for operation in operations:
        given = {p: _kept_operands(ns, values) for p, ns in sorted(operation.inputs.items())}
        every = [name for some in given.values() for name in some]
        plain = [_plain_name(names.get(name, name)) for name in every if name in constants]
        read = [spelled[name] for name in plain if name in spelled]
        data = [name for name in (*given.get("x", ()), *every) if name not in constants]
        if read and data:
            found.append(Tap(min(read), data[0], operation.output))
    return tuple(found)


def _kept_operands(operands: Iterable[Operand], values: Collection[str]) -> list[str]:
    return [name for name in operands if isinstance(name, str) and name in values]


def _coremltools_name(weight: str) -> str:
    """A parameter's name as coremltools spells it: ``fc.weight`` is ``fc_weight``."""
    return weight.replace(".", "_")


def _plain_name(name: str) -> str:
    """A weight's name in a program without what coremltools adds to it."""
    name = _coremltools_name(name).removeprefix("p_")
    while ending := next((s for s in _SUFFIXES if name.endswith(s)), None):
        name = name.removesuffix(ending)
    return name
