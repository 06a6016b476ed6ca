"""The reference evaluator: reads and runs Core ML packages (ML programs) on any OS.

It shows what a file computes, by the definitions of its operations. It is not Core ML: the order
of additions, and with it the last bits, differ from a device's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dkm_deploy._version import __version__

if TYPE_CHECKING:
    from dkm_deploy.runtimes.mlprogram.evaluator import Evaluator


class ReferenceRuntime:
    """Implements :class:`dkm_deploy.runtimes.Runtime`."""

    name = f"reference evaluator (dkm-deploy {__version__})"
    suffixes = (".mlpackage",)
    native = False

    def unavailable(self) -> str | None:
        """None: it runs wherever this package does."""
        return None

    def load(self, path: Path) -> Evaluator:
        """Open a package. Raises DkmError if it is damaged or not supported."""
        # Imported here so that the register of runtimes can be listed quickly.
        from dkm_deploy.runtimes.mlprogram.evaluator import Evaluator

        return Evaluator(path)


runtime = ReferenceRuntime()
