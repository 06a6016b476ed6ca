"""Where commands print what they found."""

from __future__ import annotations

from rich.console import Console

from dkm_deploy.cli.process import lead_nowhere


class OutputConsole(Console):
    """Standard output. Where its reader has gone, as ``head -1`` does, the command goes on."""

    def on_broken_pipe(self) -> None:
        """Print no more. rich would end the process with exit code 1, which is a failed check."""
        self.quiet = True
        lead_nowhere()
