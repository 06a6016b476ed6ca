"""Inputs as small pictures, where they are images: PNG, from zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.model.steps import Steps

MOST = 20  # pictures for one file
_SIDE = 64  # pixels of the longer side
_LEAST = 4  # pixels of a side that is taken for one of an image
_CHANNELS = (1, 3)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2


def pictures(inputs: Inputs | Steps, places: Iterable[int]) -> dict[str, str]:
    """PNG files in base64 of some samples, by their place; none where no input is an image.

    The image is the first input of shape ``(n, c, h, w)`` or ``(n, h, w, c)`` with 1 or 3
    channels. Its values, whatever they mean, are spread from black to white. Steps have none.
    """
    if isinstance(inputs, Steps):
        return {}
    tensors = [t for t in pytree.tree_leaves(arguments(inputs)) if torch.is_tensor(t)]
    image = next((found for t in tensors if (found := _images(t)) is not None), None)
    if image is None:
        return {}
    return {str(i): base64.b64encode(png(_bytes(image[i]))).decode() for i in sorted(set(places))}


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of ``(h, w, 1)`` grey or ``(h, w, 3)`` RGB pixels (RFC 2083)."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY if channels == 1 else _RGB, 0, 0, 0)
    rows = pixels.reshape(height, -1)
    filtered = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()  # filter 0: none
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _images(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor as ``(n, h, w, c)``, or None if it does not look like images."""
    if tensor.ndim != 4 or tensor.is_complex() or tensor.dtype == torch.bool:
        return None
    for layout in (tensor.permute(0, 2, 3, 1), tensor):
        _, height, width, channels = layout.shape
        if channels in _CHANNELS and min(height, width) >= _LEAST:
            return layout
    return None


def _bytes(image: torch.Tensor) -> NDArray[np.uint8]:
    """An image ``(h, w, c)`` made small by taking means of blocks, as bytes."""
    values = _smaller(image.detach().cpu().to(torch.float64).numpy())
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    spread = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    pixels: NDArray[np.uint8] = (255 * spread).round().astype(np.uint8)
    return pixels


def _smaller(values: NDArray[Any]) -> NDArray[Any]:
    step = -(-max(values.shape[:2]) // _SIDE)
    height, width = (max(n // step, 1) for n in values.shape[:2])
    if min(values.shape[:2]) < step:  # a strip: one side is less than a block
        return values[::step, ::step]
    blocks = values[: height * step, : width * step].reshape(height, step, width, step, -1)
    small: NDArray[Any] = blocks.mean((1, 3))
    return small
