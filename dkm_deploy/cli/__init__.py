"""``dkm-deploy``: parse, call one function, print. Exit codes: 0 passed, 1 failed, 2 bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from dkm_deploy._version import __version__
from dkm_deploy.cli.process import (
    EndedBySignal,
    OneLineParser,
    flush_output,
    open_streams,
    tell_error,
    unwound_by_signals,
)
from dkm_deploy.errors import DkmError, refused_by_system

_DESCRIPTION = """\
Make a PyTorch model small by clustering its weights into lookup tables (palettes),
write it to Core ML (.mlpackage), Core AI (.aimodel) and ONNX (.onnx, .ort), and check what
was written.

See it work on handwritten digits, in about two minutes:
  dkm-deploy demo --out out/demo
"""
_EPILOG = """\
exit codes: 0 passed, 1 a check failed, 2 wrong use, bad input or no place to write;
130 interrupted, 143 ended by SIGTERM
"""

COMMANDS = {
    "demo": "the whole job on handwritten digits",
    "palettize": "make an .onnx file or a checkpoint small",
    "plan": "find the recipe that costs least within a byte budget",
    "convert": "write a model to .onnx, .ort, .mlpackage or .aimodel",
    "validate": "check files against PyTorch: weights, outputs, answers, bytes, cost",
    "golden": "write a bundle of inputs and the outputs they must give",
    "compare": "reports side by side, or a device's outputs against a golden bundle",
    "inspect": "palettes and bytes of a file",
}
"""Every command, and what it is for. Its module here is imported only when it is asked for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    open_streams()
    with unwound_by_signals():
        return _run(sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = build_parser(argv).parse_args(argv)
        from dkm_deploy.cli.console import OutputConsole  # rich, which --help does without

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
    except EndedBySignal as ended:
        print(f"dkm-deploy: ended by {ended}", file=sys.stderr)  # noqa: T201
        code = ended.code
    finally:
        unwritten = flush_output()
    if unwritten and code < 2:
        tell_error(f"standard output cannot be written: {unwritten}")
        code = 2
    return code


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of a command line, which sets ``run(arguments, console)``.

    Of the command that ``argv`` asks for it has the arguments, of all others the name and the help.
    """
    parser = OneLineParser(
        prog="dkm-deploy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dkm-deploy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    asked = next((word for word in argv if not word.startswith("-")), None)
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if name == asked:
            import_module(f"{__name__}.{name}").add_arguments(command)
    return parser
