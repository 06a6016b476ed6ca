"""Products of groups of rows, against the product of each row."""

from __future__ import annotations

import pytest
import torch

from converters.grouped_products import grouped_products

GROUPED = grouped_products()[torch.ops.aten._grouped_mm.default]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[2, 3], [0, 5, 0], [4], [1, 0, 2]])
def test_each_row_meets_the_matrix_of_its_group(sizes, dtype):
    torch.manual_seed(0)
    rows, weights = torch.randn(5, 4, dtype=dtype), torch.randn(len(sizes), 4, 3, dtype=dtype)
    ends = torch.tensor(sizes).cumsum(0).int()
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    expected = torch.zeros(5, 3, dtype=dtype)
    for row, group in enumerate(groups):
        expected[row] = rows[row] @ weights[group]
    torch.testing.assert_close(GROUPED(rows, weights, ends), expected)


def test_products_of_a_batch_need_no_groups():
    rows, weights = torch.randn(2, 5, 4), torch.randn(2, 4, 3)
    torch.testing.assert_close(GROUPED(rows, weights), torch.bmm(rows, weights))


def test_other_forms_are_left_to_others():
    rows = torch.ones(5, 4)
    assert GROUPED(rows, torch.ones(4, 3), torch.tensor([3, 4])) is NotImplemented
    assert GROUPED(rows, torch.ones(2, 4, 3), None) is NotImplemented
