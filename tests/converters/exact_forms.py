"""A model of operations that rewrites like to drop, and values that tell when one did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TINY = (1e-5, 1e-8, 1e-12, 1e-20, 1e-38, 1e-45)
NEAR_ONE = (1.0, -1.0, 1 + 1e-7, 1 - 1e-7, 1.000001, 1.00001)

INF, NAN = float("inf"), float("nan")
VALUES = torch.tensor(
    [
        [0.0, -0.0, 1e-45, -1e-45, 1e-40, 1e-12],
        [1e-8, -1e-8, 1e-5, 0.3, -0.5, 1.0],
        [-1.0, 1.5, -2.5, 7.0, 1e4, -1e5],
        [3e38, -3e38, INF, -INF, NAN, 65504.0],
    ]
)


class Forms(nn.Module):
    """Outputs by what they show; PyTorch rounds each in one way, so that files can be held to it.

    Takes ``VALUES``, or others of the shape (4, 6).
    """

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {**_small(x), **_near_one(x), **_zeros(x), **_casts(x), **_bounds(x), **_parts(x)}


def _small(x: Tensor) -> dict[str, Tensor]:
    made = {}
    for place, e in enumerate(TINY):
        made[f"plus_{place}"] = x + e
        made[f"minus_{place}"] = x - e
        made[f"times_{place}"] = x * e
        made[f"divided_{place}"] = x / e
        made[f"guarded_{place}"] = x / (x.abs() + e)
        made[f"above_{place}"] = x > e
        made[f"chosen_{place}"] = torch.where(x.abs() < e, torch.full_like(x, e), x)
    return made


def _near_one(x: Tensor) -> dict[str, Tensor]:
    made = {}
    for place, e in enumerate(NEAR_ONE):
        made[f"times_one_{place}"] = x * e
        made[f"divided_one_{place}"] = x / e
    return made


def _zeros(x: Tensor) -> dict[str, Tensor]:
    return {"zero_added": x + 0.0, "zero_taken": x - 0.0, "negated": -x, "from_zero": 0.0 - x}


def _casts(x: Tensor) -> dict[str, Tensor]:
    whole = x.nan_to_num().clamp(-1e9, 1e9).to(torch.int64)
    return {
        "half": x.half().float(),
        "truth": x.bool().float(),
        "whole": whole.float(),
        "wrapped": (whole * 3).to(torch.int32).to(torch.int64),
        "twice_rounded": (x.double() * 1.0009765625001).float().half(),
        "wide_half": whole.float().half(),
    }


def _bounds(x: Tensor) -> dict[str, Tensor]:
    return {
        "disjoint": x.clamp(0, 1).clamp(2, 3),
        "below_relu": x.clamp(-3, -1).relu(),
        "least_of_most": torch.minimum(torch.maximum(x, torch.tensor(-1.0)), torch.tensor(1.0)),
        "lifted": torch.maximum(torch.minimum(x, torch.tensor([2.0])), torch.tensor([1.0])),
    }


def _parts(x: Tensor) -> dict[str, Tensor]:
    part, every = x[:, :5], torch.arange(len(x))
    return {
        "first_two": part[:, :2] + 1,
        "last_three": part[:, 2:] + 1,
        "added_to_all": torch.ones_like(x).index_add(0, every, x),
    }


def unequal(found: Mapping[str, NDArray[Any]], expected: Mapping[str, Tensor]) -> list[str]:
    """Names of outputs that differ in a bit, the payload of NaN left aside."""
    return [name for name, value in expected.items() if not _same(found[name], value.numpy())]


def _same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool((found == expected).all())
    return bool(
        np.array_equal(found, expected, equal_nan=True)
        and ((found != 0) | (np.signbit(found) == np.signbit(expected))).all()
    )
