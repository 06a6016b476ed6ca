"""One file's failure never ends the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.report import Model


def each_row(paths: Sequence[Path], make: Callable[[Path], Model], check: str) -> list[Model]:
    """A row for each path; one that cannot be read misses ``check``, and the others go on.

    Raises:
        DkmError: none of them can be read.
    """
    rows, wrong = [], []
    for path in paths:
        try:
            rows.append(make(path))
        except Exception as error:  # whatever a reader's own code raises
            failed = Check(check, Status.FAILED, error_line(error))
            rows.append(Model(name=path.name, path=str(path), checks=(failed,)))
            wrong.append(error)
    if wrong and len(wrong) == len(rows):
        if isinstance(wrong[0], DkmError):
            raise wrong[0]
        raise DkmError(f"{paths[0]} cannot be checked: {reason_of(wrong[0])}") from wrong[0]
    return rows


def further_row(name: str, make: Callable[[], Model]) -> Model:
    """The row of a further PyTorch model, or one that tells why it cannot be compared."""
    try:
        return make()
    except DkmError as error:
        return Model(name=name, checks=(Check("parity", Status.SKIPPED, str(error)),))


def error_line(error: Exception) -> str:
    """An error in one line: this project's own as it is, any other with its kind."""
    return str(error) if isinstance(error, DkmError) else reason_of(error)
