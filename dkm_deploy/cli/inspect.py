"""``dkm-deploy inspect``: what is in a file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = "Show the palettes decoded from a file's bytes, and where every byte went."
    parser.add_argument("file", type=Path, help=".onnx, .ort, .mlpackage, .aimodel or .safetensors")
    parser.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.conversion.registry import read_palettes, size_breakdown
    from dkm_deploy.report.terminal.report import show_ledger, show_palettes

    palettes, book = read_palettes(arguments.file), size_breakdown(arguments.file)
    show_palettes(palettes, console)
    show_ledger(book, palettes, console)
    return 0
