"""Matrix products and attention."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import Tensors, kernel


@kernel("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if x.is_floating_point():
        weight, bias = weight.float(), None if bias is None else bias.float()
    elif weight.is_floating_point():
        raise DkmError("integers times a float weight: the rounding is not documented")
    return functional.linear(x, weight, bias)


@kernel("matmul")
def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    if transpose_x and x.ndim > 1:
        x = x.transpose(-1, -2)
    if transpose_y and y.ndim > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


@kernel("einsum")
def _einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


@kernel("scaled_dot_product_attention")
def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)
