"""What coremltools works out of constants, held to be what its operations give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from coremltools.converters.mil.mil.ops.defs.iOS15.elementwise_binary import elementwise_binary
from coremltools.converters.mil.mil.ops.defs.iOS15.scatter_gather import scatter_along_axis


@contextmanager
def right_constants() -> Iterator[None]:
    """While the block runs, coremltools folds no constant wrongly.

    A scatter that adds, or takes the least, is folded as one that overwrites: it is left to the
    program. What is worked out of lone numbers is Python's, which coremltools does not take.
    """
    binary: Any = elementwise_binary
    scatter: Any = scatter_along_axis
    infer, fold = binary._cast_check_value_inferene, scatter.value_inference

    def infer_number(self: Any, a: Any, b: Any) -> Any:
        found = infer(self, a, b)
        return np.float32(found) if isinstance(found, float) else found

    def fold_update(self: Any) -> Any:
        return fold(self) if self.mode.val == "update" else None

    binary._cast_check_value_inferene, scatter.value_inference = infer_number, fold_update
    try:
        yield
    finally:
        binary._cast_check_value_inferene, scatter.value_inference = infer, fold
