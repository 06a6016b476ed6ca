"""Matrix products and attention."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.runtimes.mlprogram.kernels.registry import Tensors, kernel


@kernel("linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    x, weight = _of_one_type(x, weight)
    return functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


@kernel("matmul")
def _matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    if transpose_x and x.ndim > 1:
        x = x.transpose(-1, -2)
    if transpose_y and y.ndim > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(*_of_one_type(x, y))


def _of_one_type(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both as floats if one is: coremltools takes a constant of another type since iOS 17."""
    mixed = x.is_floating_point() != y.is_floating_point()
    return (x.float(), y.float()) if mixed else (x, y)


@kernel("einsum")
def _einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


@kernel("scaled_dot_product_attention")
def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask)
