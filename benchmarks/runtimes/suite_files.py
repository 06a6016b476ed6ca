"""The suite as plain files, which a runner in any language reads without a parser.

``manifest.json`` lists the models with their input and their outputs; each of these is a span of
``tensors.bin``, little-endian, at an offset that any element type can start at.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.converters.onnx.rewriting.suite import INPUTS, Bank, Case, bank, single

_ALIGNMENT = 8
# Of the largest output. Runtimes have their own exp and tanh, and add up in their own order.
_TOLERANCE = 1e-5


class _Tensors:
    """Collects arrays and tells where they lie."""

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, array: NDArray[Any]) -> dict[str, Any]:
        """Append ``array``; its place, as the manifest has it."""
        self.data += bytes(-len(self.data) % _ALIGNMENT)
        offset = len(self.data)
        self.data += np.ascontiguousarray(array).tobytes()
        return {"dtype": array.dtype.name, "shape": array.shape, "offset": offset}


def write_suite(folder: Path, options: dict[str, Any]) -> list[str]:
    """Write all models, their inputs and their expected outputs; the models' names.

    Args:
        folder: is made; files in it are replaced.
        options: of :func:`dkm_deploy.convert`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _Tensors()
    models = []
    for takes in INPUTS:
        made = bank(takes)
        path = folder / f"bank_{takes}.onnx"
        made.write(path, force=True, **options)
        model = onnx.load(path)
        path.unlink()
        x = tensors.add(made.x.numpy())
        for case in made.cases:
            cut = single(model, case, made.weights(case))
            onnx.checker.check_model(cut, full_check=True)
            (folder / f"{case.name}.onnx").write_bytes(cut.SerializeToString())
            outputs = [_output(tensors, made, case, value.name) for value in cut.graph.output]
            models.append({"name": case.name, "input": x, "outputs": outputs})
    (folder / "tensors.bin").write_bytes(tensors.data)
    (folder / "manifest.json").write_text(json.dumps({"models": models}))
    return [str(model["name"]) for model in models]


def _output(tensors: _Tensors, made: Bank, case: Case, name: str) -> dict[str, Any]:
    """What an output must be; a tolerance of 0 means bit for bit."""
    if name != case.name:
        return {"name": name, "tolerance": 0, **tensors.add(made.palettes[name].decode())}
    expected = made.expected[name].numpy()
    largest = float(np.abs(expected).max())
    tolerance = 0 if case.layer == "embedding" else _TOLERANCE * largest
    return {"name": name, "tolerance": tolerance, **tensors.add(expected)}
