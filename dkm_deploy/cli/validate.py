"""``dkm-deploy validate``: what it takes, and how it becomes one call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy.cli.options.reference import (
    add_limits,
    add_reference,
    check_given,
    interface,
    limits,
    reference,
)
from dkm_deploy.cli.report import check_files, finish
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.measures.cost import CostOptions

if TYPE_CHECKING:
    from rich.console import Console

    from dkm_deploy.validation.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.description = (
        "Compare converted files with the palettized PyTorch model they came from, and "
        "its answers with those of the original model; or with a golden bundle, without PyTorch."
    )
    parser.epilog = (
        "examples: dkm-deploy validate out/net.onnx --model mynet:Net --weights "
        "out/net.safetensors --inputs held_out.safetensors --original net.safetensors; "
        "dkm-deploy validate out/net.onnx --golden out/golden --max-size 3.4MB"
    )
    parser.add_argument("files", nargs="+", type=Path, help="converted files")
    parser.add_argument("--golden", type=Path, help="bundle from dkm-deploy golden, and no model")
    add_reference(parser, required=False)
    add_limits(parser)
    parser.add_argument(
        "--budget", type=Path, metavar="FILE", help="size budget in TOML, a limit for each file"
    )
    parser.add_argument(
        "--function", metavar="NAME", help="of packages; the default one if left out"
    )
    _add_cost(parser)
    required = parser.add_mutually_exclusive_group()
    required.add_argument("--require", action="store_true", help="a skipped check is a failure")
    required.add_argument(
        "--require-checks",
        metavar="NAME,NAME",
        help="the same for these checks only, such as parity,size; each must also be requested",
    )
    parser.add_argument("--json", type=Path, help="write the report as JSON")
    parser.add_argument("--html", type=Path, help="write the report as a page")
    parser.add_argument("--junit", type=Path, help="write the checks as JUnit XML")
    parser.add_argument("--force", action="store_true", help="replace reports that exist")
    parser.set_defaults(run=_validate)


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


def _validate(arguments: argparse.Namespace, console: Console) -> int:
    check_files(arguments)
    return finish(lambda: _report(arguments), arguments, console)


def _report(arguments: argparse.Namespace) -> Report:
    from dkm_deploy.model.spec import metric_named, samples
    from dkm_deploy.model.steps import unstack_steps
    from dkm_deploy.validation.size_budget import Budget
    from dkm_deploy.validation.validate import validate, validate_golden

    how: Any = {
        "metric": metric_named(arguments.metric) if arguments.metric else None,
        "limits": limits(arguments),
        "budget": Budget.load(arguments.budget) if arguments.budget else None,
        "cost": _cost(arguments),
        "require": _required_checks(arguments),
    }
    if arguments.golden is None and arguments.model is None and arguments.original is not None:
        check_given(arguments, "inputs")
        inputs, labels = samples(arguments.inputs)
        given = unstack_steps(inputs) if arguments.steps else inputs
        original = arguments.original
        asked = interface(arguments)
        of_file: Any = {"function": arguments.function, "interface": asked}
        return validate(
            arguments.files, original=original, inputs=given, labels=labels, **of_file, **how
        )
    if arguments.golden is None:
        asked = interface(arguments)
        of_file = {"function": arguments.function, "interface": asked}
        return validate(arguments.files, **reference(arguments), **of_file, **how)
    for name in ("model", "weights", "inputs", "original", "steps", "interface", "function"):
        if getattr(arguments, name) not in (None, False):
            raise DkmError(f"--{name} cannot be used with --golden, which replaces it")
    return validate_golden(arguments.files, arguments.golden, **how)


def _required_checks(arguments: argparse.Namespace) -> bool | list[str]:
    if arguments.require_checks is None:
        return bool(arguments.require)
    return [name.strip() for name in arguments.require_checks.split(",")]


def _cost(arguments: argparse.Namespace) -> CostOptions | None:
    given = {"dense": arguments.dense, "threads": arguments.threads}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if not arguments.cost:
            raise DkmError(f"--{name} needs --cost")
    return CostOptions(**given) if arguments.cost else None
