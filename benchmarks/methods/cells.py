"""Cells of the table: which there are, in which order they run, and what one measures."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from benchmarks.methods.subject import Array, Effort, Subject, size_of
from benchmarks.methods.ways import WAYS, Way, spec_of
from dkm_deploy._support.measurement_cache import digest
from dkm_deploy._version import __version__

DENSE = "fp32"

# From the most telling width to the least.
_ORDER = ("2", "3", "4", "3/4", "1", "3/8", "6", "8")


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        model: a key of ``MODELS``.
        method: a key of ``WAYS``, or "fp32".
        width: a key of ``WIDTHS``; empty for fp32.
        seed: of what is drawn.
    """

    model: str
    method: str
    width: str
    seed: int


@dataclass(frozen=True)
class Result:
    """What a cell came to.

    Attributes:
        score: of the test, in percent.
        agreement: with the fp32 model's answers, in percent.
        bits_per_weight: see :class:`benchmarks.methods.subject.Size`.
        total_bytes: of the same.
        cpu_s: of making the palettes; less where measurements were kept from another width.
    """

    score: float
    agreement: float
    bits_per_weight: float
    total_bytes: int
    cpu_s: float


def cells(
    models: Collection[str],
    methods: Collection[str],
    widths: Collection[str],
    seeds: int,
    ways: Mapping[str, Way] = WAYS,
) -> list[Cell]:
    """All cells of these, seed by seed, and of a seed the most telling width first."""
    found = [Cell(model, DENSE, "", 0) for model in models]
    for seed in range(seeds):
        for width in (w for w in _ORDER if w in widths):
            for model in models:
                found += [
                    Cell(model, method, width, seed)
                    for method, way in ways.items()
                    if method in methods
                    and model in way.models
                    and width in way.widths
                    and (way.chance or not seed)
                ]
    return found


def key(cell: Cell, effort: Effort) -> str:
    """What a result is kept under: the cell, the options of its method and the effort."""
    make = WAYS[cell.method].make if cell.method in WAYS else None
    return digest(("methods", __version__, effort, cell, make))


def measured(subject: Subject, cell: Cell, expected: Array) -> Result:
    """Make the palettes of a cell and test them.

    Args:
        subject: the model and its data.
        cell: of that model.
        expected: the fp32 model's answers.
    """
    start = time.process_time()
    if cell.method == DENSE:
        made = subject.model
    else:
        spec = spec_of(cell.width, subject.axis)
        torch.manual_seed(cell.seed)  # of what peers and models draw by themselves
        made = WAYS[cell.method].make(subject, spec, cell.seed)
    spent = time.process_time() - start
    answers = expected if cell.method == DENSE else subject.answers(made)
    size = size_of(made)
    score, agreement = subject.score(answers), subject.agreement(answers, expected)
    return Result(score, agreement, size.bits_per_weight, size.total_bytes, spent)
