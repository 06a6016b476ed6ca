"""The tests in coremltools' package that ask Core ML for numbers, by part."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

_OPERATIONS = "converters/mil/mil/ops/tests"
_TORCH = "converters/mil/frontend/torch/test"
MORE = 100
"""pytest's exit code that says that tests are left for another process; 0 says that none are."""

PARTS: Mapping[str, tuple[str, ...]] = {
    **{
        f"MIL operations, iOS {version}": (f"{_OPERATIONS}/iOS{version}",)
        for version in range(14, 19)
    },
    "PyTorch front end, operations": (f"{_TORCH}/test_torch_ops.py",),
    "PyTorch front end, the rest": (
        f"{_TORCH}/test_torch_quantization_ops.py",
        f"{_TORCH}/test_torch_export_quantization.py",
        f"{_TORCH}/test_torch_stateful_model.py",
        f"{_TORCH}/test_torch_conversion_api.py",
        f"{_TORCH}/test_torch_export_conversion_api.py",
        f"{_TORCH}/test_custom_ops.py",
        f"{_TORCH}/test_examples.py",
        f"{_TORCH}/test_internal_graph.py",
        f"{_TORCH}/test_passes.py",
    ),
    "optimize/coreml": (
        "test/optimize/coreml/test_passes.py",
        "test/optimize/coreml/test_post_training_quantization.py",
    ),
    "optimize/torch": (
        "test/optimize/torch/conversion/joint",
        "test/optimize/torch/conversion/palettization",
        "test/optimize/torch/conversion/pruning",
        "test/optimize/torch/conversion/quantization",
    ),
    "graph passes": (
        "converters/mil/mil/passes/tests/test_passes.py",
        "converters/mil/mil/passes/tests/test_cleanup_passes.py",
        "converters/mil/mil/passes/tests/test_quantization_passes.py",
        "converters/mil/mil/passes/tests/test_reduce_transposes_pass.py",
        "converters/mil/mil/passes/tests/test_optimize_linear_passes.py",
        "converters/mil/mil/passes/tests/test_state_passes.py",
        "converters/mil/backend/mil/passes/test_passes.py",
    ),
    "files and programs": (
        "converters/mil/backend/mil/test_load.py",
        "converters/mil/frontend/milproto/test_load.py",
        "converters/mil/mil/tests/test_programs.py",
        "converters/mil/test_inputs_outputs_shape.py",
        "test/api/test_api_examples.py",
        "test/ml_program/test_utils.py",
    ),
}
"""Files and folders by the line of the table; each has processes of its own."""


def chosen(only: str | None) -> list[str]:
    """What pytest is given, one after another.

    Args:
        only: a folder, a file or ``file::function`` in coremltools' package; None is all parts.
    """
    every = [path for paths in PARTS.values() for path in paths]
    if only is None:
        return every
    file = only.partition("::")[0].rstrip("/")
    return [path for path in every if is_in(path, file)] or [only]


def part_of(test: str) -> str:
    """The line of the table that a test belongs to; "others" if none has its file."""
    file = test.partition("::")[0]
    for name, paths in PARTS.items():
        if any(is_in(file, path) for path in paths):
            return name
    return "others"


@cache
def package() -> Path:
    """The folder of coremltools, which need not be imported for it."""
    found = find_spec("coremltools")
    if found is None or found.origin is None:
        raise SystemExit("coremltools is not installed")
    return Path(found.origin).parent


def is_in(path: str, folder: str) -> bool:
    """Whether a path in coremltools is this one, or below it."""
    return PurePosixPath(path).is_relative_to(folder)
