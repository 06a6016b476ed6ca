"""What a report says in words: the verdict and its reasons, the same in every view."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from dkm_deploy.report.text import count_text, figure, fixed_text, percent, plural, ratio
from dkm_deploy.validation.check import Status


def files(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The models that are converted files."""
    return [model for model in report["models"] if model["path"] is not None]


def state(report: Mapping[str, Any]) -> Status:
    """The verdict: skipped where nothing was shown, or not all that was required."""
    statuses = {check["status"] for model in report["models"] for check in model["checks"]}
    if Status.FAILED in statuses:
        return Status.FAILED
    return Status.PASSED if report["passed"] else Status.SKIPPED


def headline(report: Mapping[str, Any]) -> str:
    """The verdict in words, such as ``Passed, 2 checks skipped``."""
    failed, skipped = reasons(report, Status.FAILED), reasons(report, Status.SKIPPED)
    if state(report) == Status.SKIPPED:
        checks = [check for model in report["models"] for check in model["checks"]]
        wanting = sum(lacks_check(report, check) for check in checks)
        if not (reasons(report, Status.PASSED) and wanting):
            return "Nothing was checked"
        return f"Not passed: {plural(wanting, 'required check')} {Status.SKIPPED}"
    verdict = (
        f"{plural(len(failed), 'check')} {Status.FAILED}" if failed else Status.PASSED.capitalize()
    )
    return verdict + (f", {plural(len(skipped), 'check')} {Status.SKIPPED}" if skipped else "")


def lacks_check(report: Mapping[str, Any], check: Mapping[str, Any]) -> bool:
    """Whether a check was skipped and the report has not passed for want of it."""
    among = report.get("required")
    required = check["name"] in among if isinstance(among, list) else bool(among)
    return check["status"] == Status.SKIPPED and bool(required or check.get("blocks"))


def scope(report: Mapping[str, Any]) -> str:
    """What the verdict is about, in one sentence."""
    found = plural(len(files(report)), "file")
    return f"{found} against PyTorch on {plural(report['samples'], 'input')}."


def reasons(report: Mapping[str, Any], status: Status) -> list[tuple[str, str, str]]:
    """(model, check, reason) of every check with ``status``."""
    return [
        (model["name"], check["name"], check["reason"])
        for model in report["models"]
        for check in model["checks"]
        if check["status"] == status
    ]


def verdict(model: Mapping[str, Any]) -> str | None:
    """The verdict on one model; see :func:`verdict_of`."""
    return verdict_of({check["status"] for check in model["checks"]})


def verdict_of(statuses: Set[str]) -> str | None:
    """The verdict of checks; "incomplete" if one was skipped, None if none was asked."""
    if Status.FAILED in statuses:
        return Status.FAILED
    if Status.SKIPPED in statuses:
        return "incomplete"
    return Status.PASSED if statuses else None


def largest_difference(model: Mapping[str, Any]) -> float | None:
    """The largest absolute difference over all outputs; None if one of them has none."""
    found = [error["max_abs"] for error in model["errors"].values()]
    return None if None in found or not found else max(found)


def sizes(model: Mapping[str, Any]) -> str:
    """The bytes of a file in one sentence: against the original, deflated, and the ideal.

    Empty for what a device gave, which has no bytes of its own.
    """
    size = model["size_bytes"]
    if size is None:
        return ""
    parts = [f"{count_text(size)} bytes"]
    if model["size_ratio"] is not None:
        halved = ratio(model["half_ratio"])
        parts[0] += f", {ratio(model['size_ratio'])} under the original, {halved} under its fp16"
    if model["deflated_bytes"] is not None:
        parts.append(f"{count_text(model['deflated_bytes'])} after deflate")
    ideal = model["ideal_bytes"]
    if ideal is not None:
        over = percent((size - ideal) / ideal, 1) if ideal else "all of it"
        parts.append(f"weights alone {count_text(ideal)} (the file is {over} over)")
    if model["bits_per_weight"] is not None:
        parts.append(f"{fixed_text(model['bits_per_weight'], 2)} bits per palettized weight")
    return "; ".join(parts)


def answers(model: Mapping[str, Any]) -> str:
    """The answers of a model against the original's in one sentence; empty if there are none."""
    parts = []
    if model["agreement"] is not None:
        flips = plural(model["flip_count"], "flip")
        parts.append(f"{percent(model['agreement'])} of top-1 answers as the original's ({flips})")
    if model["top5_overlap"] is not None:
        parts.append(f"{percent(model['top5_overlap'])} of its top 5")
    loss = model["metric_loss"]
    if loss is not None:
        parts.append(f"metric loss {figure(loss['value'])}, {_interval(loss)}")
    return "; ".join(parts)


def _interval(loss: Mapping[str, Any]) -> str:
    if loss["low"] is None or loss["high"] is None:
        return str(loss["method"])
    return f"95 % interval {figure(loss['low'])} to {figure(loss['high'])} ({loss['method']})"
