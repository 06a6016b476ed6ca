"""Errors that a user can act on. The command line turns each into one line and exit code 2."""

from __future__ import annotations


class DkmError(ValueError):
    """Wrong use or bad input: the message names the thing, its value and the way out."""


class MissingFileError(DkmError, FileNotFoundError):
    """A file that was to be read is not there."""


class OutputExistsError(DkmError, FileExistsError):
    """A file that was to be written is already there and may not be replaced."""


def first_line(error: BaseException) -> str:
    """An exception's kind and the first line of its message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
