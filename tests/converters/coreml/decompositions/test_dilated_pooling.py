"""Max pooling with dilation, taken apart: values and places are PyTorch's."""

from __future__ import annotations

import pytest
import torch

from converters.coreml.decompositions.dilated_pooling import DILATED_POOLING

aten = torch.ops.aten
CALLS = [
    (aten.max_pool2d_with_indices.default, (2, 3, 9, 7)),
    (aten.max_pool2d_with_indices.default, (3, 9, 7)),
    (aten.max_pool3d_with_indices.default, (1, 2, 7, 6, 8)),
]
FORMS = [([3], [2], [1], [2]), ([2], [3], [1], [3]), ([2], [1], [0], [2]), ([3], [], [1], [2])]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("call", "shape"), CALLS)
def test_values_and_places_are_those_of_pytorch(call, shape, form, ceil_mode):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).round()  # ties
    values, places = call(x, *form, ceil_mode)
    found = DILATED_POOLING[call](x, *form, ceil_mode)
    assert torch.equal(found[0], values)
    assert torch.equal(found[1], places)


def test_without_dilation_the_call_stays():
    call = aten.max_pool2d_with_indices.default
    assert DILATED_POOLING[call](torch.ones(1, 1, 4, 4), [2, 2]) is NotImplemented
