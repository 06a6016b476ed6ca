"""An ONNX file whose weights are given with every run, so that they can be other ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # no type hints
from onnx import helper

from converters.onnx.rewriting.palettize import take_out
from dkm_deploy.errors import DkmError
from dkm_deploy.model.samples import sample_count
from dkm_deploy.runtimes import check_inputs
from dkm_deploy.runtimes.onnx_runtime.runtime import OnnxSession, open_session
from dkm_deploy.runtimes.onnx_runtime.widen_bfloat16 import widen_bfloat16
from dkm_deploy.runtimes.run_file import check_batches, cut, fixed_batch_of_session, named_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnxruntime import InferenceSession

    from dkm_deploy.model.inputs import Inputs
    from dkm_deploy.runtimes import Arrays, Shape

_BATCH = 16


class WeightsAsInputs:
    """Implements :class:`dkm_deploy.runtimes.Session`.

    Attributes:
        weights: that a run gets, by name; they may be replaced.
        input_shapes: of the other inputs.

    Args:
        path: of the file, for messages.
        model: what is in it; its weights are taken out.
        weights: the values of these weights; float32 for those of bfloat16, as which the model is
            run.

    Raises:
        DkmError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: Path, model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
        _make_inputs(model, weights)
        widen_bfloat16(model)
        self._session = OnnxSession(path, _open_session(path, model))
        self.weights = dict(weights)
        shapes = self._session.input_shapes.items()
        self.input_shapes: Mapping[str, Shape] = {
            name: shape for name, shape in shapes if name not in weights
        }

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name. Raises DkmError as :class:`dkm_deploy.runtimes.Session` does."""
        check_inputs(inputs, self.input_shapes)
        return self._session.run({**self.weights, **inputs})


def run_in_batches(session: WeightsAsInputs, inputs: Inputs) -> Iterator[Arrays]:
    """Inputs by name, in batches of 16 or of what the file is fixed to.

    Raises:
        DkmError: they do not fit the file.
    """
    arrays, count, fixed = (
        named_arrays(session, inputs),
        sample_count(inputs),
        fixed_batch_of_session(session),
    )
    if fixed:
        check_batches(count, fixed)
    yield from cut(arrays, count, fixed or _BATCH)


def _make_inputs(model: ModelProto, weights: Mapping[str, NDArray[Any]]) -> None:
    """Turn weights of a model into inputs, in place."""
    take_out(model, set(weights))
    graph = model.graph
    described = [value for value in graph.value_info if value.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(described)
    for name, values in weights.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))


def _open_session(path: Path, model: ModelProto) -> InferenceSession:
    try:
        return open_session(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise DkmError(f"{path}: larger than 2 GiB beside its weights") from error
    except Exception as error:  # ONNX Runtime's errors have no common base class
        reason = " ".join(str(error).split())
        raise DkmError(f"{path}: ONNX Runtime cannot load it: {reason}") from error
