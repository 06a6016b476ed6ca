"""The files of ``gallery/``, measured again: ``make gallery``.

    python -m benchmarks.gallery                     # measures every figure from the files
    python -m benchmarks.gallery --add resnet20-35x  # takes over what benchmarks.accuracy made

Each folder has the files, their recipe, their report, and ``card.json`` with their figures. A file
whose bytes or score are not those of its card fails. Without the test data in ``--data`` a file's
score is skipped; its bytes are still weighed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import dkm_deploy as dkm
from benchmarks.accuracy.__main__ import KEPT, TASKS
from benchmarks.accuracy.measure import SUFFIXES, Result
from benchmarks.accuracy.results import of_line, read
from benchmarks.accuracy.settings import SETTINGS
from benchmarks.accuracy.task import Task
from benchmarks.stored import stored_bytes
from dkm_deploy.errors import DkmError, MissingFileError, reason_of
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.runtimes.run_file import run_file

_GALLERY = Path(__file__).parents[1] / "gallery"
_CARD = "card.json"
_HEAD = "| file | bytes | times smaller | score | fp32 | of the card | verdict |"


@dataclass(frozen=True)
class Measured:
    """A file as it is.

    Attributes:
        size_bytes: on disk.
        stored_bytes: without graph, metadata and padding.
        score: of the test; None where that cannot be run.
        reason: why not.
    """

    size_bytes: int
    stored_bytes: int
    score: float | None
    reason: str = ""


def main() -> int:
    """Measure or take over; 1 if a figure is not that of its card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--add", metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/accuracy"))
    arguments = parser.parse_args()
    if arguments.add:
        try:
            add(arguments.add, arguments.out)
        except DkmError as error:
            parser.error(str(error))
    folders = sorted(path.parent for path in _GALLERY.glob(f"*/{_CARD}"))
    if not folders:
        print(f"{_GALLERY} has no files yet; --add takes over what benchmarks.accuracy made")
        return 0
    print(f"{_HEAD}\n|{'---|' * (_HEAD.count('|') - 1)}")
    wrong = 0
    for folder in folders:
        card = of_line((folder / _CARD).read_text())
        task = TASKS[SETTINGS[card.setting].network](arguments.data, arguments.out)
        for row, verdict in rows(folder, card, task):
            wrong += verdict == "failed"
            print(row, flush=True)
    return int(wrong > 0)


def add(name: str, out: Path) -> None:
    """Take over the best result of a setting with its files, recipe and report.

    Raises:
        DkmError: it has not been measured, or its files are not in ``out``; nothing is changed.
    """
    results = [result for result in read(KEPT) if result.setting == name]
    if not results:
        raise DkmError(f"{name!r} has not been measured; python -m benchmarks.accuracy does it")
    best = max(results, key=lambda r: min(file.score for file in r.files.values()))
    source, folder = out / f"{name}-{best.seed}", _GALLERY / name
    if not (source / "report.json").exists():
        raise MissingFileError(f"{source / 'report.json'}: not there; give the folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for suffix in SUFFIXES:
        made = source / f"{name}{suffix}"
        copy = shutil.copytree if made.is_dir() else shutil.copy
        copy(made, folder / made.name)
    report = json.loads((source / "report.json").read_text())
    (folder / "recipe.toml").write_text(report["recipe"])
    shutil.copy(source / "report.html", folder)
    (folder / _CARD).write_text(json.dumps(asdict(best), indent=1) + "\n")


def rows(folder: Path, card: Result, task: Task) -> Iterator[tuple[str, str]]:
    """A row of the table for each file, and its verdict."""
    for suffix, told in card.files.items():
        path = folder / f"{card.setting}{suffix}"
        found = measured(path, task)
        right = found.size_bytes == told.size_bytes
        if found.score is None:
            verdict = "skipped" if right else "failed"
        else:
            verdict = "passed" if right and found.score == told.score else "failed"
        setting = SETTINGS[card.setting]
        cells = (
            *(f"{folder.name}/{path.name}", f"{found.size_bytes:,}"),
            setting.times_smaller(card.dense_bytes, found.size_bytes, found.stored_bytes),
            found.reason if found.score is None else f"{found.score:.2f}",
            *(f"{card.dense:.2f}", f"{told.score:.2f}, {told.size_bytes:,} bytes", verdict),
        )
        yield f"| {' | '.join(cells)} |", verdict


def measured(path: Path, task: Task) -> Measured:
    """Weigh a file and run the test on it."""
    ledger = dkm.size_breakdown(path)
    stored = stored_bytes(ledger.by_kind())
    try:
        test = task.test()
        outputs = run_file(runtime_for(path).load(path), test["inputs"])
    except DkmError as error:
        return Measured(ledger.total_bytes, stored, None, reason_of(error))
    scores = next(iter(outputs.values()))
    labels = torch.as_tensor(test["labels"]).numpy()
    score = 100 * float(np.mean(np.asarray(scores).argmax(1) == labels))
    return Measured(ledger.total_bytes, stored, score)


if __name__ == "__main__":
    sys.exit(main())
