"""``dkm-deploy inspect``: what is in a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console


def add_inspect(commands: Any) -> None:
    """The parser of the command."""
    parser = commands.add_parser(
        "inspect",
        help="palettes and bytes of a file",
        description="Show the palettes decoded from a file's bytes, and where every byte went.",
    )
    parser.add_argument("file", type=Path, help=".onnx, .ort, .mlpackage, .aimodel or .safetensors")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.conversion.registry import ledger, read_palettes
    from dkm_deploy.report.terminal.report import show_ledger, show_palettes

    palettes, book = read_palettes(arguments.file), ledger(arguments.file)
    show_palettes(palettes, console)
    show_ledger(book, palettes, console)
    return 0
