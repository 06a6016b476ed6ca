"""Run the suite of small ONNX models in every runtime that is there, and tell what passes.

Run ``python -m benchmarks.runtimes --out out/runtimes --install`` from the project's root. It
writes the models to ``suite`` in that folder and fetches runtimes to ``tools``, once; without
``--install`` a runtime that is missing is reported as not run. A model passes if its outputs are
PyTorch's within float32 rounding and its dense weights have the palettes' bits, with constant
folding (all graph optimisations) off and on. Exit code 1 says that something did not pass.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runtimes.runtimes import InstallError, Outcome, Runtime, runtimes
from benchmarks.runtimes.suite_files import write_suite

_FOLDINGS = ("off", "on")


@dataclass(frozen=True)
class Row:
    """One runtime's results: errors by model and folding, for the foldings that it has."""

    name: str
    not_run: str | None = None
    foldings: tuple[str, ...] = ()
    errors: dict[tuple[str, str], str | None] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """A line for each model that did not pass."""
        return [
            f"{self.name}: {model}, folding {folding}: {error}"
            for (model, folding), error in self.errors.items()
            if error
        ]

    def __str__(self) -> str:
        """The line of the table."""
        if self.not_run:
            return f"| {self.name} | not run: {self.not_run} | |"
        cells = [self._cell(folding) for folding in _FOLDINGS]
        return f"| {self.name} | {cells[0]} | {cells[1]} |"

    def _cell(self, folding: str) -> str:
        if folding not in self.foldings:
            return "always folds"
        found = [error for (_, how), error in self.errors.items() if how == folding]
        return f"{found.count(None)}/{len(found)}"


def main() -> int:
    """Write, install, run, print; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/runtimes"))
    parser.add_argument("--install", action="store_true", help="fetch runtimes that are missing")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of dkm.convert"
    )
    arguments = parser.parse_args()
    options = dict(_option(text) for text in arguments.option)
    models = write_suite(arguments.out / "suite", options)
    print(f"{platform.platform()}, Python {platform.python_version()}; {len(models)} models")
    print("\n| runtime | folding off | folding on |\n|---|---|---|")
    rows = []
    for runtime in runtimes():
        rows.append(_row(runtime, arguments.out, models, install=arguments.install))
        print(rows[-1], flush=True)
    failures = [line for row in rows for line in row.failures()]
    print("", *failures, sep="\n")
    return 1 if failures else 0


def _option(text: str) -> tuple[str, Any]:
    """``opset=21`` as a keyword argument: a JSON value where it is one, else text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _row(runtime: Runtime, out: Path, models: list[str], *, install: bool) -> Row:
    reason = runtime.missing(out)
    if reason and install:
        try:
            runtime.install(out)
            reason = runtime.missing(out)
        except InstallError as error:
            reason = f"{reason}, and installing it failed: {error}"
    return Row(runtime.name, reason) if reason else _results(runtime, runtime.run(out), models)


def _results(runtime: Runtime, outcome: Outcome, models: list[str]) -> Row:
    """Results of all models; one that is not in the lines has not passed."""
    if not outcome.lines:
        return Row(runtime.name, outcome.trouble or "it printed nothing")
    lines = [json.loads(line) for line in outcome.lines]
    foldings = tuple(lines[0]["foldings"])
    found = {(line["model"], line["folding"]): line["error"] for line in lines[1:]}
    lost = f"no result: {outcome.trouble}"
    errors = {(m, how): found.get((m, how), lost) for m in models for how in foldings}
    return Row(f"{runtime.name} {lines[0]['version']}", None, foldings, errors)


if __name__ == "__main__":
    sys.exit(main())
