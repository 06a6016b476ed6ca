"""``dkm-deploy``: parse, call one function, print. Exit codes: 0 passed, 1 missed, 2 bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from dkm_deploy._version import __version__
from dkm_deploy.cli.compare import add_compare
from dkm_deploy.cli.convert import add_convert
from dkm_deploy.cli.demo import add_demo
from dkm_deploy.cli.golden import add_golden
from dkm_deploy.cli.inspect import add_inspect
from dkm_deploy.cli.palettize import add_palettize
from dkm_deploy.cli.plan import add_plan
from dkm_deploy.cli.validate import add_validate
from dkm_deploy.errors import DkmError

_DESCRIPTION = """\
Make a PyTorch model small by clustering its weights into lookup tables (palettes),
write it to Core ML (.mlpackage), Core AI (.aimodel) and ONNX (.onnx, .ort), and check what
was written.

See it work on handwritten digits, in about two minutes:
  dkm-deploy demo --out out/demo
"""
_EPILOG = """\
exit codes: 0 passed, 1 a limit was missed, 2 wrong use or bad input
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments, Console(soft_wrap=False))
    except DkmError as error:
        print(f"dkm-deploy: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("dkm-deploy: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run(arguments, console)``."""
    parser = argparse.ArgumentParser(
        prog="dkm-deploy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dkm-deploy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    add_demo(commands)
    add_palettize(commands)
    add_plan(commands)
    add_convert(commands)
    add_validate(commands)
    add_golden(commands)
    add_compare(commands)
    add_inspect(commands)
    return parser
