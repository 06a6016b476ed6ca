"""Does it cost too much to run? Ratios to the dense file, where limits are set."""

from __future__ import annotations

from dkm_deploy.validation.check import Check, Status
from dkm_deploy.validation.limits import Limits
from dkm_deploy.validation.measures.cost import Costs

# What each limit is about: the figure, and what to call it.
_FIGURES = {
    "max_latency_ratio": ("median_s", "median latency"),
    "max_load_ratio": ("load_s", "load time"),
    "max_peak_ratio": ("peak_bytes", "peak memory"),
}
_NOT_ASKED = "the cost was not measured: --cost (cost=dkm.CostOptions()) does it"


def cost_checks(found: Costs | None, reason: str, limits: Limits) -> list[Check]:
    """A check for each limit; one that was skipped if there is no limit and no figure either.

    Args:
        found: what was measured, if anything was.
        reason: why nothing was, though it was asked for; empty otherwise.
        limits: what was asked for.
    """
    wanted = {key: limit for key in _FIGURES if (limit := getattr(limits, key)) is not None}
    if reason and not wanted:
        return [Check("cost", Status.SKIPPED, reason)]
    return [_check(key, limit, found, reason) for key, limit in wanted.items()]


def _check(key: str, limit: float, found: Costs | None, reason: str) -> Check:
    figure, words = _FIGURES[key]
    if found is None:
        return Check("cost", Status.SKIPPED, f"{words}: {reason or _NOT_ASKED}")
    if found.dense is None:
        return Check("cost", Status.SKIPPED, f"{words}: nothing to compare with: {found.beside}")
    if figure not in found.ratios:
        return Check("cost", Status.SKIPPED, f"{words}: none was seen of the dense file")
    ratio = found.ratios[figure]
    reason = f"{words} {ratio:.2f} times that of the dense file, limit {limit:g}"
    return Check("cost", Status.PASSED if ratio <= limit else Status.FAILED, reason)
