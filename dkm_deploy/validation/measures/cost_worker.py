"""Load and run one file and write what that took; a script for a process of its own.

It imports nothing of this package, which would bring PyTorch with it. Memory is what the process
has more than it had once the runtime was imported, before the file was opened; Linux only.
"""

from __future__ import annotations

import ctypes
import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_LEAST_RUNS, _SECONDS = 5, 2.0
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(bare: str, path: str, inputs: str, names: list[str], threads: int, runs: int) -> Any:
    """Seconds of loading and running, and bytes of memory.

    Args:
        bare: Python file with ``load(path, threads)``; see
            :class:`dkm_deploy.runtimes.TimedRuntime`.
        path: the file to be measured.
        inputs: ``.npz`` file with an array for each of ``names``, in their order.
        names: of the inputs.
        threads: that the runtime may use.
        runs: at most so many after the first; fewer once they took 2 seconds, but at least 5.
    """
    load = runpy.run_path(bare)["load"]
    with np.load(inputs) as file:
        arrays = dict(zip(names, (file[key] for key in file.files), strict=True))
    before = _memory("VmRSS")
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the peak starts anew
    run, load_s = _time_call(lambda: load(path, threads))
    _, first_s = _time_call(lambda: run(arrays))
    spent: list[float] = []
    while len(spent) < runs and (len(spent) < _LEAST_RUNS or sum(spent) < _SECONDS):
        spent.append(_time_call(lambda: run(arrays))[1])
    _trim()
    steady, peak = _memory("VmRSS"), _memory("VmHWM")
    return {
        "load_s": load_s,
        "first_s": first_s,
        "median_s": float(np.median(spent)),
        "p95_s": float(np.quantile(spent, 0.95)),
        "peak_bytes": None if peak is None or before is None else peak - before,
        "steady_bytes": None if steady is None or before is None else steady - before,
    }


def _time_call(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def _memory(field: str) -> int | None:
    """Bytes, from a line such as ``VmRSS:  1234 kB``; None where there is no such file."""
    if not _STATUS.exists():
        return None
    lines = _STATUS.read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def _trim() -> None:
    """Give back what glibc's malloc keeps of the memory that was freed; Linux only."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _STATUS.exists() else None
    if trim is not None:
        trim(0)


def main(settings: Path) -> None:
    """Measure by the settings in a JSON file, and write the figures or the error to its ``out``."""
    told = json.loads(settings.read_text("utf-8"))
    out = Path(told.pop("out"))
    try:
        found = measure(**told)
    except Exception as error:  # of any runtime: no common base class
        found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    out.write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
