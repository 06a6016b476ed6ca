"""Does a model or a file give the same twice? What does not is random, not wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.pt2_program import fixed_batch
from dkm_deploy.model.run import Outputs, run_model, values_of
from dkm_deploy.model.samples import rows
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.hooks import call_hooks
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.parity.output_errors import are_whole
from dkm_deploy.runtimes import Session
from dkm_deploy.runtimes.run_file import least_batch, run_file

_RANDOM = "gives other outputs on a second run: it is random"

_SAMPLES = 8
_SEEDS = range(1, 5)  # a coin that is tossed once a run may well fall on one side twice
_NEAR = 1e-5  # of the largest value: sums in another order are no chance

_T = TypeVar("_T")


def randomness(who: str, model: nn.Module, inputs: Inputs | Steps) -> str:
    """What some runs of a model on the first samples tell; empty if they give the same.

    Random states are as they were when it returns.
    """
    block: Inputs | Steps = rows(inputs, 0, fixed_batch(model) or _SAMPLES)
    try:
        outputs = _run_seeded(partial(run_model, model, block), _SEEDS[0])
    except DkmError:  # it takes so many samples as there are, and no fewer
        block = inputs
        outputs = _run_seeded(partial(run_model, model, block), _SEEDS[0])
    for seed in _SEEDS[1:]:
        if not outputs_repeat(outputs, _run_seeded(partial(run_model, model, block), seed)):
            layer = _first_layer(model, block, seed)
            return f"{who} {_RANDOM}, first seen in {layer}" if layer else f"{who} {_RANDOM}"
    return ""


def file_randomness(session: Session, inputs: Inputs | Steps) -> str:
    """The same of a loaded file."""
    batch = least_batch(session)
    block = rows(inputs, 0, batch * max(_SAMPLES // batch, 1))
    if outputs_repeat(run_file(session, block), run_file(session, block)):
        return ""
    return f"the file {_RANDOM}"


def outputs_repeat(one: Outputs, other: Outputs) -> bool:
    """Whether two runs gave the same, but for the rounding of sums in another order."""
    return one.keys() == other.keys() and all(_near_outputs(one[name], other[name]) for name in one)


def _near_outputs(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    if are_whole(one) or are_whole(other):
        return bool(np.array_equal(one, other))
    largest = np.abs(one[np.isfinite(one)], dtype=np.float64).max(initial=0)
    return bool(np.allclose(one, other, rtol=0, atol=_NEAR * largest, equal_nan=True))


def _run_seeded(run: Callable[[], _T], seed: int) -> _T:
    """What a run gives that draws the numbers of a seed."""
    with keep_random_state():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the global state, which a forward may draw from
        return run()


def _first_layer(model: nn.Module, inputs: Inputs | Steps, seed: int) -> str | None:
    """The first layer that gives another output with ``seed`` than with the first one."""
    runs = (_run_seeded(partial(_calls, model, inputs), each) for each in (_SEEDS[0], seed))
    calls = zip(*runs, strict=False)
    return next((before[0] for before, after in calls if before != after), None)


def _calls(model: nn.Module, inputs: Inputs | Steps) -> list[tuple[str, int]]:
    """Every call of a layer in the order in which they end, with a checksum of what it gave."""
    found: list[tuple[str, int]] = []

    def note(name: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ARG001
        tensors = [t for t in pytree.tree_leaves(output) if torch.is_tensor(t)]
        sums = (crc32(values_of(t).tobytes()) for t in tensors)
        found.append((name, sum(sums)))

    with call_hooks(model, [name for name, _ in model.named_modules() if name], note):
        run_model(model, inputs)
    return found
