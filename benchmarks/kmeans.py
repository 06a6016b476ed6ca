"""K-means after training against Apple's two tools: ``python -m benchmarks.kmeans``.

One layer of normal weights, one thread, in turns. The squared error is over all weights, divided
by their squared norm; LUTs have the weights' dtype. Vectors are drawn anew in every run of a peer:
of three runs the table has the least error. Peers: ``coremltools.optimize.torch``, with its default
settings and with its fast mode, which rounds weights to 4 decimals first; ``coreai-opt`` without
that mode, where it is installed. Weighted by importance coreai-opt takes a whole model, so that is
not measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.process import cpu, in_process, versions

_SIGMA, _REPEATS, _TIMEOUT_S = 0.03, 3, 100.0
_WHO = ("ours", "coremltools", "coremltools, fast", "coreai-opt")


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        label: what the table calls it.
        count: of weights.
        bits: of an index.
        dim: values in one LUT entry.
        tail: share of the weights that are ten times as large.
        weighted: by squared gradients, log-normal noise here.
        half: the weights are float16.
    """

    label: str
    count: int
    bits: int
    dim: int = 1
    tail: float = 0.0
    weighted: bool = False
    half: bool = False


ROWS = [
    Row("4 M, 4 bits", 1 << 22, 4),
    Row("4 M, 4 bits, float16", 1 << 22, 4, half=True),
    Row("4 M, 2 bits, heavy tail", 1 << 22, 2, tail=0.001),
    Row("1 M, 8 bits", 1 << 20, 8),
    Row("1 M, 4 bits, weighted", 1 << 20, 4, weighted=True),
    Row("100 K, 6 bits", 100_000, 6),
    Row("128 K, 4 bits, vectors of 2", 1 << 17, 4, dim=2),
    Row("128 K, 4 bits, vectors of 2, heavy tail", 1 << 17, 4, dim=2, tail=0.001),
    Row("256 K, 3 bits, vectors of 4", 1 << 18, 3, dim=4),
    Row("64 K, 6 bits, vectors of 4", 1 << 16, 6, dim=4),
    Row("128 K, 8 bits, vectors of 4", 1 << 17, 8, dim=4),
    Row("128 K, 4 bits, vectors of 2, weighted", 1 << 17, 4, dim=2, weighted=True),
]


def main() -> None:
    """Print a table, or with ``--one`` measure one row in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("WHO", "ROW"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        who, row = arguments.one
        print(json.dumps(_measure(who, Row(**json.loads(row)))))
        return
    print(f"{cpu()}; {versions('torch', 'coremltools', 'numpy')}")
    print(f"\nCPU seconds, and relative squared errors, of: {' / '.join(_WHO)}")
    if importlib.util.find_spec("coreai_opt") is None:
        print("coreai-opt: not run, it is not installed")
    print("\n| layer | CPU s | relative squared error |\n|---|---|---|")
    for row in ROWS:
        found = [_apart(who, row) for who in _WHO]
        seconds = " / ".join("-" if f is None else f"{f['seconds']:.3f}" for f in found)
        errors = " / ".join("-" if f is None else f"{f['error']:.6e}" for f in found)
        print(f"| {row.label} | {seconds} | {errors} |", flush=True)


def _apart(who: str, row: Row) -> dict[str, float] | None:
    """A measurement in a process of its own; None if it took too long or there is no such mode."""
    if who == "coremltools, fast" and (row.dim > 1 or row.weighted or row.half):
        return None
    if who == "coreai-opt" and (row.weighted or importlib.util.find_spec("coreai_opt") is None):
        return None
    case = ["--one", who, json.dumps(asdict(row))]
    found: dict[str, float] | None = in_process(
        "benchmarks.kmeans", case, threads=1, timeout_s=_TIMEOUT_S
    )
    return found


def _measure(who: str, row: Row) -> dict[str, float]:
    weight, importance = _layer(row)
    run = _runs(who, weight, importance, row)
    times, errors = list[float](), list[float]()
    for _ in range(_REPEATS if who == "ours" or row.dim > 1 else 1):
        start = time.process_time()
        decoded = run()
        times.append(time.process_time() - start)
        gap, mass = (decoded - weight).double().square(), importance.double()
        errors.append(float((mass * gap).sum() / (mass * weight.double().square()).sum()))
    return {"seconds": statistics.median(times), "error": min(errors)}


def _layer(row: Row) -> tuple[Any, Any]:
    """Weights ``(rows, 256)`` or so, and their importance; ones where all count alike."""
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = _SIGMA * torch.randn(row.count // 32, 32, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < row.tail] *= 10
    importance = torch.ones_like(weight)
    if row.weighted:
        importance = torch.randn(weight.shape, generator=generator).mul_(2).exp_()
    return weight.half() if row.half else weight, importance


def _runs(who: str, weight: Any, importance: Any, row: Row) -> Callable[[], Any]:
    if who == "ours":
        return _ours(weight, importance, row)
    if who == "coreai-opt":
        return _coreai(weight, row)
    return _coremltools(weight, importance, row, fast=who.endswith("fast"))


def _ours(weight: Any, importance: Any, row: Row) -> Callable[[], Any]:
    import torch

    from dkm_deploy.clustering.kmeans_palette import cluster
    from dkm_deploy.palette_spec import PaletteSpec

    spec = PaletteSpec(row.bits, row.dim)
    masses = importance if row.weighted else None
    return lambda: torch.tensor(cluster(weight, spec, masses).decode())


def _coremltools(weight: Any, importance: Any, row: Row, *, fast: bool) -> Callable[[], Any]:
    from coremltools.optimize.torch._utils.k_means import KMeans, KMeansConfig

    config = KMeansConfig(
        n_bits=row.bits, cluster_dim=row.dim, axis=0, enable_fast_kmeans_mode=fast
    )
    masses = importance if row.weighted else None

    def _scalars() -> Any:
        centroids, nearest = KMeans._cluster_weights_1d(weight, masses, config)
        return centroids.to(weight.dtype)[nearest].reshape(weight.shape)

    def _vectors() -> Any:
        centroids, nearest = KMeans._cluster_weights_2d(weight, masses, config, 0)
        rows = centroids[nearest.long()].reshape(weight.shape[1], weight.shape[0])
        return rows.T

    return _scalars if row.dim == 1 else _vectors


def _coreai(weight: Any, row: Row) -> Callable[[], Any]:
    import torch
    from coreai_opt.palettization import (
        KMeansPalettizer,
        KMeansPalettizerConfig,
        ModuleKMeansPalettizerConfig,
        PalettizationSpec,
    )

    spec = {"weight": PalettizationSpec(n_bits=row.bits, cluster_dim=row.dim)}
    layer = ModuleKMeansPalettizerConfig(
        op_state_spec=None, module_state_spec=spec, enable_fast_kmeans_mode=False
    )

    config = KMeansPalettizerConfig(global_config=None, module_name_configs={"0": layer})

    def _run() -> Any:
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        linear.weight.data = weight.clone()
        palettizer = KMeansPalettizer(torch.nn.Sequential(linear), config)
        made = palettizer.prepare((torch.zeros(1, weight.shape[1], dtype=weight.dtype),))
        return made.get_submodule("0").weight.detach()

    return _run


if __name__ == "__main__":
    main()
