"""``dkm-deploy``: parse, call one function, print. Exit codes: 0 passed, 1 missed, 2 bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dkm_deploy._version import __version__
from dkm_deploy.cli.compare import add_compare
from dkm_deploy.cli.convert import add_convert
from dkm_deploy.cli.demo import add_demo
from dkm_deploy.cli.golden import add_golden
from dkm_deploy.cli.inspect import add_inspect
from dkm_deploy.cli.palettize import add_palettize
from dkm_deploy.cli.plan import add_plan
from dkm_deploy.cli.process import (
    Ended,
    OneLineParser,
    OutputConsole,
    flush_output,
    open_streams,
    tell_error,
    unwound_by_signals,
)
from dkm_deploy.cli.validate import add_validate
from dkm_deploy.errors import DkmError, refused_by_system

_DESCRIPTION = """\
Make a PyTorch model small by clustering its weights into lookup tables (palettes),
write it to Core ML (.mlpackage), Core AI (.aimodel) and ONNX (.onnx, .ort), and check what
was written.

See it work on handwritten digits, in about two minutes:
  dkm-deploy demo --out out/demo
"""
_EPILOG = """\
exit codes: 0 passed, 1 a limit was missed, 2 wrong use, bad input or no place to write;
130 interrupted, 143 ended by SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    open_streams()
    with unwound_by_signals():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = build_parser().parse_args(argv)
        code: int = arguments.run(arguments, OutputConsole(soft_wrap=False))
    except DkmError as error:
        tell_error(str(error))
        code = 2
    except OSError as error:  # of a temporary folder, or without a name of standard output
        tell_error(f"{error.filename or 'standard output'}: {refused_by_system(error)}")
        code = 2
    except KeyboardInterrupt:
        print("dkm-deploy: interrupted", file=sys.stderr)  # noqa: T201
        code = 130
    except Ended as ended:
        print(f"dkm-deploy: ended by {ended}", file=sys.stderr)  # noqa: T201
        code = ended.code
    finally:
        unwritten = flush_output()
    if unwritten and code < 2:
        tell_error(f"standard output cannot be written: {unwritten}")
        code = 2
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run(arguments, console)``."""
    parser = OneLineParser(
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
