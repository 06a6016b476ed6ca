"""A command as a process: signals, standard streams that are closed or full, the last line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from dkm_deploy.errors import printable

_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class EndedBySignal(BaseException):
    """The process was asked to end: raised where it stood, so that temporary folders go."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number
        """What a shell gives as the exit code of a process that a signal ended."""


@contextmanager
def unwound_by_signals() -> Iterator[None]:
    """Have signals that end a process raise Ended; those that are ignored (nohup) stay so."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets no other thread do this
        return
    taken = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> None:
        for one in taken:  # a second one must not stop the clearing up
            signal.signal(one, signal.SIG_IGN)
        raise EndedBySignal(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others of the command line."""

    def error(self, message: str) -> NoReturn:
        """Print the error and end with exit code 2."""
        tell_error(f"{message} ({self.prog} --help tells more)")
        sys.exit(2)


def tell_error(message: str) -> None:
    """One line on standard error, in which nothing from a file is a terminal's command."""
    print(f"dkm-deploy: error: {printable(message)}", file=sys.stderr)  # noqa: T201


def open_streams() -> None:
    """Lead standard streams that are closed (``>&-``) nowhere.

    The next file that is opened would get their number, and what libraries print would go into it.
    Names that a stream's encoding lacks are spelled out.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> str | None:
    """Write what Python still holds for standard output; why that failed, or None.

    It would fail at the very end otherwise, with a traceback and an exit code of its own.
    """
    if sys.stdout is None:
        return None
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        lead_nowhere()
    except OSError as error:
        lead_nowhere()
        return error.strerror
    return None


def lead_nowhere() -> None:
    """Lead standard output nowhere, with what Python still holds for it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
