"""``dkm-deploy validate`` and ``golden``: what they take, and how it becomes one call."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from dkm_deploy.cli_model import METRIC, MODEL, SAMPLES
from dkm_deploy.errors import DkmError
from dkm_deploy.quantities import parse_bytes, parse_share
from dkm_deploy.validation.cost import CostOptions
from dkm_deploy.validation.limits import Limits, parse_output_limits
from dkm_deploy.validation.record import Report

if TYPE_CHECKING:
    from torch import nn

_RATIOS = {"latency": "median latency", "load": "load time", "peak": "peak memory"}


def add_validate(commands: Any) -> None:
    """The parser of the command."""
    parser = commands.add_parser(
        "validate",
        help="check files against PyTorch: weights, outputs, answers, bytes, cost",
        description="Compare converted files with the palettized PyTorch model they came from, and "
        "its answers with those of the original model; or with a golden bundle, without PyTorch.",
        epilog="examples: dkm-deploy validate out/net.onnx --model mynet:Net --weights "
        "out/net.safetensors --inputs held_out.safetensors --original net.safetensors; "
        "dkm-deploy validate out/net.onnx --golden out/golden --max-size 3.4MB",
    )
    parser.add_argument("files", nargs="+", type=Path, help="converted files")
    parser.add_argument("--golden", type=Path, help="bundle from dkm-deploy golden, and no model")
    _add_reference(parser, required=False)
    _add_limits(parser)
    parser.add_argument(
        "--budget", type=Path, metavar="FILE", help="size budget in TOML, a limit for each file"
    )
    _add_cost(parser)
    required = parser.add_mutually_exclusive_group()
    required.add_argument(
        "--require", action="store_true", help="a check that could not run is a failure"
    )
    required.add_argument(
        "--require-checks",
        metavar="NAME,NAME",
        help="the same of these checks alone, such as parity,size; they must be asked for, too",
    )
    parser.add_argument("--json", type=Path, help="write the report as JSON")
    parser.add_argument("--html", type=Path, help="write the report as a page")
    parser.add_argument("--junit", type=Path, help="write the checks as JUnit XML")
    parser.add_argument("--force", action="store_true", help="replace reports that exist")
    parser.set_defaults(run=_validate)


def add_golden(commands: Any) -> None:
    """The parser of the command that writes a golden bundle."""
    parser = commands.add_parser(
        "golden",
        help="write a bundle of inputs and the outputs they must give",
        description="Run the palettized PyTorch model and write its inputs, outputs, palettes and "
        "limits to a folder that dkm-deploy validate --golden, a phone or any other program "
        "can replay.",
        epilog="example: dkm-deploy golden out/golden --model mynet:Net --weights "
        "out/net.safetensors --inputs held_out.safetensors --original net.safetensors "
        "--min-agreement 99% --note commit=1a2b3c",
    )
    parser.add_argument("out", type=Path, help="folder to be made")
    _add_reference(parser, required=True)
    _add_limits(parser)
    parser.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="NAME=TEXT",
        help="kept in the bundle's provenance, such as commit=1a2b3c; repeatable",
    )
    parser.add_argument("--force", action="store_true", help="replace the folder")
    parser.set_defaults(run=_golden)


def _add_reference(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--model", required=required, help=MODEL)
    parser.add_argument(
        "--weights", type=Path, required=required, help="palettized checkpoint (from dkm.save)"
    )
    parser.add_argument(
        "--original",
        type=Path,
        help="the model before clustering: a checkpoint, a .pt2 file, or, with no --model, the "
        ".onnx file that was palettized",
    )
    parser.add_argument(
        "--inputs",
        type=Path,
        required=required,
        help=SAMPLES,
    )
    parser.add_argument("--metric", help=f"{METRIC}; top-1 accuracy if left out")


def _add_cost(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cost",
        action="store_true",
        help="measure load time, latency and memory in fresh processes, in turns with a dense file",
    )
    parser.add_argument(
        "--dense",
        type=Path,
        metavar="FILE",
        help="with --cost: the dense file; without it the original is converted to the same kind",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="with --cost: of the runtime; 1 if left out"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-size", metavar="SIZE", help="limit on each file: 3.4MB, 3.2MiB")
    parser.add_argument("--max-relative-error", type=float, help="limit on the outputs' error")
    parser.add_argument("--max-metric-loss", type=float, help="limit on lost accuracy, in points")
    parser.add_argument(
        "--min-agreement", metavar="SHARE", help="limit on equal top-1 answers: 99.5%% or 0.995"
    )
    for name, figure in _RATIOS.items():
        words = f"limit on {figure}, times the dense file's; it needs --cost"
        parser.add_argument(f"--max-{name}-ratio", type=float, metavar="RATIO", help=words)
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME:LIMIT=VALUE",
        help="limit on one output, such as logits:min_cosine=0.999; LIMIT is max_relative_error, "
        "max_element_error, max_abs_error, max_mean_error, max_p999_error, min_sqnr_db, "
        "min_psnr_db or min_cosine; repeatable",
    )


def _validate(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.atomic import check_writable

    for path in filter(None, (arguments.json, arguments.html, arguments.junit)):
        check_writable(path, force=arguments.force)
    return finish(lambda: _report(arguments), arguments, console)


def finish(make: Callable[[], Report], arguments: argparse.Namespace, console: Console) -> int:
    """Make a report, write it as ``--json``, ``--html`` and ``--junit`` say, and print it.

    The JUnit file is there even if the report cannot be made: it holds the error then.
    """
    from dkm_deploy.report.terminal import show

    try:
        report = make()
    except DkmError as error:
        _write_error(arguments.junit, error, force=arguments.force)
        raise
    for path, write in (
        (arguments.json, report.to_json),
        (arguments.html, report.to_html),
        (arguments.junit, report.to_junit),
    ):
        if path:
            write(path, force=arguments.force)
    show(report.to_dict(), console)
    return 0 if report else 1


def _write_error(path: Path | None, error: DkmError, *, force: bool) -> None:
    from dkm_deploy.atomic import written_whole
    from dkm_deploy.report.junit import junit_error

    if path is not None:
        with written_whole(path, force=force) as temporary:
            temporary.write_text(junit_error(str(error)), "utf-8")


def _report(arguments: argparse.Namespace) -> Report:
    from dkm_deploy.sources import metric_named, samples
    from dkm_deploy.validation.budget import Budget
    from dkm_deploy.validation.verdict import replay, validate

    how: Any = {
        "metric": metric_named(arguments.metric) if arguments.metric else None,
        "limits": _limits(arguments),
        "budget": Budget.load(arguments.budget) if arguments.budget else None,
        "cost": _cost(arguments),
        "require": _required(arguments),
    }
    if arguments.golden is None and arguments.model is None and arguments.original is not None:
        _check_given(arguments, "inputs")
        inputs, labels = samples(arguments.inputs)
        original = arguments.original
        return validate(arguments.files, original=original, inputs=inputs, labels=labels, **how)
    if arguments.golden is None:
        return validate(arguments.files, **_reference(arguments), **how)
    for name in ("model", "weights", "inputs", "original"):
        if getattr(arguments, name) is not None:
            raise DkmError(f"--{name} does not go with --golden, which has all that is needed")
    return replay(arguments.files, arguments.golden, **how)


def _required(arguments: argparse.Namespace) -> bool | list[str]:
    if arguments.require_checks is None:
        return bool(arguments.require)
    return [name.strip() for name in arguments.require_checks.split(",")]


def _cost(arguments: argparse.Namespace) -> CostOptions | None:
    given = {"dense": arguments.dense, "threads": arguments.threads}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if not arguments.cost:
            raise DkmError(f"--{name} goes with --cost, which measures")
    return CostOptions(**given) if arguments.cost else None


def _golden(arguments: argparse.Namespace, console: Console) -> int:
    from dkm_deploy.atomic import check_writable
    from dkm_deploy.sources import metric_named
    from dkm_deploy.validation.golden import write_golden

    check_writable(arguments.out, force=arguments.force)
    if arguments.metric:
        metric_named(arguments.metric)  # there is one
    write_golden(
        arguments.out,
        **_reference(arguments),
        metric=arguments.metric,
        limits=_limits(arguments),
        provenance=_notes(arguments.note),
        force=arguments.force,
    )
    console.print(f"{arguments.out}: written", soft_wrap=True, highlight=False, markup=False)
    return 0


def _reference(arguments: argparse.Namespace) -> dict[str, Any]:
    """The models, inputs and labels that the arguments name."""
    from dkm_deploy.sources import build, samples_for
    from dkm_deploy.training.checkpoint import load

    for name in ("model", "weights", "inputs"):
        _check_given(arguments, name)
    original = _original(arguments.model, arguments.original) if arguments.original else None
    reference = load(arguments.weights, build(arguments.model).model)
    inputs, labels = samples_for(arguments.inputs, reference)
    return {"reference": reference, "original": original, "inputs": inputs, "labels": labels}


def _original(model: str, path: Path) -> nn.Module:
    """The model before clustering: a program, or ``model`` with the weights of a checkpoint."""
    from dkm_deploy.sources import is_program, plain_model

    source = (str(path), None) if is_program(path) else (model, path)
    return plain_model(*source).model


def _check_given(arguments: argparse.Namespace, name: str) -> None:
    if getattr(arguments, name) is None:
        raise DkmError(
            f"give --golden, or --model, --weights and --inputs, or --original FILE.onnx and "
            f"--inputs; --{name} is missing"
        )


def _notes(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for name, found, _ in split:
        if not name or not found:
            raise DkmError(f"--note {name!r}: write it as NAME=TEXT")
    return {name: value for name, _, value in split}


def _limits(arguments: argparse.Namespace) -> Limits:
    size, share = arguments.max_size, arguments.min_agreement
    return Limits(
        max_relative_error=arguments.max_relative_error,
        max_metric_loss=arguments.max_metric_loss,
        min_agreement=None if share is None else parse_share(share),
        max_bytes=None if size is None else parse_bytes(size),
        max_latency_ratio=arguments.max_latency_ratio,
        max_load_ratio=arguments.max_load_ratio,
        max_peak_ratio=arguments.max_peak_ratio,
        outputs=parse_output_limits(arguments.limit),
    )
