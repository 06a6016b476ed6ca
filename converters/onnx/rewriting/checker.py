"""What onnx.checker says of a file that was made from another one, and what it cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from converters.onnx.graph.tensors import DEFAULT_DOMAINS, graphs, op_name
from converters.storage import names_in_short
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from onnx import ModelProto


def check_rewritten(model: ModelProto, path: Path, out: Path) -> Iterator[str]:
    """Check the file at ``out``, made from the one at ``path``.

    Args:
        model: what ``out`` holds.
        path: the input, which may be invalid itself.
        out: the written file.

    Yields:
        A sentence for each thing that could not be checked.

    Raises:
        RuntimeError: the input is valid ONNX and the result is not; this project is at fault.
    """
    problem = _problem(out)
    before = _problem(path) if problem else None
    if problem and not before:
        raise RuntimeError(f"{path}: palettizing it gave an invalid file: {problem}; please report")
    if before:
        yield f"onnx.checker refuses the input ({before}), so it did not check the result"
    unknown = list(dict.fromkeys(_unknown_operators(model)))
    if unknown:
        ops = names_in_short(unknown, 3)
        yield f"onnx does not know {ops}, so it did not check their inputs and outputs"


def check_nodes(model: ModelProto) -> None:
    """Raise DkmError if a node takes or gives fewer values than its operator must."""
    opsets = {opset.domain or "": opset.version for opset in model.opset_import}
    for graph, _ in graphs(model.graph):
        for node in graph.node:
            version = opsets.get(node.domain, 0)
            if version < 1 or not onnx.defs.has(node.op_type, version, node.domain):
                continue
            schema = onnx.defs.get_schema(node.op_type, version, node.domain)
            if len(node.input) < schema.min_input or len(node.output) < schema.min_output:
                raise DkmError(
                    f"node {node.name!r} ({op_name(node)}) has {len(node.input)} inputs and "
                    f"{len(node.output)} outputs, too few for its operator"
                )


def _problem(path: Path) -> str | None:
    try:
        onnx.checker.check_model(path, full_check=True)
    # Its own errors; UnicodeDecodeError where a message quotes a damaged name, which is a
    # ValueError as what is said of unknown types is.
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
    ) as error:
        return " ".join(str(error).split())
    return None


def _unknown_operators(model: ModelProto) -> Iterator[str]:
    own = {(function.domain, function.name) for function in model.functions}
    for graph, _ in graphs(model.graph):
        for node in graph.node:
            known = (node.domain, node.op_type) in own or node.domain in DEFAULT_DOMAINS
            if not known and not onnx.defs.has(node.op_type, node.domain):
                yield op_name(node)
