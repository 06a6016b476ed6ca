"""Load and run one ONNX file with one thread, for ``benchmarks.onnx_files``; Linux only.

Memory is what the process has more than it had with an empty session: the runtime's own part is
then in neither. What glibc's malloc keeps of the freed memory counts in ``after`` alone.
"""

from __future__ import annotations

import ctypes
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
    """Load ``path`` and run it; ``empty`` is a model of one node.

    Returns:
        Seconds of ``load`` and ``latency`` (median), and bytes: ``peak`` while loading, ``after``
        loading and runs, and ``steady``, which is that without what malloc had kept.
    """
    kept = _session(empty)
    _run(kept)
    _read(path)
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
    after = _memory("VmRSS") - before
    ctypes.CDLL(None).malloc_trim(0)
    steady = _memory("VmRSS") - before
    latency = statistics.median(spent)
    return {"load": load, "latency": latency, "peak": peak, "after": after, "steady": steady}


def _read(path: Path) -> None:
    """Bring the file into the page cache, in small parts, which leave malloc as it was."""
    with path.open("rb") as file:
        while file.read(1 << 16):
            pass


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
