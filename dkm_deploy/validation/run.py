"""Run PyTorch models and converted files on the same inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.export import output_names
from dkm_deploy.inputs import Inputs, arguments, arrays_in, spelled
from dkm_deploy.program import fixed_batch as program_batch
from dkm_deploy.runtimes import Arrays, Batched, Probe, Session, Translated
from dkm_deploy.validation.batches import largest_batch, smallest_batch

Outputs = dict[str, NDArray[Any]]

_BLOCK = 256  # samples a PyTorch model runs on at a time, if it takes any number


@torch.no_grad()
def run_model(model: nn.Module, inputs: Inputs, block: int = _BLOCK) -> Outputs:
    """Outputs of a PyTorch model by name, from ``block`` samples at a time, or its fixed batch.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    count, block = sample_count(inputs), program_batch(model) or block
    parts = []
    for start in range(0, count, block):
        part_args, part_kwargs = arguments(rows(inputs, start, start + block))
        try:
            outputs = model(*part_args, **part_kwargs)
        except Exception as error:  # any error of the user's own forward
            raise DkmError(
                f"the PyTorch model does not run on the inputs: {reason_of(error)}"
            ) from error
        tensors = [t for t in pytree.tree_leaves(outputs) if torch.is_tensor(t)]
        if not tensors:
            raise DkmError(
                f"the PyTorch model gives a {type(outputs).__name__} without any tensor, which is "
                "all that files give"
            )
        named = zip(output_names(outputs), tensors, strict=True)
        parts.append({name: tensor.float().cpu().numpy() for name, tensor in named})
    return joined(parts)


def run_file(session: Session, inputs: Inputs) -> Outputs:
    """Outputs of a loaded file by name.

    A file with a fixed batch is run on one batch after the other; one that allows so many samples
    at most, on so many at a time. What it takes as an image is given its pixels, and labels that it
    adds to scores are checked and left out.

    Raises:
        NotTakenError: the file cannot be given the inputs.
        WrongLabelError: a label is not that of the highest score.
        DkmError: names, shapes or the number of samples do not fit the file.
    """
    arrays = named_arrays(session, inputs)
    count = sample_count(inputs)
    batch = fixed_batch(session)
    if batch:
        check_batches(count, batch)
    elif isinstance(session, Batched):
        batch = largest_batch(session.batches, count)
    if not batch or batch == count:
        return _outputs(session, arrays)
    return joined([_outputs(session, part) for part in cut(arrays, count, batch)])


def check_batches(count: int, batch: int) -> None:
    """Raise DkmError unless samples split into batches of the size that a file is fixed to."""
    if count % batch:
        raise DkmError(
            f"{count} samples do not split into batches of {batch}, which the file is fixed to"
        )


def cut(arrays: Arrays, count: int, size: int) -> Iterator[Arrays]:
    """Arrays of ``count`` samples, ``size`` of them at a time; scalars go with each part."""
    for start in range(0, count, size):
        yield {n: a[start : start + size] if a.ndim else a for n, a in arrays.items()}


def fixed_batch(session: Session | Probe) -> int | None:
    """First dimension of the first input that has one; None if it may change, or none has."""
    return next((shape[0] for shape in session.input_shapes.values() if shape), None)


def least_batch(session: Session | Probe) -> int:
    """How many samples a file takes at a time, at least."""
    fixed = fixed_batch(session)
    if fixed is None and isinstance(session, Batched):
        return smallest_batch(session.batches)
    return fixed or 1


def _outputs(session: Session, arrays: Arrays) -> Outputs:
    outputs = session.run(arrays)
    return session.interface.made(outputs) if isinstance(session, Translated) else outputs


def rows(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Samples ``start`` to ``stop`` of inputs; what is not a tensor stays as it is."""
    leaves, spec = pytree.tree_flatten(arguments(inputs))
    block = [t[start:stop] if torch.is_tensor(t) and t.ndim else t for t in leaves]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    args, kwargs = pytree.tree_unflatten(block, spec)
    return kwargs or args


def sample_count(inputs: Inputs) -> int:
    """Length of the first dimension, which all input tensors share."""
    counts = {
        len(t) for t in pytree.tree_leaves(arguments(inputs)) if torch.is_tensor(t) and t.ndim
    }
    if len(counts) != 1 or 0 in counts:
        raise DkmError(
            f"the input tensors have {sorted(counts)} samples (first dimension); "
            "they must have the same number, at least 1"
        )
    return counts.pop()


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Outputs of several batches as those of one. Raises DkmError if they are no batches."""
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _joined(name: str, arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) == 1:
        return arrays[0]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise DkmError(f"output {name!r}: batches cannot be put together: {error}") from error


def named_arrays(session: Session, inputs: Inputs) -> Arrays:
    """Arrays by the file's input names: keyword inputs by name, positional ones in order.

    Where there is but one, it needs no name: other tools call it otherwise. What the file takes
    as an image is its pixels. What is nested goes by its path, and what is no tensor is a constant
    of the file; see :mod:`dkm_deploy.inputs`.

    Raises:
        NotTakenError: the file cannot be given the inputs.
        DkmError: their number does not fit the file.
    """
    args, kwargs = arguments(inputs)
    named, names = arrays_in(args, kwargs), list(session.input_shapes)
    if args or len(named) == len(names) == 1:
        if len(names) != len(named):
            raise DkmError(f"{len(named)} inputs given; the file takes {', '.join(names)}")
        named = dict(zip(names, named.values(), strict=True))
    elif named.keys() != set(names):
        known = {spelled(name): name for name in names}
        named = {known.get(spelled(name), name): value for name, value in named.items()}
    arrays = {name: _array(value) for name, value in named.items()}
    return session.interface.given(arrays) if isinstance(session, Translated) else arrays


def _array(value: Tensor | NDArray[Any]) -> NDArray[Any]:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
