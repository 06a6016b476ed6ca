"""Which checks must have run: a report without one of them has not passed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from dkm_deploy._support.argument_checks import names_of
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.check import CHECKS, Check, Required, Status
from dkm_deploy.validation.report import Model


def required_of(require: bool | Collection[str]) -> Required:
    """What a caller requires: every check that a file has, none, or those that are named.

    Raises:
        DkmError: no check has such a name.
    """
    if isinstance(require, bool):
        return require
    names = names_of(require, "require")
    for name in names:
        if name not in CHECKS:
            raise DkmError(f"require: unknown check {name!r}; known checks are {', '.join(CHECKS)}")
    return tuple(dict.fromkeys(names))


def with_required(rows: Collection[Model], required: Required) -> Iterator[Model]:
    """Rows whose files have every check that is named: one that nothing asked for was skipped."""
    names = () if isinstance(required, bool) else required
    for row in rows:
        there = {check.name for check in row.checks}
        absent = [name for name in names if row.path is not None and name not in there]
        lacking = (
            Check(name, Status.SKIPPED, "required, but no limit asks for it") for name in absent
        )
        yield replace(row, checks=(*row.checks, *lacking))
