"""Options that are given as NAME=VALUE, once for each name."""

from __future__ import annotations

from collections.abc import Sequence

from dkm_deploy.errors import DkmError


def named_values(option: str, metavar: str, pairs: Sequence[str]) -> dict[str, str]:
    """Values by name.

    Args:
        option: its name, for messages.
        metavar: how a pair is to be written.
        pairs: as they were given; of two with one name the later counts.

    Raises:
        DkmError: a pair has no ``=``, or nothing before it.
    """
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, found, _) in zip(pairs, split, strict=True):
        if not name or not found:
            raise DkmError(f"{option} {pair!r}: write it as {metavar}")
    return {name: value for name, _, value in split}
