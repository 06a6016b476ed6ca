"""Models of opset 1 to 6, which lack arithmetic that broadcasts: lifted by onnx, and run to see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, helper, version_converter

from converters.onnx.graph.tensors import default_opset
from dkm_deploy.errors import DkmError, reason_of
from dkm_deploy.runtimes.onnx_runtime.runtime import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnxruntime import InferenceSession

# Add and Mul that broadcast came with 7, on which ONNX Runtime's support begins too.
OLDEST_OPSET = 7
_CLOSE = 1e-5  # of the largest value of an output: other kernels may sum in another order


def lift_opset(model: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
    """The model in the oldest opset that palettes can be decoded in, if its own is older.

    Returns:
        The model, or the same one, and a note if it was lifted.

    Raises:
        DkmError: onnx cannot convert it.
    """
    opset = default_opset(model)
    if not 1 <= opset < OLDEST_OPSET:
        return model, ()
    try:
        lifted = version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # of its C++ part
        raise DkmError(
            f"its opset is {opset}, decoding palettes needs {OLDEST_OPSET} or newer, and "
            f"onnx.version_converter cannot convert it: {reason_of(error)}"
        ) from error
    return lifted, (f"opset {opset} was lifted to {OLDEST_OPSET} by onnx.version_converter",)


def check_lifted(path: Path, lifted: ModelProto) -> Iterator[str]:
    """Run the file at ``path`` and its lifted model on the same random inputs.

    Yields:
        A sentence if that is not possible here.

    Raises:
        DkmError: their outputs differ.
    """
    try:
        before = open_session(str(path))
        after = open_session(lifted.SerializeToString())
        inputs = _random_inputs(before)
        outputs = [session.run(None, inputs) for session in (before, after)]
    except Exception as error:  # ONNX Runtime's errors have no common base class
        yield f"ONNX Runtime cannot run the file, so its lifted opset was not: {reason_of(error)}"
        return
    for value, one, other in zip(before.get_outputs(), *outputs, strict=True):
        if not _close(one, other):
            raise DkmError(
                f"{path}: onnx.version_converter changes its output {value.name!r}, so its opset "
                "cannot be lifted; export the model again"
            )


def _random_inputs(session: InferenceSession) -> dict[str, NDArray[Any]]:
    """Normal values, and 0 or 1 for whole numbers; dimensions of any size are 1."""
    random = np.random.default_rng(0)
    inputs: dict[str, NDArray[Any]] = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        name = value.type.removeprefix("tensor(").removesuffix(")").upper()
        dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))
        numbers = random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        inputs[value.name] = numbers.astype(dtype)
    return inputs


def _close(one: Any, other: Any) -> bool:
    if not isinstance(one, np.ndarray) or one.dtype.kind not in "fiub":
        return bool(np.all(one == other))
    largest = np.abs(one[np.isfinite(one)]).max(initial=0)
    return bool(np.allclose(one, other, rtol=0, atol=_CLOSE * float(largest), equal_nan=True))
