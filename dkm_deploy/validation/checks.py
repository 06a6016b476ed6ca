"""The questions asked of a file. Each gives a status and a reason; none passes unasked."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dkm_deploy.palette import Palette, difference
from dkm_deploy.validation.metrics import Errors
from dkm_deploy.validation.record import Check, Limits, Status

_FP32_RELATIVE = 1e-4
_FP16_RELATIVE = 1e-2


def palettes_check(frozen: Mapping[str, Palette], stored: Mapping[str, Palette]) -> Check:
    """Are these the weights? Palettes decoded from the file against the frozen ones."""
    wrong = [f"{name} is not a palette in the file" for name in frozen if name not in stored]
    wrong += [f"{name} is not a palette of the model" for name in stored if name not in frozen]
    for name in frozen.keys() & stored.keys():
        found = difference(frozen[name], stored[name])
        wrong += [f"{name}: {found}"] if found else []
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Check("palettes", "missed", sorted(wrong)[0] + more)
    dtypes = sorted({str(palette.lut.dtype) for palette in stored.values()})
    as_dtype = f", LUTs as {', '.join(dtypes)}" if dtypes else ""
    return Check(
        "palettes", "passed", f"{len(stored)} of {len(frozen)} equal bit for bit{as_dtype}"
    )


def parity_check(found: Mapping[str, Errors], reason: str, ran: bool, limit: float) -> Check:
    """Does it compute the same? ``reason`` says why there are no errors to judge, if so."""
    if not found:
        return Check("parity", "missed" if ran else "not run", reason)
    worst = max(found, key=lambda name: found[name].relative)
    error = found[worst]
    passed = error.relative <= limit and not any(e.nonfinite for e in found.values())
    measured = f"{worst}: relative error {error.relative:.2e}, limit {limit:.2e}"
    broken = [f"{name}: {e.nonfinite} NaN or infinite" for name, e in found.items() if e.nonfinite]
    return Check("parity", _status(passed), "; ".join([measured, *broken]))


def answer_checks(
    metric: float | None, original: float | None, agreement: float | None, limits: Limits
) -> list[Check]:
    """Metric and top-1 agreement against the original, where limits are set."""
    checks = []
    if limits.max_metric_loss is not None:
        checks.append(_metric_check(metric, original, limits.max_metric_loss))
    if limits.min_agreement is not None:
        checks.append(_agreement_check(agreement, limits.min_agreement))
    return checks


def size_checks(size: int, original: int | None, limits: Limits) -> list[Check]:
    """Bytes on disk, where limits are set."""
    checks = []
    if limits.max_bytes is not None:
        reason = f"{size:,} bytes, limit {limits.max_bytes:,}"
        checks.append(Check("size", _status(size <= limits.max_bytes), reason))
    if limits.max_size_ratio is not None:
        checks.append(_ratio_check(size, original, limits.max_size_ratio))
    return checks


def _metric_check(metric: float | None, original: float | None, limit: float) -> Check:
    if metric is None or original is None:
        return Check("metric", "not run", "it needs an original, labels and the file's outputs")
    loss = original - metric
    reason = f"{metric:.2f} against {original:.2f}: loss {loss:.2f}, limit {limit:g}"
    return Check("metric", _status(loss <= limit), reason)


def _agreement_check(agreement: float | None, limit: float) -> Check:
    if agreement is None:
        return Check("agreement", "not run", "it needs an original and scores per class")
    reason = f"{100 * agreement:.2f} % of top-1 answers as the original, limit {100 * limit:g} %"
    return Check("agreement", _status(agreement >= limit), reason)


def _ratio_check(size: int, original: int | None, limit: float) -> Check:
    if not original:
        return Check("size", "not run", "the size ratio needs an original")
    ratio = size / original
    reason = f"{ratio:.4f} of the original's {original:,} bytes, limit {limit:g}"
    return Check("size", _status(ratio <= limit), reason)


def relative_limit(limits: Limits, stored: Mapping[str, Palette]) -> float:
    """The limit on the relative error; half precision has about 3 digits, single about 7."""
    if limits.max_relative_error is not None:
        return limits.max_relative_error
    half = any(palette.lut.dtype == np.float16 for palette in stored.values())
    return _FP16_RELATIVE if half else _FP32_RELATIVE


def _status(passed: bool) -> Status:
    return "passed" if passed else "missed"
