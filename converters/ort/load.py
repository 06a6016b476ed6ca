"""Open a ``.ort`` file, or say in one line why it is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.ort.flatbuffer import Document, read
from converters.ort.model import model_of
from dkm_deploy.errors import DkmError, MissingFileError

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


def load(path: Path) -> tuple[Document, ModelProto]:
    """The file's tables with their places, and the model that they describe.

    Raises:
        DkmError: the file is missing, damaged, or not of ONNX Runtime's format.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        document = read(memoryview(path.read_bytes()))
        return document, model_of(document.root)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
