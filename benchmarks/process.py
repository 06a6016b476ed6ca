"""What the benchmarks share: a measurement in a process of its own, and the machine's name."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def in_process(
    module: str, arguments: Sequence[str], *, threads: int | None = None, timeout_s: float = 1800
) -> Any:
    """Run ``python -m module arguments`` and give the JSON in the last line that it prints.

    Args:
        module: run from the project's root.
        arguments: of its command line.
        threads: that OpenMP and MKL may use; None leaves them alone.
        timeout_s: after which it is stopped.

    Returns:
        The value, or None if it took too long.

    Raises:
        CalledProcessError: it failed; what it said has been printed.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    try:
        done = subprocess.run(
            command, env=environment, timeout=timeout_s, capture_output=True, text=True, check=True
        )
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        raise
    return json.loads(done.stdout.splitlines()[-1])


def machine(*packages: str) -> str:
    """The CPU, its cores, and the versions of Python and of these packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{_cpu()}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
