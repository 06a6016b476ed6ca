"""Why tests fail: patterns in ``causes.toml``, of which the first that matches counts."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from benchmarks.conformance.results import FAILURES, Result

KINDS = ("this project", "coremltools or harness", "by design")


@dataclass(frozen=True)
class Cause:
    """Why some tests fail.

    Attributes:
        kind: whose fault it is, one of ``KINDS``.
        pattern: a regular expression that is searched in :attr:`Result.text`.
        what: a sentence.
    """

    kind: str
    pattern: str
    what: str


UNKNOWN = Cause("this project", "", "not looked into")


@cache
def read_causes() -> tuple[Cause, ...]:
    """All causes that are known. Raises ValueError if a kind or a pattern is none."""
    tables = tomllib.loads(files(__package__).joinpath("causes.toml").read_text("utf-8"))
    causes = tuple(
        Cause(kind, pattern, what)
        for kind, table in tables.items()
        for pattern, what in table.items()
    )
    for cause in causes:
        if cause.kind not in KINDS:
            raise ValueError(f"causes.toml: {cause.kind!r} is none of {', '.join(KINDS)}")
        try:
            re.compile(cause.pattern)
        except re.error as error:
            raise ValueError(f"causes.toml: {cause.pattern!r}: {error}") from error
    return causes


def cause_of(result: Result, causes: tuple[Cause, ...]) -> Cause | None:
    """Why a test failed: the project is to blame if no pattern matches. None if it did not."""
    if result.outcome not in FAILURES:
        return None
    return next((each for each in causes if re.search(each.pattern, result.text)), UNKNOWN)
