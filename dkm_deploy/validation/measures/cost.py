"""What it costs to load and run a file: how to measure it, and what was found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy._support.paths import path_of

Figures = Mapping[str, float | None]

FIGURES = ("load_s", "first_s", "median_s", "p95_s", "peak_bytes", "steady_bytes")


@dataclass(frozen=True)
class CostOptions:
    """Options to measure load time, latency and memory of a file.

    Attributes:
        dense: dense file to compare with; None converts the original model to the same kind of
            file, in a temporary folder.
        threads: number of threads that the runtime may use.
        rounds: number of fresh processes for each file.
        runs: most runs in one process after the first; fewer once they took 2 seconds.
        timeout_s: seconds that one process may take.

    Raises:
        DkmError: a number is out of range.

    Example:
        >>> dkm.CostOptions(threads=2).rounds
        5
    """

    dense: str | PathLike[str] | None = None
    threads: int = 1
    rounds: int = 5
    runs: int = 50
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("rounds", 1), ("runs", 5)):
            object.__setattr__(self, name, integer(name, getattr(self, name), least))
        real("timeout_s", self.timeout_s, above=0)
        if self.dense is not None:
            path_of(self.dense, "dense")


@dataclass(frozen=True)
class Cost:
    """What one file takes: medians over rounds, each in a fresh process.

    Attributes:
        load_s: seconds to open the file, which is in the page cache.
        first_s: seconds of the first run.
        median_s: seconds of a run after that, median.
        p95_s: the same, 95th percentile.
        peak_bytes: most memory while loading and running, beyond what the process had with the
            runtime imported; None where that cannot be read (off Linux).
        steady_bytes: memory after the runs, without what malloc keeps; None likewise.
    """

    load_s: float
    first_s: float
    median_s: float
    p95_s: float
    peak_bytes: float | None
    steady_bytes: float | None


@dataclass(frozen=True)
class Costs:
    """The cost of a file and of the dense file that was measured in turns with it.

    Attributes:
        file: of the file.
        dense: of the dense file; None if there is none.
        ratios: file over dense for each attribute of :class:`Cost`, median over rounds; without
            what the dense file did not take, and empty without a dense file.
        beside: what the dense file is, or why there is none.
        batch: samples in one run.
        threads: that the runtime could use.
        rounds: fresh processes for each of the two.
    """

    file: Cost
    dense: Cost | None
    ratios: Mapping[str, float]
    beside: str
    batch: int
    threads: int
    rounds: int


def middle(rounds: Sequence[Figures]) -> Cost:
    """The median of each figure over rounds."""
    return Cost(**{name: _median([found[name] for found in rounds]) for name in FIGURES})  # type: ignore[arg-type]  # None is in memory alone


def ratios(file: Sequence[Figures], dense: Sequence[Figures]) -> dict[str, float]:
    """The median of each round's own ratio, for figures that the dense file always has."""
    found = {}
    for name in FIGURES:
        pairs = [(ours[name], other[name]) for ours, other in zip(file, dense, strict=True)]
        quotients = [a / b for a, b in pairs if a is not None and b is not None and b > 0]
        if quotients and len(quotients) == len(pairs):
            found[name] = statistics.median(quotients)
    return found


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
