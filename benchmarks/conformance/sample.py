"""Which parametrisations of a test function are run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def sampled(parametrisations: Mapping[str, str], most: int, seed: int) -> set[str]:
    """Some parametrisations of a function: by turns one in float32 and one of the others.

    Float32 has the narrower tolerances. A larger sample holds the smaller ones of the same seed.

    Args:
        parametrisations: their parameters by the name of the test.
        most: how many; 0 is all of them.
        seed: chooses others.
    """
    if not most:
        return set(parametrisations)
    order = sorted(parametrisations, key=lambda name: _hash(f"{seed} {name}"))
    sharp = [name for name in order if "fp32" in parametrisations[name]]
    others = [name for name in order if "fp32" not in parametrisations[name]]
    return set(list(_by_turns(sharp, others))[:most])


def _by_turns(first: list[str], second: list[str]) -> Iterable[str]:
    shorter = min(len(first), len(second))
    for pair in zip(first, second, strict=False):
        yield from pair
    yield from first[shorter:]
    yield from second[shorter:]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
