"""What PyTorch's exporters note about their own work, which nothing reads and ``convert`` drops.

The newer one describes every node in ``metadata_props``: the module, the operator, and the stack of
calls with the paths of the sources. The older one has the stack in ``doc_string``. Everything else
that a model says about itself is the user's: labels, alphabets, authors.
"""

from __future__ import annotations

import re
from typing import Any

from onnx import ModelProto, TensorProto

_OF_EXPORTERS = ("pkg.torch.", "pkg.onnxscript.")
_NAMESPACE = "namespace"  # of a node, beside the others
_STACK = re.compile(r'\.py\(\d+\): |File ".*", line \d+')


def drop_exporter_notes(model: ModelProto) -> tuple[str, ...]:
    """Take the notes off a model, in place.

    Returns:
        A note of what was left out, if anything was.
    """
    dropped = _drop(model)
    if not dropped:
        return ()
    return (f"dropped {dropped:,} bytes of notes of PyTorch's exporter about nodes and values",)


def _drop(message: Any) -> int:
    """Drop the notes of a message and of its parts; gives their bytes."""
    dropped = _drop_entries(message)
    if _STACK.search(getattr(message, "doc_string", "")):
        dropped += len(message.doc_string.encode())
        message.ClearField("doc_string")
    if isinstance(message, TensorProto):  # its values are no messages, and may be large
        return dropped
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            dropped += sum(map(_drop, value if field.is_repeated else [value]))
    return dropped


def _drop_entries(message: Any) -> int:
    entries = getattr(message, "metadata_props", ())
    theirs = [entry for entry in entries if entry.key.startswith(_OF_EXPORTERS)]
    if not theirs:
        return 0
    kept = [entry for entry in entries if entry not in theirs and entry.key != _NAMESPACE]
    dropped = sum(int(entry.ByteSize()) for entry in entries if entry not in kept)
    del message.metadata_props[:]
    message.metadata_props.extend(kept)
    return dropped
