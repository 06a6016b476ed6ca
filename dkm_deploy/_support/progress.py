"""Progress of long steps: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import track as bar

from dkm_deploy.errors import printable

_T = TypeVar("_T")

_LINES = 5  # plain lines for one long step
_NOTED_LINES = 10  # plain lines for one whose note is worth reading


def track(items: Sequence[_T], what: str, console: Console) -> Iterator[_T]:
    """Yield ``items`` and show how far it has come."""
    if console.is_terminal:
        yield from bar(items, description=escape(printable(what)), console=console, transient=True)
        return
    for number, item in enumerate(items, 1):
        yield item
        if number * _LINES // len(items) > (number - 1) * _LINES // len(items):
            _print(f"{what}: {number} of {len(items)}", console)


@contextmanager
def meter(
    what: str, total: float, console: Console, *, done: float = 0
) -> Iterator[Callable[[float, str], None]]:
    """Give a function that shows how much of ``total`` is done, and a note such as the loss.

    Args:
        what: the long step.
        total: what ``done`` is when the step is finished; above 0.
        console: where to show it.
        done: what is done at the start.
    """
    if not console.is_terminal:
        yield _lines(what, total, console, done)
        return
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    ]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(printable(what), total=total, note="")
        progress.update(task, completed=done)
        yield lambda done, note: progress.update(task, completed=done, note=printable(note))


def _lines(what: str, total: float, console: Console, done: float) -> Callable[[float, str], None]:
    shown = int(done * _NOTED_LINES / total)

    def _show(done: float, note: str) -> None:
        nonlocal shown
        part = int(done * _NOTED_LINES / total)
        if part > shown:
            shown = part
            _print(f"{what}: {done / total:.0%}, {note}", console)

    return _show


def _print(line: str, console: Console) -> None:
    console.print(printable(line), markup=False, highlight=False)
