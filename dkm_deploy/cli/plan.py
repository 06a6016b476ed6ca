"""``dkm-deploy plan``: the recipe for a byte budget."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy.cli.options.model import INPUT, METRIC, MODEL, SAMPLES
from dkm_deploy.cli.options.output_files import check_outputs
from dkm_deploy.errors import DkmError

if TYPE_CHECKING:
    from rich.console import Console

    from dkm_deploy.planning.decision import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Measure what each palette on each weight costs the outputs on calibration "
        "data and in bytes of the file, and write the recipe whose file fits the budget with the "
        "least expected loss. What was measured is kept: a plan that was killed goes on, and "
        "another budget takes moments."
    )
    parser.epilog = (
        "examples: dkm-deploy plan mynet:Net --weights net.safetensors --budget 3.3MB "
        "--calibration samples.safetensors -o recipe.toml; dkm-deploy plan net.onnx --budget "
        "3.3MB --calibration samples.safetensors -o recipe.toml, for dkm-deploy palettize"
    )
    parser.add_argument("model", help=f"an .onnx file, an .mlpackage, or {MODEL}")
    parser.add_argument("--weights", type=Path, help="plain checkpoint of a Python model")
    parser.add_argument("--budget", required=True, metavar="SIZE", help="3.3MB, 3.2MiB or bytes")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="onnx, ort, coreml, coreml:iOS17 or coreai; repeatable, each file fits the budget; "
        "coreml if left out, and that of the file for a file, which cannot become another",
    )
    parser.add_argument("--calibration", type=Path, required=True, help=SAMPLES)
    parser.add_argument("--metric", help=f"{METRIC}; the outputs' relative error if left out")
    parser.add_argument("--input", action="append", metavar="SHAPE", help=f"of the file: {INPUT}")
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
    from dkm_deploy.report.html.pareto import write_pareto
    from dkm_deploy.report.terminal.plan import show_plan, write_plan

    out, force = arguments.out, arguments.force
    check_outputs(filter(None, (out, arguments.svg, arguments.json)), force=force)
    found = _find_plan(arguments)
    show_plan(found, console)  # first: it is not lost where a file cannot be written
    found.recipe.save(out, force=force)
    if arguments.svg:
        write_pareto(found, arguments.svg, force=force)
    if arguments.json:
        write_plan(found, arguments.json, force=force)
    return 0


def _find_plan(arguments: argparse.Namespace) -> Plan:
    from dkm_deploy.model.spec import is_program, metric_named
    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.planning.candidates import DEFAULT

    out, bits = arguments.out, arguments.bits
    how: dict[str, Any] = {
        "metric": metric_named(arguments.metric) if arguments.metric else None,
        "candidates": [PaletteSpec(width) for width in bits] if bits else DEFAULT,
        "cache": arguments.cache or out.with_name(f"{out.name}.cache"),
    }
    path = Path(arguments.model)
    is_file = path.exists() or ":" not in arguments.model
    if is_file and not is_program(path):
        return _of_file(path, arguments, how)
    return _of_model(arguments, how)


def _of_file(path: Path, arguments: argparse.Namespace, how: dict[str, Any]) -> Plan:
    from dkm_deploy._support.paths import existing_path
    from dkm_deploy.conversion.registry import planner_for
    from dkm_deploy.model.spec import samples
    from dkm_deploy.planning.plan import plan

    planner_for(existing_path(path))  # of a wrong file nothing else need be said
    for option in ("weights", "input"):
        if getattr(arguments, option) is not None:
            raise DkmError(f"{path}: --{option} goes with PyTorch models")
    calibration = [samples(arguments.calibration)]
    return plan(
        path,
        arguments.budget,
        arguments.target,
        calibration,
        method=arguments.method,
        **how,
    )


def _of_model(arguments: argparse.Namespace, how: dict[str, Any]) -> Plan:
    from dkm_deploy.model.spec import calibration_batches, example, plain_model
    from dkm_deploy.planning.plan import plan

    given = example(arguments.input) if arguments.input else None
    built = plain_model(arguments.model, arguments.weights)
    inputs, shapes = built.export_with(given)
    return plan(
        built.model,
        arguments.budget,
        arguments.target,
        list(calibration_batches(arguments.calibration, built.model)),
        method=arguments.method,
        example_inputs=inputs,
        dynamic_shapes=shapes,
        **how,
    )
