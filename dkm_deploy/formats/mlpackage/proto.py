"""The two things taken from coremltools: its protobuf classes, and coremltools itself, in silence.

Reading a package needs only the classes. They are loaded from coremltools' files without running
the package's own ``__init__``, which takes seconds, warns, and logs what it lacks off macOS.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError

_ALIAS = "dkm_deploy._coremltools_proto"


@cache
def model_class() -> Any:
    """The protobuf class ``CoreML.Specification.Model``.

    It is the same class that ``coremltools.proto`` has, should that be imported too.

    Raises:
        DkmError: coremltools is not installed.
    """
    return _module("Model_pb2").Model


@cache
def operation_class() -> Any:
    """The protobuf class of an operation of an ML program. Raises as :func:`model_class`."""
    return _module("MIL_pb2").Operation


@cache
def coremltools() -> Any:
    """The coremltools module; the first call takes seconds.

    Raises:
        DkmError: coremltools is not installed.
    """
    _find()
    with quiet():
        return importlib.import_module("coremltools")


def _find() -> str:
    """Folder of the installed coremltools."""
    spec = importlib.util.find_spec("coremltools")
    if spec is None or not spec.submodule_search_locations:
        raise DkmError("Core ML files need coremltools, which is missing: pip install coremltools")
    return spec.submodule_search_locations[0]


def _module(name: str) -> ModuleType:
    """A generated protobuf module; it imports its siblings relative to a package of our own."""
    if _ALIAS not in sys.modules:
        package = ModuleType(_ALIAS)
        package.__path__ = [f"{_find()}/proto"]
        sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.{name}")
