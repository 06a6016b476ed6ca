"""Runtimes that the suite runs in: how each is installed, and how its lines are had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.runtimes.chromium import browser, lines_of_page

_RUNNERS = Path(__file__).with_name("runners")
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Outcome:
    """What a runner printed, one JSON object a line, and why it ended early, if it did."""

    lines: tuple[str, ...]
    trouble: str | None


class InstallError(Exception):
    """A runtime cannot be installed."""


class Runtime(Protocol):
    """One row of the table. ``out`` is the folder with ``suite`` and ``tools``."""

    @property
    def name(self) -> str:
        """As the table has it; the version is what the runtime tells."""

    def missing(self, out: Path) -> str | None:
        """Why it cannot run, or None."""

    def install(self, out: Path) -> None:
        """Fetch it into ``out/tools``. Raises InstallError."""

    def run(self, out: Path) -> Outcome:
        """Run the suite."""


@dataclass(frozen=True)
class PythonRuntime:
    """A runner script in a virtual environment of its own, or in ours.

    Attributes:
        name: of the runtime.
        script: in ``runners``.
        packages: exact pins; none means that the running environment has it.
    """

    name: str
    script: str
    packages: tuple[str, ...] = ()

    def missing(self, out: Path) -> str | None:
        """None if its interpreter is there."""
        return None if self._python(out).exists() else f"{self.packages[0]} is not installed"

    def install(self, out: Path) -> None:
        """Make its environment; half a one is removed again."""
        if not self.packages:
            return
        folder = self._python(out).parents[1]
        try:
            _call([sys.executable, "-m", "venv", str(folder)])
            pip = [str(self._python(out)), "-m", "pip", "install", "--quiet"]
            _call([*pip, "--only-binary=:all:", *self.packages])
        except InstallError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def run(self, out: Path) -> Outcome:
        """Run its script."""
        command = [str(self._python(out)), str(_RUNNERS / self.script), str(out / "suite")]
        return _outcome(command, Path.cwd())

    def _python(self, out: Path) -> Path:
        if not self.packages:
            return Path(sys.executable)
        return out.absolute() / "tools" / self.packages[0].replace("==", "-") / "bin" / "python"


class _Npm:
    """The packages of ``runners/package.json`` and the runners beside them."""

    def install(self, out: Path) -> None:
        """Fetch both packages with npm."""
        _copy_runners(out)
        # The install script of onnxruntime-node fetches CUDA libraries.
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        _call(command, cwd=_npm(out), env={**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"})


class NodeRuntime(_Npm):
    """onnxruntime-node."""

    name = "onnxruntime-node"

    def missing(self, out: Path) -> str | None:
        """None if node and the package are there."""
        if not shutil.which("node"):
            return "node is not on PATH"
        return _missing_package(out, self.name)

    def run(self, out: Path) -> Outcome:
        """Run the suite in node."""
        _copy_runners(out)
        return _outcome(["node", "node.mjs", str(out.absolute() / "suite")], _npm(out))


class WebRuntime(_Npm):
    """onnxruntime-web, its wasm build, in headless Chromium."""

    name = "onnxruntime-web (wasm, Chromium)"

    def missing(self, out: Path) -> str | None:
        """None if a Chromium and the package are there."""
        if not browser():
            return "no Chromium is on PATH"
        return _missing_package(out, "onnxruntime-web")

    def run(self, out: Path) -> Outcome:
        """Run the suite in a page."""
        _copy_runners(out)
        return Outcome(*lines_of_page(out, "tools/npm/web.html", _TIMEOUT_S))


def runtimes() -> list[Runtime]:
    """All, the oldest first; 1.17 is the oldest ONNX Runtime that files are promised to run in."""
    old = [
        PythonRuntime("ONNX Runtime for Python", "run_onnxruntime.py", packages)
        for packages in [
            ("onnxruntime==1.17.3", "numpy==1.26.4"),
            ("onnxruntime==1.20.1", "numpy==2.2.6"),
            ("onnxruntime==1.23.2", "numpy==2.2.6"),
        ]
    ]
    ours = PythonRuntime("ONNX Runtime for Python", "run_onnxruntime.py")
    openvino = PythonRuntime("OpenVINO", "run_openvino.py", ("openvino==2026.4.1", "numpy==2.2.6"))
    return [*old, ours, NodeRuntime(), WebRuntime(), openvino]


def _npm(out: Path) -> Path:
    return out / "tools" / "npm"


def _copy_runners(out: Path) -> None:
    """Modules resolve packages from where they lie."""
    shutil.copytree(_RUNNERS, _npm(out), dirs_exist_ok=True)


def _missing_package(out: Path, package: str) -> str | None:
    found = (_npm(out) / "node_modules" / package / "package.json").exists()
    return None if found else f"the npm package {package} is not installed"


def _call(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(
            command,
            check=True,
            cwd=cwd,
            env=env,
            timeout=_TIMEOUT_S,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise InstallError(" ".join(error.stderr.split())[-200:]) from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise InstallError(str(error)) from error


def _outcome(command: list[str], cwd: Path) -> Outcome:
    try:
        done = subprocess.run(
            command, cwd=cwd, timeout=_TIMEOUT_S, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired as error:
        return Outcome((), f"not done in {error.timeout} s")
    trouble = f"exit code {done.returncode}: {done.stderr[-300:]}" if done.returncode else None
    return Outcome(tuple(done.stdout.splitlines()), trouble)
