"""Say the same program in fewer bytes: equal constants once, short names, small tensors inside.

In a small net of few bits the program outweighs the palettes: coremltools writes five constants for
each convolution, every name three times, and 64 bytes and more of padding for each tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil import load

from converters.coreml.program_messages import rename_inputs, walk
from dkm_deploy.formats.mlpackage.dtypes import program_dtype
from dkm_deploy.formats.mlpackage.value_names import CAST

_INSIDE = 1024  # bytes of the largest tensor in the program; others are mapped from their file


@contextmanager
def small_tensors_inside() -> Iterator[None]:
    """While the block runs, coremltools writes small tensors of floats into the program."""
    before = load.should_use_weight_file

    def decide(value: Any, *args: Any, **kwargs: Any) -> bool:
        array = np.asarray(value)
        small = array.dtype.kind == "f" and array.nbytes <= _INSIDE
        return not small and bool(before(value, *args, **kwargs))

    load.should_use_weight_file = decide
    try:
        yield
    finally:
        load.should_use_weight_file = before


def compact(program: Any, *, shorten: bool) -> None:
    """Rewrite a program's protobuf in place.

    Args:
        program: of a package, ``spec.mlProgram``.
        shorten: whether values and operations get short names. Inputs, outputs, states, dense
            weights and decoded palettes keep theirs: by these files are read back, and layers
            found.
    """
    for function in program.functions.values():
        for block in function.block_specializations.values():
            _share_constants(block, {}, {})
            if shorten:
                _shorten_names(function, block)


def _share_constants(block: Any, above: Mapping[bytes, str], renamed: Mapping[str, str]) -> None:
    """Keep the first of equal constants, also for the blocks inside."""
    known, to = dict(above), dict(renamed)
    kept = []
    for operation in block.operations:
        rename_inputs(operation, lambda name: to.get(name, name))
        if operation.type == "const" and _is_plain(operation):
            (output,) = operation.outputs
            value = operation.attributes["val"].SerializeToString(deterministic=True)
            first = known.setdefault(value, output.name)
            if first != output.name and output.name not in block.outputs:
                to[output.name] = first
                continue
        for inner in operation.blocks:
            _share_constants(inner, known, to)
        kept.append(operation)
    block.outputs[:] = [to.get(name, name) for name in block.outputs]
    if len(kept) < len(block.operations):
        copies = [type(operation).FromString(operation.SerializeToString()) for operation in kept]
        del block.operations[:]
        block.operations.extend(copies)


def _is_plain(constant: Any) -> bool:
    """Whether it is no tensor of numbers, which may be a weight with a name."""
    value = constant.attributes["val"]
    return value.WhichOneof("value") == "immediateValue" and not _is_weight(value)


def _is_weight(value: Any) -> bool:
    """Whether a constant is a tensor of floats of rank 1 or more."""
    if not value.type.HasField("tensorType"):
        return False
    kind = value.type.tensorType
    return kind.rank > 0 and program_dtype(kind.dataType).is_floating


def _shorten_names(function: Any, block: Any) -> None:
    kept = {given.name for given in function.inputs} | set(block.outputs)
    names = _weight_names(block, kept)
    kept |= set(names) | set(names.values())
    # Each an identifier, and no word of the language.
    short = (name for name in (f"v{number}" for number in count()) if name not in kept)
    for operation, _ in walk(block):
        made = [*operation.outputs, *(given for b in operation.blocks for given in b.inputs)]
        names |= {each.name: next(short) for each in made if each.name not in kept}
    _rename(block, lambda name: names.get(name, name))


def _weight_names(block: Any, taken: Collection[str]) -> dict[str, str]:
    """Names for dense weights and for what is decoded: without the mark of a cast.

    The mark stays where the name without it is taken, as by an input that is called like a weight.
    """
    found = [
        output.name
        for operation, _ in walk(block)
        for output in operation.outputs
        if operation.type.startswith("constexpr_")
        or (operation.type == "const" and not _is_plain(operation))
    ]
    plain = {name: name.removesuffix(CAST) for name in found}
    once = Counter(plain.values())
    return {
        name: short if once[short] == 1 and short not in taken else name
        for name, short in plain.items()
    }


def _rename(block: Any, to: Callable[[str], str]) -> None:
    for given in block.inputs:
        given.name = to(given.name)
    for operation in block.operations:
        rename_inputs(operation, to)
        for output in operation.outputs:
            output.name = to(output.name)
        if "name" in operation.attributes:
            label = operation.attributes["name"].immediateValue.tensor.strings.values
            label[:] = [to(name) for name in label]
        for inner in operation.blocks:
            _rename(inner, to)
    block.outputs[:] = [to(name) for name in block.outputs]
