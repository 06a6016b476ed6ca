"""What coremltools' front end lacks, taken apart or lowered here, gives PyTorch's values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.converters.coreml.programs import Functions, check_outputs

INF = float("inf")
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
X[0, 0, 0] = torch.tensor([0.0, 1.0, -1.0, 0.5])  # zeros, bounds and ties
S = X.reshape(2, 6, 8)
N = torch.arange(-12, 12, dtype=torch.int32).reshape(2, 3, 4)

CHOICES = {
    "number_first": lambda x, n: torch.where(x > 0, 0, x),
    "number_last": lambda x, n: torch.where(x > 0, x, 1),
    "number_infinite": lambda x, n: torch.where(x > 0, x, -INF),
    "numbers": lambda x, n: torch.where(x > 0, 0.0, -INF),
    "whole_numbers": lambda x, n: torch.where(x > 0, 3, -1),
    "whole": lambda x, n: torch.where(n > 0, n, 0),
    "whole_and_half": lambda x, n: torch.where(n > 0, n, 0.5),
    "clamp_whole": lambda x, n: x.clamp(-1, 1),
    "clamp_min": lambda x, n: x.clamp_min(0),
    "clamp_min_half": lambda x, n: n.clamp_min(0.5),
    "clamp_max": lambda x, n: n.clamp_max(3),
    "clamp_max_half": lambda x, n: n.clamp_max(2.5),
    "clamp_both": lambda x, n: n.clamp(-2, 3),
    "hardtanh": lambda x, n: functional.hardtanh(x, -1, 1),
    "hardtanh_whole": lambda x, n: functional.hardtanh(n, -2, 3),
    "sqrt": lambda x, n: (n * n).sqrt(),
    "exp": lambda x, n: n.exp(),
}
FUNCTIONS = {
    "celu": lambda x: functional.celu(x, 1.3),
    "logsigmoid": functional.logsigmoid,
    "hardshrink": functional.hardshrink,
    "softshrink": functional.softshrink,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "asinh": lambda x: torch.asinh(x * 50),
    "acosh": lambda x: torch.acosh(x.abs() + 1),
    "fmod": lambda x: torch.fmod(x, 0.7),
    "fmod_of": lambda x: torch.fmod(x * 5, x.flip(0) + 3),
    "fmax": lambda x: torch.fmax(x, x.log()),
    "fmin": lambda x: torch.fmin(x.log(), x),
    "copysign": lambda x: torch.copysign(x + 2, x.sign() * 0.0),
    "signbit": lambda x: torch.signbit(x),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "logaddexp": lambda x: torch.logaddexp(x, x * 2),
    "zeroed": lambda x: x.clone().zero_() + x,
}
SHAPES = {
    "diagonal": lambda x, s: x.diagonal(0, -2, -1),
    "diagonal_above": lambda x, s: x.diagonal(1, 2, 3),
    "diagonal_below": lambda x, s: x.diagonal(-2, 1, 3),
    "diagonal_wide": lambda x, s: s.diagonal(3, 1, 2),
    "diag_embed": lambda x, s: torch.diag_embed(s),
    "diag_embed_above": lambda x, s: torch.diag_embed(s, 1),
    "diag_embed_below": lambda x, s: torch.diag_embed(s, -2, 0, 2),
    "shifted": lambda x, s: functional.pad(s, (0, 0, 1, -1)),
    "cut": lambda x, s: functional.pad(s, (-2, 1, 1, -1), value=2.0),
    "cut_replicate": lambda x, s: functional.pad(s, (-2, 3), mode="replicate"),
    "cut_reflect": lambda x, s: functional.pad(s, (2, -1), mode="reflect"),
    "masked_scatter": lambda x, s: s.masked_scatter(s > 0, torch.arange(96.0)),
    "masked_select": lambda x, s: torch.masked_select(s, s > 0).sum(),
}
MATRICES = {
    "addbmm": lambda x, s: torch.addbmm(x[0, 0], x[0], x[1], beta=0.5, alpha=2),
    "addr": lambda x, s: torch.addr(s[0], s[0, :, 0], s[1, 0]),
    "dot": lambda x, s: torch.matmul(s[0, 0], s[0, 1]),
    "vector_by_batch": lambda x, s: torch.matmul(x[0, 0, 0], x),
    "grouped": lambda x, s: torch._grouped_mm(
        s[0], s.reshape(3, 8, 4), offs=torch.tensor([2, 2, 5], dtype=torch.int32)
    )[:5],
    "distances": lambda x, s: torch.cdist(s, s[:, :3]),
    "distances_1": lambda x, s: torch.cdist(s, s[:, :3], p=1),
    "distances_3": lambda x, s: torch.cdist(s, s[:, :3], p=3.0),
    "distances_most": lambda x, s: torch.cdist(s, s[:, :3], p=INF),
}
ORDERS = {
    "histogram": lambda s: torch.histc(s, 5, -1, 1),
    "histogram_whole": lambda s: torch.histc(s.round(), 4, 0, 3),
    "median": lambda s: s.median(),
    "median_rows": lambda s: s.median(-1)[0],
    "kth": lambda s: s.kthvalue(2, -1)[0],
    "kth_place": lambda s: s[1].kthvalue(2, 0, keepdim=True)[1],
    "quantile": lambda s: s.quantile(0.3, dim=-1),
}


@pytest.mark.parametrize(
    ("functions", "inputs"),
    [
        (CHOICES, (X, N)),
        (FUNCTIONS, (X,)),
        (SHAPES, (X, S)),
        (MATRICES, (X, S)),
        (ORDERS, (S,)),
    ],
    ids=["choices", "functions", "shapes", "matrices", "orders"],
)
def test_values_are_those_of_pytorch(tmp_path, functions, inputs):
    check_outputs(
        Functions(functions), inputs, tmp_path / "m.mlpackage", compute_precision="float32"
    )
