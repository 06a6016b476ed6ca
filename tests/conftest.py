"""What torch, onnxscript and coremltools do anew for every export is done once a process, or never.

It is the larger part of converting a small model, which hundreds of tests do. The functions take no
account of the model; users convert one and do not notice.
"""

from __future__ import annotations

import functools
import gc
import typing
from types import SimpleNamespace

import torch._export.utils
from torch.onnx._internal.exporter import _registration

from dkm_deploy.formats.mlpackage.proto import coremltools


def _once(module, name):
    setattr(module, name, functools.cache(getattr(module, name)))


_once(_registration.onnxscript_apis, "get_torchlib_ops")
_once(torch._export.utils, "_materialize_cpp_cia_ops")
# In annotations that torch works out for each kernel of each operation; only typing's remembers.
torch._ops.Callable = typing.Callable
# coremltools asks for a collection of garbage after each conversion, through all that is loaded.
coremltools().converters._converters_entry.gc = SimpleNamespace(collect=lambda: 0)


def pytest_collection_finish():
    """Leave what is imported out of the collections of garbage."""
    gc.collect()
    gc.freeze()
