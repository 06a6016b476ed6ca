"""Which values an If, Loop or Scan hands into its bodies, on to their next run and out of them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from onnx import GraphProto, NodeProto

WITH_BODIES = ("If", "Loop", "Scan")


def handed_on(node: NodeProto) -> Iterator[tuple[str, str]]:
    """A value's name, and the name under which the other side of a body has it; for each that has.

    Scan of opset 8, which has a batch, is left out.
    """
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for given, taken in _pairs(node, body):
                if given and taken:
                    yield given, taken


def _pairs(node: NodeProto, body: GraphProto) -> Iterable[tuple[str, str]]:
    inputs, outputs = ([value.name for value in values] for values in (body.input, body.output))
    if node.op_type == "If":
        return zip(outputs, node.output, strict=False)
    if node.op_type == "Loop":  # count and condition, values that are carried; and results
        entering, carried = node.input[2:], inputs[2:]
        leaving = outputs[1:]
    elif node.op_type == "Scan" and len(node.input) == len(inputs):
        scanned = next((a.i for a in node.attribute if a.name == "num_scan_inputs"), 0)
        entering, carried, leaving = node.input, inputs[: len(inputs) - scanned], outputs
        inputs = ["", "", *inputs]
    else:
        return ()
    return chain(
        zip(entering, inputs[2:], strict=False),
        zip(leaving, carried, strict=False),
        zip(leaving, node.output, strict=False),
    )
