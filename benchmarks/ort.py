"""What a packed ``.ort`` file costs and saves: ``python -m benchmarks.ort``.

Two models of 25 M weights at 4 bits, dense and packed, as ``.onnx`` and as ``.ort``; the dense
``.ort`` is the one that ONNX Runtime's own converter makes. Each file is opened and run in
processes of its own, all files in turns; one thread, CPU milliseconds, resident memory over a
process that has only imported ONNX Runtime; minima.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

_RUNS = 5


def measure(path: str) -> dict[str, float]:
    """Open and run a file in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    empty = _memory("VmRSS")
    start = time.process_time()
    session = onnxruntime.InferenceSession(path, options)
    loaded = time.process_time()
    source = session.get_inputs()[0]
    inputs = {source.name: np.ones(source.shape, np.float32)}
    session.run(None, inputs)
    runs = []
    for _ in range(_RUNS):
        before = time.process_time()
        session.run(None, inputs)
        runs.append(time.process_time() - before)
    return {
        "load ms": 1e3 * (loaded - start),
        "run ms": 1e3 * min(runs),
        "steady MB": _memory("VmRSS") - empty,
        "peak MB": _memory("VmHWM") - empty,
    }


def _memory(field: str) -> float:
    """A field of Linux's ``/proc/self/status`` in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def write(folder: Path) -> list[Path]:
    """All files, by model."""
    import torch
    from torch import nn
    from transformers import ResNetConfig, ResNetForImageClassification

    import dkm_deploy as dkm

    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(2500, 2500), nn.ReLU())]
    models: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "mlp": (nn.Sequential(*layers), torch.ones(1, 2500)),
        "resnet50": (ResNetForImageClassification(ResNetConfig()), torch.ones(1, 3, 224, 224)),
    }
    files = []
    for name, (model, example) in models.items():
        packed = dkm.palettize(model.eval(), dkm.Recipe.uniform(bits=4))
        dense = folder / f"{name}-dense.onnx"
        dkm.convert(model, example, dense)
        files += [dense, _by_onnx_runtime(dense)]
        for suffix in (".onnx", ".ort"):
            files.append(folder / f"{name}-packed{suffix}")
            dkm.convert(packed, example, files[-1])
    return files


def _by_onnx_runtime(path: Path) -> Path:
    from onnxruntime.tools.convert_onnx_models_to_ort import (
        OptimizationStyle,
        convert_onnx_models_to_ort,
    )

    with contextlib.redirect_stdout(io.StringIO()):
        convert_onnx_models_to_ort(path, optimization_styles=[OptimizationStyle.Fixed])
    return path.with_suffix(".ort")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--file", help="measure this file, here, and print JSON")
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(measure(arguments.file)))
        return
    found: defaultdict[Path, list[dict[str, float]]] = defaultdict(list)
    with TemporaryDirectory() as folder:
        files = write(Path(folder))
        for _ in range(arguments.rounds):
            for path in files:
                command = [sys.executable, "-m", "benchmarks.ort", "--file", str(path)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[path].append(json.loads(output))
        print(f"{platform.processor() or platform.machine()}, {arguments.rounds} rounds")
        for path, rounds in found.items():
            row = {key: min(each[key] for each in rounds) for key in rounds[0]}
            shown = "  ".join(f"{key} {value:8.1f}" for key, value in row.items())
            print(f"{path.name:22} {path.stat().st_size:11,d} bytes  {shown}")


if __name__ == "__main__":
    main()
