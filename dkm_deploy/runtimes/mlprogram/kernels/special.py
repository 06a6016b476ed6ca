"""States, and the class labels of a classifier."""

import torch
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel
from dkm_deploy.runtimes.mlprogram.state import State


@kernel("read_state", exact=True)
def _read_state(input: State) -> Tensor:  # noqa: A002  # the operation's name for it
    return input.value


@kernel("write_state")
def _write_state(input: State, data: Tensor) -> tuple[()]:  # noqa: A002
    if data.shape != input.value.shape:
        raise DkmError(f"a value of shape {tuple(data.shape)} does not fit the state")
    input.value = data
    return ()


@kernel("classify")
def _classify(
    probabilities: Tensor, classes: tuple[str, ...] | Tensor
) -> tuple[str | Tensor, Tensor]:
    """The likeliest label, and the probabilities in the order of the labels."""
    values = probabilities.flatten()
    if len(classes) != values.numel():
        raise DkmError(f"{len(classes)} labels for {values.numel()} probabilities")
    label = classes[int(values.argmax())]
    return (label if isinstance(label, str) else torch.as_tensor(label)), values
