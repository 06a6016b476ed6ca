"""What benchmarks share: a measurement in a process of its own; the machine and versions."""

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
    module: str,
    arguments: Sequence[str],
    *,
    threads: int | None = None,
    timeout_s: float | None = None,
    root: Path | None = None,
) -> Any:
    """Run ``python -m module arguments`` and give the JSON in the last line that it prints.

    Args:
        module: run from the project's root.
        arguments: of its command line.
        threads: that OpenMP and MKL may use; None leaves them alone.
        timeout_s: after which it is stopped; None waits.
        root: of another checkout, whose benchmark it is and which it measures; None is this one.

    Returns:
        The value, or None if it took too long.

    Raises:
        CalledProcessError: it failed; what it said has been printed.
    """
    environment = dict(os.environ)
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if root is not None:  # before the checkout that is installed
        environment["PYTHONPATH"] = str(root)
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        raise
    return json.loads(done.stdout.splitlines()[-1])


def cpu() -> str:
    """The processor and its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def versions(*packages: str) -> str:
    """Of Python and these packages."""
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    )
