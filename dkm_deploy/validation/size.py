"""What a PyTorch model weighs, counted as ``dkm.save`` would write it."""

from __future__ import annotations

from torch import nn

from dkm_deploy.packing import packed_size
from dkm_deploy.recipe import not_a_weight
from dkm_deploy.training.checkpoint import dense_tensors
from dkm_deploy.training.freeze import palettes


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of a model's tensors, palettes packed as in a checkpoint."""
    found = palettes(model)
    packed = sum(packed_size(p.indices.size, p.bits) + p.lut_bytes for p in found.values())
    return packed + sum(t.nbytes for t in dense_tensors(model).values())


def bits_per_weight(model: nn.Module) -> float | None:
    """Bits of palettes over palettized weights; of a plain model, of its weights over them."""
    found = palettes(model).values()
    if found:
        return sum(p.bits_per_weight * p.size for p in found) / sum(p.size for p in found)
    weights = [p for p in model.parameters() if not not_a_weight(p)]
    return 8 * sum(w.nbytes for w in weights) / sum(w.numel() for w in weights) if weights else None
