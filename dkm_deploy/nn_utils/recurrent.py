"""Gates of recurrent layers: equal blocks along dimension 0 of a weight."""

from __future__ import annotations

from torch import nn

GATES = "_dkm_gates"
"""Attribute of a layer that is no ``nn.LSTM`` or ``nn.GRU``, but computes what these do."""


def gates(model: nn.Module, weight: str) -> int:
    """Equal blocks along dimension 0 of a weight: the gates of a recurrent layer."""
    layer = model.get_submodule(weight.rpartition(".")[0])
    if isinstance(layer, (nn.LSTM, nn.GRU)):
        return 4 if isinstance(layer, nn.LSTM) else 3
    known: int = getattr(layer, GATES, 1)
    return known
