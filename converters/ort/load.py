"""Open a ``.ort`` file, or say in one line why it is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from converters.ort.flatbuffer_reader import Document, read
from converters.ort.onnx_model import to_onnx_model
from dkm_deploy.errors import DkmError, MissingFileError

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path) -> tuple[Document, onnx.ModelProto]:
    """The file's tables with their places, and the model that they describe.

    Raises:
        DkmError: the file is missing, damaged, or not of ONNX Runtime's format.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        document = read(memoryview(path.read_bytes()))
        model = to_onnx_model(document.root)
        onnx.checker.check_model(model)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DkmError(f"{path}: its model is not valid: {reason}") from error
    return document, model
