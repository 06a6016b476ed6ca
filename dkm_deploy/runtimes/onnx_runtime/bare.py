"""ONNX Runtime alone: what is timed in a process of its own. It imports nothing of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnxruntime
from numpy.typing import NDArray

_FATAL = 4


def load(path: str, threads: int) -> Callable[[Mapping[str, NDArray[Any]]], object]:
    """Open a file as :class:`dkm_deploy.runtimes.onnx_runtime.runtime.OnnxRuntime` does.

    Args:
        path: a ``.onnx`` or ``.ort`` file.
        threads: that one operator may use; operators run one after the other.

    Returns:
        What runs it on arrays by input name.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))
