"""The suite in OpenVINO: ``python run_openvino.py SUITE``. It always folds constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino
from suite import run_suite

_core = openvino.Core()
# On some CPUs it computes in bfloat16 unless told otherwise.
_FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def run(path: Path, _folding: str, x: Any) -> dict[str, Any]:
    """Outputs by name."""
    compiled = _core.compile_model(_core.read_model(path), "CPU", _FLOAT32)
    results = compiled({"x": x})
    return {name: results[port] for port in compiled.outputs for name in port.names}


run_suite(openvino.__version__.partition("-")[0], ["on"], run)
