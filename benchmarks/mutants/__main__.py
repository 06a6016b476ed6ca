"""Mutation testing: change one thing in a function at a time, and see whether a test fails.

    python -m benchmarks.mutants                       # all areas, on from where it was stopped
    python -m benchmarks.mutants report validation     # some of them
    python -m benchmarks.mutants report --again        # survivors and what took too long once more
    python -m benchmarks.mutants validation --sample 300   # so many more, drawn at random
    python -m benchmarks.mutants --table               # only what is known

Each area has a copy of the project under ``out/mutants``, where mutmut keeps what it tried: a run
that is stopped goes on there, and after a change only functions that changed are tried again.
What survives is listed in ``survivors.txt``; ``equivalent.toml`` has the changes that are none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.mutants.areas import AREAS, Area, area_named
from benchmarks.mutants.results import Score, drawn, mutants_in, score, to_try_again, total
from benchmarks.mutants.workspace import folder_of, generate, run, update


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("areas", nargs="*", type=area_named, default=AREAS, metavar="AREA")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at a time")
    parser.add_argument(
        "--again",
        action="store_true",
        help="try survivors, and mutants that took too long, once more",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="try so many that were not tried, drawn at random"
    )
    parser.add_argument("--table", action="store_true", help="try none")
    parser.add_argument("--out", type=Path, default=Path("out/mutants"))
    arguments = parser.parse_args()
    if not arguments.table:
        for area in arguments.areas:
            _try(area, arguments.out, arguments)
    _print([(area.name, _score(area, arguments.out)) for area in arguments.areas])


def _try(area: Area, out: Path, arguments: argparse.Namespace) -> None:
    folder = update(area, out)
    if arguments.sample is None:
        run(folder, arguments.jobs)
    else:
        generate(folder)  # of mutants that are not there yet, none would be drawn
        run(folder, arguments.jobs, drawn(mutants_in(folder), arguments.sample))
    if arguments.again and (names := to_try_again(mutants_in(folder))):
        run(folder, arguments.jobs, names)


def _score(area: Area, out: Path) -> Score | None:
    """What is known of an area, with its survivors in a file beside it; None if it was not run."""
    folder = folder_of(area, out)
    if not (folder / "mutants").is_dir():
        return None
    found = score(mutants_in(folder))
    lines = [f"{m.name}\n  - {m.before}\n  + {m.after}\n" for m in found.survivors]
    (folder / "survivors.txt").write_text("\n".join(lines), "utf-8")
    return found


def _print(rows: list[tuple[str, Score | None]]) -> None:
    print("| area | mutants | noticed | equivalent | survived | not tried | noticed of the rest |")
    print("|---|---|---|---|---|---|---|")
    for name, found in rows:
        print(f"| {name} | not run |" if found is None else _line(name, found))
    known = [found for _, found in rows if found is not None]
    if len(known) > 1:
        print(_line("all", total(known)))


def _line(name: str, found: Score) -> str:
    counts = (found.mutants, found.noticed, found.equivalent, len(found.survivors), found.untried)
    return f"| {name} | {' | '.join(f'{n:,}' for n in counts)} | {100 * found.share:.1f} % |"


if __name__ == "__main__":
    main()
