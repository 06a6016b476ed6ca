"""Run a converted file on the inputs of the model that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments, arrays_in, exported_name
from dkm_deploy.model.run import BLOCK, Outputs, join_batches, join_steps
from dkm_deploy.model.samples import sample_count, share_samples
from dkm_deploy.model.steps import Steps
from dkm_deploy.runtimes import (
    Arrays,
    BatchedSession,
    Probe,
    Session,
    Shape,
    StatefulSession,
    TranslatingSession,
)
from dkm_deploy.runtimes.batch_sizes import largest_batch, smallest_batch


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
        return join_steps(list(_run_steps(session, inputs)))
    arrays = named_arrays(session, inputs)
    count = sample_count(inputs)
    batch = fixed_batch_of_session(session) if share_samples(inputs) else count
    if batch:
        check_batches(count, batch)
    else:
        # As many as the model is run on: samples of one batch may depend on each other.
        allowed = session.batches if isinstance(session, BatchedSession) else ()
        batch = largest_batch(allowed, count, BLOCK)
    if batch == count:
        return _outputs(session, arrays)
    return join_batches([_outputs(session, part) for part in cut(arrays, count, batch)])


def _run_steps(session: Session, steps: Steps) -> Iterator[Outputs]:
    state = (
        session.make_state() if isinstance(session, StatefulSession) and session.states else None
    )
    for step in steps:
        yield _outputs(session, named_arrays(session, step), state)


def check_batches(count: int, batch: int) -> None:
    """Raise DkmError unless samples split into batches of the size that a file is fixed to."""
    if count % batch:
        raise DkmError(
            f"{count} samples do not split into batches of {batch}, "
            "the fixed batch size of the file"
        )


def cut(arrays: Arrays, count: int, size: int) -> Iterator[Arrays]:
    """Arrays of ``count`` samples, ``size`` of them at a time; scalars go with each part."""
    for start in range(0, count, size):
        yield {n: a[start : start + size] if a.ndim else a for n, a in arrays.items()}


def fixed_batch_of_session(session: Session | Probe) -> int | None:
    """First dimension of the first input that has one; None if it may change, or none has."""
    return next((shape[0] for shape in session.input_shapes.values() if shape), None)


def least_batch(session: Session | Probe) -> int:
    """How many samples a file takes at a time, at least."""
    fixed = fixed_batch_of_session(session)
    if fixed is None and isinstance(session, BatchedSession):
        return smallest_batch(session.batches)
    return fixed or 1


def _outputs(session: Session, arrays: Arrays, state: Any = None) -> Outputs:
    if state is not None and isinstance(session, StatefulSession):
        outputs = session.run(arrays, state=state)
    else:
        outputs = session.run(arrays)
    return (
        session.interface.to_model_outputs(outputs)
        if isinstance(session, TranslatingSession)
        else outputs
    )


def named_arrays(session: Session, inputs: Inputs) -> Arrays:
    """Arrays by the file's input names: keyword inputs by name, positional ones in order.

    Where there is but one, it needs no name: other tools call it otherwise. What the file takes
    as an image is its pixels, and what it takes as an array of one may be a number. What is nested
    goes by its path, and what is no tensor is a constant of the file; see
    :mod:`dkm_deploy.model.inputs`.

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
        # coremltools puts a suffix to names that are words of its own, such as "state".
        known = {exported_name(name.removesuffix("_workaround")): name for name in names}
        named = {known.get(exported_name(name), name): value for name, value in named.items()}
    arrays = {name: _array(value, session.input_shapes.get(name)) for name, value in named.items()}
    return (
        session.interface.to_file_inputs(arrays)
        if isinstance(session, TranslatingSession)
        else arrays
    )


def _array(value: Tensor | NDArray[Any], shape: Shape | None) -> NDArray[Any]:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.reshape(1) if array.ndim == 0 and shape == (1,) else array
