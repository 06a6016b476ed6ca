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
from dkm_deploy.given import model_of
from dkm_deploy.inputs import Inputs, arguments, arrays_in, spelled
from dkm_deploy.program import fixed_batch as program_batch
from dkm_deploy.runtimes import Arrays, Batched, Probe, Session, Stateful, Translated
from dkm_deploy.steps import Steps
from dkm_deploy.untouched import own_copies, untouched, written
from dkm_deploy.validation.batches import largest_batch, smallest_batch
from dkm_deploy.widened import widened

Outputs = dict[str, NDArray[Any]]

_WHOLE = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_BLOCK = 256  # samples a PyTorch model runs on at a time, if it takes any number


def run_model(model: nn.Module, inputs: Inputs | Steps, block: int = _BLOCK) -> Outputs:
    """Outputs of a PyTorch model in eval mode, by name; the model and the inputs are left alone.

    It runs on ``block`` samples at a time, or its fixed batch, from its own buffers each time. One
    that keeps state runs on samples one by one. Steps run one after the other. A model of bfloat16
    runs in float32, as files do.

    Raises:
        DkmError: the model does not run on the inputs.
    """
    model = widened(model_of(model))
    if isinstance(inputs, Steps):
        with untouched(model) as copied:
            return joined_steps([outputs_of(copied, step) for step in inputs])
    count = sample_count(inputs)
    if count > 1 and _keeps_state(model, rows(inputs, 0, 1)):
        block = 1
    block = program_batch(model) or (block if share_samples(inputs) else count)
    parts = []
    for start in range(0, count, block):
        with untouched(model) as copied:
            parts.append(outputs_of(copied, rows(inputs, start, start + block)))
    return joined(parts)


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
            f"the PyTorch model gives a {type(outputs).__name__} without any tensor, which is all "
            "that files give"
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
    with untouched(model) as copied:
        try:
            outputs_of(copied, inputs)
        except DkmError:
            return False
        return bool(written(model, copied))


def run_file(session: Session, inputs: Inputs | Steps) -> Outputs:
    """Outputs of a loaded file by name.

    A file with a fixed batch is run on one batch after the other, each from its first state; others
    on as many samples at a time as the PyTorch model, or as they allow. Steps go on with the state
    of the one before. What it takes as an image is given its pixels, and labels that it adds to
    scores are checked and left out.

    Raises:
        NotTakenError: the file cannot be given the inputs.
        WrongLabelError: a label is not that of the highest score.
        DkmError: names, shapes or the number of samples do not fit the file.
    """
    if isinstance(inputs, Steps):
        return joined_steps(list(_stepped(session, inputs)))
    arrays = named_arrays(session, inputs)
    count = sample_count(inputs)
    batch = fixed_batch(session) if share_samples(inputs) else count
    if batch:
        check_batches(count, batch)
    else:
        # As many as the model is run on: samples of one batch may depend on each other.
        allowed = session.batches if isinstance(session, Batched) else ()
        batch = largest_batch(allowed, count, _BLOCK)
    if batch == count:
        return _outputs(session, arrays)
    return joined([_outputs(session, part) for part in cut(arrays, count, batch)])


def _stepped(session: Session, steps: Steps) -> Iterator[Outputs]:
    state = session.make_state() if isinstance(session, Stateful) and session.states else None
    for step in steps:
        yield _outputs(session, named_arrays(session, step), state)


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


def _outputs(session: Session, arrays: Arrays, state: Any = None) -> Outputs:
    if state is not None and isinstance(session, Stateful):
        outputs = session.run(arrays, state=state)
    else:
        outputs = session.run(arrays)
    return session.interface.made(outputs) if isinstance(session, Translated) else outputs


def rows(inputs: Inputs | Steps, start: int, stop: int) -> Inputs:
    """Samples ``start`` to ``stop`` of inputs, or of the first step; no other value is cut.

    Inputs that do not share their first dimension are given whole.
    """
    inputs = next(iter(inputs)) if isinstance(inputs, Steps) else inputs
    if not share_samples(inputs):
        return inputs
    held = {id(leaf) for leaf in _samples(inputs)}
    block = pytree.tree_map(lambda leaf: leaf[start:stop] if id(leaf) in held else leaf, inputs)
    args, kwargs = arguments(block)
    return kwargs or args


def share_samples(inputs: Inputs) -> bool:
    """Whether all tensors have samples along their first dimension.

    A state ``(layers, n, width)`` or a mask ``(t, t)`` beside ``(n, t, width)`` has not.
    """
    return len({len(leaf) for leaf in _samples(inputs)}) == 1


def sample_count(inputs: Inputs | Steps) -> int:
    """Length of the first dimension of the first tensor; of steps, all of theirs.

    Raises:
        DkmError: there is no tensor with a dimension, or one has no elements along it.
    """
    if isinstance(inputs, Steps):
        return sum(_samples_of_step(step) for step in inputs)
    arguments(inputs)
    check_not_empty(inputs)
    counts = [len(leaf) for leaf in _samples(inputs)]
    if not counts:
        raise DkmError("no input tensor has a dimension of samples; give at least one that has")
    return counts[0]


def check_not_empty(inputs: Inputs) -> None:
    """Raise DkmError for inputs without any sample, on which nothing can be compared."""
    if any(len(leaf) == 0 for leaf in _samples(inputs)):
        raise DkmError("the input tensors have 0 samples (first dimension); give at least 1")


def _samples(inputs: Inputs) -> list[Tensor | NDArray[Any]]:
    """What holds one sample after the other: tensors; arrays only where there is no tensor."""
    leaves = [x for x in pytree.tree_leaves(inputs) if isinstance(x, (Tensor, np.ndarray))]
    found = [leaf for leaf in leaves if leaf.ndim]
    return [leaf for leaf in found if isinstance(leaf, Tensor)] or found


def _samples_of_step(step: Inputs) -> int:
    """Length of the first tensor; others, such as positions, may have another one."""
    return next((len(t) for t in pytree.tree_leaves(arguments(step)) if np.ndim(t)), 1)


def joined_steps(parts: Sequence[Outputs]) -> Outputs:
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
    return joined([{n: np.atleast_1d(array) for n, array in part.items()} for part in parts])


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
    for name in session.input_shapes.keys() & kwargs.keys() - named.keys():
        if isinstance(kwargs[name], (bool, int, float)):  # that PyTorch has as a constant
            named[name] = torch.tensor(kwargs[name])
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
