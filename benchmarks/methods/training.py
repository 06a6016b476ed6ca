"""Ways of ours to train palettes: each the same short distillation from the fp32 model."""

from __future__ import annotations

import copy

from torch import nn

import dkm_deploy as dkm
from benchmarks.distil import Lessons, distil
from benchmarks.methods.subject import Subject
from dkm_deploy.errors import DkmError
from dkm_deploy.training.method import Method


def trained(
    subject: Subject, spec: dkm.PaletteSpec, seed: int, *, method: str | Method
) -> nn.Module:
    """Prepare, distil, freeze."""
    model = dkm.prepare(copy.deepcopy(subject.model), subject.recipe(spec), method)
    distil(model, _lessons(subject, seed), subject.steps, lambda: dkm.advance(model))
    return dkm.freeze(model)


def narrowed(subject: Subject, spec: dkm.PaletteSpec, seed: int, *, factor: float) -> nn.Module:
    """The first half of the steps at full precision with the R2 loss, the second half with DKM."""
    lessons = list(_lessons(subject, seed))
    half = len(lessons) // 2
    model, recipe = copy.deepcopy(subject.model), subject.recipe(spec)
    ranges = dkm.RangeLoss(model, recipe)
    distil(model, lessons[:half], half, lambda: None, lambda: factor * ranges())
    dkm.prepare(model, recipe, "dkm")
    distil(model, lessons[half:], len(lessons) - half, lambda: dkm.advance(model))
    return dkm.freeze(model)


def _lessons(subject: Subject, seed: int) -> Lessons:
    if subject.lessons is None:
        raise DkmError(f"{subject.name} has no training images")
    return subject.lessons(seed)
