"""The model of a user's file as it is rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.onnx.graph.load import load
from converters.onnx.graph.old_ir import unlist
from converters.onnx.rewriting.exporter_notes import drop_exporter_notes

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


def load_source(path: Path) -> tuple[ModelProto, tuple[str, ...]]:
    """The model at ``path`` with what a caller gives for inputs, and without an exporter's notes.

    Returns:
        The model, and a line about everything that is not as in the file.

    Raises:
        DkmError: as :func:`converters.onnx.graph.load.load`.
    """
    model = load(path)
    return model, (*unlist(model), *drop_exporter_notes(model))
