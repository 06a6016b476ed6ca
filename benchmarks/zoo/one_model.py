"""One model through all targets, in a process of its own."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import dkm_deploy as dkm
from benchmarks.zoo.models import architectures
from benchmarks.zoo.results import Result

_BITS = 4
_MOST_MEMORY = 12 * 2**30
_NOT_TRACED = "torch.export cannot trace the model"


def send_results(name: str, targets: Sequence[str], results: Connection) -> None:
    """Send what becomes of a model on each target, as soon as it is known.

    So the end of the process costs no other target its result.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
    torch.set_num_threads(1)
    (found,) = (one for one in architectures() if one.name == name)
    torch.manual_seed(0)
    model, inputs = found.make()
    frozen: nn.Module | None = None
    for target in targets:
        start = time.process_time()
        try:
            frozen = dkm.palettize(model, _BITS) if frozen is None else frozen
            outcome, reason = _converted(frozen, model, inputs, target)
        except dkm.DkmError as error:
            outcome, reason = "refused", str(error)
        except Exception as error:  # a fault of ours, whatever it is
            outcome, reason = "crashed", f"{type(error).__name__}: {error}"
        cpu_s = round(time.process_time() - start, 1)
        results.send(Result(name, found.family, target, outcome, " ".join(reason.split()), cpu_s))


def _converted(frozen: nn.Module, model: nn.Module, inputs: Any, target: str) -> tuple[str, str]:
    """Outcome and reason of a file for one sample, validated on all of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{target}"
        try:
            dkm.convert(frozen, first_sample(inputs), path)
        except dkm.DkmError as error:
            if _NOT_TRACED in str(error) and not is_traceable(model, first_sample(inputs)):
                return "untraceable", str(error)
            raise
        report = dkm.validate(path, reference=frozen, inputs=inputs)
    if report:
        return "passed", ""
    missed = (*report.failed, *report.lacking)
    return "failed", "; ".join(line.partition(": ")[2] for line in missed)


def first_sample(inputs: Any) -> Any:
    """The first sample of all tensors."""
    return pytree.tree_map_only(Tensor, lambda tensor: tensor[:1], inputs)


def is_traceable(model: nn.Module, inputs: Any) -> bool:
    """Whether ``torch.export`` takes a model as it comes."""
    kwargs = dict(inputs) if isinstance(inputs, Mapping) else {}
    args = () if kwargs else inputs if isinstance(inputs, tuple) else (inputs,)
    try:
        torch.export.export(model, args, kwargs)
    except Exception:  # torch.export raises many kinds
        return False
    return True
