"""Every way to a palette on three trained models, at equal bytes.

Run ``python -m benchmarks.methods --install`` from the project's root. Each cell of the table is
kept in ``--out`` as soon as it is measured, so that a run which was killed goes on; ``--only``,
``--methods``, ``--bits`` and ``--seeds`` say which cells run, ``--table`` runs none. The table has
all of them: what was not run says so.

Bytes are those of the palettes (n-bit indices, float16 LUTs) and of all other parameters as
float16. Weights under 1,000 values are dense in all rows but those of plans.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from benchmarks.methods.cells import Cell, Result, cells, key, measured
from benchmarks.methods.efficientnet import efficientnet
from benchmarks.methods.minilm import minilm
from benchmarks.methods.packages import EFFICIENTNET as EFFICIENTNET_PACKAGES
from benchmarks.methods.packages import MINILM as MINILM_PACKAGE
from benchmarks.methods.packages import folder_of, install, missing
from benchmarks.methods.resnet20 import resnet20
from benchmarks.methods.subject import FULL, QUICK, Array, Effort, Subject
from benchmarks.methods.table import Results, dense, table
from benchmarks.methods.ways import EFFICIENTNET, MINILM, MODELS, RESNET, WAYS, WIDTHS
from benchmarks.process import cpu, versions
from dkm_deploy._support.measurement_cache import Cache
from dkm_deploy.errors import reason_of

_NEEDED = {RESNET: (), MINILM: (MINILM_PACKAGE,), EFFICIENTNET: EFFICIENTNET_PACKAGES}


def main() -> int:
    """Measure what is asked for and print the tables; the exit code."""
    arguments = _arguments()
    packages, store = arguments.out / "packages", Cache(arguments.out)
    effort = FULL if arguments.full else QUICK
    if arguments.install:
        install(packages)
    wanted = cells(arguments.only, arguments.methods, arguments.bits, arguments.seeds)
    if not arguments.table:
        for model in arguments.only:
            absent = missing(packages, _NEEDED[model])
            if absent:
                print(f"not in {packages}: {', '.join(absent)}; --install fetches them")
                return 2
        run(wanted, arguments.data, arguments.out, effort, store)
    peers = ["coremltools", *(["coreai-opt"] if find_spec("coreai_opt") else [])]
    print(f"{cpu()}; {versions('torch', 'transformers', *peers)}")
    everything = cells(MODELS, tuple(WAYS), tuple(WIDTHS), arguments.seeds)
    for model in arguments.only:
        results = _kept(everything, effort, store)
        print(f"\n{model}, {dense(model, results)}\n")
        print("\n".join(table(model, everything, results)))
    return 0


def run(wanted: Sequence[Cell], data: Path, out: Path, effort: Effort, store: Cache) -> None:
    """Measure the cells that are not kept yet; one that fails says why and is left."""
    subjects: dict[str, tuple[Subject, Array]] = {}
    for cell in wanted:
        if store.take(key(cell, effort), dict):
            continue
        started = time.monotonic()
        try:
            if cell.model not in subjects:
                subject = subject_of(cell.model, data, out, effort)
                subjects[cell.model] = subject, subject.answers(subject.model)
            subject, expected = subjects[cell.model]
            result = measured(subject, cell, expected)
        except Exception as error:  # of any of three packages; the other cells go on
            print(f"{cell}: failed: {type(error).__name__}: {reason_of(error)}", flush=True)
            continue
        store.put(key(cell, effort), {"cell": asdict(cell), "result": asdict(result)})
        print(f"{cell}: {result} in {time.monotonic() - started:.0f} s", flush=True)


def subject_of(model: str, data: Path, out: Path, effort: Effort) -> Subject:
    """A model with its data; what its methods keep goes to a folder in ``out``."""
    places = [folder_of(out / "packages", package) for package in _NEEDED[model]]
    if model == MINILM:
        return minilm(data, places[0], out / model, effort)
    if model == EFFICIENTNET:
        return efficientnet(data, (places[0], places[1]), out / model, effort)
    return resnet20(data, out / model, effort)


def _kept(wanted: Sequence[Cell], effort: Effort, store: Cache) -> Results:
    found = {cell: store.take(key(cell, effort), dict) for cell in wanted}
    return {cell: Result(**kept["result"]) for cell, kept in found.items() if kept}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("out/methods"), help="for what is kept")
    parser.add_argument("--install", action="store_true", help="fetch packages that are missing")
    parser.add_argument("--only", type=_some(MODELS), default=MODELS, help="models, with commas")
    parser.add_argument("--methods", type=_some(tuple(WAYS)), default=tuple(WAYS), help="likewise")
    parser.add_argument("--bits", type=_some(tuple(WIDTHS)), default=tuple(WIDTHS), help="widths")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="all test data, more steps")
    parser.add_argument("--table", action="store_true", help="of what is kept; run nothing")
    return parser.parse_args()


def _some(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A parser of names with commas between them."""

    def _names(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return names

    return _names


if __name__ == "__main__":
    sys.exit(main())
