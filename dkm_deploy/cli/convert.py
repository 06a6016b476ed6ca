"""``dkm-deploy convert``: a model in, files of targets out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy.cli.options.key_value import named_values
from dkm_deploy.cli.options.model import INPUT, add_model
from dkm_deploy.cli.options.output_files import check_outputs
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from rich.console import Console

_PAIR = "NAME=VALUE"
_FLAGS = {"true": True, "false": False}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Convert a palettized checkpoint (from dkm.save), or palettize a plain one, "
        "or a .pt2 program, by k-means on the way. The palettes are read back from every file and "
        "compared, and the file is run beside the model."
    )
    parser.epilog = (
        "example: dkm-deploy convert mynet:Net --weights net.safetensors --bits 4 "
        "--input 1x3x224x224 -o out/net.onnx -o out/net.mlpackage"
    )
    add_model(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--bits", type=int, help="palettize a plain model with this many bits")
    how.add_argument("--recipe", type=Path, help="palettize a plain model by a TOML recipe")
    parser.add_argument("--input", action="append", metavar="SHAPE", help=INPUT)
    parser.add_argument(
        "-o", "--out", type=Path, action="append", required=True, help="file to write; repeatable"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar=_PAIR,
        help="option of the target: opset=18, storage_dtype=float16, external_data=true (.onnx); "
        "minimum_deployment_target=iOS17, compute_precision=float32 (.mlpackage, .aimodel)",
    )
    parser.add_argument(
        "--no-try", action="store_true", help="do not run what was written on the inputs"
    )
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace, console: Console) -> int:
    from rich.text import Text

    from dkm_deploy.cli.frozen_model import frozen_model
    from dkm_deploy.conversion.convert import convert
    from dkm_deploy.model.spec import example, is_program
    from dkm_deploy.recipe import Recipe
    from dkm_deploy.report.terminal.table import print_line, safe

    recipe = Recipe.load(arguments.recipe) if arguments.recipe else None
    recipe = Recipe.uniform(arguments.bits) if arguments.bits is not None else recipe
    options = _options(arguments.option)
    given = example(arguments.input) if arguments.input else None
    if given is None and not is_program(arguments.model):
        raise DkmError("--input is missing: the shape of each input, such as 1x3x224x224")
    check_outputs(arguments.out, force=arguments.force)
    frozen = frozen_model(arguments.model, arguments.weights, recipe)
    inputs, shapes = frozen.export_with(given)
    if inputs is None:
        raise DkmError(f"{arguments.model}: it was saved without inputs; give --input SHAPE")
    for path in arguments.out:
        artifact = convert(
            frozen.model,
            inputs,
            path,
            dynamic_shapes=shapes,
            force=arguments.force,
            try_file=not arguments.no_try,
            **options,
        )
        print_line(safe(f"{artifact.path}: {artifact.size_bytes:,} bytes"), console)
        for note in artifact.notes:
            print_line(Text("  ").append_text(safe(note)), console)
    return 0


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """Options of a target, with numbers and truth values as such."""
    return {
        name: int(value) if value.isdigit() else _FLAGS.get(value.lower(), value)
        for name, value in named_values("--option", _PAIR, pairs).items()
    }
