"""What torch, onnxscript and coremltools do anew for every export is done once a process, or never.

It is the larger part of converting a small model, which hundreds of tests do. The functions take no
account of the model; users convert one and do not notice.
"""

from __future__ import annotations

import functools
import gc
import typing
from contextlib import contextmanager
from types import SimpleNamespace

import torch._export.utils
import torch.export.exported_program
from torch._subclasses.fake_impls import op_implementations_dict
from torch.onnx._internal.exporter import _registration, _schemas

from dkm_deploy.formats.mlpackage.proto import coremltools


def _once(module, name):
    setattr(module, name, functools.cache(getattr(module, name)))


def _remembering(override):
    """``override``, which gives 650 calls other kernels while a program is taken apart.

    After the first time the kernels that it gave for the same table are put in its place, and
    taken away as it does.
    """
    remembered = {}

    @contextmanager
    def overridden(table):
        key = frozenset((op, _told_apart(how)) for op, how in table.items())
        before = {op: dict(op.py_kernels) for op in table}
        known, kernels, rules = remembered.get(key, (None, None, None))
        if known != before:
            had = set(op_implementations_dict)
            with override(table):
                kernels = {op: dict(op.py_kernels) for op in table}
                new = op_implementations_dict.keys() - had
                rules = {op: op_implementations_dict[op] for op in new}
                remembered[key] = before, kernels, rules
                yield
            return
        _put(kernels)
        op_implementations_dict.update(rules | op_implementations_dict)
        try:
            yield
        finally:
            _put(before)
            for op in table:
                op_implementations_dict.pop(op, None)

    return overridden


def _told_apart(function):
    """What two functions have in common if torch made them anew for the same call."""
    if isinstance(function, functools.partial):
        return function.func.__code__, *function.keywords.items()
    return function


def _put(kernels):
    for op, own in kernels.items():
        op.py_kernels.clear()
        op.py_kernels.update(own)
        op._dispatch_cache.clear()


_once(_registration.onnxscript_apis, "get_torchlib_ops")
_once(_schemas, "op_signature_from_function")
_once(torch._export.utils, "_materialize_cpp_cia_ops")
torch.export.exported_program._override_composite_implicit_decomp = _remembering(
    torch.export.exported_program._override_composite_implicit_decomp
)
# In annotations that torch works out for each kernel of each operation; only typing's remembers.
torch._ops.Callable = typing.Callable
# coremltools asks for a collection of garbage after each conversion, through all that is loaded.
coremltools().converters._converters_entry.gc = SimpleNamespace(collect=lambda: 0)


def pytest_collection_finish():
    """Leave what is imported out of the collections of garbage."""
    gc.collect()
    gc.freeze()
