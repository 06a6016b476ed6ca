"""The dense tensors of a Core ML package, one at a time: what no palette is decoded from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from converters.coreml.reading.read_palettes import PaletteSite, palette_sites
from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.formats.mlpackage.ml_program import (
    Constant,
    Operand,
    Operation,
    chosen,
    functions,
)
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.weight_blobs import WeightBlob

# What coremltools puts around the name of a parameter or buffer.
_BEFORE, _BEHIND = ("p_", "b_", "c_"), ("_to_fp16",)


def read_dense(path: Path, function: str | None = None) -> Iterator[DenseTensor]:
    """The dense tensors of a package, or of one function, by the names of their operations.

    coremltools spells the name of a parameter with letters, digits and underscores alone.

    Raises:
        DkmError: the package is damaged, or has no such function.
    """
    package = open_package(path)
    sites = palette_sites(package, function)
    palettes = {name for site in sites for name in _parts(site)}
    seen: set[WeightBlob] = set()
    every = functions(package)
    for each in every.values() if function is None else [chosen(every, function)]:
        for operation in each.body.walk():
            data = operation.inputs.get("data", ())
            if operation.output not in palettes and not palettes.intersection(_names(data)):
                yield from _constants(operation, seen)


def _parts(site: PaletteSite) -> Iterator[str]:
    """The operations that decode a palette, and the constants of their own."""
    yield from (site.operation.output, site.output)
    for operands in site.operation.inputs.values():
        yield from _names(operands)
    yield from _names(() if site.scale is None else (site.scale,))


def _names(operands: Iterable[Operand]) -> Iterator[str]:
    yield from (operand for operand in operands if isinstance(operand, str))


def _constants(operation: Operation, seen: set[WeightBlob]) -> Iterator[DenseTensor]:
    """The floats that an operation holds. Bytes that several of them share are given once."""
    for operands in operation.inputs.values():
        for operand in operands:
            if not isinstance(operand, Constant) or not _float_array(operand):
                continue
            blob = operand.blob
            if blob is not None and blob in seen:
                continue
            seen.update(() if blob is None else (blob,))
            yield DenseTensor(weight_name(operation.output), operand.size_bytes, operand.array)


def _float_array(constant: Constant) -> bool:
    tensor = constant.proto.type.WhichOneof("type") == "tensorType"
    return tensor and constant.type.dtype.is_floating


def weight_name(output: str) -> str:
    """The name of a tensor by that of its value in the program."""
    name = output
    for ending in _BEHIND:
        name = name.removesuffix(ending)
    for start in _BEFORE:
        if name.startswith(start):
            return name.removeprefix(start)
    return name
