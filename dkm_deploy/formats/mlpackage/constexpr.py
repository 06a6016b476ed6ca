"""Constants of a program, and the constexpr operations that decompress them: numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.formats.mlpackage.ml_program import Block, Constant, Operand, Operation
from dkm_deploy.formats.mlpackage.sparse_palette import put_back, zero_entry
from dkm_deploy.packing import unpack
from dkm_deploy.palette import Palette

_T = TypeVar("_T")

Array = NDArray[Any]
Arguments = Mapping[str, Array]

_LEVELS = 6  # constants made from constants; each is decoded anew wherever it is used


def is_constant(operation: Operation) -> bool:
    """Whether an operation's outputs are known without running anything."""
    return operation.type == "const" or operation.type.startswith("constexpr_")


class Constants:
    """The constants of a block by name, decoded when asked for and not kept."""

    def __init__(self, block: Block) -> None:
        self._source: dict[str, tuple[Operation, int]] = {}
        levels: dict[str, int] = {}
        for operation in block.walk():
            # Only what is made from earlier constants: a damaged program may go in circles.
            if is_constant(operation) and _names(operation) <= self._source.keys():
                level = 1 + max((levels[name] for name in _names(operation)), default=0)
                for position, (name, _) in enumerate(operation.outputs if level <= _LEVELS else ()):
                    self._source.setdefault(name, (operation, position))
                    levels.setdefault(name, level)

    def __contains__(self, name: object) -> bool:
        return name in self._source

    def get(self, operand: Operand) -> Array:
        """The values of an operand. Raises DkmError if it is not constant or is damaged."""
        if isinstance(operand, Constant):
            return operand.array()
        if operand not in self._source:
            raise DkmError(f"{operand!r} should be a constant, but the program computes it")
        operation, position = self._source[operand]
        return self._outputs(operation)[position]

    def is_weight(self, name: str) -> bool:
        """Whether a value is decoded by a constexpr operation or lies in a weight file."""
        if name not in self._source:
            return False
        operation, _ = self._source[name]
        return operation.type != "const" or any(leaf.in_weight_file for leaf in self.leaves(name))

    def leaves(self, operand: Operand) -> list[Constant]:
        """The stored constants that an operand is made from."""
        if isinstance(operand, Constant):
            return [operand]
        if operand not in self._source:
            return []
        inputs = self._source[operand][0].inputs.values()
        return [leaf for operands in inputs for item in operands for leaf in self.leaves(item)]

    def palette(self, operation: Operation) -> Palette:
        """The palette of a ``constexpr_lut_to_dense``, or of a ``constexpr_lut_to_sparse``.

        Raises:
            DkmError: it is damaged, or its LUT lacks the zero that a sparse one leaves out.
        """
        sparse = operation.type == "constexpr_lut_to_sparse"
        read = sparse_palette if sparse else palette
        return _name_operation(operation, read, self._arguments(operation))

    def leaves_out_zeros(self, operation: Operation) -> bool:
        """Whether the LUT of a ``constexpr_lut_to_sparse`` has the zero that it leaves out.

        Raises:
            DkmError: it has no LUT, or a damaged one.
        """
        luts = operation.inputs.get("lut", ())
        given = {"lut": self.get(luts[0])} if luts else {}
        return _name_operation(operation, _has_zero, given)

    def _arguments(self, operation: Operation) -> dict[str, Array]:
        return {
            key: self.get(operands[0]) for key, operands in operation.inputs.items() if operands
        }

    def _outputs(self, operation: Operation) -> tuple[Array, ...]:
        if operation.type not in DECODERS:
            raise DkmError(f"{operation.output!r}: operation {operation.type} is not supported")
        return _name_operation(operation, DECODERS[operation.type], self._arguments(operation))


def _names(operation: Operation) -> set[str]:
    return {o for operands in operation.inputs.values() for o in operands if isinstance(o, str)}


def palette(arguments: Arguments) -> Palette:
    """The palette that the arguments of ``constexpr_lut_to_dense`` describe.

    iOS16 has a bit stream of indices, a shape and one LUT; iOS18 has typed indices in the weight's
    rank and a LUT for each group. Integer LUTs become float16, which holds them exactly.
    """
    lut = arguments["lut"]
    lut = lut if lut.dtype.kind == "f" else lut.astype(np.float16)
    if "shape" not in arguments:
        indices = arguments["indices"]
        axis = int(arguments["vector_axis"]) if "vector_axis" in arguments else 0
        return Palette(indices, lut, axis + indices.ndim if axis < 0 else axis)
    shape = tuple(arguments["shape"].tolist())
    bits = max(lut.size - 1, 1).bit_length()
    indices = unpack(arguments["indices"].tobytes(), bits, math.prod(shape)).reshape(shape)
    return Palette(indices, lut.reshape((1,) * len(shape) + (lut.size, 1)))


def _has_zero(arguments: Arguments) -> bool:
    return zero_entry(arguments["lut"]) is not None


def sparse_palette(arguments: Arguments) -> Palette:
    """The palette that the arguments of ``constexpr_lut_to_sparse`` describe."""
    zero = zero_entry(arguments["lut"])
    if zero is None:
        raise DkmError("its LUT has no entry for the zeros that it leaves out")
    indices = put_back(arguments["indices_nonzero_data"], arguments["indices_mask"], zero)
    return palette({**arguments, "indices": indices})


def _lut_to_dense(arguments: Arguments) -> tuple[Array]:
    found = palette(arguments)
    check_elements(found.shape)
    return (found.decode(),)


def _blockwise_shift_scale(arguments: Arguments) -> tuple[Array]:
    data, scale = arguments["data"], arguments["scale"]
    values = data.astype(np.float32)
    if "offset" in arguments:
        values -= _spread(arguments["offset"], data.shape)
    return ((values * _spread(scale, data.shape)).astype(scale.dtype),)


def _affine_dequantize(arguments: Arguments) -> tuple[Array]:
    data, scale = arguments["quantized_data"], arguments["scale"]
    along = [1] * data.ndim
    along[int(arguments["axis"])] = -1
    values = data.astype(np.float32)
    for key, combine in (("zero_point", np.subtract), ("scale", np.multiply)):
        other = arguments[key].astype(np.float32)
        values = combine(values, other.reshape(along) if other.ndim else other)
    return (values.astype(scale.dtype),)


def _sparse_to_dense(arguments: Arguments) -> tuple[Array]:
    mask = arguments["mask"]
    if "shape" in arguments:
        shape = tuple(arguments["shape"].tolist())
        mask = unpack(mask.tobytes(), 1, math.prod(shape)).reshape(shape)
    return (put_back(arguments["nonzero_data"], mask),)


def _lut_to_sparse(arguments: Arguments) -> tuple[Array, Array]:
    mask = arguments["indices_mask"]
    indices = put_back(arguments["indices_nonzero_data"], mask)
    decoded = palette({**arguments, "indices": indices})
    if decoded.cluster_dim > 1:
        mask = np.repeat(mask, decoded.cluster_dim, decoded.axis)
    return mask, decoded.decode()[mask != 0]


def _sparse_shift_scale(arguments: Arguments) -> tuple[Array, Array]:
    mask = arguments["data_mask"]
    data = put_back(arguments["nonzero_data"], mask)
    (dense,) = _blockwise_shift_scale({**arguments, "data": data})
    return mask, dense[mask != 0]


def _cast(arguments: Arguments) -> tuple[Array]:
    name = str(arguments["output_dtype"])
    if name not in ("fp16", "fp32"):
        raise DkmError(f"cast to {name!r}; only fp16 and fp32 are known")
    return (arguments["source_val"].astype(np.float16 if name == "fp16" else np.float32),)


# By operation: how its arguments become values.
DECODERS: dict[str, Callable[[Arguments], tuple[Array, ...]]] = {
    "const": lambda arguments: (arguments["val"],),
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_sparse_to_dense": _sparse_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_shift_scale,
    "constexpr_cast": _cast,
}


def _spread(values: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat one value a block until it fills ``shape``."""
    values = values.astype(np.float32)
    if values.ndim and (
        values.ndim != len(shape) or any(n % b for n, b in zip(shape, values.shape, strict=True))
    ):
        raise DkmError(f"blocks of shape {values.shape} do not divide data of shape {shape}")
    for axis, count in enumerate(values.shape):
        if count not in (1, shape[axis]):
            values = np.repeat(values, shape[axis] // count, axis)
    return values


def _name_operation(
    operation: Operation, decode: Callable[[Arguments], _T], given: Arguments
) -> _T:
    """Run a decoder; whatever it trips over is told with the operation's name."""
    try:
        return decode(given)
    except KeyError as error:
        raise DkmError(f"{operation.output!r}: {operation.type} lacks input {error}") from error
    except (ValueError, IndexError) as error:  # DkmError is a ValueError
        raise DkmError(f"{operation.output!r}: {operation.type}: {error}") from error
