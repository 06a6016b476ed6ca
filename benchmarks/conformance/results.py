"""Results of tests: lines of JSON, of which the last one of a test counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

OUTCOMES = ("started", "passed", "failed", "skipped", "crashed", "timeout", "uncollected")
FAILURES = ("failed", "crashed", "timeout")


@dataclass(frozen=True)
class Result:
    """What became of one test.

    Attributes:
        test: its file, function and the number of its parametrisation, such as
            ``a/test_b.py::TestC::test_d#3``; of a file that cannot be imported, the file alone.
        parameters: of the parametrisation, as pytest writes them.
        outcome: passed, failed or skipped as pytest has it, where a failure that the test expects
            is skipped; started, of one that has not ended yet; crashed, if its process ended with
            it; timeout; uncollected, of a file that cannot be imported.
        reason: one line; empty if it passed.
        predictions: how many the evaluator made for it.
        seconds: that it took.
    """

    test: str
    parameters: str
    outcome: str
    reason: str = ""
    predictions: int = 0
    seconds: float = 0.0

    @property
    def file(self) -> str:
        """Where the test is, in coremltools' package."""
        return self.test.partition("::")[0]

    @property
    def function(self) -> str:
        """The test without its parametrisation."""
        return self.test.partition("#")[0]

    @property
    def text(self) -> str:
        """All in one line, to be searched."""
        return f"{self.test}[{self.parameters}]: {self.outcome}: {self.reason}"


def read(path: Path) -> dict[str, Result]:
    """The last result of each test in a file, which need not exist."""
    if not path.exists():
        return {}
    lines = path.read_text("utf-8").splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    return {result.test: result for result in results}


def append(path: Path, results: Iterable[Result]) -> None:
    """Add results to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(result)) + "\n" for result in results)
