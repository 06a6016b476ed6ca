"""``dkm-deploy golden``: a bundle of inputs and the outputs they must give."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dkm_deploy.cli.options.key_value import named_values
from dkm_deploy.cli.options.reference import add_limits, add_reference, interface, limits, reference

if TYPE_CHECKING:
    from rich.console import Console

_NOTE = "NAME=TEXT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Run the palettized PyTorch model and write its inputs, outputs, palettes and "
        "limits to a folder that dkm-deploy validate --golden, a phone or any other program "
        "can replay."
    )
    parser.epilog = (
        "example: dkm-deploy golden out/golden --model mynet:Net --weights "
        "out/net.safetensors --inputs held_out.safetensors --original net.safetensors "
        "--min-agreement 99% --note commit=1a2b3c"
    )
    parser.add_argument("out", type=Path, help="folder to be made")
    add_reference(parser, required=True)
    add_limits(parser)
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar=_NOTE,
        help="kept in the bundle's provenance, such as commit=1a2b3c; repeatable",
    )
    parser.add_argument("--force", action="store_true", help="replace the folder")
    parser.set_defaults(run=_golden)


def _golden(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy._support.atomic_files import check_writable
    from dkm_deploy.model.spec import metric_named
    from dkm_deploy.report.terminal.table import print_line, safe
    from dkm_deploy.validation.golden.write import write_golden

    check_writable(arguments.out, force=arguments.force)
    if arguments.metric:
        metric_named(arguments.metric)  # there is one
    write_golden(
        arguments.out,
        **reference(arguments),
        interface=interface(arguments),
        metric=arguments.metric,
        limits=limits(arguments),
        provenance=named_values("--note", _NOTE, arguments.note),
        force=arguments.force,
    )
    print_line(safe(f"{arguments.out}: written"), console)
    return 0
