"""Write a Core ML package: coremltools lowers the program, we lower the palettes."""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from dkm_deploy.errors import DkmError, first_line
from dkm_deploy.export import Exported, weight_name
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.mlprogram.proto import coremltools, quiet

ct = coremltools()
from converters.coreml.lower import lowering  # noqa: E402  # after coremltools' noisy import

_WEIGHTS_KEY = "dkm_deploy.weights"
"""User-defined metadata: JSON, MIL name of a decode op -> qualified parameter name."""

_IOS18 = ("iOS18", "macOS15")
_TARGETS = ("iOS16", "iOS17", "iOS18", "macOS13", "macOS14", "macOS15")
_PRECISIONS = {"float16": ct.precision.FLOAT16, "float32": ct.precision.FLOAT32}


def write(exported: Exported, path: Path, deployment_target: str, precision: str) -> None:
    """See :meth:`converters.coreml.CoreML.write`."""
    target = _choose("minimum_deployment_target", deployment_target, _TARGETS)
    _choose("compute_precision", precision, _PRECISIONS)
    ios18 = deployment_target in _IOS18
    if not ios18:
        _check_ios16(exported.palettes)
    if precision == "float16":
        _check_float16(exported.palettes)
    mil_names = _mil_names(exported)
    by_graph_name = _by_graph_name(exported, mil_names)
    try:
        with _silent(), lowering(by_graph_name, ios18=ios18):
            model = ct.convert(
                _with_defaults(exported.program.run_decompositions({})),
                inputs=_inputs(exported),
                outputs=_outputs(exported),
                minimum_deployment_target=getattr(ct.target, target),
                compute_precision=_PRECISIONS[precision],
                skip_model_load=True,
            )
    except Exception as error:  # coremltools raises many kinds, each for the user's model
        with _silent():  # its frames hold temporary folders, which warn when they go
            traceback.clear_frames(error.__traceback__)
        raise DkmError(f"coremltools cannot convert the model: {first_line(error)}") from error
    model.user_defined_metadata[_WEIGHTS_KEY] = json.dumps(_decodes(model, mil_names))
    with _silent():
        model.save(str(path))
    _tidy(path)


def _with_defaults(program: ExportedProgram) -> ExportedProgram:
    """Write out the positional arguments that ATen calls leave at their defaults.

    The torch front end counts arguments as TorchScript gives them, all of them: without this
    ``max_pool2d(x, 2)`` and ``rms_norm`` fail in coremltools 9.0.
    """
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            positional = [a for a in node.target._schema.arguments if not a.kwarg_only]
            missing = positional[len(node.args) :]
            if not any(a.name in node.kwargs for a in missing):
                node.args = (*node.args, *(a.default_value for a in missing))
    return program


def _choose(option: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise DkmError(f"{option} is {value!r}; it must be one of {', '.join(known)}")
    return value


def _check_ios16(palettes: Mapping[str, Palette]) -> None:
    for name, palette in palettes.items():
        kind = "vector" if palette.cluster_dim > 1 else "grouped"
        if palette.lut.size > 1 << palette.bits:
            raise DkmError(
                f"{name}: {kind} palettes need minimum_deployment_target {' or '.join(_IOS18)}"
            )


def _check_float16(palettes: Mapping[str, Palette]) -> None:
    """Such a LUT would stay in float32, and the program would make infinity of it."""
    most = float(np.finfo(np.float16).max)
    for name, palette in palettes.items():
        largest = float(np.abs(palette.lut).max())
        if largest > most:
            raise DkmError(
                f"{name}: a weight of {largest:g} is beyond float16, whose largest is {most:g}; "
                'convert with compute_precision="float32"'
            )


def _mil_names(exported: Exported) -> dict[str, str]:
    """A MIL identifier for each palettized weight, unique and readable: fc.weight -> fc_weight."""
    names: dict[str, str] = {}
    for weight in exported.palettes:
        name = base = re.sub(r"\W", "_", f"w_{weight}" if weight[0].isdigit() else weight)
        number = 1
        while name in names.values():
            number += 1
            name = f"{base}_{number}"
        names[weight] = name
    return names


def _by_graph_name(exported: Exported, mil_names: Mapping[str, str]) -> dict[str, str]:
    """MIL name of a weight by the placeholder of its indices in the exported graph."""
    buffers = exported.program.graph_signature.inputs_to_buffers
    found = ((placeholder, weight_name(buffer)) for placeholder, buffer in buffers.items())
    return {placeholder: mil_names[name] for placeholder, name in found if name in mil_names}


def _inputs(exported: Exported) -> list[Any]:
    """Core ML input types with the exported shapes; a free dimension needs an upper bound."""
    values = {n.name: n.meta["val"] for n in exported.program.graph.find_nodes(op="placeholder")}
    types = []
    for name in exported.input_names:
        shape = [_dimension(exported, name, size) for size in values[name].shape]
        types.append(ct.TensorType(name=name, shape=shape, dtype=_io_dtype(values[name])))
    return types


def _outputs(exported: Exported) -> list[Any]:
    results = exported.program.graph.output_node().args[0]
    named = zip(exported.output_names, results, strict=True)
    return [ct.TensorType(name=name, dtype=_io_dtype(node.meta["val"])) for name, node in named]


def _io_dtype(value: Any) -> Any:
    """Apps hand over and get float32 or int32, whatever the program computes in."""
    return np.float32 if value.is_floating_point() else np.int32


def _dimension(exported: Exported, name: str, size: Any) -> Any:
    if isinstance(size, int):
        return size
    span = exported.program.range_constraints[size.node.expr]
    if not span.upper.is_Integer:
        raise DkmError(
            f"input {name!r}: dimension {size} has no upper bound, and Core ML needs one: "
            "torch.export.Dim(.., max=..)"
        )
    return ct.RangeDim(max(1, int(span.lower)), int(span.upper), default=max(1, int(span.lower)))


def _decodes(model: Any, mil_names: Mapping[str, str]) -> dict[str, str]:
    """Qualified name by the final MIL name, which the fp16 pass gives a suffix."""
    weights = {mil: weight for weight, mil in mil_names.items()}
    found = {}
    for function in model.get_spec().mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                if operation.type == "constexpr_lut_to_dense":
                    name = operation.outputs[0].name
                    base = name.removesuffix("_cast_fp16")
                    found[name] = weights[name if name in weights else base]
    return found


def _tidy(path: Path) -> None:
    """Take out the debug map that coremltools adds to exported programs; open up file modes."""
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
    for file in path.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep coremltools' warnings, log lines and progress bars off the user's terminal."""
    import tqdm  # type: ignore[import-untyped]  # coremltools draws its bars with it

    original = tqdm.tqdm.__init__

    def disabled(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "disable": True})

    tqdm.tqdm.__init__ = disabled
    try:
        with quiet():
            yield
    finally:
        tqdm.tqdm.__init__ = original
