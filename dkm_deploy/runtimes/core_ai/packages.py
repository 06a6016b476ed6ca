"""Apple's Core AI packages, an optional extra that is noisy: imported and used in silence."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from dkm_deploy._support.silence import quiet as quiet_python
from dkm_deploy.errors import DkmError

EXTRA = 'pip install "dkm-deploy[coreai]"'
_STDERR = 2
_NOISE = re.compile(rb"\bODIE \[(default|info|debug)\]")


def missing_package(*modules: str) -> str | None:
    """What to say of the first of ``modules`` that is not installed, or None if all are."""
    for module in modules:
        if find_spec(module) is None:
            return (
                f"Core AI needs the package {module.replace('_', '-')}, which is missing: {EXTRA}"
            )
    return None


def require(*modules: str) -> None:
    """Raise DkmError, which names the extra, if one of ``modules`` is not installed."""
    reason = missing_package(*modules)
    if reason:
        raise DkmError(reason)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Hold back warnings, Python's log lines and those that the runtime writes from C++.

    What else reaches standard error meanwhile, from another thread or of a crash, is passed on.
    """
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    with quiet_python(), tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, _STDERR)
            os.close(saved)
            held.seek(0)
            os.write(_STDERR, b"".join(line for line in held if not _NOISE.search(line)))
