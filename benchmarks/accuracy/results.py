"""Results, as lines of a file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.accuracy.clock import Spent
from benchmarks.accuracy.measure import Result, Written


def append(path: Path, result: Result) -> None:
    """Add a line."""
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """All lines; of a setting and seed the last."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {(r.setting, r.seed): r for r in map(of_line, lines)}
    return list(found.values())


def of_line(line: str) -> Result:
    """A result from its JSON."""
    known = json.loads(line)
    files = {suffix: Written(**file) for suffix, file in known["files"].items()}
    return Result(**known | {"files": files, "spent": Spent(**known["spent"])})
