"""What tests of the command line share."""

from __future__ import annotations

from dkm_deploy.cli import main


def run(*arguments) -> int:
    """The exit code."""
    return main([str(argument) for argument in arguments])


def fails(capsys, arguments, message) -> None:
    """The command exits with 2 and one line on stderr that holds ``message``."""
    capsys.readouterr()
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dkm-deploy: error: ")
    assert message in err
