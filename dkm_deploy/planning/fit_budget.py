"""From the frontier to a file that fits: write the best plan, learn from its bytes, look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dkm_deploy.errors import DkmError
from dkm_deploy.planning.knapsack import Frontier

_ROUNDS = 8
_CLOSE = 0.001  # of the file, that a prediction may be away


@dataclass(frozen=True)
class FittedState:
    """The state of a frontier that was chosen.

    Attributes:
        position: in the frontier.
        predicted_bytes: of its file, by what the files until then had told.
        fixed_bytes: that were found for all else than weights.
    """

    position: int
    predicted_bytes: float
    fixed_bytes: float


def fit_to_budget(
    found: Frontier, fixed_bytes: float, budget_bytes: int, weigh: Callable[[int], int]
) -> FittedState:
    """The state with the least loss of those whose file fits the budget.

    Predictions share out the bytes of operations evenly and are a little off. The difference of
    each file from its prediction goes into the fixed part of the next one, until they agree, or
    until what looks best has been written already.

    Args:
        found: bytes and losses of all states.
        fixed_bytes: of the file beside them.
        budget_bytes: of the file.
        weigh: writes the file of a state and gives its bytes.

    Raises:
        DkmError: not even the smallest file fits.
    """
    sizes: dict[int, int] = {}
    for _ in range(_ROUNDS):
        position = _best(found, budget_bytes - fixed_bytes, budget_bytes, sizes)
        if position in sizes:
            break
        guess = float(found.size_bytes[position]) + fixed_bytes
        size = sizes[position] = weigh(position)
        if abs(size - guess) <= _CLOSE * size and size <= budget_bytes:
            return FittedState(position, guess, fixed_bytes)
        fixed_bytes += size - guess
    fitting = [position for position, size in sizes.items() if size <= budget_bytes]
    if not fitting:
        least = weigh(0)
        if least > budget_bytes:
            raise DkmError(
                f"the budget of {budget_bytes:,} bytes cannot be met: the smallest file that the "
                f"candidates allow has {least:,} bytes"
            )
        fitting, sizes[0] = [0], least
    best = max(fitting)
    return FittedState(best, float(sizes[best]), sizes[best] - float(found.size_bytes[best]))


def _best(found: Frontier, left_bytes: float, budget_bytes: int, sizes: Mapping[int, int]) -> int:
    """The state with the least loss of those that fit as far as is known, or else the first.

    Args:
        found: bytes and losses of all states.
        left_bytes: of the budget, for weights.
        budget_bytes: of the file.
        sizes: of files that were written.
    """
    position = found.within(left_bytes) or 0
    while position and sizes.get(position, 0) > budget_bytes:
        position -= 1
    return max([position, *(p for p, size in sizes.items() if size <= budget_bytes)])
