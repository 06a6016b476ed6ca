"""Load and run one ONNX file with one thread, for ``benchmarks.onnx_files``; Linux only.

Memory is what the process has more than it had with an empty session: the runtime's own part is
then in neither.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

_WARM_UP, _LEAST_RUNS, _SECONDS = 3, 7, 1.0


def measure(path: Path, empty: Path) -> dict[str, float]:
    """Seconds to load, seconds of a run (median), bytes at the peak of loading and after runs.

    Args:
        path: the file.
        empty: a model of one node.
    """
    kept = _session(empty)
    _run(kept)
    path.read_bytes()  # into the page cache
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    session = _session(path)
    load = time.perf_counter() - start
    peak = _memory("VmHWM") - before
    for _ in range(_WARM_UP):
        _run(session)
    spent: list[float] = []
    while len(spent) < _LEAST_RUNS or sum(spent) < _SECONDS:
        spent.append(_run(session))
    steady = _memory("VmRSS") - before
    return {"load": load, "latency": statistics.median(spent), "peak": peak, "steady": steady}


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any) -> float:
    source = session.get_inputs()[0]
    x = np.ones(source.shape, np.float32)
    start = time.perf_counter()
    session.run(None, {source.name: x})
    return time.perf_counter() - start


def _memory(field: str) -> int:
    """Bytes, from a line such as ``VmRSS:  1234 kB``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]))))
