"""Progress of long steps: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

_T = TypeVar("_T")

_LINES = 5  # plain lines for one long step


def track(items: Sequence[_T], what: str, console: Console) -> Iterator[_T]:
    """Yield ``items`` and show how far it has come."""
    if console.is_terminal:
        yield from bar(items, description=what, console=console, transient=True)
        return
    for number, item in enumerate(items, 1):
        yield item
        if number * _LINES // len(items) > (number - 1) * _LINES // len(items):
            console.print(f"{what}: {number} of {len(items)}", highlight=False)
