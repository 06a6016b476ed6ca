"""What ``dkm-deploy validate`` and ``golden`` ask alike: a model, its inputs, and limits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy._support.byte_sizes import parse_bytes, parse_share
from dkm_deploy.cli.options.model import METRIC, MODEL, SAMPLES
from dkm_deploy.errors import DkmError
from dkm_deploy.validation.limits import Limits, parse_output_limits

if TYPE_CHECKING:
    from torch import nn

    from dkm_deploy.formats.interface import Interface

_RATIOS = {"latency": "median latency", "load": "load time", "peak": "peak memory"}


def add_reference(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The model that files came from, the one before clustering, and what they run on."""
    parser.add_argument("--model", required=required, help=MODEL)
    parser.add_argument(
        "--weights", type=Path, required=required, help="palettized checkpoint (from dkm.save)"
    )
    parser.add_argument(
        "--original",
        type=Path,
        help="the model before clustering: a checkpoint, a .pt2 file, or, with no --model, the "
        ".onnx file or .mlpackage that was palettized",
    )
    parser.add_argument("--inputs", type=Path, required=required, help=SAMPLES)
    parser.add_argument(
        "--steps",
        action="store_true",
        help="for a model with state: the first dimension of all inputs is the step",
    )
    parser.add_argument(
        "--interface",
        type=Path,
        metavar="FILE",
        help="a file that the app already works with: files of the same kind must have the same "
        "input and output names, types, sizes, image colours and class labels",
    )
    parser.add_argument("--metric", help=f"{METRIC}; top-1 accuracy if left out")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """What counts as passed."""
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


def reference(arguments: argparse.Namespace) -> dict[str, Any]:
    """The models, inputs and labels that the arguments name."""
    from dkm_deploy.model.checkpoint import load
    from dkm_deploy.model.spec import build_model, samples_for
    from dkm_deploy.model.steps import unstack_steps

    for name in ("model", "weights", "inputs"):
        check_given(arguments, name)
    original = _original(arguments.model, arguments.original) if arguments.original else None
    frozen = load(arguments.weights, build_model(arguments.model).model)
    inputs, labels = samples_for(arguments.inputs, frozen)
    given = unstack_steps(inputs) if arguments.steps else inputs
    return {"reference": frozen, "original": original, "inputs": given, "labels": labels}


def interface(arguments: argparse.Namespace) -> Interface | None:
    """What an app finds in the file that the arguments name."""
    from dkm_deploy._support.paths import existing_path
    from dkm_deploy.conversion.registry import reader_for
    from dkm_deploy.formats.interface import InterfaceReader

    if arguments.interface is None:
        return None
    path = existing_path(arguments.interface)
    reader = reader_for(path)
    if not isinstance(reader, InterfaceReader):
        raise DkmError(f"--interface {path}: the interface of {path.suffix} files cannot be read")
    return reader.read_interface(path)[0]


def _original(model: str, path: Path) -> nn.Module:
    """The model before clustering: a program, or ``model`` with the weights of a checkpoint."""
    from dkm_deploy.model.spec import is_program, plain_model

    source = (str(path), None) if is_program(path) else (model, path)
    return plain_model(*source).model


def check_given(arguments: argparse.Namespace, name: str) -> None:
    """Raise DkmError if an option is missing that goes with a model."""
    if getattr(arguments, name) is None:
        raise DkmError(
            f"give --golden, or --model, --weights and --inputs, or --original FILE and "
            f"--inputs; --{name} is missing"
        )


def limits(arguments: argparse.Namespace) -> Limits:
    """The limits that the arguments set."""
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
