"""``dkm-deploy plan``, and the choice of a method after training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from dkm_deploy.cli_validate import MODEL

_INPUTS = "safetensors file: inputs by the name they have in forward(), and labels if known"


def add_method(parser: argparse.ArgumentParser) -> None:
    """The options of a command that makes palettes after training."""
    parser.add_argument(
        "--method",
        default="kmeans",
        choices=("kmeans", "sensitive"),
        help="kmeans looks at weights alone; sensitive weighs them by squared gradients",
    )
    parser.add_argument("--calibration", type=Path, help=f"for sensitive and --correct: {_INPUTS}")


def add_plan(commands: Any) -> None:
    """The parser of the command."""
    parser = commands.add_parser(
        "plan",
        help="find the recipe that costs least within a byte budget",
        description="Measure what each palette on each weight costs the outputs on calibration "
        "data and in bytes of the file, and write the recipe whose file fits the budget with the "
        "least expected loss. What was measured is kept: a plan that was killed goes on, and "
        "another budget takes moments.",
        epilog="example: dkm-deploy plan mynet:Net --weights net.safetensors --budget 3.3MB "
        "--calibration samples.safetensors -o recipe.toml",
    )
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--weights", type=Path, required=True, help="plain safetensors checkpoint")
    parser.add_argument("--budget", required=True, metavar="SIZE", help="3.3MB, 3.2MiB or bytes")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="onnx, ort, coreml or coreml:iOS17; repeatable, and each file fits the budget; "
        "coreml if left out",
    )
    parser.add_argument("--calibration", type=Path, required=True, help=_INPUTS)
    parser.add_argument(
        "--bits",
        type=int,
        action="append",
        help="a width to try, one LUT a weight; repeatable. Left out: 1 to 8, groups of 16 "
        "channels, and vectors of 2 and 4",
    )
    parser.add_argument("--method", default="kmeans", choices=("kmeans", "sensitive"))
    parser.add_argument("-o", "--out", type=Path, required=True, help="recipe to write (.toml)")
    parser.add_argument("--svg", type=Path, help="write the plot of budget against expected loss")
    parser.add_argument("--json", type=Path, help="write all figures")
    parser.add_argument("--cache", type=Path, help="folder of measurements; OUT.cache if left out")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.atomic import check_writable
    from dkm_deploy.planning.candidates import DEFAULT
    from dkm_deploy.planning.plan import plan_details
    from dkm_deploy.recipe import PaletteSpec
    from dkm_deploy.report.pareto import write_pareto
    from dkm_deploy.report.planned import show_plan, write_plan
    from dkm_deploy.sources import calibration_batches, plain_model

    out, force = arguments.out, arguments.force
    for path in filter(None, (out, arguments.svg, arguments.json)):
        check_writable(path, force=force)
    found = plan_details(
        plain_model(arguments.model, arguments.weights),
        arguments.budget,
        arguments.target or ["coreml"],
        list(calibration_batches(arguments.calibration)),
        method=arguments.method,
        candidates=[PaletteSpec(bits) for bits in arguments.bits] if arguments.bits else DEFAULT,
        cache=arguments.cache or out.with_name(f"{out.name}.cache"),
    )
    found.recipe.save(out, force=force)
    if arguments.svg:
        write_pareto(found, arguments.svg, force=force)
    if arguments.json:
        write_plan(found, arguments.json, force=force)
    show_plan(found, console)
    return 0
