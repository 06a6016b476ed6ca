"""States of a program, which outlast a run."""

from __future__ import annotations

from torch import Tensor


class State:
    """One state while a program runs: read by ``read_state``, replaced by ``write_state``."""

    def __init__(self, value: Tensor) -> None:
        self.value = value
