"""coremltools' own tests, which its wheel carries, with the evaluator in Core ML's place.

    python -m benchmarks.conformance                 # 3 of each function; goes on where it was
    python -m benchmarks.conformance --per-function 0 --only converters/mil/mil/ops/tests/iOS18
    python -m benchmarks.conformance --retry failed  # these again
    python -m benchmarks.conformance --table

A file or folder has processes of its own, one after another, of 400 tests each. Results are lines
of ``out/conformance.jsonl``. Tests of neural networks, which are no ML programs, are left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

from benchmarks.conformance.causes import read_causes
from benchmarks.conformance.parts import MORE, chosen, is_in, package
from benchmarks.conformance.results import FAILURES, append, read
from benchmarks.conformance.table import causes_table, parts_table, unmatched_lines
from dkm_deploy.runtimes.mlprogram.numerics import Numerics

_MOST_TESTS = 400  # of a process, whose memory grows with each
_ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run what is not known yet, and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--per-function", type=int, default=3, metavar="N", help="parametrisations; 0 is all"
    )
    parser.add_argument("--only", metavar="PATH", help="in coremltools; also file::function")
    parser.add_argument("--seed", type=int, default=0, help="chooses other parametrisations")
    parser.add_argument(
        "--retry", nargs="+", choices=FAILURES, default=[], metavar="OUTCOME", help="only these"
    )
    parser.add_argument("--numerics", choices=get_args(Numerics), default="declared")
    parser.add_argument("--timeout-s", type=int, default=120, help="of a test")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=Path("out/conformance.jsonl"))
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.retry:
            _forget(arguments)
        for path in chosen(arguments.only):
            _run(path, arguments)
    results, causes = list(read(arguments.out).values()), read_causes()
    tables = [*parts_table(results, causes), "", *causes_table(results, causes)]
    print("\n".join([*tables, *unmatched_lines(results, causes)]))


def _forget(arguments: argparse.Namespace) -> None:
    """Take tests with these outcomes for tests that have not ended."""
    known = read(arguments.out).values()
    again = [result for result in known if result.outcome in arguments.retry]
    append(arguments.out, [replace(result, outcome="started") for result in again])


def _run(path: str, arguments: argparse.Namespace) -> None:
    """Run the tests of a file or folder, in as many processes as it takes."""
    if arguments.retry and not _open_tests(path, arguments.out):
        return
    left = True
    while left:
        before = read(arguments.out)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                _command(path, arguments),
                cwd=folder,
                env=os.environ
                | {"PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": folder}
                | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
        crashed = done.returncode not in (0, MORE)
        if crashed:
            _note_crash(path, arguments.out, done)
        left = crashed or done.returncode == MORE
        after = read(arguments.out)
        new = Counter(r.outcome for name, r in after.items() if before.get(name) != r)
        print(f"{path}: {dict(new)}", flush=True)


def _command(path: str, arguments: argparse.Namespace) -> list[str]:
    left_out = [part for name in ("cacheprovider", "cov", "xdist") for part in ("-p", f"no:{name}")]
    return [
        *(sys.executable, "-m", "pytest", "-p", "benchmarks.conformance.plugin", *left_out),
        *("-c", os.devnull, f"--rootdir={package()}", "-q", "--tb=no", "-W", "ignore"),
        "--continue-on-collection-errors",
        f"--results={arguments.out.resolve()}",
        f"--per-function={arguments.per_function}",
        f"--seed={arguments.seed}",
        f"--numerics={arguments.numerics}",
        f"--most={_MOST_TESTS}",
        f"--timeout-s={arguments.timeout_s}",
        *(["--only-open"] if arguments.retry else []),
        str(package() / path),
    ]


def _open_tests(path: str, out: Path) -> list[str]:
    """Tests of a file or folder that have begun and not ended."""
    file = path.partition("::")[0]
    known = read(out).items()
    return [n for n, r in known if r.outcome == "started" and is_in(r.file, file)]


def _note_crash(path: str, out: Path, done: subprocess.CompletedProcess[str]) -> None:
    """The test that was running has ended its process."""
    known = read(out)
    running = _open_tests(path, out)[-1:]
    if not running:
        raise SystemExit(f"{path}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    reason = f"the process ended with {done.returncode}"
    append(out, [replace(known[name], outcome="crashed", reason=reason) for name in running])


if __name__ == "__main__":
    main()
