"""What is found of an output: the worst slice of each kind beside its limit."""

from __future__ import annotations

from dataclasses import dataclass

ELEMENT_ERROR = "error of element"


@dataclass(frozen=True)
class Figure:
    """The worst slice of one kind.

    Attributes:
        what: the figure and the slice, such as "error of sample 37".
        found: root mean square error, error of an element, gain, or mean error.
        noise: what it may be compared with.
        factor: times ``noise`` is the limit.
    """

    what: str
    value: float
    noise: float
    factor: float

    @property
    def limit(self) -> float:
        """What ``found`` may be."""
        return self.factor * self.noise

    @property
    def ratio(self) -> float:
        """What was found over the limit: more than 1 is a miss."""
        if self.value == 0:
            return 0.0
        return self.value / self.limit if self.limit else float("inf")


@dataclass(frozen=True)
class OutputJudgement:
    """One output under limits of its own.

    Attributes:
        figures: the worst slice of each kind, what is nearest to its limit or beyond it first.
        relative_limit: what the relative error of a value near this output may be.
        source: where the limits come from, in words; "{}" stands for the noise.
        overflown: elements that overflow changes in the model's own emulated run.
    """

    figures: tuple[Figure, ...]
    relative_limit: float
    source: str
    overflown: int = 0

    def describe(self, figure: Figure) -> str:
        """A figure beside its limit, and where that comes from."""
        source = self.source.format(f"{figure.noise:.2e}")
        limit = f"limit {figure.limit:.2e} ({figure.factor:.3g} x {source})"
        return f"{figure.what} {figure.value:.2e}, {limit}"
