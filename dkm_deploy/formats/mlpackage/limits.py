"""How large a value of a program may become."""

from __future__ import annotations

import math
from collections.abc import Iterable

from dkm_deploy.errors import DkmError

MOST_ELEMENTS = 2**30
"""4 GiB in float32; what is beyond is taken for damage and refused before it is allocated."""


def check_elements(shape: Iterable[int | None]) -> None:
    """Raise DkmError if a shape (None: not known) has too many elements."""
    lengths = tuple(shape)
    if math.prod(n for n in lengths if n is not None) > MOST_ELEMENTS:
        raise DkmError(f"shape {lengths} has more than {MOST_ELEMENTS} elements, which is refused")
