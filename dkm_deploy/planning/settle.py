"""From the frontier to a file that fits: write the best plan, learn from its bytes, look again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dkm_deploy.errors import DkmError
from dkm_deploy.planning.knapsack import Frontier

_ROUNDS = 8
_CLOSE = 0.001  # of the file, that a prediction may be away


@dataclass(frozen=True)
class Settled:
    """The state of a frontier that was chosen.

    Attributes:
        position: in the frontier.
        predicted_bytes: of its file, by what the files before it had told.
        fixed_bytes: that were assumed for all else than weights.
    """

    position: int
    predicted_bytes: float
    fixed_bytes: float


def settle(
    found: Frontier, fixed_bytes: float, budget_bytes: int, weigh: Callable[[int], int]
) -> Settled:
    """The state with the least loss of those whose file fits the budget.

    Predictions share out the bytes of operations evenly and are a little off. The difference of
    each file from its prediction goes into the fixed part of the next one, until they agree.

    Args:
        found: bytes and losses of all states.
        fixed_bytes: of the file beside them.
        budget_bytes: of the file.
        weigh: writes the file of a state and gives its bytes.

    Raises:
        DkmError: not even the smallest file fits.
    """
    fitting: dict[int, Settled] = {}
    for _ in range(_ROUNDS):
        position = found.within(budget_bytes - fixed_bytes) or 0
        guess = float(found.size_bytes[position]) + fixed_bytes
        size = weigh(position)
        if size <= budget_bytes:
            fitting[position] = Settled(position, guess, fixed_bytes)
        if abs(size - guess) <= _CLOSE * size and (size <= budget_bytes or not position):
            break
        fixed_bytes += size - guess
    if fitting:
        return fitting[max(fitting)]
    least = weigh(0)
    if least <= budget_bytes:
        return Settled(0, float(least), fixed_bytes)
    raise DkmError(
        f"the budget of {budget_bytes:,} bytes cannot be met: the smallest file that the "
        f"candidates allow has {least:,} bytes"
    )
