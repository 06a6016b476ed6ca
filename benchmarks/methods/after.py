"""Ways of ours to make palettes after training."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from torch import nn

import dkm_deploy as dkm
from benchmarks.methods.subject import Array, Subject

_TARGET = "coreml"


def kmeans(subject: Subject, spec: dkm.PaletteSpec, _seed: int) -> nn.Module:
    """Plain k-means."""
    return dkm.palettize(subject.model, subject.recipe(spec))


def sensitive(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """K-means weighted by squared gradients on a draw of calibration data."""
    recipe = subject.recipe(spec)
    return dkm.palettize(subject.model, recipe, "sensitive", subject.calibration(seed))


def sensitive_to_outputs(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """The same without the labels: squared gradients of the outputs with random signs."""
    inputs = [images for images, _ in subject.calibration(seed)]
    return dkm.palettize(subject.model, subject.recipe(spec), "sensitive", inputs)


def corrected(subject: Subject, spec: dkm.PaletteSpec, seed: int, *, method: str) -> nn.Module:
    """Palettes by a method, then LUTs, biases and BatchNorms by the outputs; no labels."""
    data = subject.calibration(seed)
    given = None if method == "kmeans" else data
    frozen = dkm.palettize(subject.model, subject.recipe(spec), method, given)
    return dkm.correct_outputs(frozen, subject.model, data)


def planned(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """A plan whose Core ML file is no larger than that of the uniform recipe, by plain k-means.

    It may palettize weights that are dense in all other rows, and leave others dense.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "uniform.mlpackage"
        budget = dkm.convert(kmeans(subject, spec, seed), subject.example, path).size_bytes
    plan = dkm.plan(
        subject.model,
        budget,
        (_TARGET,),
        subject.calibration(seed)[: subject.planned],
        candidates=subject.candidates,
        example_inputs=subject.example,
        cache=subject.folder,
        console=Console(file=io.StringIO()),
    )
    return dkm.palettize(subject.model, plan)


def planned_corrected(subject: Subject, spec: dkm.PaletteSpec, seed: int) -> nn.Module:
    """The plan's palettes, then LUTs, biases and BatchNorms by the outputs; no labels."""
    made = planned(subject, spec, seed)
    return dkm.correct_outputs(made, subject.model, subject.calibration(seed))


def binned(
    subject: Subject, spec: dkm.PaletteSpec, seed: int, *, means: bool, evaluations: int
) -> nn.Module:
    """Bin & Quant by top-1 on labelled calibration data."""
    method = dkm.BinQuant(top1, evaluations=evaluations, means=means, cache=subject.folder)
    return dkm.palettize(subject.model, subject.recipe(spec), method, subject.calibration(seed))


def top1(scores: Array, labels: Array) -> float:
    """Accuracy in percent of scores ``(n, classes)``."""
    return 100 * float(np.mean(scores.argmax(1) == labels))
