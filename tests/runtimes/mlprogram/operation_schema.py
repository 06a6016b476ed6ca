"""The table of operations as the installed coremltools defines them.

``python -m tests.runtimes.mlprogram.operation_schema`` writes it anew.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from dkm_deploy._support.silence import quiet
from dkm_deploy.formats.mlpackage.proto import coremltools
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS

PATH = files("dkm_deploy.runtimes.mlprogram").joinpath("operations.txt")
_OPSETS = {"iOS15": 5, "iOS16": 6, "iOS17": 7, "iOS18": 8, "iOS26": 9}


def table() -> str:
    """A line for each form of each operation that the evaluator has."""
    ct = coremltools()
    with quiet():
        from coremltools.converters.mil.mil.ops.registry import (
            SSAOpRegistry as Registry,
        )
    lines = []
    for name in sorted(KERNELS):
        last = None
        known = Registry.core_ops.get(name, {})  # write_state comes about when a file is written
        for target, opset in _OPSETS.items():
            made = known.get(ct.target[target])
            if made is not None and made is not last:
                lines.append(_line(name, opset, made))
                last = made
    return "\n".join(lines) + "\n"


def _line(name: str, opset: int, operation: Any) -> str:
    inputs = [
        f"{key}{'!' if kind.const else ''}={_kinds(kind)}"
        for key, kind in operation.input_spec.input_types.items()
    ]
    domains = getattr(operation, "type_domains", {})
    letters = [f"{letter}={_names(kinds)}" for letter, kinds in domains.items()]
    behind = f" ; {' '.join(letters)}" if letters else ""
    return f"{name} {opset} {' '.join(inputs)}{behind}"


def _kinds(kind: Any) -> str:
    if type(kind).__name__ != "TensorInputType":
        return "*"
    return kind.type_domain_id or _names(kind.type_domain)


def _names(kinds: Any) -> str:
    types = coremltools().converters.mil.mil.types
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    spelled = (types.builtin_to_string(kind) for kind in kinds)
    return ",".join({"str": "string", "double": "fp64"}.get(each, each) for each in spelled)


if __name__ == "__main__":
    PATH.write_text(table(), "utf-8")
