"""``dkm-deploy``: parse, call one function, print. Exit codes: 0 passed, 1 missed, 2 bad input."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dkm_deploy._version import __version__
from dkm_deploy.cli_compare import add_compare
from dkm_deploy.cli_plan import add_method, add_plan
from dkm_deploy.cli_validate import MODEL, add_golden, add_validate
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
_FLAGS = {"true": True, "false": False}


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
    _add_demo(commands)
    _add_palettize(commands)
    add_plan(commands)
    _add_convert(commands)
    add_validate(commands)
    add_golden(commands)
    add_compare(commands)
    _add_inspect(commands)
    return parser


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole job on handwritten digits",
        description="Train a small CNN on scikit-learn's digits, cluster it with DKM, write ONNX "
        "and Core ML files, run both on held-out digits and report.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to be made")
    parser.add_argument("--force", action="store_true", help="replace the folder")
    parser.set_defaults(run=_demo)


def _add_palettize(commands: Any) -> None:
    parser = commands.add_parser(
        "palettize",
        help="make an .onnx file or a checkpoint small",
        description="Cluster weights, without training. An .onnx file gives an .onnx "
        "file and needs no Python model; a Python model with a plain checkpoint gives a packed "
        "checkpoint. What stays dense is listed with the reason.",
        epilog="examples: dkm-deploy palettize model.onnx --bits 4 -o small.onnx; dkm-deploy "
        "palettize mynet:Net --weights net.safetensors --bits 4 -o net.palettes.safetensors",
    )
    parser.add_argument("source", help=f"an .onnx file, or {MODEL}")
    parser.add_argument("--weights", type=Path, help="safetensors checkpoint of a Python model")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--bits", type=int, help="the same for every weight, 1 to 8")
    how.add_argument("--recipe", type=Path, help="a TOML recipe; its names are those in the file")
    parser.add_argument("--cluster-dim", type=int, help="with --bits: values in one LUT entry")
    parser.add_argument(
        "--group-size", type=int, help="with --bits: channels along dimension 0 that share a LUT"
    )
    add_method(parser)
    parser.add_argument(
        "--correct", action="store_true", help="correct the outputs afterwards; needs --calibration"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=_palettize)


def _add_convert(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="write a model to .onnx, .ort, .mlpackage or .aimodel",
        description="Convert a palettized checkpoint (from dkm.save), or palettize a plain one "
        "by k-means on the way. The palettes are read back from every file and compared.",
        epilog="example: dkm-deploy convert mynet:Net --weights net.safetensors --bits 4 "
        "--input 1x3x224x224 -o out/net.onnx -o out/net.mlpackage",
    )
    _add_model(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--bits", type=int, help="palettize a plain checkpoint with this many bits")
    how.add_argument("--recipe", type=Path, help="palettize a plain checkpoint by a TOML recipe")
    parser.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="SHAPE",
        help="shape of an input, such as 1x3x224x224 or 1x128:int64; once for each input",
    )
    parser.add_argument(
        "-o", "--out", type=Path, action="append", required=True, help="file to write; repeatable"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the target: opset=18, storage_dtype=float16, external_data=true (.onnx); "
        "minimum_deployment_target=iOS17, compute_precision=float32 (.mlpackage, .aimodel)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_convert)


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="palettes and bytes of a file",
        description="Show the palettes decoded from a file's bytes, and where every byte went.",
    )
    parser.add_argument("file", type=Path, help=".onnx, .ort, .mlpackage, .aimodel or .safetensors")
    parser.set_defaults(run=_inspect)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors checkpoint")


def _demo(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.demo.main import demo

    report = demo(arguments.out, console, force=arguments.force)
    console.print(f"report: {arguments.out / 'report.html'}", soft_wrap=True, highlight=False)
    return 0 if report else 1


def _palettize(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.recipe import Recipe
    from dkm_deploy.report.rewritten import show_rewritten
    from dkm_deploy.rewrite import palettize_checkpoint, palettize_file

    layout = {"cluster_dim": arguments.cluster_dim, "group_size": arguments.group_size}
    layout = {name: value for name, value in layout.items() if value is not None}
    if arguments.recipe and layout:
        raise DkmError("--cluster-dim and --group-size go with --bits; a recipe has its own")
    source, weights, out = arguments.source, arguments.weights, arguments.out
    method, calibration = arguments.method, arguments.calibration
    is_file = Path(source).exists() or ":" not in source
    if is_file == (weights is not None):
        raise DkmError(
            f"{source}: --weights goes with package.module:callable, which needs it, and with "
            "nothing else"
        )
    if arguments.recipe:
        recipe = Recipe.load(arguments.recipe)
    else:
        recipe = Recipe.uniform(arguments.bits, **layout)
    if not is_file:
        how = {"method": method, "calibration": calibration, "force": arguments.force}
        how["correct"] = arguments.correct
        result = palettize_checkpoint(source, weights, out, recipe, **how)
    elif method != "kmeans" or calibration is not None or arguments.correct:
        raise DkmError(
            f"{source}: files are palettized by k-means, for they give no gradients; --method, "
            "--calibration and --correct go with package.module:callable and --weights"
        )
    else:
        result = palettize_file(source, out, recipe, force=arguments.force)
    show_rewritten(result, console)
    return 0


def _convert(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.atomic import check_writable
    from dkm_deploy.convert import convert
    from dkm_deploy.recipe import Recipe
    from dkm_deploy.sources import example, frozen_model

    recipe = Recipe.load(arguments.recipe) if arguments.recipe else None
    recipe = Recipe.uniform(arguments.bits) if arguments.bits is not None else recipe
    options = _options(arguments.option)
    inputs = example(arguments.input)
    for path in arguments.out:
        check_writable(path, force=arguments.force)
    frozen = frozen_model(arguments.model, arguments.weights, recipe)
    for path in arguments.out:
        artifact = convert(frozen, inputs, path, force=arguments.force, **options)
        console.print(f"{artifact.path}: {artifact.size_bytes:,} bytes", soft_wrap=True)
        for note in artifact.notes:
            console.print(f"  {note}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _inspect(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.report.terminal import show_ledger, show_palettes
    from dkm_deploy.targets import ledger, read_palettes

    palettes, book = read_palettes(arguments.file), ledger(arguments.file)
    show_palettes(palettes, console)
    show_ledger(book, palettes, console)
    return 0


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise DkmError(f"--option {pair!r}: write it as NAME=VALUE")
        options[name] = int(value) if value.isdigit() else _FLAGS.get(value.lower(), value)
    return options
