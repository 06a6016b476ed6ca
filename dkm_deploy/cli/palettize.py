"""``dkm-deploy palettize``: a file in, a smaller file out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy.cli.options.model import METRIC, MODEL, SAMPLES
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from rich.console import Console

    from dkm_deploy.post_training.methods import PostTrainingMethod
    from dkm_deploy.recipe import Recipe

_METHOD = (
    "kmeans needs the weights only; sensitive also weighs them by their squared gradients; "
    "bin_quant splits bins until the metric is within --tolerance"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Cluster weights, without training. An .onnx file gives an .onnx file and an .mlpackage "
        "an .mlpackage, on any OS and without a Python model; a Python model with a plain "
        "checkpoint, or a .pt2 program, gives a packed checkpoint. What stays dense is listed with "
        "the reason."
    )
    parser.epilog = (
        "examples: dkm-deploy palettize model.onnx --bits 4 -o small.onnx; dkm-deploy palettize "
        "net.mlpackage --bits 4 -o small.mlpackage; dkm-deploy palettize mynet:Net --weights "
        "net.safetensors --bits 4 -o net.palettes.safetensors; dkm-deploy palettize net.pt2 "
        "--bits 4 -o net.palettes.safetensors"
    )
    parser.add_argument("source", help=f"an .onnx file, an .mlpackage, or {MODEL}")
    parser.add_argument("--weights", type=Path, help="safetensors checkpoint of a Python model")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--bits", type=int, help="the same for every weight, 1 to 8")
    how.add_argument("--recipe", type=Path, help="a TOML recipe; its names are those in the file")
    parser.add_argument("--cluster-dim", type=int, help="with --bits: values in one LUT entry")
    parser.add_argument(
        "--group-size", type=int, help="with --bits: channels along dimension 0 that share a LUT"
    )
    methods = ("kmeans", "sensitive", "bin_quant")
    parser.add_argument("--method", default="kmeans", choices=methods, help=_METHOD)
    parser.add_argument(
        "--calibration", type=Path, help=f"for the other methods and --correct: {SAMPLES}"
    )
    parser.add_argument("--metric", help=f"for bin_quant: {METRIC}; top-1 accuracy if left out")
    parser.add_argument(
        "--tolerance",
        type=float,
        help="for bin_quant: the loss of the metric that is accepted; default 0.2",
    )
    parser.add_argument(
        "--correct", action="store_true", help="correct the outputs afterwards; needs --calibration"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="file to write")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.set_defaults(run=_palettize)


def _palettize(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.model.spec import is_program
    from dkm_deploy.post_training.palettize_file import palettize_checkpoint, palettize_file
    from dkm_deploy.report.terminal.palettized_file import show_rewritten

    source, weights, out = arguments.source, arguments.weights, arguments.out
    is_file = Path(source).exists() or ":" not in source
    if is_file == (weights is not None):
        raise DkmError(
            f"{source}: --weights is needed for package.module:callable, and only for it"
        )
    recipe, method, force = _recipe(arguments), _method(arguments), arguments.force
    if is_file and not is_program(source):
        if arguments.method != "kmeans" or arguments.calibration or arguments.correct:
            raise DkmError(
                f"{source}: such files give no gradients, so they are palettized by k-means; "
                "--method, --calibration and --correct need package.module:callable or a .pt2 file"
            )
        result = palettize_file(source, out, recipe, force=force)
    else:
        how: Any = {"method": method, "calibration": arguments.calibration, "force": force}
        how["correct"] = arguments.correct
        result = palettize_checkpoint(source, weights, out, recipe, **how)
    show_rewritten(result, console)
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from dkm_deploy.recipe import Recipe

    layout = {"cluster_dim": arguments.cluster_dim, "group_size": arguments.group_size}
    layout = {name: value for name, value in layout.items() if value is not None}
    if not arguments.recipe:
        return Recipe.uniform(arguments.bits, **layout)
    if layout:
        raise DkmError("--cluster-dim and --group-size need --bits; a recipe has its own")
    return Recipe.load(arguments.recipe)


def _method(arguments: argparse.Namespace) -> str | PostTrainingMethod:
    from dkm_deploy.model.spec import metric_named
    from dkm_deploy.post_training.bin_quant import BinQuant

    options: dict[str, Any] = {"metric": arguments.metric, "tolerance": arguments.tolerance}
    options = {name: value for name, value in options.items() if value is not None}
    if arguments.method != "bin_quant":
        for name in options:
            raise DkmError(f"--{name} needs --method bin_quant")
        return str(arguments.method)
    if "metric" in options:
        options["metric"] = metric_named(options["metric"])
    return BinQuant(**options)
