"""Several reports side by side: what each file scores for its bytes, and which are worth having."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dkm_deploy.errors import DkmError
from dkm_deploy.report import summary, text
from dkm_deploy.report.report_file import LayerEntry, ModelEntry, ReportFile, read_report
from dkm_deploy.validation.check import Status

_AGREEMENT = "agreement with the original, %"


@dataclass(frozen=True)
class Point:
    """One file of one run.

    Attributes:
        run: name of the run.
        file: name of the file.
        size_bytes: on disk.
        size_ratio: of the original's tensor bytes to ``size_bytes``; None without an original.
        bits_per_weight: of the palettized weights; None without palettes.
        score: what ``Comparison.measure`` says, more is better; None if the file has none.
        latency_s: median; None if it was not measured.
        verdict: "passed", "failed", "incomplete" or None, as in its report.
        layout: the palettes in short.
        recipe: TOML of a recipe that lays palettes out so; empty if unknown.
        front: whether no other file is at least as small and as good, and better in one of them.
    """

    run: str
    file: str
    size_bytes: int
    size_ratio: float | None
    bits_per_weight: float | None
    score: float | None
    latency_s: float | None
    verdict: str | None
    layout: str
    recipe: str
    front: bool = False


@dataclass(frozen=True)
class RunComparison:
    """The files of several reports.

    Attributes:
        measure: what the scores are.
        points: in the order of the reports.
        original: score of the original; None unless all reports have one and agree on it.
        notes: what to keep in mind, a sentence each.
    """

    measure: str
    points: tuple[Point, ...]
    original: float | None
    notes: tuple[str, ...]


def compare_runs(paths: Sequence[Path]) -> RunComparison:
    """Put reports side by side. The front is of files that have a score and no failed check.

    Args:
        paths: JSON files of ``Report.to_json``, or folders with a ``report.json``.

    Raises:
        DkmError: one is missing or no report, none has a file, or they share no score.
    """
    reports = dict(zip(_names(paths), map(read_report, paths), strict=True))
    measure = _measure(reports.values())
    points = [p for name, report in reports.items() for p in _points(name, report, measure)]
    if not points:
        raise DkmError("the reports hold no file; give files to dkm-deploy validate")
    original = _original(reports.values(), measure)
    return RunComparison(measure, _with_front(points), original, _notes(reports))


def _names(paths: Sequence[Path]) -> list[str]:
    """Short names of the runs where these tell them apart, else their paths."""
    short = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    names = short if len(set(short)) == len(paths) else [str(path) for path in paths]
    if len(set(names)) != len(paths):
        raise DkmError("the same report is given twice")
    return names


def _measure(reports: Collection[ReportFile]) -> str:
    """The metric that all reports share, else agreement."""
    named = {report.metric_name for report in reports}
    shared = named.pop() if len(named) == 1 else None
    if shared is not None:
        return shared
    if all(any(m.agreement is not None for m in r.files) for r in reports):
        return _AGREEMENT
    raise DkmError("the reports have no common metric, and not all have top-1 agreement")


def _points(run: str, report: ReportFile, measure: str) -> list[Point]:
    return [
        Point(
            run=run,
            file=model.name,
            size_bytes=model.size_bytes,
            size_ratio=model.size_ratio,
            bits_per_weight=model.bits_per_weight,
            score=_score(model, measure),
            latency_s=None if model.cost is None else model.cost.file.median_s,
            verdict=summary.verdict_of({check.status for check in model.checks}),
            layout=_layout(report.layers),
            recipe=report.recipe,
        )
        for model in report.files
        if model.size_bytes is not None
    ]


def _score(model: ModelEntry, measure: str) -> float | None:
    if measure != _AGREEMENT:
        return model.metric
    return None if model.agreement is None else 100 * model.agreement


def _layout(layers: Iterable[LayerEntry]) -> str:
    """How many weights have which palette: ``2 bits: 3, 4 bits in groups: 1``."""
    counts = Counter(map(_kind, layers))
    return ", ".join(f"{kind}: {n}" for kind, n in sorted(counts.items())) or "no palettes"


def _kind(layer: LayerEntry) -> str:
    bits, dim = layer.bits, layer.cluster_dim
    kind = f"{bits} bit{'s' * (bits > 1)}" + (f" for {dim} weights" if dim > 1 else "")
    return kind + (" in groups" if layer.groups > 1 else "")


def _original(reports: Iterable[ReportFile], measure: str) -> float | None:
    """Metric of the file plus what it lost, which is the original's."""
    if measure == _AGREEMENT:
        return 100.0
    found = {
        round(model.metric + model.metric_loss.value, 9)
        for report in reports
        for model in report.files
        if model.metric is not None and model.metric_loss and model.metric_loss.value is not None
    }
    return found.pop() if len(found) == 1 else None


def _notes(reports: Mapping[str, ReportFile]) -> tuple[str, ...]:
    counts = {name: report.samples for name, report in reports.items()}
    if len(set(counts.values())) == 1:
        return ()
    told = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
    return (f"The runs were scored on different inputs ({told}): their scores do not compare.",)


def _with_front(points: Sequence[Point]) -> tuple[Point, ...]:
    fit = [p for p in points if p.score is not None and p.verdict != Status.FAILED]
    return tuple(replace(p, front=p in fit and not any(_beats(q, p) for q in fit)) for p in points)


def _beats(other: Point, point: Point) -> bool:
    """Whether ``other`` is at least as small and as good, and better in one of them."""
    gain = (other.score or 0.0) - (point.score or 0.0), point.size_bytes - other.size_bytes
    return min(gain) >= 0 and max(gain) > 0


FRONT = "\N{BLACK STAR}"


def figures_of(point: Point) -> list[str]:
    """Bytes, ratio, bits a weight, score and latency of a file, as text."""
    latency = None if point.latency_s is None else 1e3 * point.latency_s
    return [
        text.count_text(point.size_bytes),
        text.ratio(point.size_ratio),
        text.fixed_text(point.bits_per_weight, 2),
        text.score_text(point.score),
        text.figure(latency),
    ]
