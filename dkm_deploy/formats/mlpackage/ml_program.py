"""A view of an ML program as plain records: functions, blocks, operations, constants."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.dtypes import DType, from_bytes, program_dtype
from dkm_deploy.formats.mlpackage.package import Package
from dkm_deploy.formats.mlpackage.weight_blobs import WeightBlob, find_blob

_FIELD_BYTES = {"floats": 4, "bools": 1, "doubles": 8}
_OPSETS = {f"CoreML{number}": number for number in range(5, 10)}  # iOS 15 to iOS 26


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; None for a dimension that may change.

    With ``any_rank`` the shape says nothing: even how many dimensions there are may change.
    """

    dtype: DType
    shape: tuple[int | None, ...]
    any_rank: bool = False


@dataclass(frozen=True)
class Constant:
    """A value written in the program or in a weight file, decoded when asked for."""

    proto: Any
    package: Package

    @property
    def tensor_type(self) -> TensorType | None:
        """Its type; None if it is not a tensor or string."""
        return tensor_type(self.proto.type)

    @property
    def type(self) -> TensorType:
        """Its type. Raises DkmError if it is not a tensor or string."""
        kind = self.tensor_type
        if kind is None:
            raise DkmError(f"{self.package.path}: a constant is a list or dictionary, not a tensor")
        return kind

    @property
    def in_weight_file(self) -> bool:
        """Whether its values lie in a weight file and not in the program itself."""
        return bool(self.proto.WhichOneof("value") == "blobFileValue")

    @property
    def blob(self) -> WeightBlob | None:
        """Where it lies in a weight file; None if it is written in the program itself."""
        if not self.in_weight_file:
            return None
        pointer = self.proto.blobFileValue
        return find_blob(self.package.weight_file(pointer.fileName), pointer.offset)

    @property
    def size_bytes(self) -> int:
        """Bytes of its values in the file; 0 where the program spells out integers or text."""
        blob = self.blob
        if blob is not None:
            return blob.size_bytes
        tensor = self.proto.immediateValue.tensor
        field = tensor.WhichOneof("value")
        if field == "bytes":
            return len(tensor.bytes.values)
        return _FIELD_BYTES.get(field, 0) * len(getattr(tensor, field).values) if field else 0

    def array(self) -> NDArray[Any]:
        """Its values; a string is an array of rank 0, a list of scalars one of rank 1.

        Raises:
            DkmError: they do not fit the type and shape that it states.
        """
        try:
            if self.proto.type.WhichOneof("type") == "listType":
                return self._list()
            return self._tensor(self.type)
        except (ValueError, OverflowError) as error:  # numpy's own for absurd shapes and values
            raise DkmError(f"{self.package.path}: a constant cannot be read: {error}") from error

    def _list(self) -> NDArray[Any]:
        values = self.proto.immediateValue.list.values
        return np.array([Constant(value, self.package).array()[()] for value in values])

    def _tensor(self, kind: TensorType) -> NDArray[Any]:
        shape = tuple(n for n in kind.shape if n is not None)
        if len(shape) != len(kind.shape):
            raise DkmError(f"its shape {kind.shape} is not fixed")
        blob = self.blob
        if blob is None:
            return _immediate(self.proto.immediateValue.tensor, kind.dtype, shape)
        if blob.dtype != kind.dtype:
            raise DkmError(f"it is {kind.dtype.name}, but its record says {blob.dtype.name}")
        return from_bytes(blob.read(), kind.dtype, shape)


Operand = str | Constant
"""An argument: the name of a value, or the value itself."""


@dataclass(frozen=True)
class Operation:
    """One operation. Attributes other than its name are listed among the inputs."""

    type: str
    name: str
    inputs: Mapping[str, tuple[Operand, ...]]
    outputs: tuple[tuple[str, TensorType | None], ...]
    blocks: tuple[Block, ...]

    @property
    def output(self) -> str:
        """The name of its first output, by which messages call it."""
        return self.outputs[0][0] if self.outputs else self.name


@dataclass(frozen=True)
class Block:
    """Operations in the order they run, and the names of the values that enter and leave."""

    inputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]

    def walk(self) -> Iterator[Operation]:
        """All operations, those of nested blocks too."""
        for operation in self.operations:
            yield operation
            for block in operation.blocks:
                yield from block.walk()


@dataclass(frozen=True)
class Function:
    """A function of the program, with the body that its opset chooses.

    Attributes:
        name: by which it is chosen.
        opset: number of the version of the operations: 5 for iOS 15, 6 for iOS 16, and so on.
        inputs: type by name; None for what is not a tensor.
        states: type of the tensor that a state holds, by the state's name.
        body: what it does.
    """

    name: str
    opset: int
    inputs: Mapping[str, TensorType | None]
    states: Mapping[str, TensorType | None]
    body: Block


def functions(package: Package) -> dict[str, Function]:
    """The functions of a package by name; the one that runs by default comes first.

    Raises:
        DkmError: a function lacks the body for its opset, the opset is unknown, or there is no
            function.
    """
    program = package.model.mlProgram
    default = package.model.description.defaultFunctionName or "main"
    names = sorted(program.functions, key=lambda name: (name != default, name))
    if not names:
        raise DkmError(f"{package.path}: the program has no function")
    return {name: _function(package, name, program.functions[name]) for name in names}


def chosen(found: Mapping[str, Function], name: str | None) -> Function:
    """The function called ``name``; None or nothing is the first. Raises DkmError for others."""
    if not name:
        return next(iter(found.values()))
    if name not in found:
        raise DkmError(f"there is no function {name!r}; there are {', '.join(found)}")
    return found[name]


def tensor_type(proto: Any) -> TensorType | None:
    """The type of a tensor; None for lists, dictionaries, tuples and states."""
    if proto.WhichOneof("type") != "tensorType":
        return None
    tensor = proto.tensorType
    any_rank = any(
        d.WhichOneof("dimension") == "unknown" and d.unknown.variadic for d in tensor.dimensions
    )
    shape = tuple(_length(d) for d in tensor.dimensions)
    return TensorType(program_dtype(tensor.dataType), shape, any_rank)


def _length(dimension: Any) -> int | None:
    return dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None


def _function(package: Package, name: str, proto: Any) -> Function:
    if proto.opset not in _OPSETS:
        raise DkmError(
            f"{package.path}: function {name!r} has the opset {proto.opset!r}, which is unknown; "
            f"known: {', '.join(_OPSETS)}"
        )
    if proto.opset not in proto.block_specializations:
        raise DkmError(f"{package.path}: function {name!r} has no body for opset {proto.opset!r}")
    kept = {value.name for value in proto.inputs if value.type.WhichOneof("type") == "stateType"}
    inputs = {v.name: tensor_type(v.type) for v in proto.inputs if v.name not in kept}
    states = {
        v.name: tensor_type(v.type.stateType.wrappedType) for v in proto.inputs if v.name in kept
    }
    body = _block(package, proto.block_specializations[proto.opset])
    return Function(name, _OPSETS[proto.opset], inputs, states, body)


def _block(package: Package, proto: Any) -> Block:
    operations = tuple(_operation(package, operation) for operation in proto.operations)
    return Block(tuple(value.name for value in proto.inputs), operations, tuple(proto.outputs))


def _operation(package: Package, proto: Any) -> Operation:
    inputs: dict[str, tuple[Operand, ...]] = {
        key: tuple(_operand(package, binding) for binding in argument.arguments)
        for key, argument in proto.inputs.items()
    }
    # Where iOS16 keeps the parameters of constexpr operations, and all of them a const's value.
    attributes = {k: (Constant(v, package),) for k, v in proto.attributes.items() if k != "name"}
    outputs = tuple((value.name, tensor_type(value.type)) for value in proto.outputs)
    blocks = tuple(_block(package, block) for block in proto.blocks)
    return Operation(proto.type, _label(proto), inputs | attributes, outputs, blocks)


def _label(proto: Any) -> str:
    """The name an operation was given; else that of its first output, else its type."""
    if "name" in proto.attributes:
        given = proto.attributes["name"].immediateValue.tensor.strings.values
        if given:
            return str(given[0])
    return str(proto.outputs[0].name if proto.outputs else proto.type)


def _operand(package: Package, binding: Any) -> Operand:
    if binding.WhichOneof("binding") == "name":
        return str(binding.name)
    return Constant(binding.value, package)


def _immediate(tensor: Any, dtype: DType, shape: tuple[int, ...]) -> NDArray[Any]:
    field = tensor.WhichOneof("value")
    if field == "bytes":
        return from_bytes(tensor.bytes.values, dtype, shape)
    values = getattr(tensor, field).values if field else ()
    if len(values) != math.prod(shape):
        raise DkmError(
            f"shape {shape} needs {math.prod(shape)} values, but {len(values)} are given"
        )
    return np.array(list(values), dtype.numpy_name).reshape(shape)
