"""What is done with a file of each kind: it is read, run or weighed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.runs import compare_runs
from dkm_deploy.validation.size_budget import Budget, budget_checks

IDS = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Rows, vectors, groups and widths that are no power of two: ids to scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.conv = nn.Conv1d(16, 8, 3, padding=1)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        values = self.conv(self.embedding(ids).transpose(1, 2)).mean(2)
        return self.head(torch.tanh(self.middle(values)))


RECIPE = dkm.Recipe(
    default=dkm.PaletteSpec(bits=3),
    rules=[
        dkm.Rule("conv.*", dkm.PaletteSpec(bits=4, cluster_dim=2, axis=1, group_size=8)),
        dkm.Rule("middle.*", dkm.PaletteSpec(bits=2, group_size=4)),
        dkm.Rule("head.*", skip=True),
    ],
)

Act = Callable[[Path], object]


def palettized(path: Path) -> object:
    with tempfile.TemporaryDirectory() as folder:
        return dkm.palettize_file(path, Path(folder) / "small.onnx", dkm.Recipe.uniform(2))


READ: list[Act] = [dkm.read_palettes, dkm.size_breakdown]
ACTS: dict[str, list[Act]] = {
    "m.onnx": READ,
    "apart.onnx": READ,
    "dense.onnx": [palettized],
    "m.ort": READ,
    "m.mlpackage": [
        *READ,
        lambda path: dkm.MLProgramEvaluator(path).run({"ids": IDS.int().numpy()}),
    ],
    "sparse.mlpackage": READ,
    "m.aimodel": READ,
    "m.safetensors": [*READ, lambda path: dkm.load(path, Net())],
    "golden": [lambda path: dkm.validate_golden([], path)],
    "device": [lambda path: dkm.validate_device_outputs([path], path.with_name("device.golden"))],
    "recipe.toml": [lambda path: dkm.Recipe.load(path).assign(Net())],
    "budget.toml": [lambda path: budget_checks(Path("out/m.onnx"), 1000, Budget.load(path))],
    "report.json": [lambda path: comparison_page(compare_runs([path]))],
}
