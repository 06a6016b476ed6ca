"""How many samples a file is given at a time."""

from __future__ import annotations

import pytest

from dkm_deploy.runtimes.batch_sizes import largest_batch, smallest_batch


@pytest.mark.parametrize(
    ("allowed", "count", "most", "batch"),
    [
        ([], 10, 4, 4),
        ([], 3, 4, 3),
        ([(1, None)], 10, 4, 4),
        ([(1, 1)], 10, 4, 1),
        ([(1, 3)], 10, 8, 3),
        ([(2, 4)], 10, 8, 4),  # and 2 are left
        ([(3, 4)], 10, 8, 10),  # 4, 4 and 2 are not allowed; nor are 3, 3, 3 and 1
        ([(3, 5)], 10, 8, 5),
        ([(4, 4)], 8, 8, 4),
        ([(1, 1), (4, 4)], 9, 8, 4),
        ([(5, None)], 4, 8, 4),
    ],
)
def test_batches_are_as_large_as_allowed_and_none_is_too_small(allowed, count, most, batch):
    assert largest_batch(allowed, count, most) == batch


@pytest.mark.parametrize(
    ("allowed", "batch"), [([], 1), ([(0, 4)], 1), ([(3, None)], 3), ([(4, 4), (2, 2)], 2)]
)
def test_the_smallest_batch_holds_at_least_one_sample(allowed, batch):
    assert smallest_batch(allowed) == batch
