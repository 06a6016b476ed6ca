"""What it costs to start: ``python -m benchmarks.startup``.

Each row is a process of its own, all rows in turns; medians of CPU seconds (user and system, the
interpreter's own included) and of peak resident memory. Linux only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from tempfile import TemporaryDirectory

from benchmarks.process import cpu, versions

_COMMAND = "import sys; from dkm_deploy.cli import main; sys.exit(main({!r}))"
_OURS = {
    "Python alone": "pass",
    "`dkm-deploy --version`": _COMMAND.format(["--version"]),
    "`dkm-deploy --help`": _COMMAND.format(["--help"]),
    "`dkm-deploy convert --help`": _COMMAND.format(["convert", "--help"]),
    "`import dkm_deploy`": "import dkm_deploy",
    "`import torch`": "import torch",
    "`import torch, dkm_deploy`": "import torch, dkm_deploy",
    "`import torch`, all public names": "import torch; from dkm_deploy import *",
}
_PEERS = ("torchao", "coremltools", "coremltools.optimize.torch")
# What the kernel reports of a child counts its parent's memory before exec; this does not.
_PEAK = """
import atexit
@atexit.register
def _():
    import sys
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(peak.split()[1], file=sys.stderr)
"""


def measure(code: str) -> tuple[float, float]:
    """CPU seconds and peak MB of a fresh interpreter that runs ``code``."""
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _PEAK + code],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    after = getrusage(RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, int(done.stderr.split()[-1]) * 1024 / 1e6


def _inspect(folder: Path) -> dict[str, str]:
    """Commands that show small files, which are written to ``folder``."""
    import torch

    import dkm_deploy as dkm

    frozen = dkm.palettize(torch.nn.Linear(64, 64), 4)
    commands = {}
    for suffix in (".onnx", ".mlpackage"):
        path = dkm.convert(frozen, torch.ones(1, 64), folder / f"m{suffix}").path
        commands[f"`dkm-deploy inspect m{suffix}`"] = _COMMAND.format(["inspect", str(path)])
    return commands


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    peers = [peer for peer in _PEERS if find_spec(peer.partition(".")[0])]
    imports = {f"`import {peer}`": f"import {peer}" for peer in peers}
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        rows = _OURS | _inspect(Path(folder)) | imports
        for _ in range(rounds):
            for row, code in rows.items():
                found[row].append(measure(code))
    packages = sorted({"torch", *(peer.partition(".")[0] for peer in peers)})
    print(f"{cpu()}; {versions(*packages)}; {rounds} rounds\n")
    print("| | CPU s | peak MB |\n|---|---|---|")
    for row, figures in found.items():
        seconds, peak = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {row} | {seconds:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
