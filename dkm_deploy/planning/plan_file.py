"""Plan for a model file: what it is palettized by without the model that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from dkm_deploy._support.argument_checks import function
from dkm_deploy._support.byte_sizes import bytes_of
from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy._support.paths import existing_path, path_of
from dkm_deploy.conversion.registry import planner_for
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.metric import Metric
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.planning.candidates import DEFAULT, specs_of
from dkm_deploy.planning.decision import Plan, decide
from dkm_deploy.recipe import PaletteSpec


@keep_random_state()
def plan_file(
    path: str | Path,
    budget: str | int,
    inputs: Inputs,
    labels: Tensor | NDArray[Any] | None = None,
    metric: Metric | None = None,
    *,
    candidates: Sequence[PaletteSpec] = DEFAULT,
    cache: str | Path | None = None,
    console: Console | None = None,
) -> Plan:
    """Plan for :func:`dkm_deploy.palettize_file`, as :func:`dkm_deploy.plan` does for a model.

    Palettes are those of k-means: a file gives no gradients.

    Args:
        path: an ``.onnx`` file, or a file of another target that can do this; it is not changed.
        budget: bytes of the palettized file, such as "3.3MB" (10**6) or 3_300_000.
        inputs: calibration data: a tensor, a tuple of positional or a mapping of named inputs,
            samples along the first dimension.
        labels: what ``metric`` takes, as many as samples.
        metric: ``metric(first output, labels)``, more is better; the loss is what it falls by.
            Left out, the loss is the squared relative error of the outputs.
        candidates: what a weight may become, as for :func:`dkm_deploy.plan`.
        cache: a folder for measurements, likewise.
        console: where progress is shown; standard error if left out.

    Returns:
        The plan; its recipe has a rule for every weight, by the name in the file.

    Raises:
        DkmError: the file is missing, damaged or of a kind that cannot be palettized; no
            combination fits the budget (with the least possible bytes); the file does not run on
            the inputs; or the metric lacks labels.
    """
    budget_bytes, candidates = bytes_of(budget), specs_of(candidates)
    function("metric", metric)
    path = existing_path(path)
    target = planner_for(path)
    store = Cache(None if cache is None else path_of(cache, "cache"))
    subject = target.subject(path, inputs, labels, metric)
    shown = console or Console(stderr=True)
    return decide(subject, budget_bytes, (target.name,), candidates, store, shown)
