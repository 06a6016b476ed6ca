"""Files that list their tensors among their inputs, as IR 3 and older demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto

_OPTIONAL_SINCE = 4  # IR version; from it on, to be listed means to be replaceable


def unlist(model: ModelProto) -> tuple[str, ...]:
    """Take tensors off the inputs of a model that lists all of them; it is of IR 4 or newer then.

    Before IR 4 they are listed because they must be. Exporters kept the habit, and a file of a
    newer IR that lists every tensor says by it which are weights, not which a caller may replace.
    One that lists some of them chose these, and stays as it is.

    Returns:
        A note if a caller could replace tensors that are weights now.
    """
    own = {tensor.name for tensor in model.graph.initializer}
    listed = own.intersection(value.name for value in model.graph.input)
    required = model.ir_version < _OPTIONAL_SINCE
    if not required and (not listed or listed != own):
        return ()
    given = [value for value in model.graph.input if value.name not in own]
    del model.graph.input[:]
    model.graph.input.extend(given)
    model.ir_version = max(model.ir_version, _OPTIONAL_SINCE)
    if required:
        return ()
    note = f"all {len(own)} initializers were listed as inputs too, as IR 3 demands"
    return (f"{note}: they are weights now, which a caller cannot replace",)
