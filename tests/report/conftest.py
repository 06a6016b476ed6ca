"""Reports as a validation makes them, as the plain values that the views read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dkm_deploy.parity.output_errors import Errors
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.limits import Limits, OutputLimits
from dkm_deploy.validation.measures.confidence_interval import Loss
from dkm_deploy.validation.measures.palette_statistics import Layer
from dkm_deploy.validation.measures.top1_agreement import Flip
from dkm_deploy.validation.report import Model, Report

EVIL = '<script>alert("1")</script>[red]\x1b[2J\n&amp;.onnx'

INF, NAN = float("inf"), float("nan")

EXACT = Errors(0.0, 0.0, 0.0, 0.0, 0.0, None, None, 1.0, 0, 3600)
SINGLE = Errors(
    5.7220458984375e-06, 8.1e-07, 4.3e-06, 2.217e-07, 9.1e-07, 133.084, 141.2, 0.99999999, 0, 3600
)
HALF = Errors(0.001953125, 0.00031, 0.0016, 0.000134, 0.00071, 77.45, 85.6, 0.99999999, 0, 3600)
APART = Errors(9.31, 1.42, 8.77, 0.4103, 2.31, 7.74, 15.9, 0.9123, 0, 3600)
BROKEN = Errors(INF, 1.0, 2.0, INF, INF, None, None, NAN, 7, 3)

ORIGINAL_BYTES = 331_816
RECIPE = "[default]\nbits = 2\n\n[[rules]]\nmatch = 'fc.*'\nskip = true\n"


@pytest.fixture
def demo() -> dict[str, Any]:
    """All passed: four PyTorch models, an ONNX file and a Core ML package."""
    return as_read(demo_report())


@pytest.fixture
def failed() -> dict[str, Any]:
    """Limits failed, a check skipped, figures without a value, and names that mean harm."""
    return as_read(failed_report())


@pytest.fixture
def unchecked() -> dict[str, Any]:
    """No file at all: nothing failed, and nothing was shown either."""
    models = (torch_model("frozen", None, 21_496, 2.0, EXACT),)
    return as_read(Report(models, (), {}, 1, None, Limits(), {}))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a report as JSON."""

    def write(report: dict[str, Any], name: str = "run.json") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(report), "utf-8")
        return tmp_path / name

    return write


def as_read(report: Report) -> dict[str, Any]:
    """The report as read from its JSON."""
    values: dict[str, Any] = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    return values


def run_of(
    demo: dict[str, Any], *files: tuple[int, float | None], samples: int = 360
) -> dict[str, Any]:
    """A report of files given as (bytes, metric)."""
    report = copy.deepcopy(demo)
    model = report["models"][4]
    rows = [copy.deepcopy(model) for _ in files]
    for i, (row, (size, metric)) in enumerate(zip(rows, files, strict=True)):
        loss = None if metric is None else model["metric_loss"] | {"value": 97.5 - metric}
        row |= {"name": f"m{i}.onnx", "size_bytes": size, "metric": metric, "metric_loss": loss}
    return report | {"models": report["models"][:4] + rows, "samples": samples, "recipe": RECIPE}


def torch_model(
    name: str, metric: float | None, size: int, bits: float | None, error: Errors
) -> Model:
    return Model(
        name=name,
        path=None,
        runtime="PyTorch 2.13.0",
        size_bytes=size,
        size_ratio=ORIGINAL_BYTES / size,
        half_ratio=ORIGINAL_BYTES / 2 / size,
        deflated_bytes=None,
        ideal_bytes=None,
        bits_per_weight=bits,
        metric=metric,
        metric_loss=None,
        agreement=0.9944 if metric else None,
        top5_overlap=None,
        flip_count=2 if metric else None,
        flips=(),
        errors={"logits": error},
        divergence=None,
        bytes_by_kind={},
        checks=(),
    )


def file_model(name: str, sizes: tuple[int, ...], checks: tuple[Check, ...], **other: Any) -> Model:
    kinds = ("indices", "lut", "dense", "graph", "metadata", "padding")
    fields: dict[str, Any] = {
        "name": name,
        "path": f"out/{name}",
        "runtime": "ONNX Runtime 1.31.1 (CPU)",
        "size_bytes": sum(sizes),
        "size_ratio": ORIGINAL_BYTES / sum(sizes),
        "half_ratio": ORIGINAL_BYTES / 2 / sum(sizes),
        "deflated_bytes": 24_001,
        "ideal_bytes": sum(sizes[:3]),
        "bits_per_weight": 2.0547,
        "metric": 97.222,
        "metric_loss": Loss(0.5556, -1.2, 2.3, "Newcombe 1998, method 10"),
        "agreement": 0.99166,
        "top5_overlap": 0.9861,
        "flip_count": 3,
        "flips": (Flip(17, 8, 3, 8), Flip(40, 1, 7, 7), Flip(99, 0, 6, None)),
        "errors": {"logits": SINGLE},
        "divergence": None,
        "bytes_by_kind": dict(zip(kinds, sizes, strict=True)),
        "checks": checks,
    }
    return Model(**(fields | other))


def demo_report() -> Report:
    passed = (
        Check("palettes", "passed", "3 of 3 equal bit for bit, LUTs as float32"),
        Check("parity", "passed", "logits: relative error 2.22e-07, limit 1.00e-04"),
        Check("metric", "passed", "97.22 against 97.78: loss 0.56, limit 1"),
        Check("agreement", "passed", "99.17 % of top-1 answers as the original, limit 98 %"),
        Check("size", "passed", "0.0760 of the original's 331,816 bytes, limit 0.1"),
    )
    onnx = file_model("model.onnx", (20_608, 48, 840, 3_207, 505, 0), passed)
    coreml = file_model(
        "model.mlpackage",
        (20_608, 24, 420, 4_118, 1_023, 448),
        passed,
        runtime="reference evaluator (dkm-deploy 0.1.0)",
        errors={"logits": HALF},
    )
    biases = ("features.0.bias", "features.3.bias", "classifier.bias")
    return Report(
        models=(
            torch_model("original", 97.7777, ORIGINAL_BYTES, None, APART),
            torch_model("soft", 97.5, ORIGINAL_BYTES, None, APART),
            torch_model("k-means", 91.3888, 21_496, 2.0023, APART),
            torch_model("frozen", 97.2222, 21_496, 2.0023, EXACT),
            onnx,
            coreml,
        ),
        layers=(
            Layer("features.0.weight", (32, 1, 3, 3), 2, 1, 1, 2.44, 4, 1.87),
            Layer("features.3.weight", (64, 32, 3, 3), 2, 1, 4, 2.007, 4, 1.912),
            Layer("classifier.weight", (10, 6_400), 4, 2, 1, 2.03, 13, 3.31),
        ),
        dense=dict.fromkeys(biases, "rank 1: biases and norms stay dense")
        | {"embedding.weight": "shape (10, 16): left dense by the recipe"},
        samples=360,
        metric_name="top-1 accuracy, %",
        limits=Limits(max_metric_loss=1.0, min_agreement=0.98, max_size_ratio=0.1),
        provenance={"python": "3.11.7", "machine": "Linux-6.1-x86_64", "torch": "2.13.0"},
    )


def failed_report() -> Report:
    sizes = (1_234_567, 4_096, 0, 1, 0, 3)
    broken = (
        Check("palettes", "failed", f"{EVIL}: 5 of 9 indices differ (and 2 more)"),
        Check("parity", "failed", f"{EVIL}: relative error inf, limit 1.00e-04"),
        Check("size", "failed", "1,238,667 bytes, limit 1,000,000"),
    )
    idle = (
        Check("palettes", "passed", "3 of 3 equal bit for bit, LUTs as float16"),
        Check("parity", "skipped", "model.aimodel: no runtime here runs '.aimodel' files"),
    )
    unknown: dict[str, Any] = {"metric": None, "agreement": None, "size_ratio": None}
    unknown |= dict.fromkeys(("half_ratio", "metric_loss", "top5_overlap", "flip_count"))
    unknown["flips"] = ()
    errors = {EVIL: BROKEN, "boxes": SINGLE}
    return Report(
        models=(
            torch_model("frozen", None, 21_496, None, EXACT),
            file_model(EVIL, sizes, broken, errors=errors, **unknown),
            file_model("model.aimodel", sizes, idle, errors={}, runtime=None, **unknown),
        ),
        layers=(Layer(EVIL, (), 1, 1, 1, 1.5, 2, 1.0),),
        dense={EVIL: EVIL},
        samples=1,
        metric_name=None,
        limits=Limits(max_bytes=1_000_000, outputs={EVIL: OutputLimits(min_cosine=0.99)}),
        provenance={EVIL: EVIL},
    )
