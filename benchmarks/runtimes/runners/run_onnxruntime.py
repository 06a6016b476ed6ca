"""The suite in ONNX Runtime for Python: ``python run_onnxruntime.py SUITE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from suite import run_suite

_LEVELS = onnxruntime.GraphOptimizationLevel


def run(path: Path, folding: str, x: Any) -> dict[str, Any]:
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    on = folding == "on"
    options.graph_optimization_level = _LEVELS.ORT_ENABLE_ALL if on else _LEVELS.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


run_suite(onnxruntime.__version__, ["off", "on"], run)
