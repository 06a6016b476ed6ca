"""The main job: train, cluster, freeze, save, convert, read back, validate, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy._support.atomic_files import atomic_path, check_writable, set_aside
from dkm_deploy.demo.data import Digits, digits
from dkm_deploy.demo.model import DigitNet
from dkm_deploy.demo.train import steps_of, train
from dkm_deploy.errors import DkmError
from dkm_deploy.report.terminal.report import show
from dkm_deploy.report.terminal.table import print_line, safe
from dkm_deploy.runtimes import runtime_for

_SEED = 0
_FP32_EPOCHS = 20
_DKM_EPOCHS = 10
_FILES = ("model.onnx", "model.mlpackage", "model.aimodel")

# The paper gives layers under 10,000 weights 8 bits. In a net this small their 256-entry LUTs
# would weigh more than the weights: 4 bits there, and layers under 1,000 weights stay dense.
RECIPE = dkm.Recipe(
    default=dkm.PaletteSpec(bits=2),
    rules=[
        dkm.Rule(max_elements=1_000, skip=True),
        dkm.Rule(max_elements=10_000, spec=dkm.PaletteSpec(bits=4)),
    ],
)
LIMITS = dkm.Limits(max_metric_loss=1.5, min_agreement=0.98, max_size_ratio=0.1)


def demo(out: Path, console: Console, *, force: bool = False) -> dkm.Report:
    """Run the main job on handwritten digits and write everything to ``out``.

    Args:
        out: folder to be made.
        console: where progress and the table go.
        force: replace ``out``.

    Raises:
        OutputExistsError: ``out`` exists and ``force`` is not set.
        DkmError: scikit-learn is not installed.
    """
    check_writable(out, force=force)
    data = digits(_SEED)
    with set_aside(out):
        return _demo(out, data, console)


def _demo(out: Path, data: Digits, console: Console) -> dkm.Report:
    torch.manual_seed(_SEED)
    original = DigitNet()
    train(original, data, _FP32_EPOCHS, 3e-3, lambda: None, "training in fp32", console)
    clustered = _cluster(original, data, console)
    frozen = dkm.freeze(clustered)
    _save(out, original, frozen, data)
    files = list(_runnable(console))
    for name in files:
        artifact = dkm.convert(frozen, data.held_out_images[:1], out / name)
        print_line(safe(f"wrote {artifact.path}: {artifact.size_bytes:,} bytes"), console)
    console.print("running every file on the held-out digits", highlight=False)
    report = dkm.validate(
        [out / name for name in files],
        reference=frozen,
        original=original,
        inputs=data.held_out_images,
        labels=data.held_out_labels,
        limits=LIMITS,
        also={"k-means": dkm.palettize(original, RECIPE), "soft": dkm.soft_copy(clustered)},
    )
    report.to_json(out / "report.json")
    report.to_html(out / "report.html")
    show(report.to_dict(), console)
    return report


def _runnable(console: Console) -> Iterator[str]:
    """The files that something here runs; the console says why another is left out."""
    for name in _FILES:
        try:
            runtime_for(Path(name))
            yield name
        except DkmError as error:
            print_line(safe(f"left out: {error}"), console)


def _cluster(original: nn.Module, data: Digits, console: Console) -> nn.Module:
    """A copy of the model, trained on with DKM."""
    model = DigitNet()
    model.load_state_dict(original.state_dict())
    steps = steps_of(data, _DKM_EPOCHS)
    recipe = dkm.Recipe(RECIPE.default, RECIPE.rules, dkm.Schedule(end=0.1, steps=steps))
    dkm.prepare(model, recipe, method="dkm", targets=("onnx", "coreml", "coreai"))
    what = "training with DKM at 2 bits"
    train(model, data, _DKM_EPOCHS, 1e-3, lambda: dkm.step(model), what, console)
    return model


def _save(out: Path, original: nn.Module, frozen: nn.Module, data: Digits) -> None:
    """The inputs of ``dkm-deploy convert`` and ``validate``, so that each step can be repeated."""
    dkm.save(frozen, out / "model.safetensors")
    RECIPE.save(out / "recipe.toml")
    with atomic_path(out / "original.safetensors") as temporary:
        save_file(original.state_dict(), temporary)
    with atomic_path(out / "held_out.safetensors") as temporary:
        save_file({"x": data.held_out_images, "labels": data.held_out_labels}, temporary)
