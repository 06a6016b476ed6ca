"""Text from outside, made safe for a terminal and for a page."""

from __future__ import annotations

import re


def printable(text: object) -> str:
    r"""Text from outside in one safe line: white space as blanks, control characters as ``\x1b``.

    Names come from files. They may hold what a terminal obeys and what UTF-8 cannot hold.
    """
    line = re.sub(r"\s+", " ", str(text))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
