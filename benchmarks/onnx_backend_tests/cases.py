"""ONNX's backend tests, their inputs of floating numbers turned into weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
_WIDE = "f"
_BFLOAT16 = "bfloat16"

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A backend test whose inputs of floating numbers are initializers.

    Attributes:
        name: of the test.
        model: it takes the other inputs alone.
        feeds: these, by name.
        outputs: what the test expects, in order.
        rtol: relative tolerance of the test.
        atol: absolute one.
    """

    name: str
    model: ModelProto
    feeds: Mapping[str, Any]
    outputs: Sequence[Any]
    rtol: float
    atol: float


def cases(kind: str) -> Iterator[Case]:
    """The tests of a kind that have an input of floating numbers with two dimensions or more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tests divide by zero where they mean to
        tests = load_model_tests(kind=kind)
    for test in tests:
        case = case_of(test)
        if case is not None:
            yield case


def case_of(test: TestCase) -> Case | None:
    """A test with its inputs of floating numbers as weights; None if it has no matrix of them."""
    inputs: Sequence[Any] | None
    outputs: Sequence[Any] | None
    if test.model is not None and test.data_sets:
        model, (inputs, outputs) = test.model, test.data_sets[0]
    else:
        folder = Path(str(test.model_dir))
        model = onnx.load(folder / "model.onnx")
        inputs, outputs = (_read(folder / "test_data_set_0", what) for what in ("input", "output"))
    if inputs is None or outputs is None:  # of a kind that is no tensor
        return None
    own = {tensor.name for tensor in model.graph.initializer}
    named = dict(
        zip([v.name for v in model.graph.input if v.name not in own], inputs, strict=False)
    )
    weights = {name: array for name, array in named.items() if _is_float(array)}
    if not any(np.ndim(array) > 1 for array in weights.values()):
        return None
    changed = _with_weights(model, weights)
    feeds = {name: array for name, array in named.items() if name not in weights}
    return Case(test.name, changed, feeds, outputs, test.rtol, test.atol)


def _with_weights(model: ModelProto, weights: Mapping[str, Array]) -> ModelProto:
    changed = ModelProto()
    changed.CopyFrom(model)
    kept = [value for value in changed.graph.input if value.name not in weights]
    del changed.graph.input[:]
    changed.graph.input.extend(kept)
    changed.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    )
    changed.ir_version = max(changed.ir_version, 4)
    own = {tensor.name for tensor in changed.graph.initializer}
    given = [value for value in changed.graph.input if value.name not in own]
    del changed.graph.input[:]
    changed.graph.input.extend(given)
    return changed


def _is_float(array: Any) -> bool:
    dtype = getattr(array, "dtype", None)
    return dtype is not None and (dtype.kind == _WIDE or dtype.name == _BFLOAT16)


def _read(folder: Path, what: str) -> list[Any] | None:
    """The tensors in files of a test; None if one is of another kind."""
    files = sorted(folder.glob(f"{what}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    try:
        return [numpy_helper.to_array(onnx.load_tensor(file)) for file in files]
    except Exception:  # of protobuf and of numpy
        return None
