"""Palettize ONNX's backend tests, whose inputs of floating numbers are made weights.

Run ``python -m benchmarks.onnx_backend_tests`` from the project's root. The tests lie in the onnx
package. Each is palettized with 8 bits, which is lossless for the up to 256 values that most have,
whether that makes it smaller or not; it is run in ONNX Runtime, and its outputs are compared bit
for bit with those of the dense model. ``--every`` makes palettes of all tensors, whatever uses
them. ``--show`` lists the tests of a status.
"""

from __future__ import annotations

import argparse
import platform
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.onnx_backend_tests.cases import KINDS, cases
from benchmarks.onnx_backend_tests.run import STATUSES, Result, operator, run_case
from benchmarks.process import cpu, versions

_LOSSY = "of these rounded"


def main() -> None:
    """Run, print the table and the reasons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--show", choices=STATUSES, action="append", default=["failed"])
    parser.add_argument("--every", action="store_true", help="every tensor, not the weights alone")
    arguments = parser.parse_args()
    shown = set(arguments.show)
    print(f"{cpu()}, {platform.system()}, {versions('onnx', 'onnxruntime')}\n")
    head = ("tests", "number", *STATUSES, _LOSSY)
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    reasons: Counter[tuple[str, str]] = Counter()
    listed: list[str] = []
    for kind in KINDS:
        counts: Counter[str] = Counter()
        for case in cases(kind):
            with TemporaryDirectory() as folder:
                result = run_case(case, Path(folder), every=arguments.every)
            counts.update(_counted(result))
            if result.reason:
                reasons[result.status, _general(result.reason)] += 1
            if result.status in shown:
                told = f"{case.name} ({operator(case.model)})"
                listed.append(f"- {told}: {result.status}: {result.reason}")
        figures = (counts["all"], *(counts[status] for status in STATUSES), counts[_LOSSY])
        print(f"| {kind} | {' | '.join(map(str, figures))} |", flush=True)
    print()
    for (status, reason), count in reasons.most_common(25):
        print(f"- {status}: {count} x {reason}")
    print("\n".join(listed))


def _counted(result: Result) -> list[str]:
    """The columns that a result adds to."""
    return ["all", result.status, *([] if result.lossless else [_LOSSY])]


def _general(reason: str) -> str:
    """A reason without the names and numbers of its test."""
    if "NOT_IMPLEMENTED" in reason:
        return "ONNX Runtime has no such kernel"
    return re.sub(r"'[^']*'|\d+", "..", reason)[:90]


if __name__ == "__main__":
    main()
