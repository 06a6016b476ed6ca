"""The tables of the zoo, as Markdown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator

from benchmarks.zoo.results import NOT_COUNTED, TARGETS, Result

_OPERATION = re.compile(r"\(at ((?:aten|dkm|prims|torchvision|[a-z_]+)[.:]+[\w.]+)")
_NAMED = re.compile(r"\baten[.:]+\w+(?:\.\w+)?")
_SHOWN = 4  # models that are named in a line


def passed_table(results: Collection[Result]) -> Iterator[str]:
    """Models that passed, of those that ``torch.export`` traces, by family and target."""
    yield f"| family | {' | '.join(TARGETS.values())} |"
    yield f"|---{'|---' * len(TARGETS)}|"
    families = sorted({result.family for result in results})
    for family in families:
        yield _line(family, [r for r in results if r.family == family])
    yield _line("all", results)


def reasons_table(results: Collection[Result]) -> Iterator[str]:
    """What stood in the way, by target, outcome and operation, the most frequent first."""
    yield "| target | outcome | operation or reason | models |"
    yield "|---|---|---|---|"
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for result in results:
        if result.outcome != "passed":
            found[result.target, result.outcome, kind_of(result.reason)].append(result.model)
    order = list(TARGETS)
    for (target, outcome, kind), models in sorted(
        found.items(), key=lambda f: (order.index(f[0][0]), f[0][1] in NOT_COUNTED, -len(f[1]), f)
    ):
        more = f" and {len(models) - _SHOWN} more" if len(models) > _SHOWN else ""
        named = ", ".join(sorted(models)[:_SHOWN])
        yield f"| {TARGETS[target]} | {outcome} | {kind} | {len(models)}: {named}{more} |"


def kind_of(reason: str) -> str:
    """The operation that a reason names, or the reason without what differs by model."""
    named = _OPERATION.search(reason) or _NAMED.search(reason)
    if named:
        return named[1] if named.re is _OPERATION else named[0]
    general = re.sub(r"^(\w+): .*", r"\1", reason) if reason.startswith(_CHECKS) else reason
    general = re.sub(r"\d[\d.e+-]*", "N", general)
    return general[:100].replace("|", "/")


_CHECKS = ("parity:", "finite:", "dense weights:", "agreement:")


def _line(name: str, results: Collection[Result]) -> str:
    cells = []
    for target in TARGETS:
        outcomes = [r.outcome for r in results if r.target == target]
        counted = [outcome for outcome in outcomes if outcome not in NOT_COUNTED]
        share = f" ({100 * counted.count('passed') / len(counted):.1f} %)" if counted else ""
        cells.append(f"{counted.count('passed')} of {len(counted)}{share}")
    return f"| {name} | {' | '.join(cells)} |"
