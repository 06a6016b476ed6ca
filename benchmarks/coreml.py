"""Core ML packages: time and memory to convert one layer, beside coremltools; bytes of weights.

``python -m benchmarks.coreml`` prints two tables. Every conversion is a process of its own, ours
and coremltools' in turns, one thread. A small conversion of the same kind comes first in each
process and is not counted: it pays for imports that are put off until they are needed. Memory is
the peak over what the process held when the counted part began (Linux only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dkm_deploy as dkm
from benchmarks.onnx_build import MODELS
from benchmarks.process import cpu, in_process, versions
from dkm_deploy.formats.ledger import size_on_disk

_SIZE = 2048  # of a square layer: 4.2 M weights
_SMALL = 32
_BITS = 8
_SIZES = {"MLP, 25 M": "MLP, 25 M, Gemm", "ResNet-50": "ResNet-50"}
_WIDTHS = (2, 3, 4, 6, 8)
_RECORD = 128  # bytes that weight.bin may hold beyond the ideal for each tensor


def main() -> None:
    """Print both tables, or, with a kind, measure it in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=_KINDS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(_measured(arguments.kind)))
        return
    print(f"{cpu()}; {versions('torch', 'coremltools', 'numpy')}\n")
    _print_conversions(arguments.rounds)
    _print_sizes()


def _print_conversions(rounds: int) -> None:
    """The median of each kind, and what coremltools takes over what we take."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    for _ in range(rounds):
        for kind, results in found.items():
            results.append(in_process("benchmarks.coreml", [kind], threads=1))
    print(f"One Linear({_SIZE}, {_SIZE}), {_BITS} bits, medians of {rounds}\n")
    print("| | CPU s | peak MB over the start | file bytes |\n|---|---|---|---|")
    for kind, results in found.items():
        middle = {key: statistics.median(r[key] for r in results) for key in results[0]}
        print(
            f"| {kind} | {middle['cpu_s']:.2f} | {middle['peak_mb']:.0f} | {middle['bytes']:,.0f} |"
        )


def _print_sizes() -> None:
    print("\n| model | bits | weight.bin | ideal | over, bytes a tensor |\n|---|---|---|---|---|")
    for title, name in _SIZES.items():
        torch.manual_seed(0)
        model, x = MODELS[name]()
        model = dkm.fold_batch_norm(model.eval(), x)
        for bits in _WIDTHS:
            frozen = dkm.palettize(model, dkm.Recipe.uniform(bits))
            stored, blobs = _weight_bin(frozen, x)
            ideal = _ideal(model, frozen)
            over = (stored - ideal) / blobs
            verdict = "" if over <= _RECORD else " (too many)"
            print(f"| {title} | {bits} | {stored:,} | {ideal:,} | {over:.1f}{verdict} |")


def _weight_bin(frozen: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """Bytes of ``weight.bin``, and how many tensors it holds."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = dkm.convert(frozen, x, Path(folder) / "m.mlpackage")
        data = (artifact.path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    return len(data), int.from_bytes(data[:4], "little")


def _ideal(model: nn.Module, frozen: nn.Module) -> int:
    """The least: n bits a weight, LUTs and all dense parameters in float16."""
    palettes = dkm.palettes(frozen)
    packed = sum((p.indices.size * p.bits + 7) // 8 + 2 * p.lut.size for p in palettes.values())
    return packed + sum(2 * p.numel() for n, p in model.named_parameters() if n not in palettes)


def _measured(kind: str) -> dict[str, float]:
    """CPU seconds, peak memory over that of the start, and bytes of one conversion."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for size in (_SMALL, _SIZE):
            model, x = nn.Linear(size, size).eval(), torch.randn(1, size)
            run = _KINDS[kind](model, x, Path(folder) / f"{size}.mlpackage")
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            before, start = _memory("VmRSS"), time.process_time()
            path = run()
            cpu_s, peak = time.process_time() - start, _memory("VmHWM") - before
        return {"cpu_s": cpu_s, "peak_mb": peak, "bytes": size_on_disk(path)}


def _memory(field: str) -> float:
    """A field of Linux's ``/proc/self/status`` in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


Run = Callable[[], Path]


def _ours(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    """Only the conversion of a frozen model."""
    import converters.coreml.write  # noqa: F401  # the imports are not counted

    frozen = dkm.palettize(model, dkm.Recipe.uniform(_BITS))
    return lambda: dkm.convert(frozen, x, path).path


def _ours_with_clusters(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    """Clustering and conversion."""
    import converters.coreml.write  # noqa: F401  # the imports are not counted

    recipe = dkm.Recipe.uniform(_BITS)
    return lambda: dkm.convert(dkm.palettize(model, recipe), x, path).path


def _theirs(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    """``ct.convert`` of a model that coremltools' own palettizer has palettized."""
    from coremltools.optimize.torch import palettization as peer

    config = peer.PostTrainingPalettizerConfig.from_dict(
        {"global_config": {"n_bits": _BITS, "granularity": "per_tensor"}}
    )
    palettized = peer.PostTrainingPalettizer(nn.Sequential(model), config).compress()
    return lambda: _saved(_coremltools(palettized.eval(), x), path)


def _theirs_with_clusters(model: nn.Module, x: torch.Tensor, path: Path) -> Run:
    """``ct.convert``, then ``palettize_weights`` of what comes out."""
    from coremltools.optimize import coreml as peer

    config = peer.OptimizationConfig(
        global_config=peer.OpPalettizerConfig(mode="kmeans", nbits=_BITS)
    )
    return lambda: _saved(peer.palettize_weights(_coremltools(model, x), config), path)


def _coremltools(model: nn.Module, x: torch.Tensor) -> Any:
    import coremltools as ct

    program = torch.export.export(model, (x,)).run_decompositions({})
    target = ct.target.iOS18
    return ct.convert(program, minimum_deployment_target=target, skip_model_load=True)


def _saved(model: Any, path: Path) -> Path:
    model.save(str(path))
    return path


_KINDS: dict[str, Callable[[nn.Module, torch.Tensor, Path], Run]] = {
    "ours: convert": _ours,
    "coremltools: convert": _theirs,
    "ours: cluster, convert": _ours_with_clusters,
    "coremltools: convert, palettize_weights": _theirs_with_clusters,
}


if __name__ == "__main__":
    main()
