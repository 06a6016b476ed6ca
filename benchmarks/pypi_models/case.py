"""One model, real inputs for it, and what it means that two answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.runtimes.onnx_runtime.runtime import runtime

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A model and what it is given.

    Attributes:
        name: as the table has it.
        file: the ONNX file as its package ships it.
        inputs: by name; tensors have samples along the first dimension, arrays are given as they
            are.
        answers: of the original's first output, which a file's are compared with.
        agreement: ``agreement(first output, answers)``, in percent.
        what: what the inputs are, and what is compared.
    """

    name: str
    file: Path
    inputs: Mapping[str, Any]
    answers: Callable[[Array], Array]
    agreement: Callable[[Array, Array], float]
    what: str


def top_1(output: Array) -> Array:
    """The largest class along the last dimension."""
    answers: Array = output.argmax(-1)
    return answers


def same_top_1(output: Array, answers: Array) -> float:
    """Percent of places with the same largest class."""
    return 100 * float(np.mean(top_1(output) == answers))


def input_name(path: Path) -> str:
    """The name of a file's first input."""
    return next(iter(runtime.load(path).input_shapes))
