"""A reference with the weights that a file holds: those that it stores rounded are rounded too."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dkm_deploy.model.run import Outputs
from dkm_deploy.nn_utils.copies import independent_copy
from dkm_deploy.parity.reduced_precision import Precision

_FEWEST = 4  # elements: fewer bytes are found anywhere


def stored_model(model: nn.Module, weights: Precision, path: Path) -> nn.Module:
    """A copy of ``model`` with tensors rounded to nearest as a file has them.

    Rounding a weight is one small error that all samples share. What is known need not be allowed
    for: LUTs and other tensors whose bytes, once rounded, are found in the file. What it holds in
    another form (in float32, folded, transposed, or wrong) is left alone.

    Args:
        model: the reference; it is not changed. It is returned itself if nothing is rounded.
        weights: in which numbers the file stores weights.
        path: the file or folder.
    """
    if weights == "float32":
        return model
    copied = independent_copy(model)
    with ExitStack() as stack, torch.no_grad():
        files = [stack.enter_context(opened) for opened in _contents(path)]
        for tensor in (*copied.parameters(), *copied.buffers()):
            if tensor.dtype == torch.float32:
                near = tensor.half()
                if _held_values(near, files):
                    tensor.copy_(torch.where(near.isfinite(), near.float(), tensor))
    return copied


def unless_exact(outputs: Outputs, reference: Outputs, stored: Outputs) -> Outputs:
    """What a file must give: as with the weights as it has them, or exactly as the reference.

    A constant that a model gives is not rounded where it is an output, though it may be elsewhere.

    Args:
        outputs: of the file, by the reference's names.
        reference: outputs of the reference.
        stored: outputs of :func:`stored_model`.
    """
    return {
        name: exact if np.array_equal(outputs[name], exact) else stored[name]
        for name, exact in reference.items()
    }


def _held_values(near: Tensor, files: list[mmap.mmap]) -> bool:
    if near.numel() < _FEWEST:
        return False
    wanted = near.detach().cpu().contiguous().numpy().tobytes()
    return any(file.find(wanted) >= 0 for file in files)


def _contents(path: Path) -> Iterator[mmap.mmap]:
    """The bytes of a file, or of each file in a folder."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.stat().st_size:
            with file.open("rb") as source:
                yield mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
