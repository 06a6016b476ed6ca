"""The papers' results as files: made, converted, and measured from the files.

    python -m benchmarks.accuracy resnet20-35x          # goes on where it was stopped
    python -m benchmarks.accuracy resnet20-35x --seed 1
    python -m benchmarks.accuracy                       # the table of what is known

Run it from the project's root. A training takes hours on one core; it may be killed at any time and
is gone on from. Its files and their report stay in ``--out``; what they came to is a line of
``benchmarks/accuracy/measured.jsonl``. Stored bytes are a file's without graph, metadata and
padding: n-bit indices, LUTs, and all other weights as the file has them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.accuracy.efficientnet import EfficientNetTask, packages_in
from benchmarks.accuracy.measure import measure
from benchmarks.accuracy.resnet20 import ResNet20Task
from benchmarks.accuracy.results import append, read
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.table import table
from benchmarks.accuracy.task import Task
from benchmarks.methods.packages import EFFICIENTNET, install, missing

# Of the data folder, and of one for what a task keeps.
TASKS: Mapping[str, Callable[[Path, Path], Task]] = {
    "resnet20": ResNet20Task,
    "efficientnet": EfficientNetTask,
}
_NEEDED = {"efficientnet": EFFICIENTNET}
KEPT = Path(__file__).parent / "measured.jsonl"


def main() -> int:
    """Measure what is asked for and print the table; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/accuracy"))
    parser.add_argument("--install", action="store_true", help="fetch packages that are missing")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.settings if name not in SETTINGS]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(SETTINGS)}")
    packages = packages_in(arguments.out)
    if arguments.install:
        install(packages)
    for name in arguments.settings:
        setting = SETTINGS[name]
        absent = missing(packages, _NEEDED.get(setting.network, ()))
        if absent:
            parser.error(f"not in {packages}: {', '.join(absent)}; --install fetches them")
        task = TASKS[setting.network](arguments.data, arguments.out)
        folder = arguments.out / f"{name}-{arguments.seed}"
        append(KEPT, measure(task, name, setting, arguments.seed, folder))
    print("\n".join(table(read(KEPT))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
