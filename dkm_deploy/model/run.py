"""Run PyTorch models and converted files on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.output_names import output_names
from dkm_deploy.model.pt2_program import fixed_batch as program_batch
from dkm_deploy.model.samples import rows, sample_count, share_samples
from dkm_deploy.model.steps import Steps
from dkm_deploy.nn_utils.in_float32 import model_in_float32
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import own_copies, run_copy, written_buffers

Outputs = dict[str, NDArray[Any]]

_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
BLOCK = 256  # samples a PyTorch model runs on at a time, if it takes any number


def run_model(model: nn.Module, inputs: Inputs | Steps, block: int = BLOCK) -> Outputs:
    """Outputs of a PyTorch model in eval mode, by name; the model and the inputs are left alone.

    It runs on ``block`` samples at a time, or its fixed batch, from its own buffers each time. One
    that keeps state runs on samples one by one. Steps run one after the other. A model of bfloat16
    runs in float32, as files do.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    model = model_in_float32(model_of(model))
    if isinstance(inputs, Steps):
        with run_copy(model) as copied:
            return join_steps([outputs_of(copied, step) for step in inputs])
    count = sample_count(inputs)
    if count > 1 and _keeps_state(model, rows(inputs, 0, 1)):
        block = 1
    block = program_batch(model) or (block if share_samples(inputs) else count)
    parts = []
    for start in range(0, count, block):
        with run_copy(model) as copied:
            parts.append(outputs_of(copied, rows(inputs, start, start + block)))
    return join_batches(parts)


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Inputs) -> Outputs:
    """Outputs of one run, which may write to the model but not to the inputs.

    They are float32, but for whole numbers and truth values.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    args, kwargs = own_copies(arguments(inputs))
    try:
        outputs = model(*args, **kwargs)
    except Exception as error:  # any error of the user's own forward
        raise DkmError(
            f"the PyTorch model does not run on the inputs: {reason_of(error)}"
        ) from error
    tensors = [t for t in pytree.tree_leaves(outputs) if torch.is_tensor(t)]
    if not tensors:
        raise DkmError(
            f"the PyTorch model gives a {type(outputs).__name__} without any tensor, and a file "
            "returns nothing else"
        )
    named = zip(output_names(outputs), tensors, strict=True)
    # Copies: an output may be a buffer that the next step writes.
    return {name: np.array(values_of(tensor)) for name, tensor in named}


def values_of(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor: in float32, but whole numbers and truth values as they are."""
    whole = tensor.dtype in _WHOLE
    found = tensor.detach() if whole else tensor.detach().float()
    return found.cpu().numpy()


def _keeps_state(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a run writes buffers; no for a model that does not run on these inputs."""
    with run_copy(model) as copied:
        try:
            outputs_of(copied, inputs)
        except DkmError:
            return False
        return bool(written_buffers(model, copied))


def join_steps(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of the first step, then of the second, and so on.

    Raises:
        DkmError: an output has other shapes in other steps.
    """
    for name, first in parts[0].items():
        shapes = [part[name].shape for part in parts]
        if len(set(shapes)) > 1:
            raise DkmError(
                f"output {name!r} has shape {first.shape} in the first step and others later; "
                "give steps whose outputs have the same shape"
            )
    return join_batches([{n: np.atleast_1d(array) for n, array in part.items()} for part in parts])


def join_batches(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of several batches as those of one. Raises DkmError if they are no batches."""
    return {name: _join_arrays(name, [part[name] for part in parts]) for name in parts[0]}


def _join_arrays(name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) == 1:
        return arrays[0]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise DkmError(f"output {name!r}: batches cannot be concatenated: {error}") from error
