"""Ways of ours to train palettes: each the same short distillation from the fp32 model."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import count

from torch import nn

import dkm_deploy as dkm
from benchmarks.distil import distil
from benchmarks.methods.subject import Subject
from dkm_deploy.model.inputs import call
from dkm_deploy.training.methods.protocol import Method


def trained(
    subject: Subject, spec: dkm.PaletteSpec, seed: int, *, method: str | Method
) -> nn.Module:
    """Prepare, distil, freeze."""
    model = dkm.prepare(copy.deepcopy(subject.model), subject.recipe(spec), method)
    distil(model, subject.course(seed), lambda: dkm.step(model))
    return dkm.freeze(model)


def curved(subject: Subject, spec: dkm.PaletteSpec, seed: int, *, every: int) -> nn.Module:
    """EWGS with a delta of 0 at first, then from the Hessian every so many steps."""
    course = subject.course(seed)
    inputs, taught = next(iter(course.lessons))
    model = dkm.prepare(copy.deepcopy(subject.model), subject.recipe(spec), dkm.EWGS(scaling=0))
    steps = count(1)

    def _after_step() -> None:
        dkm.step(model)
        if next(steps) % every == 0:
            dkm.update_ewgs_scaling(model, lambda: course.loss(call(model, inputs), taught))

    distil(model, subject.course(seed), _after_step)
    return dkm.freeze(model)


def narrowed(subject: Subject, spec: dkm.PaletteSpec, seed: int, *, factor: float) -> nn.Module:
    """The first half of the steps at full precision with the R2 loss, the second half with DKM."""
    course = subject.course(seed)
    lessons = list(course.lessons)
    half = len(lessons) // 2
    first = replace(course, lessons=lessons[:half], steps=half)
    second = replace(course, lessons=lessons[half:], steps=len(lessons) - half)
    model, recipe = copy.deepcopy(subject.model), subject.recipe(spec)
    ranges = dkm.RangeLoss(model, recipe)
    distil(model, first, lambda: None, lambda: factor * ranges())
    dkm.prepare(model, recipe, "dkm")
    distil(model, second, lambda: dkm.step(model))
    return dkm.freeze(model)
