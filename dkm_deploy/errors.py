"""Errors that a user can act on. The command line turns each into one line and exit code 2."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

_LONGEST = 400
_FIXES = "Suggested fixes:"
_WHERE = "The following call raised this error:"
# What PyTorch says around a reason: how to see more of it, and where to report it.
_ADVICE = re.compile(
    r"(\(Size-like symbols|For (more|extended|C\+\+)|If you (suspect|would)|Caused by: \(|Please |"
    r"The error above|consider using data-dependent|Set TORCH|You can suppress|Traceback|File \").*"
)
# Of a library that says in words alone why the system refused.
_REFUSED = {
    os.strerror(number): number
    for number in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.ENAMETOOLONG,
    )
} | {"t enough space": errno.ENOSPC, "t have permission": errno.EACCES}  # Apple's Foundation
_REMEDIES = {
    errno.ENOSPC: "free some, or write elsewhere",
    errno.EDQUOT: "free some, or write elsewhere",
    errno.ENAMETOOLONG: "give a shorter one",
    errno.EROFS: "write elsewhere",
}


def printable(text: object) -> str:
    r"""Text from outside in one safe line: white space as blanks, control characters as ``\x1b``.

    Names come from files. They may hold what a terminal obeys and what UTF-8 cannot hold.
    """
    line = re.sub(r"\s+", " ", str(text))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class DkmError(ValueError):
    """Wrong use or bad input: the message names the thing, its value and what to do.

    Example:
        >>> dkm.PaletteSpec(bits=9)
        Traceback (most recent call last):
        dkm_deploy.errors.DkmError: bits is 9; it must be 1 to 8
    """

    def __str__(self) -> str:
        """The message in one safe line: it may name what a file calls its parts."""
        return printable(super().__str__())


class ArgumentError(DkmError):
    """An argument of a kind that a public function cannot take.

    Attributes:
        example: a right call of that function; empty until it is known.
    """

    example = ""

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}, as in {self.example}" if self.example else message


class MissingFileError(DkmError, FileNotFoundError):
    """A file that was to be read is not there."""


class UnreadableFileError(DkmError, OSError):
    """A file that was to be read is there, and the system does not let it be read."""


class UnwritableFileError(DkmError, OSError):
    """A file could not be written: the disk is full, the folder read-only, the name too long."""


class OutputExistsError(DkmError, FileExistsError):
    """A file that was to be written is already there and may not be replaced."""


def reason_of(error: BaseException) -> str:
    """An exception's kind and the useful part of its message in one line, at most 400 characters.

    Of many lines that is the first, the first of a list below it, what PyTorch suggests, and the
    line of the user's own code that it points at.
    """
    kind, lines = type(error).__name__, list(_useful(str(error)))
    return shorten(f"{kind}: {'; '.join(lines)}" if lines else kind)


def shorten(line: str, longest: int = _LONGEST) -> str:
    """A line without its middle, if it is too long: what matters is at both ends."""
    half = (longest - 4) // 2
    return line if len(line) <= longest else f"{line[:half].rstrip()} .. {line[-half:].lstrip()}"


def _useful(message: str) -> Iterator[str]:
    lines = [line.strip() for line in message.splitlines()]
    told = [line for line in (_ADVICE.sub("", line).strip() for line in lines) if line]
    head, rest = told[:1], told[1:]
    yield from (_cut(line) for line in head)
    yield from (_cut(line[2:]) for line in _until_fixes(rest) if line.startswith("- "))
    if _FIXES in lines:
        yield f"{_FIXES} {', '.join(_block(lines, lines.index(_FIXES) + 1))}"
    if _WHERE in lines:
        place = lines.index(_WHERE) + 1
        yield " ".join(reversed(lines[place : place + 2]))


def _until_fixes(lines: list[str]) -> list[str]:
    """The first item of the list that comes before what is suggested."""
    before = lines[: lines.index(_FIXES)] if _FIXES in lines else lines
    return before[:1]


def _block(lines: list[str], start: int) -> Iterator[str]:
    """Lines from ``start`` to the next empty one."""
    for line in lines[start:]:
        if not line:
            return
        yield line


def _cut(line: str) -> str:
    return shorten(line.rstrip("; ."), 200)


def refused_by_system(error: BaseException) -> str | None:
    """Why the system refused to read or write, and what to do; None if it did not.

    Libraries that are not written in Python raise errors of their own, which have it in words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return _with_remedy(error.strerror or os.strerror(error.errno), error.errno)
    for words, number in _REFUSED.items():
        if words in str(error):
            return _with_remedy(os.strerror(number), number)
    if isinstance(error, OSError):
        return reason_of(error)
    return None


def _with_remedy(words: str, number: int) -> str:
    return f"{words}; {_REMEDIES[number]}" if number in _REMEDIES else words
