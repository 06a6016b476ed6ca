"""What tests of the command line share."""

from __future__ import annotations

from dkm_deploy.cli import main
from tests.converters.onnx.models import values

MODEL = "tests.models:small_net"
ROW = values(1, 32)


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


def validation(folder, *more) -> list[str]:
    """A command that validates both files of a folder."""
    return [
        *["validate", f"{folder}/model.onnx", f"{folder}/model.mlpackage", "--model", MODEL],
        *["--weights", f"{folder}/packed.safetensors", "--inputs", f"{folder}/inputs.safetensors"],
        *more,
    ]


def golden(folder, out, *more):
    """A command that writes a golden bundle to ``out``."""
    return [
        *["golden", f"{out}", "--model", MODEL, "--weights", f"{folder}/packed.safetensors"],
        *["--inputs", f"{folder}/inputs.safetensors", *more],
    ]
