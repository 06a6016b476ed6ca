"""The ML program evaluator against PyTorch on whole models: ``python -m benchmarks.evaluator``.

Shapes from the default configurations of ``transformers``, random weights, batch 1 on the CPU, one
thread. Each model is converted by coremltools alone (dense, float32, iOS 18), and has a process of
its own, in which PyTorch eager and the evaluator run in turns; CPU seconds (user and system),
medians. The error is relative, by Euclidean norms over the whole output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.process import cpu, in_process, versions
from dkm_deploy._support.silence import quiet
from dkm_deploy.formats.mlpackage.constexpr import is_constant
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.proto import coremltools
from dkm_deploy.parity.output_errors import errors

_MOST_ERROR, _MOST_TIME = 1e-3, 2.0
_MODES: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")


class _Output(nn.Module):
    """A model of ``transformers`` as one that takes and gives a tensor."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, x: Tensor) -> Tensor:
        """The output called ``name``."""
        result: Tensor = getattr(self.model(x), self.name)
        return result


def _resnet50() -> tuple[nn.Module, Tensor]:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig.from_dict({"num_labels": 1000})), _image()


def _mobilenet_v2() -> tuple[nn.Module, Tensor]:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    return MobileNetV2ForImageClassification(
        MobileNetV2Config.from_dict({"num_labels": 1000})
    ), _image()


def _vit() -> tuple[nn.Module, Tensor]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig.from_dict({"num_labels": 1000})), _image()


def _distilbert() -> tuple[nn.Module, Tensor]:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification(DistilBertConfig())
    return model, torch.randint(0, 30522, (1, 128), dtype=torch.int32)


def _image() -> Tensor:
    return torch.randn(1, 3, 224, 224)


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "ResNet-50": _resnet50,
    "MobileNet-v2": _mobilenet_v2,
    "ViT-base": _vit,
    "DistilBERT": _distilbert,
}


def main() -> None:
    """Print the table, or make the measurements of one model if asked by the parent process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="runs of each, in turns")
    parser.add_argument("--one", choices=MODELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_measure(arguments.one, arguments.rounds)))
        return
    print(f"{cpu()}, one thread; {versions('torch', 'coremltools', 'transformers', 'numpy')}\n")
    print(
        "| model | operations | error, fp32 | PyTorch, CPU s | fp32, CPU s | ratio | fp16 ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        options = ["--one", name, "--rounds", str(arguments.rounds)]
        print(_row(name, in_process("benchmarks.evaluator", options, threads=1)))
        sys.stdout.flush()
    print(f"\nGoals: an error under {_MOST_ERROR:g}, a ratio of at most {_MOST_TIME:g} in fp32.")


def _row(name: str, found: dict[str, float]) -> str:
    eager, ours = found["eager"], found["fp32"]
    times = f"{eager:.3f} | {ours:.3f} | {ours / eager:.2f} | {found['fp16'] / eager:.2f}"
    return f"| {name} | {found['operations']} | {found['error']:.1e} | {times} |"


@torch.no_grad()
def _measure(name: str, rounds: int) -> dict[str, float]:
    torch.manual_seed(0)
    inner, x = MODELS[name]()
    model = _Output(inner, "logits").eval()
    _scatter_norms(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.mlpackage"
        _convert(model, x, path)
        operations = functions(open_package(path))["main"].body.operations
        sessions = {mode: dkm.MLProgramEvaluator(path, numerics=mode) for mode in _MODES}
    inputs = {"x": x.numpy()}
    runs: dict[str, Callable[[], Any]] = {"eager": lambda: model(x)}
    for mode, session in sessions.items():
        runs[mode] = partial(_run, session, inputs)
    expected = runs["eager"]().numpy()
    error = errors(runs["fp32"](), expected).relative
    spent: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(rounds + 1):
        for kind, run in runs.items():
            start = time.process_time()
            run()
            spent[kind].append(time.process_time() - start)
    medians = {kind: statistics.median(times[1:]) for kind, times in spent.items()}
    count = sum(not is_constant(operation) for operation in operations)
    return {"error": error, "operations": count, **medians}


def _run(session: dkm.MLProgramEvaluator, inputs: dict[str, Any]) -> Any:
    return session.run(inputs)["y"]


def _scatter_norms(model: nn.Module) -> None:
    """Give BatchNorm layers values that differ, as training does."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(values, 0.5, 1.5)  # type: ignore[arg-type]  # it has all four


def _convert(model: nn.Module, x: Tensor, path: Path) -> None:
    ct = coremltools()
    with quiet():
        program = torch.export.export(model, (x,)).run_decompositions({})
        package = ct.convert(
            program,
            outputs=[ct.TensorType(name="y")],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        package.save(str(path))


if __name__ == "__main__":
    main()
