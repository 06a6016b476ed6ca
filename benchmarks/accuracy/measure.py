"""Make palettes, write the files, and measure from the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dkm_deploy as dkm
from benchmarks.accuracy.clock import Clock, Spent
from benchmarks.accuracy.settings import Setting
from benchmarks.accuracy.task import Task
from benchmarks.process import cpu, versions
from benchmarks.stored import stored_bytes
from dkm_deploy.validation.check import Status
from dkm_deploy.validation.report import Model

SUFFIXES = (".onnx", ".mlpackage")


@dataclass(frozen=True)
class Written:
    """A file.

    Attributes:
        score: of the test, from a runtime.
        size_bytes: on disk.
        stored_bytes: without graph, metadata and padding.
        passed: whether it was found to compute what PyTorch does.
    """

    score: float
    size_bytes: int
    stored_bytes: int
    passed: bool


@dataclass(frozen=True)
class Result:
    """What a setting came to.

    Attributes:
        setting: its name.
        seed: of all that was drawn.
        metric: what the scores are.
        dense: score of the fp32 model.
        dense_bytes: of its parameters as float32.
        others: scores of further models: with the soft weights, before the correction.
        files: by suffix.
        spent: on making the palettes.
        machine: the processor.
        packages: their versions.
    """

    setting: str
    seed: int
    metric: str
    dense: float
    dense_bytes: int
    others: Mapping[str, float]
    files: Mapping[str, Written]
    spent: Spent
    machine: str
    packages: str


def measure(task: Task, name: str, setting: Setting, seed: int, folder: Path) -> Result:
    """Make the palettes of a setting, write the files into the folder, and validate them.

    Args:
        task: the network and its data.
        name: of the setting.
        setting: see there.
        seed: of all that is drawn.
        folder: gets the files, their report, and what a second call goes on from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    original, clock = task.model(), Clock(folder / "spent.json")
    made = setting.way.make(task, seed, folder, clock)
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    for path in paths:
        dkm.convert(made.frozen, task.example, path, force=True)
    report = dkm.validate(
        paths, reference=made.frozen, original=original, also=made.others, **task.test()
    )
    report.to_json(folder / "report.json", force=True)
    report.to_html(folder / "report.html", force=True)
    rows = {row.name: row for row in report.models}
    return Result(
        name,
        seed,
        task.metric,
        dense=_score(report.models[0]),
        dense_bytes=4 * sum(p.numel() for p in original.parameters()),
        others={other: _score(rows[other]) for other in made.others},
        files={path.suffix: _written(rows[path.name]) for path in paths},
        spent=clock.spent,
        machine=cpu(),
        packages=versions("torch", "coremltools", "onnxruntime"),
    )


def _written(row: Model) -> Written:
    passed = all(check.status != Status.FAILED for check in row.checks)
    stored = stored_bytes(row.bytes_by_kind)
    return Written(_score(row), row.size_bytes or 0, stored, passed)


def _score(row: Model) -> float:
    return float("nan") if row.metric is None else row.metric
