"""What reads a kind of file: its palettes and every byte of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.palette import Palette

DEFAULT_FUNCTION = ""
"""What to call the default function of a file, whatever its name is."""


class Reader(Protocol):
    """Something that tells what a file holds."""

    suffixes: tuple[str, ...]

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """The palettes decoded from the file's bytes, by qualified parameter name."""
        ...

    def ledger(self, path: Path) -> Ledger:
        """Every byte of the file."""
        ...


@runtime_checkable
class FunctionReader(Reader, Protocol):
    """A reader of files that may have several functions."""

    def of_function(self, function: str) -> Reader:
        """A reader of what one function of a file has; the ledger is that of the file.

        ``function`` is its name, or ``DEFAULT_FUNCTION``.
        """
        ...


@runtime_checkable
class Adviser(Reader, Protocol):
    """A reader that knows files of its kind that it cannot read."""

    advice: Mapping[str, str]
    """By suffix, what such a file is and what to give in its place."""
