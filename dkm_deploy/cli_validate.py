"""``dkm-deploy validate``: what it takes, and how it becomes one call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from dkm_deploy.quantities import parse_bytes, parse_share
from dkm_deploy.validation.limits import Limits, parse_output_limits

MODEL = "package.module:callable that returns a torch.nn.Module; the current folder is searched"


def add_validate(commands: Any) -> None:
    """The parser of the command."""
    parser = commands.add_parser(
        "validate",
        help="check files against PyTorch: weights, outputs, answers, bytes",
        description="Compare converted files with the palettized PyTorch model they came from, and "
        "its answers with those of the original model.",
        epilog="example: dkm-deploy validate out/net.onnx --model mynet:Net --weights "
        "out/net.safetensors --inputs held_out.safetensors --original net.safetensors",
    )
    parser.add_argument("files", nargs="+", type=Path, help="converted files")
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument(
        "--weights", type=Path, required=True, help="palettized checkpoint (from dkm.save)"
    )
    parser.add_argument("--original", type=Path, help="checkpoint of the model before clustering")
    parser.add_argument(
        "--inputs",
        type=Path,
        required=True,
        help="safetensors file: inputs by the name they have in forward(), and labels if known",
    )
    parser.add_argument("--max-size", metavar="SIZE", help="limit on each file: 3.4MB, 3.2MiB")
    parser.add_argument("--max-relative-error", type=float, help="limit on the outputs' error")
    parser.add_argument("--max-metric-loss", type=float, help="limit on lost accuracy, in points")
    parser.add_argument(
        "--min-agreement", metavar="SHARE", help="limit on equal top-1 answers: 99.5%% or 0.995"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME:LIMIT=VALUE",
        help="limit on one output, such as logits:min_cosine=0.999; LIMIT is max_relative_error, "
        "max_element_error, max_abs_error, max_mean_error, max_p999_error, min_sqnr_db, "
        "min_psnr_db or min_cosine; repeatable",
    )
    parser.add_argument("--json", type=Path, help="write the report as JSON")
    parser.add_argument("--html", type=Path, help="write the report as a page")
    parser.add_argument("--force", action="store_true", help="replace reports that exist")
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.atomic import check_writable
    from dkm_deploy.report.terminal import show
    from dkm_deploy.sources import build, plain_model, samples
    from dkm_deploy.training.checkpoint import load
    from dkm_deploy.validation.verdict import validate

    for path in filter(None, (arguments.json, arguments.html)):
        check_writable(path, force=arguments.force)
    inputs, labels = samples(arguments.inputs)
    original = plain_model(arguments.model, arguments.original) if arguments.original else None
    report = validate(
        arguments.files,
        reference=load(arguments.weights, build(arguments.model)),
        original=original,
        inputs=inputs,
        labels=labels,
        limits=_limits(arguments),
    )
    if arguments.json:
        report.to_json(arguments.json, force=arguments.force)
    if arguments.html:
        report.to_html(arguments.html, force=arguments.force)
    show(report.to_dict(), console)
    return 0 if report else 1


def _limits(arguments: argparse.Namespace) -> Limits:
    size, share = arguments.max_size, arguments.min_agreement
    return Limits(
        max_relative_error=arguments.max_relative_error,
        max_metric_loss=arguments.max_metric_loss,
        min_agreement=None if share is None else parse_share(share),
        max_bytes=None if size is None else parse_bytes(size),
        outputs=parse_output_limits(arguments.limit),
    )
