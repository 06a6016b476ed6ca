"""Which tensors of a package are weights, and why the others are not.

A tensor of rank 2 or more that lies in a weight file is a weight if

- it is float16 or float32, and finite;
- *every* use of it, in all functions, is as an operand of a linear operation (``linear``, ``conv``,
  ``conv_transpose``, ``matmul``, ``einsum``, the matrices of ``lstm``, ``gru`` and ``rnn``) or as
  the table of a ``gather``, directly or through operations that only move or cast values.

So what is added, multiplied or compared stays as it is: masks, sine tables, states. So does a table
that constant indices read from, which is a lookup table already, and what other operations
decompress: palettes, quantized and sparse weights of other tools.

A weight that several functions or operations hold is one, with one name: that of the first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from converters.coreml.deployment import MAX_RANK
from converters.coreml.reading.dense_tensors import weight_name
from converters.coreml.rewriting.decode_operation import TYPED_INDICES, Pointer
from converters.coreml.rewriting.program_edit import pointer
from converters.coreml.rewriting.uses import FunctionValues, Use
from dkm_deploy.formats.mlpackage.ml_program import Constant, Operation, functions
from dkm_deploy.formats.mlpackage.package import Package

_RECURRENT = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")
_LINEAR = {
    "linear": ("weight",),
    "conv": ("weight",),
    "conv_transpose": ("weight",),
    "matmul": ("x", "y"),
    "einsum": ("values",),
    "gather": ("x",),
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "rnn": _RECURRENT,
}
_COMPRESSED = {
    "constexpr_lut_to_dense": "palettized already",
    "constexpr_lut_to_sparse": "palettized and pruned already",
    "constexpr_sparse_to_dense": "pruned already",
    "constexpr_affine_dequantize": "quantized already",
    "constexpr_blockwise_shift_scale": "quantized already",
    "constexpr_sparse_blockwise_shift_scale": "quantized and pruned already",
    "constexpr_cast": "float16 that the program casts",
}


@dataclass(frozen=True)
class Weight:
    """A tensor that can become a palette.

    Attributes:
        name: by which a recipe knows it.
        shape: of it.
        constant: its values.
        sites: the functions that hold it, and by which names of values.
        opset: the lowest of these functions.
    """

    name: str
    shape: tuple[int, ...]
    constant: Constant
    sites: tuple[tuple[str, str], ...]
    opset: int

    @property
    def pointer(self) -> Pointer:
        """Where its values lie."""
        return pointer(self.constant.proto)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.constant.type.dtype.bits // 8

    def read(self) -> NDArray[np.floating]:
        """Its values, read anew. Raises DkmError if they cannot be."""
        return self.constant.array()


@dataclass(frozen=True)
class FoundWeights:
    """The tensors of rank 2 or more of a package; each is in exactly one of the two.

    Attributes:
        tensors: weights by name.
        dense: reason of all others by name.
    """

    tensors: Mapping[str, Weight]
    dense: Mapping[str, str]


@dataclass(frozen=True)
class _Site:
    """A tensor as a function holds it: a ``const`` operation."""

    function: str
    opset: int
    output: str
    constant: Constant
    values: FunctionValues


def find_weights(package: Package) -> FoundWeights:
    """Sort the tensors of a package; see the module for the rule.

    Raises:
        DkmError: the package is damaged.
    """
    dense: dict[str, str] = {}
    stored: dict[Pointer, list[_Site]] = {}
    for function in functions(package).values():
        values = FunctionValues(function)
        for operation in function.body.walk():
            if _rank(operation) < 2:
                continue
            if operation.type in _COMPRESSED:
                name = package.weight_names.get(operation.output) or weight_name(operation.output)
                dense[name] = _COMPRESSED[operation.type]
                continue
            constant = _constant(operation)
            if constant is None:
                continue
            if constant.in_weight_file:
                site = _Site(function.name, function.opset, operation.output, constant, values)
                stored.setdefault(pointer(constant.proto), []).append(site)
            else:
                dense[weight_name(operation.output)] = "few values, written in the program itself"
    tensors: dict[str, Weight] = {}
    for sites in stored.values():
        name = _free_name(sites[0], {*tensors, *dense})
        reason = _not_a_weight(sites)
        if reason:
            dense[name] = reason
        else:
            tensors[name] = _weight(name, sites)
    return FoundWeights(tensors, dense)


def _weight(name: str, sites: Sequence[_Site]) -> Weight:
    constant = sites[0].constant
    shape = tuple(n or 0 for n in constant.type.shape)
    places = tuple((site.function, site.output) for site in sites)
    return Weight(name, shape, constant, places, min(site.opset for site in sites))


def _rank(operation: Operation) -> int:
    """Dimensions of the first output; 0 where it is no tensor."""
    kind = operation.outputs[0][1] if operation.outputs else None
    return 0 if kind is None else len(kind.shape)


def _constant(operation: Operation) -> Constant | None:
    """What a ``const`` holds; None for other operations."""
    held = operation.inputs.get("val", ()) if operation.type == "const" else ()
    return held[0] if held and isinstance(held[0], Constant) else None


def _free_name(site: _Site, taken: Collection[str]) -> str:
    """A name that no other tensor has: the parameter's, the value's, or that with the function."""
    names = (weight_name(site.output), site.output, f"{site.function}.{site.output}")
    return next((name for name in names if name not in taken), names[-1])


def _not_a_weight(sites: Sequence[_Site]) -> str | None:
    """Why a tensor, wherever it is, is not a weight, or None if it is one."""
    constant = sites[0].constant
    kind = constant.type
    if kind.dtype.name not in ("fp16", "fp32"):
        return f"{kind.dtype.name}: palettes are float16 or float32"
    if any(site.constant.type != kind for site in sites):
        return "the program has its bytes in several shapes or types"
    if len({site.opset < TYPED_INDICES for site in sites}) > 1:
        return "functions for iOS 18 share it with functions for older ones"
    if len(kind.shape) > MAX_RANK:
        return f"rank {len(kind.shape)}; Core ML has at most {MAX_RANK}"
    uses = [(use, site) for site in sites for use in site.values.final_uses(site.output)]
    if not uses:
        return "no operation uses its values"
    for use, site in uses:
        reason = _not_linear(use, site)
        if reason:
            return reason
    values = constant.array()
    if not values.size:
        return "it has no elements"
    if not np.isfinite(values).all():
        return "it holds NaN or infinity"
    return None


def _not_linear(use: Use, site: _Site) -> str | None:
    operation = use.operation
    if operation is None:
        return "an output of the program or of a block"
    if operation.type in _COMPRESSED:
        return f"input {use.parameter} of {operation.type}: {_COMPRESSED[operation.type]}"
    if use.parameter not in _LINEAR.get(operation.type, ()):
        return f"input {use.parameter} of {operation.type}: not the weight of a linear operation"
    if operation.type == "gather" and _is_lookup_table(operation, site):
        return "a lookup table already: constant indices read from it"
    return None


def _is_lookup_table(gather: Operation, site: _Site) -> bool:
    """Whether constant indices read more slices than the table has."""
    shape = site.constant.type.shape
    (indices,), axes = gather.inputs["indices"], gather.inputs.get("axis", ())
    constants = site.values.constants
    axis = int(constants.get(axes[0])) if axes else 0
    if isinstance(indices, Constant):
        count = int(prod(n or 0 for n in indices.type.shape))
    elif site.values.is_constant(indices):
        count = int(prod(n or 0 for n in site.values.shapes[indices]))
    else:
        return False
    return count > (shape[axis] or 0)
