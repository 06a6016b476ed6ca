"""The inputs and outputs of an ONNX model, as an app finds them and as its metadata has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import INTERFACE_KEY, Feature, Interface, interface_from

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto, ValueInfoProto

_OURS = {"float": "float32", "double": "float64"}


def interface_of(model: ModelProto, suffix: str = ".onnx") -> Interface:
    """What an app finds in a model."""
    inside = {tensor.name for tensor in model.graph.initializer}
    return Interface(
        suffix,
        tuple(_feature(value) for value in model.graph.input if value.name not in inside),
        tuple(_feature(value) for value in model.graph.output),
    )


def write_interface(model: ModelProto) -> None:
    """Put the interface that a model has into its metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = INTERFACE_KEY, interface_of(model).to_json()


def read_interface(model: ModelProto, path: Path) -> tuple[Interface, Interface | None]:
    """What an app finds in a model that came from ``path``, and what its metadata says."""
    told = {entry.key: entry.value for entry in model.metadata_props}.get(INTERFACE_KEY)
    try:
        asked = None if told is None else interface_from(told, path.suffix)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    return interface_of(model, path.suffix), asked


def _feature(value: ValueInfoProto) -> Feature:
    kind = value.type.tensor_type
    known = kind.elem_type in TensorProto.DataType.values()
    dtype = TensorProto.DataType.Name(kind.elem_type).lower() if known else "unknown"
    dims = (str(d.dim_value) if d.HasField("dim_value") else "any" for d in kind.shape.dim)
    return Feature(value.name, _OURS.get(dtype, dtype), " x ".join(dims))
