"""Take apart the calls that PyTorch's ONNX exporter lacks, or gets wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from converters.grouped_products import grouped_products

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten.reshape.default)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The program in calls that the exporter has right; one that has no others is left as it is.

    Views become copies, in place: the exporter takes attention apart, and what that gives lies in
    memory in another order, which may have no such view. In the file both are a ``Reshape``.
    """
    for node in program.graph.nodes:
        if node.target in _VIEWS and not node.meta["val"].is_complex() and 0 not in node.args[1]:
            node.target = _aten.view_copy.default
    table = {
        **grouped_products(),
        **_without_projections(program),
        _aten.rsub.Scalar: _subtract_from_number,
    }
    made = {node.target for node in program.graph.nodes}
    lacking: dict[Any, Callable[..., Any]] = {op: how for op, how in table.items() if op in made}
    return program.run_decompositions(lacking) if lacking else program


def _subtract_from_number(x: Tensor, other: Any, alpha: Any = 1) -> Any:
    """A number less a tensor, which the exporter cannot give the number's type."""
    dtype = torch.result_type(x, other)
    if dtype == x.dtype:
        return NotImplemented
    return _aten.rsub.Scalar(x.to(dtype), other, alpha)


def _without_projections(program: ExportedProgram) -> dict[Any, Callable[..., Any]]:
    """LSTMs with projections in steps: the exporter takes their weights for other layers'."""
    nodes = program.graph.find_nodes(op="call_function", target=_aten.lstm.input)
    if not any(_projects([state.meta["val"] for state in node.args[1]]) for node in nodes):
        return {}
    in_steps = torch.export.default_decompositions()[_aten.lstm.input]

    def lstm(x: Tensor, states: Sequence[Tensor], *how: Any) -> Any:
        return in_steps(x, states, *how) if _projects(states) else NotImplemented

    return {_aten.lstm.input: lstm}


def _projects(states: Sequence[Tensor]) -> bool:
    """Whether what an LSTM gives out is narrower than what it keeps."""
    hidden, cell = states
    return hidden.shape[-1] != cell.shape[-1]
