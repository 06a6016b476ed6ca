"""What the palettes of a prepared model look like right now."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.clustering.dkm.collapse import duplicates
from dkm_deploy.training.prepare import PreparedWeight, require_prepared


@dataclass(frozen=True)
class LayerStatus:
    """One prepared weight.

    Attributes:
        bits: of an index.
        cluster_dim: values in one LUT entry.
        groups: LUTs of the weight.
        temperature: tau over the variance, after the schedule; 0 for hard methods.
        variance: of the weights, over their scale if they have one; mean over groups.
        distinct_centroids: fewest centroids of a group that lie apart, of ``2**bits``.
        soft_hard_gap: ``|soft - hard| / |weight|``, Frobenius norms.
        repaired: centroids so far that ran into another one and were sent off again; a number
            that keeps growing says that the temperature is too high.
        note: how the recipe's default was changed to fit the weight, and why; empty if it was not.
    """

    bits: int
    cluster_dim: int
    groups: int
    temperature: float
    variance: float
    distinct_centroids: int
    soft_hard_gap: float
    repaired: int
    note: str


@usage("dkm.status(model)")
def status(model: nn.Module) -> dict[str, LayerStatus]:
    """Report the state of every prepared weight: bits, temperature, centroids, soft-hard gap.

    Args:
        model: a model from ``dkm.prepare``; it does not change.

    Returns:
        A :class:`dkm_deploy.training.status.LayerStatus` by qualified parameter name.

    Raises:
        DkmError: the model is not prepared.

    Example:
        >>> weight = dkm.status(dkm.prepare(nn.Linear(8, 4), 2))["weight"]
        >>> weight.bits, weight.groups, weight.distinct_centroids
        (2, 1, 4)
    """
    return {layer.name: _status(layer) for layer in require_prepared(model)}


@torch.no_grad()
def _status(layer: PreparedWeight) -> LayerStatus:
    soft, weight = layer.soft, layer.weight
    levels, variance = soft.levels(), soft.variance(weight)
    temperature = soft.tau(variance) / variance.clamp(min=torch.finfo().tiny)
    return LayerStatus(
        bits=soft.spec.bits,
        cluster_dim=soft.spec.cluster_dim,
        groups=len(levels),
        temperature=temperature.mean().item(),
        variance=variance.mean().item(),
        distinct_centroids=int((~duplicates(levels, variance.sqrt())).sum(1).min()),
        soft_hard_gap=soft.gap(weight).item(),
        repaired=int(soft.repaired),
        note=soft.note,
    )
