"""The questions asked of a file. Each gives a status and a reason; none passes unasked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import isfinite

from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.palette import Palette, difference
from dkm_deploy.parity.figures import ELEMENT_ERROR, Figure, OutputJudgement
from dkm_deploy.parity.output_errors import Errors
from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.limits import Limits, OutputLimits, limits_of
from dkm_deploy.validation.measures.confidence_interval import Loss
from dkm_deploy.validation.measures.top1_agreement import Answers
from dkm_deploy.validation.task import FirstOutput

_OVERFLOWS = "values overflow in float16, which changes {} elements of the model itself"
_TOLD = 3  # slices of an output that are named, the worst first

# What each limit of an output is about: the figure, and what to call it.
_FIGURES = {
    "max_relative_error": ("relative", "relative error"),
    "max_element_error": ("element", "relative error of an element"),
    "max_abs_error": ("max_abs", "largest difference"),
    "max_mean_error": ("mean_abs", "mean difference"),
    "max_p999_error": ("p999_abs", "99.9th percentile of the difference"),
    "min_sqnr_db": ("sqnr_db", "SQNR in dB"),
    "min_psnr_db": ("psnr_db", "PSNR in dB"),
    "min_cosine": ("cosine", "cosine"),
}

_NOTHING = "0, and 0 of the original: it shows nothing; check the labels"


def palettes_check(
    frozen: Mapping[str, Palette],
    stored: Mapping[str, Palette],
    ledger: Ledger,
    unused: Collection[str] = (),
) -> Check:
    """Are these the weights? Palettes decoded from the file against the frozen ones.

    Args:
        frozen: of the reference.
        stored: in the file.
        ledger: of the file, which tells what it holds in place of a palette.
        unused: palettes of the reference that no output depends on, which a file may lack.
    """
    if not frozen:
        return Check("palettes", Status.SKIPPED, "the reference has no palettes to compare with")
    lacking = [name for name in frozen if name not in stored]
    wrong = [_absent(name, ledger) for name in lacking if name not in unused]
    wrong += [f"{name} is not a palette of the model" for name in stored if name not in frozen]
    for name in frozen.keys() & stored.keys():
        found = difference(frozen[name], stored[name])
        wrong += [f"{name}: {found}"] if found else []
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Check("palettes", Status.FAILED, sorted(wrong)[0] + more)
    dtypes = sorted({str(palette.lut.dtype) for palette in stored.values()})
    told = f"{len(stored)} of {len(frozen)} equal bit for bit, LUTs as {', '.join(dtypes)}"
    if lacking:
        told += f"; no output depends on the others: {', '.join(lacking)}"
    return Check("palettes", Status.PASSED, told)


def parity_check(
    found: Mapping[str, Errors],
    reason: str,
    ran: bool,
    limits: Limits,
    own: Mapping[str, OutputJudgement],
) -> Check:
    """Does it compute the same? ``reason`` says why there are no errors to judge, if so.

    Args:
        found: errors of each output, by name.
        reason: see above.
        ran: whether the file was run.
        limits: what was asked for.
        own: each output under the model's own noise, for those whose error has no limit.
    """
    if not found:
        return Check("parity", Status.FAILED if ran else Status.SKIPPED, reason)
    wanted = {name: limits_of(name, limits) for name in found}
    figures = {name: _own_figures(own.get(name), wanted[name]) for name in found}
    wrong = [line for name, e in found.items() for line in _failed_limits(name, e, wanted[name])]
    for name, each in figures.items():
        off = [own[name].describe(figure) for figure in each[:_TOLD] if not figure.ratio <= 1]
        if off:
            off += [_OVERFLOWS.format(own[name].overflown)] if own[name].overflown else []
            wrong.append(f"{_relative(name, found[name])}: {'; '.join(off)}")
    if wrong:
        return Check("parity", Status.FAILED, "; ".join(wrong))
    if not all(error.compared for error in found.values()):
        empty = next(name for name, error in found.items() if not error.compared)
        reason = f"{empty}: PyTorch gives no finite value to compare with"
        return Check("parity", Status.SKIPPED, reason, blocks=True)
    worst = max(found, key=lambda name: _nearness(found[name], wanted[name], figures[name]))
    if figures[worst]:
        nearest = f"nearest to its limit: {own[worst].describe(figures[worst][0])}"
        told = f"{_relative(worst, found[worst])}; {nearest}"
        return Check("parity", Status.PASSED, told)
    return Check(
        "parity", Status.PASSED, _measured_text(worst, found, wanted, "max_relative_error")
    )


def _own_figures(own: OutputJudgement | None, limits: OutputLimits) -> tuple[Figure, ...]:
    """What is judged by the model's own noise, where no limit was asked for."""
    if own is None or limits.max_relative_error is not None:
        return ()
    if limits.max_element_error is None:
        return own.figures
    return tuple(figure for figure in own.figures if not figure.what.startswith(ELEMENT_ERROR))


def _nearness(error: Errors, limits: OutputLimits, figures: tuple[Figure, ...]) -> float:
    """How much of its limit an output takes, by the figure that takes most."""
    if figures:
        return figures[0].ratio
    return error.relative / limits.max_relative_error if limits.max_relative_error else 0.0


def _relative(name: str, error: Errors) -> str:
    return f"{name}: relative error {error.relative:.2e}"


def _failed_limits(name: str, error: Errors, limits: OutputLimits) -> list[str]:
    """Every limit that one output fails, as "output: figure found, limit wanted"."""
    wrong = [f"{name}: {error.nonfinite} NaN or infinite"] if error.nonfinite else []
    keys = [key for key in _FIGURES if _misses(key, error, limits)] if error.compared else []
    return wrong + [_measured_text(name, {name: error}, {name: limits}, key) for key in keys]


def _misses(key: str, error: Errors, limits: OutputLimits) -> bool:
    found, limit = getattr(error, _FIGURES[key][0]), getattr(limits, key)
    if limit is None or found is None:  # no limit, or decibels without any noise
        return False
    return not (found >= limit if key.startswith("min_") else found <= limit)


def _measured_text(
    name: str, found: Mapping[str, Errors], wanted: Mapping[str, OutputLimits], key: str
) -> str:
    attribute, words = _FIGURES[key]
    figure, limit = getattr(found[name], attribute), getattr(wanted[name], key)
    style = "g" if key.startswith("min_") else ".2e"
    return f"{name}: {words} {figure:{style}}, limit {limit:{style}}"


def answer_checks(told: FirstOutput, limits: Limits, undecided: str) -> list[Check]:
    """Metric and top-1 agreement against the original, where limits are set.

    Args:
        told: what the outputs are worth.
        limits: what was asked for.
        undecided: why the metric decides nothing, if labels were given and it does not.
    """
    checks = []
    if undecided:
        blocks = limits.max_metric_loss is not None
        checks.append(Check("metric", Status.SKIPPED, undecided, blocks))
    elif limits.max_metric_loss is not None:
        checks.append(_metric_check(told, limits.max_metric_loss))
    if limits.min_agreement is not None:
        checks.append(_agreement_check(told.answers, limits.min_agreement))
    return checks


def size_checks(ledger: Ledger, original: int | None, limits: Limits) -> list[Check]:
    """Bytes on disk, where limits are set. A miss tells how many of them carry nothing."""
    checks, size = [], ledger.total_bytes
    if limits.max_bytes is not None:
        reason = f"{size:,} bytes, limit {limits.max_bytes:,}"
        checks.append(Check("size", _status(size <= limits.max_bytes), reason))
    if limits.max_size_ratio is not None:
        checks.append(_ratio_check(size, original, limits.max_size_ratio))
    return [_with_padding(check, ledger) for check in checks]


def _metric_check(told: FirstOutput, limit: float) -> Check:
    if told.failed:
        return Check("metric", Status.FAILED, told.failed)
    metric, loss = told.metric, told.loss
    if metric is None or loss is None:
        return Check(
            "metric", Status.SKIPPED, "it needs an original, labels and the file's outputs"
        )
    if metric == loss.value == 0:
        return Check("metric", Status.SKIPPED, _NOTHING, blocks=True)
    before = metric + loss.value
    reason = f"{metric:.4g} against {before:.4g}: loss {loss.value:.3g}, limit {limit:g}"
    kept = isfinite(metric) and loss.value <= limit
    reason = f"{reason}; {_certainty(loss, limit)}{_unanswered_text(told.answers)}"
    return Check("metric", _status(kept), reason)


def _unanswered_text(answers: Answers) -> str:
    """A clause on inputs that no model is right on, if there are any."""
    if not answers.unanswered:
        return ""
    return f"; inputs that the original answers with NaN or infinity: {answers.unanswered}"


def _certainty(loss: Loss, limit: float) -> str:
    """The interval in words, and whether the inputs are enough to tell."""
    if loss.low is None or loss.high is None:
        return loss.method
    told = f"95 % interval {loss.low:.3g} to {loss.high:.3g} ({loss.method})"
    unsure = loss.low <= limit < loss.high
    return told + (": too few inputs to be sure on which side of the limit" if unsure else "")


def _agreement_check(answers: Answers, limit: float) -> Check:
    share = answers.agreement
    if share is None:
        reason = answers.reason or "it needs an original and the file's outputs"
        return Check("agreement", Status.SKIPPED, reason, blocks=bool(answers.reason))
    reason = f"{100 * share:.2f} % of top-1 answers as the original, limit {100 * limit:g} %"
    return Check("agreement", _status(share >= limit), reason + _unanswered_text(answers))


def _ratio_check(size: int, original: int | None, limit: float) -> Check:
    if not original:
        return Check("size", Status.SKIPPED, "the size ratio needs an original")
    ratio = size / original
    reason = f"{ratio:.4f} of the original's {original:,} bytes, limit {limit:g}"
    return Check("size", _status(ratio <= limit), reason)


def _with_padding(check: Check, ledger: Ledger) -> Check:
    parts = [entry for entry in ledger.entries if entry.kind == "padding"]
    if check.status != Status.FAILED or not parts:
        return check
    largest = max(parts, key=lambda entry: entry.size_bytes)
    told = f"{sum(entry.size_bytes for entry in parts):,} bytes are padding"
    where = f"{largest.size_bytes:,} in {largest.name!r}"
    return replace(check, reason=f"{check.reason}; {told}, {where}")


def _absent(name: str, ledger: Ledger) -> str:
    """A weight that is no palette in the file, and what it is there, as far as names tell."""
    told, wanted = f"{name} is not a palette in the file", _coremltools_name(name)
    for entry in ledger.entries:
        spelled = _coremltools_name(entry.name).removeprefix("p_")
        if entry.kind == "dense" and f"{spelled}_".startswith(f"{wanted}_"):
            return f"{told} but dense, {entry.size_bytes:,} bytes"
    return told


def _coremltools_name(name: str) -> str:
    """A name as coremltools spells it, which keeps letters and digits."""
    return re.sub(r"\W", "_", name)


def _status(passed: bool) -> Status:
    return Status.PASSED if passed else Status.FAILED
