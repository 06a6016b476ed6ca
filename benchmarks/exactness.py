"""How far the DKM layer is from dense float64 autograd: ``python -m benchmarks.exactness``.

The reference of the tests, on more weights than a test suite has time for: up to 16 M scalars and
4 M weights in vectors. Output errors are in units of the weights' range, gradient errors relative
in the 2-norm, for the same upstream noise.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from dkm_deploy.clustering.dkm.soft_cluster import soft_cluster
from dkm_deploy.clustering.kmeans.kmeans import kmeans
from tests.clustering.dkm.reference import dense_soft_cluster

_SIGMA = 0.02
_LIMITS = {1: (1e-5, 2e-3), 0: (1e-5, 1e-4)}  # output and gradient; scalars, vectors


@dataclass(frozen=True)
class Case:
    """One row: ``count`` weights of a distribution in vectors of ``dim``."""

    kind: str
    count: int
    bits: int
    temperature: float
    dim: int = 1
    iterations: int = 1


CASES = [
    *(
        Case(kind, 1 << 24, 4, temperature)
        for kind in ("gaussian", "heavy tail", "many zeros")
        for temperature in (1e-4, 3e-3, 0.2)
    ),
    Case("all equal", 1 << 24, 4, 3e-3),
    Case("gaussian", 1 << 24, 2, 0.05, iterations=3),
    Case("gaussian", 1 << 21, 8, 1e-4),
    Case("heavy tail", 1 << 21, 6, 0.01, iterations=3),
    *(Case("gaussian", 1 << 22, 6, temperature, dim=4) for temperature in (1e-4, 3e-3, 0.2)),
    Case("heavy tail", 1 << 22, 8, 3e-3, dim=8),
]
QUICK = [Case("gaussian", 1 << 18, 4, 3e-3), Case("gaussian", 1 << 16, 4, 3e-3, dim=2)]


def main() -> None:
    """Print one row a case; exit with 1 if one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small cases")
    parser.add_argument("--start", type=int, default=1, help="the first row, counted from 1")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}\n")
    print("| weights | distribution | bits x dim | tau / Var | iterations ", end="")
    print("| output error | limit | gradient error | limit | CPU s, ours / reference |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    met = True
    for case in (QUICK if arguments.quick else CASES)[arguments.start - 1 :]:
        met &= _row(case)
        sys.stdout.flush()
    sys.exit(0 if met else 1)


def _row(case: Case) -> bool:
    weights, centroids, tau, upstream = _inputs(case)
    soft, gradient, ours = _timed(soft_cluster, weights, centroids, tau, case, upstream)
    exact, exact_gradient, reference = _timed(
        dense_soft_cluster,
        weights.double(),
        centroids.double(),
        tau.double(),
        case,
        upstream.double(),
    )
    span = (weights.amax() - weights.amin()).item()
    output = (soft - exact).abs().amax().item() / (span or 1.0)
    pull = ((gradient - exact_gradient).norm() / exact_gradient.norm()).item()
    limits = _LIMITS[int(case.dim == 1)]
    print(
        f"| {case.count:,} | {case.kind} | {case.bits} x {case.dim} | {case.temperature:g} "
        f"| {case.iterations} | {output:.1e} | {limits[0]:g} | {pull:.1e} | {limits[1]:g} "
        f"| {ours:.2f} / {reference:.1f} |"
    )
    return output <= limits[0] and pull <= limits[1]


def _inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = _SIGMA * torch.randn(1, case.count // case.dim, case.dim, generator=generator)
    if case.kind == "heavy tail":
        weights[:, 0, 0] = 50 * _SIGMA
    if case.kind == "many zeros":
        weights[:, ::2] = 0
    if case.kind == "all equal":
        weights[:] = _SIGMA
    upstream = torch.randn(weights.shape, generator=generator)
    few = weights[:, : 1 << 16]
    centroids = kmeans(few, 1 << case.bits, iterations=20)
    variance = weights.double().var(correction=0).clamp(min=1e-12)
    return weights, centroids, (case.temperature * variance).float()[None], upstream


def _timed(
    cluster: object, weights: Tensor, centroids: Tensor, tau: Tensor, case: Case, upstream: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Soft weights and gradient, float64, and the CPU seconds that they took."""
    start = time.process_time()
    weights = weights.clone().requires_grad_()
    soft, _ = cluster(weights, centroids, tau, case.iterations)  # type: ignore[operator]
    (gradient,) = torch.autograd.grad(soft, weights, upstream)
    spent = time.process_time() - start
    return soft.detach().double(), gradient.double(), spent


if __name__ == "__main__":
    main()
