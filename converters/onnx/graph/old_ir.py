"""Files of IR 3 and older, which must list every tensor among their inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.onnx.graph.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from onnx import ModelProto

_OPTIONAL_SINCE = 4  # IR version; from it on, to be listed means to be replaceable


def load_unlisted(path: Path) -> ModelProto:
    """As ``load``; of an older file, with what a caller gives for inputs.

    It is of IR 4 then. In the older ones a weight is listed because it must be, not so that a
    caller may replace it.
    """
    model = load(path)
    if model.ir_version < _OPTIONAL_SINCE:
        own = {tensor.name for tensor in model.graph.initializer}
        given = [value for value in model.graph.input if value.name not in own]
        del model.graph.input[:]
        model.graph.input.extend(given)
        model.ir_version = _OPTIONAL_SINCE
    return model
