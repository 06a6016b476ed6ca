"""CPU time and memory of DKM on one layer, in turns with coremltools' FakePalettize.

Run ``python -m benchmarks.dkm_layer [--quick]``. Every measurement is a process of its own with
one thread, so that CPU time is work and not waiting. After the layers come whole models: see
``benchmarks.model_step``.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.process import cpu, in_process, versions

_SIGMA = 0.05  # of the weights, for which the peer's fixed tau of 1e-4 is a sensible 0.04 * Var
_TAU = 1e-4
_ITERATIONS = 3
_TIMEOUT_S = 180


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        label: what it says.
        count: weights of the layer.
        bits: of an index.
        dim: of a vector.
        init: measure the start of the centroids, not a step.
        peer: measure the peer.
        part: the peer gets a layer this many times smaller, and its time is multiplied: at 8
            bits it would keep 39 GB.
        groups: LUTs of the layer.
        target: what to reach, against the peer.
    """

    label: str
    count: int
    bits: int
    dim: int = 1
    init: bool = False
    peer: bool = True
    part: int = 1
    groups: int = 1
    target: str = "-"


ROWS = [
    Row("4 M, 4 bits, 3 iterations", 1 << 22, 4, target="40x"),
    Row("4 M, 8 bits, 3 iterations", 1 << 22, 8, part=16, target="100x"),
    Row("4 M, 8 bits, vectors of 8", 1 << 22, 8, dim=8, part=4, target="2x, 1/20 memory"),
    Row("4 M, 4 bits, initialisation", 1 << 22, 4, init=True, target="0.3 s"),
    Row("16 M, 4 bits, 3 iterations", 1 << 24, 4, peer=False),
    Row("4 M, 4 bits, 128 LUTs, 3 iterations", 1 << 22, 4, groups=128, peer=False),
]
QUICK = [Row("64 K, 4 bits, 3 iterations", 1 << 16, 4, target="40x")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small layer only")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(**json.loads(arguments.measure))))
        return
    print(f"{cpu()}, one thread used; {versions('torch', 'coremltools', 'numpy')}")
    print(
        "At 8 bits the peer ran on a smaller layer: its seconds are multiplied, its RSS is not.\n"
    )
    print(
        "| layer | ours CPU s | peer CPU s | ratio | target | floor CPU s | kept B/weight, ours",
        end="",
    )
    print(" / peer | peak RSS MB, ours / peer |\n|---|---|---|---|---|---|---|---|")
    for row in QUICK if arguments.quick else ROWS:
        ours = _in_process(row, "ours")
        peer = _in_process(row, "peer") if row.peer else None
        print(_line(row, ours, peer, _in_process(row, "floor")), flush=True)
    if not arguments.quick:
        from benchmarks.model_step import print_table

        print()
        print_table(steps=3, rounds=2)


def _in_process(row: Row, who: str) -> dict[str, float] | None:
    """A measurement in a fresh process, or None if it took too long."""
    case = json.dumps({"who": who, **asdict(row)})
    found: dict[str, float] | None = in_process(
        "benchmarks.dkm_layer", ["--measure", case], threads=1, timeout_s=_TIMEOUT_S
    )
    return found


def _measure(who: str, **case: Any) -> dict[str, float]:
    row = Row(**case)
    part = row.part if who == "peer" else 1
    row = replace(row, count=row.count // part)
    runs = {"ours": _ours, "peer": _peer, "floor": _floor}
    before = _peak_rss()
    step, repeats = runs[who](row)
    start = _peak_rss() if not row.init else before
    kept = _kept_bytes(step) if who != "floor" and not row.init else 0
    times = [_cpu_time(step) for _ in range(repeats)]
    return {
        "seconds": part * statistics.median(times),
        "kept": kept / row.count,
        "rss": (_peak_rss() - start) / 1e6,
    }


def _cpu_time(step: Callable[[], Any]) -> float:
    start = time.process_time()
    result = step()
    if result is not None:
        result.backward(_gradient(result))
    return time.process_time() - start


def _gradient(result: Any) -> Any:
    import torch

    return torch.ones((), dtype=result.dtype).expand(result.shape).contiguous()


def _peak_rss() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _kept_bytes(step: Callable[[], Any]) -> int:
    """Bytes that a forward pass keeps for backward, the layer's own weight left out."""
    import torch

    sizes: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        if not (tensor.is_leaf and tensor.requires_grad) and tensor._base is None:
            sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(sizes.values())


def _weight(row: Row) -> Any:
    import torch

    shape = (2048, row.count // 2048) if row.count >= 1 << 20 else (256, row.count // 256)
    generator = torch.Generator().manual_seed(0)
    return (_SIGMA * torch.randn(shape, generator=generator)).requires_grad_()


def _start(weight: Any, row: Row) -> Any:
    from dkm_deploy.clustering.kmeans.kmeans import kmeans

    vectors = weight.detach().reshape(row.groups, -1, row.dim)[:, : 1 << 15]
    return kmeans(vectors, 1 << row.bits, iterations=10)


def _ours(row: Row) -> tuple[Callable[[], Any], int]:
    import torch

    from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
    from dkm_deploy.clustering.kmeans.kmeans import kmeans

    weight = _weight(row)
    if row.init:

        def initialise() -> None:
            kmeans(weight.detach().reshape(row.groups, -1, row.dim), 1 << row.bits)

        return initialise, 3
    start, tau = _start(weight, row), torch.full((row.groups,), _TAU)
    return (
        lambda: soft_cluster(weight.reshape(row.groups, -1, row.dim), start, tau, _ITERATIONS)[0],
        2 if row.dim > 1 else 5,
    )


def _peer(row: Row) -> tuple[Callable[[], Any], int]:
    import torch
    from coremltools.optimize.torch import palettization as peer
    from coremltools.optimize.torch.palettization.fake_palettize import FakePalettize

    weight = _weight(row)
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight.data)
    options = peer.ModuleDKMPalettizerConfig(
        n_bits=row.bits, cluster_dim=row.dim, weight_threshold=0, palett_tau=_TAU
    )
    palettizer = peer.DKMPalettizer(
        torch.nn.Sequential(layer), peer.DKMPalettizerConfig(global_config=options)
    )
    model = palettizer.prepare()
    fake = next(m for m in model.modules() if isinstance(m, FakePalettize))
    fake.enable_fake_palett(True)
    if row.init:

        def initialise() -> None:
            fake.create_partitions(weight.detach())
            fake.init_partitions(weight.detach().clone())

        return initialise, 1
    fake.create_partitions(weight.detach())
    fake.centroids[0] = _start(weight, row)[0]
    return lambda: fake(weight), 1


def _floor(row: Row) -> tuple[Callable[[], Any], int]:
    """Read and write four arrays of the layer's size once: weight, soft, both gradients."""
    import torch

    arrays = [torch.rand(row.count) for _ in range(4)]

    def step() -> None:
        torch.add(arrays[0], 1, out=arrays[1])
        torch.add(arrays[2], 1, out=arrays[3])

    return step, 5


def _line(
    row: Row,
    ours: dict[str, float] | None,
    peer: dict[str, float] | None,
    floor: dict[str, float] | None,
) -> str:
    late = f"> {_TIMEOUT_S} (wall)"
    seconds = [f"{found['seconds']:.3f}" if found else late for found in (ours, peer)]
    faster = peer["seconds"] / ours["seconds"] if peer and ours else None
    ratio = "-" if faster is None else f"{faster:.{0 if faster > 10 else 1}f}x"
    if not row.peer:
        seconds[1] = "-"
    base = f"{floor['seconds']:.4f}" if floor else late
    pairs = [
        " / ".join(f"{found[key]:.{digits}f}" if found else "-" for found in (ours, peer))
        for key, digits in [("kept", 2), ("rss", 0)]
    ]
    return "| " + " | ".join([row.label, *seconds, ratio, row.target, base, *pairs]) + " |"


if __name__ == "__main__":
    main()
