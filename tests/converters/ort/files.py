"""Small ``.ort`` files, and parts of them, that several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from converters.ort import target
from converters.ort.flatbuffer_reader import Table, read
from converters.ort.flatbuffer_writer import build_file
from converters.ort.load import load
from converters.ort.required_operators import required_operators
from dkm_deploy.conversion.export import export
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.post_training.palettize import palettize
from dkm_deploy.recipe import Recipe
from dkm_deploy.rule import Rule


class EveryLayout(nn.Module):
    """All widths, and vectors, groups, an embedding, convolutions and an LSTM: ids to scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        self.lstm = nn.LSTM(16, 8, batch_first=True)
        self.widths = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(8))
        self.head = nn.Linear(8, 5)

    def forward(self, ids: Tensor) -> Tensor:
        values = self.conv(self.embedding(ids).transpose(1, 2)).transpose(1, 2)
        state = self.lstm(values)[0][:, -1]
        for width in self.widths:
            state = state + torch.tanh(width(state))
        return self.head(state)


LAYOUTS = Recipe(
    default=PaletteSpec(bits=4),
    rules=[
        Rule("embedding.weight", PaletteSpec(bits=3, group_size=5)),
        Rule("conv.weight", PaletteSpec(bits=5, cluster_dim=2, axis=1, group_size=8)),
        *(Rule(f"widths.{i}.weight", PaletteSpec(bits=i + 1)) for i in range(8)),
        Rule("head.weight", skip=True),
    ],
)


def every_layout() -> tuple[nn.Module, ExportedModel]:
    """An ``EveryLayout``, frozen and exported."""
    torch.manual_seed(0)
    frozen = palettize(EveryLayout().eval(), LAYOUTS)
    return frozen, export(frozen, torch.randint(0, 20, (2, 6)))


@cache
def small_file() -> bytes:
    """A file with one linear layer, ``0``, of 3 bits in two groups."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8)).eval()
    recipe = Recipe(PaletteSpec(bits=3, group_size=4))
    program = export(palettize(model, recipe), torch.ones(1, 6))
    with TemporaryDirectory() as folder:
        target.write(program, Path(folder) / "m.ort")
        return (Path(folder) / "m.ort").read_bytes()


def root_of(data: bytes) -> Table:
    """The outermost table of a file."""
    return read(memoryview(data)).root


def operators(path: Path) -> str:
    """The operators that the file at ``path`` needs."""
    return required_operators(load(path)[0].root)


def graph_of(root: Table) -> Table:
    """The main graph."""
    graph: Table = root["model"]["graph"]
    return graph


def rebuilt(root: Table, path: Path) -> Path:
    """Write changed tables to ``path``."""
    path.write_bytes(build_file(root))
    return path


def in_another_process(code: str, *arguments: str) -> None:
    """Run ``code`` in a fresh interpreter that finds the same packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, env=environment)
