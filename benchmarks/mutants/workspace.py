"""A copy of the project for mutmut to work in, one for each area, which keeps what was tried."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.mutants.areas import Area

_ROOT = Path(__file__).parents[2]
_LOG = "mutmut.log"


def folder_of(area: Area, out: Path) -> Path:
    """Where an area is worked on."""
    return out / area.name.replace(", ", "-").replace(" ", "-").lstrip(".")


def update(area: Area, out: Path) -> Path:
    """Bring an area's copy up to date; files that did not change keep their times.

    mutmut makes mutants anew of the functions that changed, and keeps what it knows of the others.
    """
    folder = folder_of(area, out)
    folder.mkdir(parents=True, exist_ok=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        source = _ROOT / name
        if source.is_file():
            content = source.read_bytes()
            _write(
                folder / name, _configured(content, area) if name == "pyproject.toml" else content
            )
    return folder


def generate(folder: Path) -> None:
    """Make mutants of what is new or changed, and try none."""
    _run(folder, "benchmarks.mutants.generate")


def run(folder: Path, jobs: int, names: Sequence[str] = ()) -> None:
    """Try all mutants that were not tried yet, or those named again; says what goes to its log."""
    _run(folder, "mutmut", "run", "--max-children", str(jobs), *names)


def _run(folder: Path, *module: str) -> None:
    command = [sys.executable, "-m", *module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # the copy is what is imported
    with (folder / _LOG).open("ab") as log:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"mutmut ended with {done.returncode}: see {folder / _LOG}")


def _configured(pyproject: bytes, area: Area) -> bytes:
    """The project's settings with those of mutmut, which reads them from nowhere else."""
    left_out = [part for test in area.without for part in ("--deselect", test)]
    settings = {
        "source_paths": ["dkm_deploy", "converters"],
        "only_mutate": list(area.sources),
        "pytest_add_cli_args_test_selection": [*area.tests, *left_out],
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "-p", "benchmarks.mutants.own_locks"),
            *("-p", "benchmarks.mutants.kept_files"),
            *("-m", "not slow"),
        ],
        "also_copy": ["benchmarks", "docs", "samples", "README.md"],
    }
    # A list of strings is written the same in JSON and in TOML.
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["track_dependencies = false", "use_git_change_detection = false"]
    return pyproject + "\n".join(["", "[tool.mutmut]", *lines, ""]).encode()


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
