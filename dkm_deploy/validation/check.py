"""One question asked of one file, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended, in the words of every test tool."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


CHECKS = (
    *("palettes", "dense", "interface", "parity"),
    *("metric", "agreement", "size", "budget", "cost"),
)


HALF_A_PROOF = ("dense", "interface")
"""Checks without which nothing is proved, and which prove nothing alone."""


Required = bool | tuple[str, ...]
"""Whether all checks must have run, or which."""


@dataclass(frozen=True)
class Check:
    """One question asked of one file.

    Attributes:
        name: one of ``CHECKS``.
        status: "passed", "failed" or "skipped".
        reason: what was found beside what was wanted, or why it was skipped.
        blocks: it was skipped for what is wrong with the file or with what was given, not for what
            is absent, so the report has not passed.
    """

    name: str
    status: Status
    reason: str
    blocks: bool = False
