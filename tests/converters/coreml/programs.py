"""What several tests of the Core ML target read from a package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.formats.mlpackage.proto import model_class


def spec(path: PathLike[str]) -> Any:
    """The package's protobuf."""
    file = Path(path) / "Data/com.apple.CoreML/model.mlmodel"
    return model_class().FromString(file.read_bytes())


def operations(path: PathLike[str]) -> Counter[str]:
    """How often each type of operation stands in the program, constants apart."""
    (function,) = spec(path).mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    return Counter(op.type for op in block.operations if op.type != "const")


def without_decodes(found: Counter[str]) -> Counter[str]:
    """The operations that compute something at run time."""
    return Counter({name: n for name, n in found.items() if not name.startswith("constexpr_")})


class Functions(nn.Module):
    """Several functions of the same inputs: their outputs by name."""

    def __init__(self, functions: Mapping[str, Callable[..., Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {name: function(*inputs) for name, function in self.functions.items()}


def check_outputs(
    model: nn.Module, inputs: Sequence[Tensor], path: Path, *, rtol: float = 2e-5, **options: Any
) -> None:
    """Convert a model that gives outputs by name; they must be PyTorch's, or the test fails."""
    made = dkm.convert(model.eval(), tuple(inputs), path, try_file=False, **options)
    assert made.interface is not None
    names = [each.name for each in made.interface.inputs]
    given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    found = dkm.MLProgramEvaluator(path).run(given)
    with torch.no_grad():
        expected = model(*inputs)
    for name, value in expected.items():
        assert found[name].size == value.numel(), name
        values = found[name].reshape(value.shape)
        assert np.allclose(values, value, rtol=rtol, atol=rtol / 2, equal_nan=True), name


class First(nn.Module):
    """The first output of a module, such as the steps of an LSTM."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.module(x)[0]
        return first


class Attention(nn.Module):
    """Self-attention by ``nn.MultiheadAttention``: ``(n, t, 8)`` to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return mixed


class DotProduct(nn.Module):
    """Self-attention by ``scaled_dot_product_attention``: ``(n, t, 8)`` to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), x)


class MatrixProduct(nn.Module):
    """``addmm`` with a weight of (inputs, outputs), as GPT-2 has it: ``(n, 8)`` to ``(n, 6)``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)
