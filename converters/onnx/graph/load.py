"""Read an ONNX file, or say in one line why it cannot be read.

Tensors may lie in other files ("external data"). Those are found by a relative path, which must
not lead out of the folder of the model, and are read only as far as a tensor's shape asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # no hints
from onnx import ModelProto, TensorProto

from dkm_deploy.errors import DkmError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LARGEST = 2**31 - 1  # bytes of a protobuf message


@dataclass(frozen=True)
class Region:
    """Where the bytes of a tensor lie outside the model's file."""

    file: Path
    offset: int
    length: int


def load(path: Path, *, largest: int | None = None) -> ModelProto:
    """The model at ``path``, with tensors that it keeps in other files.

    Args:
        path: the file.
        largest: leave tensors of more bytes in their files, for :func:`fill`; None reads all.

    Raises:
        DkmError: the file is missing, damaged, not an ONNX model, newer than the installed onnx
            package, or refers to data that is not there or may not be read.
    """
    model = _parse(path)
    newest = onnx.defs.onnx_opset_version()
    # Protobuf reads an empty file, and many others, as a message without fields.
    if model.ir_version < 1 or not model.graph.output:
        raise DkmError(f"{path}: not an ONNX model: it has no IR version or no graph")
    if model.ir_version > onnx.IR_VERSION:
        raise DkmError(
            f"{path}: IR version {model.ir_version}; the installed onnx {onnx.__version__} reads "
            f"up to {onnx.IR_VERSION}: update it"
        )
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= newest:
            raise DkmError(
                f"{path}: opset {opset.version}; the installed onnx {onnx.__version__} reads "
                f"1 to {newest}: update it, or export the model at one of these"
            )
    if _has_broken_text(model):
        raise DkmError(f"{path}: a name in it is not valid text (UTF-8)")
    inside = [tensor for tensor, region in outside(model, path) if _within(region, largest)]
    fill(inside, path)
    return model


def fill(tensors: Iterable[TensorProto], path: Path) -> None:
    """Read, in place, those of ``tensors`` of the model at ``path`` that lie in other files.

    Raises:
        DkmError: as :func:`load`.
    """
    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            region = _region(tensor, path)
            try:
                with region.file.open("rb") as file:
                    file.seek(region.offset)
                    tensor.raw_data = file.read(region.length)
            except OSError as error:
                raise DkmError(f"{region.file}: cannot be read: {error.strerror}") from error
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def outside(model: ModelProto, path: Path) -> Iterator[tuple[TensorProto, Region]]:
    """The tensors of the model at ``path`` that lie in other files, and where.

    Raises:
        DkmError: as :func:`load`.
    """
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            yield tensor, _region(tensor, path)


def _parse(path: Path) -> ModelProto:
    if path.is_dir():
        raise DkmError(f"{path}: a folder, not an ONNX file")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        if path.stat().st_size > _LARGEST:
            raise DkmError(f"{path}: not an ONNX model: without external data it has at most 2 GiB")
        return onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise DkmError(f"{path}: cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise DkmError(f"{path}: not an ONNX model, or cut short: {error}") from error


def _has_broken_text(message: Message) -> bool:
    """Whether a name or another text is no UTF-8; protobuf gives bytes in place of such a one."""
    if isinstance(message, TensorProto):  # without its values, which may be large
        entries = [text for entry in message.external_data for text in (entry.key, entry.value)]
        return any(isinstance(text, bytes) for text in (message.name, message.doc_string, *entries))
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type == field.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            return True
        if field.type == field.TYPE_MESSAGE and any(_has_broken_text(part) for part in values):
            return True
    return False


def _within(region: Region, largest: int | None) -> bool:
    return largest is None or region.length <= largest


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors of a model: initializers and attributes, in subgraphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
        for node in nodes:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                    yield from (sparse.values, sparse.indices)
                graphs += attribute.graphs
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
        nodes = []


def _region(tensor: TensorProto, path: Path) -> Region:
    """Where an external tensor lies, once it is known to be there and of the right length."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f"{path}: {tensor.name}"
    file = _data_file(what, entries.get("location", ""), path.parent)
    expected = _size(what, tensor)
    offset = _number(what, "offset", entries.get("offset", "0"))
    length = _number(what, "length", entries.get("length", str(expected)))
    if length != expected:
        raise DkmError(f"{what}: its shape needs {expected} bytes, but the file records {length}")
    size = file.stat().st_size
    if offset + length > size:
        raise DkmError(
            f"{what}: its bytes {offset} to {offset + length} lie outside {file}, which has {size}"
        )
    return Region(file, offset, length)


def _data_file(what: str, location: str, folder: Path) -> Path:
    """The file at ``location``, which must lie in ``folder``, links followed."""
    file = folder / location
    try:
        inside = file.resolve().is_relative_to(folder.resolve())
        there = inside and file.is_file()
    # A name with a null byte, a loop of links, a name that is too long.
    except (OSError, ValueError, RuntimeError) as error:
        raise DkmError(f"{what}: its data file {location!r} cannot be found: {error}") from error
    if not location or not inside or Path(location).is_absolute() or ".." in Path(location).parts:
        raise DkmError(
            f"{what}: its data file {location!r} is not in the folder of the model; "
            "put the file there, not a link to it"
        )
    if not there:
        raise MissingFileError(f"{what}: refers to {str(file)!r}, which is missing")
    return file


def _size(what: str, tensor: TensorProto) -> int:
    """Bytes of a tensor's values."""
    if any(length < 0 for length in tensor.dims):
        raise DkmError(f"{what}: its shape {list(tensor.dims)} is not a valid shape")
    try:
        bits = ir.DataType(tensor.data_type).bitwidth
    except (ValueError, TypeError) as error:  # unknown, or strings
        reason = f"values of type {tensor.data_type} cannot be stored in another file"
        raise DkmError(f"{what}: {reason}") from error
    return int(-(-prod(tensor.dims) * bits // 8))


def _number(what: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(2**63)):
        raise DkmError(f"{what}: the {key} of its data is {text!r}, which is not a number of bytes")
    return int(text)
