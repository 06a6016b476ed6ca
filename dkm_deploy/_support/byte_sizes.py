"""Sizes and shares as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

from dkm_deploy._support.argument_checks import integer
from dkm_deploy.errors import DkmError

_DECIMAL = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS = _DECIMAL | {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(written: str) -> int:
    """Bytes of ``3.4MB`` (10**6), ``3.2 MiB`` (2**20) or ``3400000``; parts of a byte are dropped.

    Raises:
        DkmError: it is written otherwise, or too large for a float.
    """
    found = _SIZE.fullmatch(written.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if not found or unit is None:
        raise DkmError(f"size {written!r}: write it as 3.4MB, 3.2MiB or in bytes")
    size = float(found[1]) * unit
    if size == math.inf:
        raise DkmError(f"size {written!r} is too large")
    return int(round(size, 6))


def bytes_of(value: Any, what: str = "budget") -> int:
    """Bytes, above 0, of a whole number or of what :func:`parse_bytes` reads; raises as it does."""
    size = parse_bytes(value) if isinstance(value, str) else integer(what, value, 1)
    if not size:
        raise DkmError(f"{what} is {value!r}; it must be above 0")
    return size


def parse_share(written: str) -> float:
    """A share from 0 to 1 of ``99.5%`` or ``0.995``.

    Raises:
        DkmError: it is written otherwise, or is not within 0 and 1.
    """
    number, percent, rest = written.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if rest or not 0 <= share <= 1:
        raise DkmError(f"share {written!r}: write it as 99.5% or 0.995")
    return share
