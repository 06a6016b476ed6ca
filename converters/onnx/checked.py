"""What onnx.checker says of a file that was made from another one, and what it cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from converters.onnx.values import DEFAULT_DOMAINS, graphs, op_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnx import ModelProto


def first_names(names: Sequence[str]) -> str:
    """The first three of ``names``, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def unchecked(model: ModelProto, path: Path, out: Path) -> Iterator[str]:
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
        ops = first_names(unknown)
        yield f"onnx does not know {ops}, so it did not check what they take and give"


def _problem(path: Path) -> str | None:
    try:
        onnx.checker.check_model(path, full_check=True)
    # A message that quotes a damaged name is not even text.
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        UnicodeDecodeError,
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
