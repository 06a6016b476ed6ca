"""Is a package that was made from another one the same program, but for its palettes?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from converters.coreml.rewriting.decode_operation import UNSCALED
from dkm_deploy.formats.mlpackage.constexpr import is_constant
from dkm_deploy.formats.mlpackage.ml_program import (
    Block,
    Function,
    Operand,
    Operation,
    functions,
)
from dkm_deploy.formats.mlpackage.package import Package, open_package
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS

_CONTROL = ("cond", "while_loop")
_REPLACING = ("constexpr_lut_to_dense", "constexpr_blockwise_shift_scale")
_SHOWN = 3


def check_rewritten(path: Path, out: Path) -> Iterator[str]:
    """Read both packages and compare all that is no palette, one tensor at a time.

    Args:
        path: the input.
        out: what was made of it; its palettes are compared elsewhere.

    Yields:
        A sentence for each thing that cannot be checked later.

    Raises:
        RuntimeError: something else differs; this project is at fault.
    """
    before, after = open_package(path), open_package(out)
    problem = _difference(before, after)
    if problem:
        raise RuntimeError(f"{path}: palettizing it changed {problem}; please report")
    operations = (o for f in functions(after).values() for o in f.body.walk())
    unknown = {o.type: None for o in operations if not _is_known(o)}
    if unknown:
        names = ", ".join([*unknown][:_SHOWN])
        yield f"the evaluator has no {names}, so only Core ML itself can run the file"


def _is_known(operation: Operation) -> bool:
    return is_constant(operation) or operation.type in KERNELS or operation.type in _CONTROL


def _difference(before: Package, after: Package) -> str | None:
    """The first thing that is not the same, or None."""
    old, new = functions(before), functions(after)
    if [*old] != [*new]:
        return "its functions"
    interfaces = [type(before.model.description)() for _ in range(2)]
    for interface, package in zip(interfaces, (before, after), strict=True):
        interface.CopyFrom(package.model.description)
        interface.metadata.ClearField("userDefined")
    if interfaces[0] != interfaces[1]:
        return "its interface"
    for name, function in old.items():
        problem = _function_difference(function, new[name])
        if problem:
            return f"{problem} of function {name!r}"
    return None


def _function_difference(old: Function, new: Function) -> str | None:
    if (old.inputs, old.states) != (new.inputs, new.states):
        return "inputs or states"
    return _block_difference(old.body, new.body, {})


def _block_difference(old: Block, new: Block, renamed: dict[str, str]) -> str | None:
    """The first thing in which two blocks differ; ``renamed`` are the weights' new names."""
    if (old.inputs, old.outputs) != (new.inputs, new.outputs):
        return "the inputs or outputs of a block"
    ours = [o for o in new.operations if not (_is_decode(o) and o.output.endswith(UNSCALED))]
    if len(old.operations) != len(ours):
        return "the number of operations"
    for left, right in zip(old.operations, ours, strict=True):
        if left.type == "const" and right.type in _REPLACING:
            renamed[left.output] = right.output
            same = [kind for _, kind in left.outputs] == [kind for _, kind in right.outputs]
        else:
            same = _is_same(left, right, renamed)
        if not same:
            return f"operation {left.output!r}"
        for inner in zip(left.blocks, right.blocks, strict=True):
            problem = _block_difference(*inner, renamed)
            if problem:
                return problem
    return None


def _is_decode(operation: Operation) -> bool:
    return operation.type == "constexpr_lut_to_dense"


def _is_same(old: Operation, new: Operation, renamed: Mapping[str, str]) -> bool:
    if (old.type, old.outputs, len(old.blocks)) != (new.type, new.outputs, len(new.blocks)):
        return False
    return old.inputs.keys() == new.inputs.keys() and all(
        len(operands) == len(new.inputs[key])
        and all(map(partial(_is_same_operand, renamed), operands, new.inputs[key]))
        for key, operands in old.inputs.items()
    )


def _is_same_operand(renamed: Mapping[str, str], old: Operand, new: Operand) -> bool:
    if isinstance(old, str) or isinstance(new, str):
        return isinstance(old, str) and renamed.get(old, old) == new
    if not old.in_weight_file:
        return bool(old.proto == new.proto)
    if old.proto.type != new.proto.type or old.blob is None or new.blob is None:
        return False
    return old.blob.dtype == new.blob.dtype and np.array_equal(old.blob.read(), new.blob.read())
