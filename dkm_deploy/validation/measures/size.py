"""What a PyTorch model weighs, what a file weighs when an app store ships it, and the ideal."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from dkm_deploy.assignment import not_a_weight
from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.model.checkpoint import dense_tensors
from dkm_deploy.model.palettized import palettes
from dkm_deploy.packing import packed_size
from dkm_deploy.palette import Palette

_CHUNK = 1 << 20
_LEVEL = 6  # zlib's own default, which zip tools use too


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of a model's tensors as in a checkpoint of ``dkm.save``: palettes packed, no header."""
    dense = sum(t.nbytes for t in dense_tensors(model).values())
    return _packed_bytes(palettes(model).values()) + dense


def half_bytes(model: nn.Module) -> int:
    """The same with every floating-point tensor that is not in a palette as float16."""
    dense = sum(_half(t) for t in dense_tensors(model).values())
    return _packed_bytes(palettes(model).values()) + dense


def deflated_bytes(ledger: Ledger) -> int:
    """Bytes of a file's parts after deflate, which .ipa, .apk and .aab archives use.

    Each part is compressed by itself, as zip does; the archive's own headers are not counted.
    """
    return sum(
        _deflated_size(part) for path in (ledger.path, *ledger.companions) for part in _parts(path)
    )


def ideal_bytes(
    ledger: Ledger, stored: Mapping[str, Palette], frozen: Mapping[str, Palette]
) -> int:
    """Bytes of the file's palettes and dense weights alone: no graph, no names, no padding.

    Indices count with the bits of the frozen palette, where there is one, even if the file holds
    them wider; LUTs in the precision of the file.
    """
    widths = {name: frozen.get(name, palette).bits for name, palette in stored.items()}
    indices = sum(packed_size(p.indices.size, widths[name]) for name, p in stored.items())
    luts = sum(_lut_bytes(p, 1 << widths[name]) for name, p in stored.items())
    return indices + luts + ledger.by_kind()["dense"]


def bits_per_weight(model: nn.Module) -> float | None:
    """Bits of palettes over palettized weights; of a plain model, of its weights over them."""
    found = palettes(model).values()
    if found:
        return sum(p.bits_per_weight * p.size for p in found) / sum(p.size for p in found)
    weights = [p for p in model.parameters() if not not_a_weight(p)]
    return 8 * sum(w.nbytes for w in weights) / sum(w.numel() for w in weights) if weights else None


def _packed_bytes(found: Iterable[Palette]) -> int:
    return sum(packed_size(p.indices.size, p.bits) + p.lut_bytes for p in found)


def _half(tensor: Tensor) -> int:
    size = tensor.element_size()
    return int(tensor.numel() * (min(size, 2) if tensor.is_floating_point() else size))


def _lut_bytes(palette: Palette, entries: int) -> int:
    """Bytes of LUTs and scale with ``entries`` entries a LUT."""
    width = 1 << palette.bits
    unused: int = palette.lut.nbytes // width * max(width - entries, 0)
    return palette.lut_bytes - unused


def _parts(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from (part for part in path.rglob("*") if part.is_file())
    else:
        yield path


def _deflated_size(path: Path) -> int:
    packer, size = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(packer.compress(chunk))
    return size + len(packer.flush())
