"""The tables of the tests' results, as Markdown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator

from benchmarks.conformance.causes import KINDS, Cause, cause_of
from benchmarks.conformance.parts import PARTS, part_of
from benchmarks.conformance.results import FAILURES, Result

_COUNTED = ("passed", *FAILURES)
_SHOWN = 3  # functions that are named in a line


def parts_table(results: Collection[Result], causes: tuple[Cause, ...]) -> Iterator[str]:
    """Tests that ran and passed, and whose fault the others are, by part."""
    head = ("part", "functions", "run", "with the evaluator", "passed", *KINDS, "skipped")
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    by_part: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_part[part_of(result.test)].append(result)
    for part in (*PARTS, "others"):
        if by_part[part]:
            yield _line(part, by_part[part], causes)
    yield _line("all", results, causes)


def causes_table(results: Collection[Result], causes: tuple[Cause, ...]) -> Iterator[str]:
    """Why tests failed, by whose fault it is, the most frequent first."""
    yield "| fault | cause | tests |"
    yield "|---|---|---|"
    found: dict[Cause, list[Result]] = defaultdict(list)
    for result in results:
        cause = cause_of(result, causes)
        if cause:
            found[cause].append(result)
    for cause, failed in sorted(
        found.items(), key=lambda f: (KINDS.index(f[0].kind), -len(f[1]), f[0].what)
    ):
        names = sorted({result.function.rpartition("::")[2] for result in failed})
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"| {cause.kind} | {cause.what} | {len(failed)}: {', '.join(names[:_SHOWN])}{more} |"


def unmatched_lines(results: Collection[Result], causes: tuple[Cause, ...]) -> Iterator[str]:
    """Patterns that nothing matches any more, and files that could not be imported."""
    used = {cause_of(result, causes) for result in results}
    for cause in causes:
        if cause not in used:
            yield f"\nNothing fails any more by {cause.pattern!r} in causes.toml: {cause.what}."
    for result in results:
        if result.outcome == "uncollected":
            yield f"\n{result.test} did not run: {result.reason}"


def _line(name: str, results: Collection[Result], causes: tuple[Cause, ...]) -> str:
    counted = [result for result in results if result.outcome in _COUNTED]
    outcomes = Counter(result.outcome for result in results)
    faults = Counter(cause.kind for r in counted if (cause := cause_of(r, causes)))
    cells = [
        len({result.function for result in counted}),
        len(counted),
        sum(result.predictions > 0 for result in counted),
        outcomes["passed"],
        *(faults[kind] for kind in KINDS),
        outcomes["skipped"],
    ]
    return f"| {name} | {' | '.join(f'{cell:,}' for cell in cells)} |"
