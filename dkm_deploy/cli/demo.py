"""``dkm-deploy demo``: the main job on digits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Train a small CNN on scikit-learn's digits, cluster it with DKM, write ONNX "
        "and Core ML files, run both on held-out digits and report."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to be made")
    parser.add_argument("--force", action="store_true", help="replace the folder")
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.demo.main import demo
    from dkm_deploy.report.terminal.table import print_line, safe

    report = demo(arguments.out, console, force=arguments.force)
    print_line(safe(f"report: {arguments.out / 'report.html'}"), console)
    return 0 if report else 1
