"""A transposed convolution of three dimensions as two of two, against PyTorch's own."""

from __future__ import annotations

import pytest
import torch

from tests.converters.coreai.assets import extra

extra()
from converters.coreai.decompositions.conv_transpose3d import convolution  # noqa: E402


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "output_padding"),
    [
        ((1, 1, 1), (0, 0, 0), (1, 1, 1), (0, 0, 0)),
        ((2, 1, 3), (1, 0, 2), (1, 1, 1), (1, 0, 2)),
        ((1, 2, 1), (1, 1, 0), (2, 3, 1), (1, 1, 0)),
    ],
)
def test_it_is_what_pytorch_computes(groups, stride, padding, dilation, output_padding):
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(2, 4, 3, 4, 5),
        torch.randn(4, 3, 2, 3, 4),
        torch.randn(3 * groups),
    )
    given = (stride, padding, dilation, True, output_padding, groups)
    expected = torch.ops.aten.convolution(x, weight, bias, *given)
    torch.testing.assert_close(convolution(x, weight, bias, *given), expected)


@pytest.mark.parametrize(("transposed", "dims"), [(False, 3), (True, 2)])
def test_other_convolutions_are_left_alone(transposed, dims):
    x, weight = torch.randn(1, 2, *[3] * dims), torch.randn(2, 2, *[2] * dims)
    ones, zeros = [1] * dims, [0] * dims
    found = convolution(x, weight, None, ones, zeros, ones, transposed, zeros, 1)
    assert found is NotImplemented
