"""What the Python runners share; they need numpy and their runtime, nothing of this project."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Outputs = dict[str, Any]
Run = Callable[[Path, str, Any], Outputs]


def run_suite(version: str, foldings: list[str], run: Run) -> None:
    """Run every model; print what ran, then one line of JSON a model and folding.

    Args:
        version: of the runtime, as it tells it itself.
        foldings: of ``"off"`` and ``"on"``, those that the runtime has.
        run: outputs by name, from the model's path, the folding and the input.
    """
    folder = Path(sys.argv[1])
    data = (folder / "tensors.bin").read_bytes()
    print(json.dumps({"version": version, "foldings": foldings}), flush=True)
    for model in json.loads((folder / "manifest.json").read_text())["models"]:
        for folding in foldings:
            error = _error(folder, data, model, folding, run)
            line = {"model": model["name"], "folding": folding, "error": error}
            print(json.dumps(line), flush=True)


def _error(folder: Path, data: bytes, model: Any, folding: str, run: Run) -> str | None:
    try:
        outputs = run(folder / f"{model['name']}.onnx", folding, _tensor(data, model["input"]))
    except Exception as error:  # whatever the runtime raises is the result
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    wrong = (_difference(outputs[o["name"]], _tensor(data, o), o) for o in model["outputs"])
    return next((message for message in wrong if message), None)


def _tensor(data: bytes, span: Any) -> Any:
    count = int(np.prod(span["shape"]))
    flat = np.frombuffer(data, span["dtype"], count, span["offset"])
    return flat.reshape(span["shape"])


def _difference(found: Any, expected: Any, output: Any) -> str | None:
    name = output["name"]
    if found.shape != expected.shape:
        return f"{name} has shape {found.shape}, expected {expected.shape}"
    if output["tolerance"]:
        wrong = ~(np.abs(found - expected) <= output["tolerance"])  # so that NaN is wrong
    else:
        wrong = found.view(np.uint32) != expected.view(np.uint32)
    places = np.flatnonzero(wrong)
    if not places.size:
        return None
    first = places[0]
    values = f"{found.reshape(-1)[first]!r}, expected {expected.reshape(-1)[first]!r}"
    return f"{name}[{first}] is {values}; {places.size} of {wrong.size} differ"
