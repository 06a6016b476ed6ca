"""Time spent on a piece of work, over all the processes that went on with it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    """Time in seconds."""

    cpu_s: float
    wall_s: float


class Clock:
    """Runs from when it is made; what earlier processes spent is in its file.

    Attributes:
        spent: as of the last note.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spent = Spent(**json.loads(path.read_text())) if path.exists() else Spent(0, 0)
        self._last = _now()

    def note(self) -> None:
        """Add the time since the last note, and keep the sum."""
        now, last = _now(), self._last
        cpu_s, wall_s = now.cpu_s - last.cpu_s, now.wall_s - last.wall_s
        self.spent = Spent(self.spent.cpu_s + cpu_s, self.spent.wall_s + wall_s)
        self._last = now
        self._path.write_text(json.dumps(asdict(self.spent)))


def _now() -> Spent:
    return Spent(time.process_time(), time.monotonic())
