"""What is asked of a validation, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from dkm_deploy._support import argument_checks
from dkm_deploy._support.argument_checks import record, short
from dkm_deploy._support.paths import path_of
from dkm_deploy.errors import ArgumentError
from dkm_deploy.formats.interface import Interface
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.validation.limits import Limits
from dkm_deploy.validation.measures.cost import CostOptions
from dkm_deploy.validation.size_budget import Budget


def check_asked(
    metric: Any,
    limits: Any = None,
    budget: Any = None,
    cost: Any = None,
    also: Any = None,
    interface: Any = None,
    function: Any = None,
) -> None:
    """Raise DkmError for an argument of another kind than :func:`dkm_deploy.validate` takes."""
    argument_checks.function("metric", metric)
    for name, value, kind in (
        ("limits", limits, Limits),
        ("budget", budget, Budget),
        ("cost", cost, CostOptions),
        ("interface", interface, Interface),
    ):
        if value is not None:
            record(name, value, kind)
    if function is not None and not isinstance(function, str):
        raise ArgumentError(f"function is {short(function)}; give the name of one")
    if also is not None and not isinstance(also, Mapping):
        raise ArgumentError(f"also is {short(also)}; give models by name")
    for name, model in (also or {}).items():
        model_of(model, f"also: {name}")


def original_given(original: Any) -> nn.Module | Path | None:
    """The model before clustering, or the path of a file that holds it."""
    if isinstance(original, (str, PathLike)):
        return path_of(original, "original")
    return None if original is None else model_of(original, "original")
