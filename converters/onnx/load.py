"""Read an ONNX file, or say in one line why it is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no type hints

from dkm_deploy.errors import DkmError, MissingFileError

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path) -> onnx.ModelProto:
    """The model at ``path``, with tensors that it keeps in other files.

    Raises:
        DkmError: the file is missing, damaged, or not an ONNX model.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=True)
    except DecodeError as error:
        raise DkmError(f"{path}: not an ONNX model, or cut short: {error}") from error
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"{path}: a file that it refers to cannot be read: {reason}") from error
    # Protobuf reads an empty file, and many others, as a message without fields.
    if not model.ir_version or not model.graph.output:
        raise DkmError(f"{path}: not an ONNX model: it has no IR version or no graph")
    return model
