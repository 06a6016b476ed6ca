"""The model of a user's file as it is rewritten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.onnx.graph.load import load
from converters.onnx.graph.old_ir import unlist
from converters.onnx.rewriting.exporter_notes import drop_exporter_notes
from converters.onnx.rewriting.lift_opset import lift_opset
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto


@dataclass(frozen=True)
class Source:
    """A model to rewrite.

    Attributes:
        model: with what a caller gives for inputs, without an exporter's notes, of opset 7 or newer
            or of none.
        notes: a line about everything that is not as in the file.
        lifted: whether its opset was older.
    """

    model: ModelProto
    notes: tuple[str, ...]
    lifted: bool


def load_source(path: Path) -> Source:
    """The model at ``path``.

    Raises:
        DkmError: as :func:`converters.onnx.graph.load.load`; or its opset cannot be lifted.
    """
    model = load(path)
    notes = (*unlist(model), *drop_exporter_notes(model))
    try:
        model, lifted = lift_opset(model)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    return Source(model, (*notes, *lifted), bool(lifted))
