"""One model converted with short and with full names, for what both must share."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import dkm_deploy as dkm
from tests.models import images, small_net


def short_and_full(
    folder: Path, suffix: str, count: int
) -> tuple[nn.Module, dict[str, dkm.Artifact]]:
    """A frozen model, and its files by the kind of their names.

    Args:
        folder: for the files.
        suffix: of the target.
        count: images that the files take at once.
    """
    torch.manual_seed(0)
    frozen = dkm.palettize(small_net().eval(), dkm.PaletteSpec(3))
    return frozen, {
        names: dkm.convert(frozen, images(count), folder / f"{names}{suffix}", names=names)
        for names in ("short", "full")
    }
