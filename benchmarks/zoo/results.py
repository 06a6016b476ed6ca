"""Results of the zoo: one line a model and target, the last one counts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

TARGETS = {"onnx": "ONNX", "mlpackage": "Core ML", "aimodel": "Core AI"}
OUTCOMES = ("passed", "failed", "refused", "crashed", "timeout", "untraceable", "skipped")
NOT_COUNTED = ("untraceable", "skipped")


@dataclass(frozen=True)
class Result:
    """What became of one model on one target.

    Attributes:
        model: its name.
        family: the line of the table that it counts in.
        target: the suffix of its file.
        outcome: passed or failed by ``dkm.validate``; refused with a DkmError; crashed with
            another error or by the end of its process; timeout. Not counted are those that
            ``torch.export`` cannot trace as they come, untraceable, and those whose package is
            missing, skipped.
        reason: one line; empty if it passed.
        cpu_s: that the target took, with palettizing for the first.
        versions: of the packages that have a part in it.
    """

    model: str
    family: str
    target: str
    outcome: str
    reason: str
    cpu_s: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> dict[tuple[str, str], Result]:
    """The last result of each model and target in a file, which need not exist."""
    if not path.exists():
        return {}
    lines = path.read_text("utf-8").splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    return {(result.model, result.target): result for result in results}


def append(path: Path, results: Iterable[Result]) -> None:
    """Add results to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(result)) + "\n" for result in results)


def is_repeated(result: Result, retry: Iterable[str]) -> bool:
    """Whether a known result is among those to be measured again.

    Args:
        result: that is known.
        retry: targets and outcomes; of those that are named, both must fit. None repeats nothing.
    """
    named = set(retry)
    targets, outcomes = named & set(TARGETS), named & set(OUTCOMES)
    return bool(named) and (
        (not targets or result.target in targets) and (not outcomes or result.outcome in outcomes)
    )
