"""What torch and onnxscript work out anew for every export is worked out once a process.

It is the larger part of converting a small model, which hundreds of tests do. The functions take no
account of the model; users convert one and do not notice.
"""

from __future__ import annotations

import functools
import gc

import torch._export.utils
from torch.onnx._internal.exporter import _registration


def _once(module, name):
    setattr(module, name, functools.cache(getattr(module, name)))


_once(_registration.onnxscript_apis, "get_torchlib_ops")
_once(torch._export.utils, "_materialize_cpp_cia_ops")


def pytest_collection_finish():
    """Leave what is imported out of the collections of garbage, of which coremltools asks many."""
    gc.collect()
    gc.freeze()
