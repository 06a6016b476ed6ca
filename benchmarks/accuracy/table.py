"""The table of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.accuracy.measure import Result
from benchmarks.accuracy.settings import SETTINGS

_HEAD = (
    "| setting | metric | seed | fp32 | others | file | score | asked | bytes | stored "
    "| times smaller | asked for | CPU h |"
)


def table(results: Sequence[Result]) -> list[str]:
    """In Markdown, a row for each file."""
    head = [_HEAD, "|" + "---|" * (_HEAD.count("|") - 1)]
    return [*head, *(row for r in sorted(results, key=_place) for row in _rows(r))]


def _place(result: Result) -> tuple[int, int]:
    return list(SETTINGS).index(result.setting), result.seed


def _rows(result: Result) -> Iterator[str]:
    setting = SETTINGS[result.setting]
    others = ", ".join(f"{name} {score:.2f}" for name, score in result.others.items())
    for suffix, file in result.files.items():
        cells = (
            *(result.setting, result.metric, str(result.seed), f"{result.dense:.2f}", others),
            *(suffix, f"{file.score:.2f}{'' if file.passed else ' (failed)'}"),
            *(f"{setting.score:.2f}", f"{file.size_bytes:,}", f"{file.stored_bytes:,}"),
            setting.times_smaller(result.dense_bytes, file.size_bytes, file.stored_bytes),
            f"{setting.smaller:.1f}",
            f"{result.spent.cpu_s / 3600:.2f}",
        )
        yield f"| {' | '.join(cells)} |"
