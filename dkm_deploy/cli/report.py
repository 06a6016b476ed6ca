"""How commands that make a report end: files, the terminal, the exit code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dkm_deploy.cli.options.output_files import check_outputs
from dkm_deploy.errors import DkmError, UnwritableFileError

if TYPE_CHECKING:
    from rich.console import Console

    from dkm_deploy.validation.report import Report


def check_files(arguments: argparse.Namespace) -> None:
    """Raise OutputExistsError before anything is done if ``finish`` could not write a file."""
    files = (arguments.json, arguments.html, arguments.junit)
    check_outputs(filter(None, files), force=arguments.force)


def finish(make: Callable[[], Report], arguments: argparse.Namespace, console: Console) -> int:
    """Make a report, print it, and write it as ``--json``, ``--html`` and ``--junit`` say.

    The JUnit file is there even if the report cannot be made: it holds the error then.
    """
    from dkm_deploy.report.terminal.report import show

    try:
        report = make()
    except DkmError as error:
        with suppress(UnwritableFileError):  # the error itself is the one to tell
            _write_error(arguments.junit, error, force=arguments.force)
        raise
    show(report.to_dict(), console)  # first: it is not lost where a file cannot be written
    for path, write in (
        (arguments.json, report.to_json),
        (arguments.html, report.to_html),
        (arguments.junit, report.to_junit),
    ):
        if path:
            write(path, force=arguments.force)
    return 0 if report else 1


def _write_error(path: Path | None, error: DkmError, *, force: bool) -> None:
    from dkm_deploy._support.atomic_files import atomic_path
    from dkm_deploy.report.junit import junit_error

    if path is not None:
        with atomic_path(path, force=force) as temporary:
            temporary.write_text(junit_error(str(error)), "utf-8")
