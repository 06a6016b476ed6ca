"""``dkm-deploy compare``: what devices gave against a golden bundle, or reports side by side."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dkm_deploy.cli.report import check_files, finish
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "If the first folder is a golden bundle (it holds bundle.json), the others are "
        "folders of outputs that devices wrote for its inputs, judged under its limits. Otherwise "
        "all are reports (validate --json, or folders with a report.json): a table and a plot of "
        "score against bytes."
    )
    parser.epilog = (
        "examples: dkm-deploy compare out/golden from_phone/; dkm-deploy compare "
        "2bit.json 4bit.json --html runs.html"
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, help="a bundle and outputs, or reports; see above"
    )
    parser.add_argument("--json", type=Path, help="write the report or the comparison as JSON")
    parser.add_argument("--html", type=Path, help="write it as a page")
    parser.add_argument("--junit", type=Path, help="with a bundle: write the checks as JUnit XML")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.validation.golden import MANIFEST

    check_files(arguments)
    if (arguments.paths[0] / MANIFEST).is_file():
        return _judge(arguments, console)
    return _runs(arguments, console)


def _judge(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.validation.validate import validate_device_outputs

    golden, *folders = arguments.paths
    if not folders:
        raise DkmError(f"{golden} is a golden bundle; give folders of device outputs after it")
    return finish(lambda: validate_device_outputs(folders, golden), arguments, console)


def _runs(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy._support.atomic_files import atomic_path
    from dkm_deploy.report.html.comparison import comparison_page
    from dkm_deploy.report.runs import compare_runs
    from dkm_deploy.report.terminal.comparison import show_runs

    if arguments.junit:
        raise DkmError("--junit needs a golden bundle; reports are only compared")
    found = compare_runs(arguments.paths)
    table = json.dumps(asdict(found), indent=2) + "\n"
    show_runs(found, console)
    for path, written in ((arguments.json, table), (arguments.html, comparison_page(found))):
        if path:
            with atomic_path(path, force=arguments.force) as temporary:
                temporary.write_text(written, "utf-8")
    return 0
