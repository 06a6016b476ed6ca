"""What a figure was measured with: versions and machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("dkm-deploy", "torch", "numpy", "onnx", "onnxruntime", "coremltools")


def provenance() -> dict[str, str]:
    """Versions of Python and of the packages that take part, and the machine."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
