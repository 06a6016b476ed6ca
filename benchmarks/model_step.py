"""What DKM adds to a training step of a whole model: ``python -m benchmarks.model_step``.

Shapes from the default configurations of ``transformers``, random weights, batch 32 on the CPU.
Each measurement is a process of its own, plain and with DKM in turns; CPU seconds (user and
system) of forward, backward and the optimiser's step, medians.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from benchmarks.process import in_process

_GOAL = 30  # percent that DKM may add
RECIPE = dkm.Recipe(
    default=dkm.PaletteSpec(bits=4),
    rules=[dkm.Rule(max_elements=10_000, spec=dkm.PaletteSpec(bits=8))],
)


def _image_model(kind: str) -> tuple[nn.Module, Tensor]:
    from transformers import (
        MobileNetV1Config,
        MobileNetV1ForImageClassification,
        ResNetConfig,
        ResNetForImageClassification,
    )

    model: nn.Module
    if kind == "MobileNet-v1":
        model = MobileNetV1ForImageClassification(MobileNetV1Config.from_dict({"num_labels": 1000}))
    else:
        model = ResNetForImageClassification(ResNetConfig.from_dict({"num_labels": 1000}))
    return model, torch.randn(32, 3, 224, 224)


def _distilbert(_: str) -> tuple[nn.Module, Tensor]:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    model = DistilBertForSequenceClassification(DistilBertConfig())
    return model, torch.randint(0, 30522, (32, 128))


MODELS: dict[str, Callable[[str], tuple[nn.Module, Tensor]]] = {
    "MobileNet-v1": _image_model,
    "ResNet-50": _image_model,
    "DistilBERT": _distilbert,
}


def main() -> None:
    """Print the table, or make one measurement if asked by the parent process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3, help="timed steps a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each kind, in turns")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "KIND"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, kind = arguments.one
        print(json.dumps(_measure(name, kind, arguments.steps)))
        return
    print_table(arguments.steps, arguments.rounds)


def print_table(steps: int, rounds: int) -> None:
    """Measure every model ``rounds`` times, plain and with DKM in turns, and print as it goes."""
    print(f"{platform.platform()}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| model | weights | plain step, CPU s | with DKM, CPU s | added | goal | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "dkm": []}
        for _ in range(rounds):
            for kind, results in found.items():
                results.append(_in_process(name, kind, steps))
        plain, ours = (statistics.median(r["cpu_s"] for r in found[k]) for k in found)
        memory = " to ".join(f"{max(r['peak_gb'] for r in found[k]):.1f}" for k in found)
        weights = found["plain"][0]["weights"] / 1e6
        added = f"{100 * (ours / plain - 1):.0f} %"
        row = f"| {name} | {weights:.1f} M | {plain:.2f} | {ours:.2f} | {added} "
        print(f"{row}| {_GOAL} % | {memory} GB |")
        sys.stdout.flush()


def _in_process(name: str, kind: str, steps: int) -> dict[str, float]:
    result: dict[str, float] = in_process(
        "benchmarks.model_step", ["--one", name, kind, "--steps", str(steps)]
    )
    return result


def _measure(name: str, kind: str, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    model, inputs = MODELS[name](name)
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    if kind == "dkm":
        dkm.prepare(model, RECIPE)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    spent = []
    for _ in range(steps + 1):
        start = time.process_time()
        optimizer.zero_grad()
        model(inputs).logits.square().mean().backward()
        optimizer.step()
        spent.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"cpu_s": statistics.median(spent[1:]), "peak_gb": peak, "weights": weights}


if __name__ == "__main__":
    main()
