"""Build small Core ML packages for the tests of the reader and the evaluator."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dkm_deploy._support.silence import quiet
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.formats.mlpackage.proto import coremltools, model_class
from dkm_deploy.runtimes.mlprogram import runtime

ct = coremltools()
mb = ct.converters.mil.Builder
types = ct.converters.mil.mil.types
MODEL = "Data/com.apple.CoreML/model.mlmodel"


def save(
    path: Path,
    body: Callable[..., Any],
    *shapes: Any,
    target: str = "iOS18",
    dtype: Any = types.fp32,
) -> Path:
    """Write a program of ``body`` just as it is built: no pass changes it.

    ``shapes`` are those of its inputs, of type ``dtype``, or what ``mb.TensorSpec`` makes.
    """
    specs = [mb.TensorSpec(s, dtype=dtype) if isinstance(s, tuple) else s for s in shapes]
    with quiet():
        program = mb.program(input_specs=specs, opset_version=ct.target[target])(body)
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        )
        model.save(str(path))
    return path


def join(packages: Mapping[str, Path], path: Path) -> Path:
    """Write packages as the functions of one, as coremltools joins them; the first is the default.

    coremltools drops the metadata of what it joins.
    """
    parts = ct.utils.MultiFunctionDescriptor()
    for name, package in packages.items():
        parts.add_function(str(package), "main", name)
    parts.default_function_name = next(iter(packages))
    with quiet(), warnings.catch_warnings(action="ignore", category=ResourceWarning):  # its folders
        ct.utils.save_multifunction(parts, str(path))
    return path


def edit(package: Path, change: Callable[[Any], object]) -> None:
    """Change the protobuf of a package."""
    model = model_class().FromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())


_generator = torch.Generator().manual_seed(7)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=_generator)


def n(tensor: torch.Tensor) -> Any:
    return tensor.numpy()


class Family:
    """One package with an output for each case: (what builds it, the same in torch)."""

    def __init__(self, folder: Path, cases: dict[str, Any], shape: tuple[int, ...]) -> None:
        def body(x: Any) -> Any:
            return tuple(
                mb.identity(x=build(x), name=f"out_{k}") for k, (build, _) in cases.items()
            )

        self._cases = cases
        self._x = rand(*shape)
        path = save(folder / "ops.mlpackage", body, shape)
        self._outputs = runtime.load(path).run({"x": n(self._x)})
        operations = functions(open_package(path))["main"].body.operations
        self._types = Counter(operation.type for operation in operations)

    def check(self, name: str) -> None:
        """The file's output has the shape, kind and values that torch gives."""
        expected = self._cases[name][1](self._x)
        actual = torch.from_numpy(self._outputs[f"out_{name}"])
        assert actual.shape == expected.shape
        assert actual.is_floating_point() == expected.is_floating_point()
        torch.testing.assert_close(actual, expected.to(actual.dtype), rtol=1e-5, atol=2e-6)

    def count(self, operation_type: str) -> int:
        """Operations of a type in the file."""
        return self._types[operation_type]
