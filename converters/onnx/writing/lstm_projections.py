"""LSTMs with projections, whose weights the exporter takes for those of other layers, in steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

_LSTM = torch.ops.aten.lstm.input


def without_projections(program: ExportedProgram) -> ExportedProgram:
    """The same program with such LSTMs taken apart by PyTorch's decomposition; others stay."""
    nodes = program.graph.find_nodes(op="call_function", target=_LSTM)
    if not any(_projects([state.meta["val"] for state in node.args[1]]) for node in nodes):
        return program
    in_steps = torch.export.default_decompositions()[_LSTM]

    def lstm(x: Tensor, states: Sequence[Tensor], *how: Any) -> Any:
        return in_steps(x, states, *how) if _projects(states) else NotImplemented

    apart: ExportedProgram = program.run_decompositions({_LSTM: lstm})
    return apart


def _projects(states: Sequence[Tensor]) -> bool:
    """Whether what an LSTM gives out is narrower than what it keeps."""
    hidden, cell = states
    return hidden.shape[-1] != cell.shape[-1]
