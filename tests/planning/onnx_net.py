"""A small ONNX model to plan for."""

from __future__ import annotations

import torch
from onnx import ModelProto, helper
from torch import Tensor

from tests.converters.onnx.models import model, save, tensor, value, values

__all__ = ["net", "rows", "save"]


def net(batch: int | str = "batch", middle: str = "w2") -> ModelProto:
    """Four matrices and what is added, from ``x`` (batch, 64) to ``y`` (batch, 32)."""
    steps = [("x", "w1"), ("a1", middle), ("a2", "w3"), ("a3", "w4")]
    nodes = []
    for number, (source, weight) in enumerate(steps, 1):
        nodes.append(helper.make_node("MatMul", [source, weight], [f"h{number}"]))
        nodes.append(helper.make_node("Tanh", [f"h{number}"], [f"a{number}"]))
    nodes.append(helper.make_node("Add", ["a4", "table"], ["y"]))
    shapes = {"w1": (64, 96), middle: (96, 128), "w3": (128, 48), "w4": (48, 32)}
    weights = [tensor(n, values(*s, seed=i) / 8) for i, (n, s) in enumerate(shapes.items())]
    return model(
        nodes,
        [*weights, tensor("table", values(1, 32))],
        inputs=[value("x", [batch, 64])],
        outputs=[value("y", [batch, 32])],
    )


def rows(count: int, seed: int = 0) -> Tensor:
    """Inputs of it."""
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed))
