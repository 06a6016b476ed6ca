"""rapidocr: where text is, which way up it is and what it says, for text that is drawn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.pypi_models.case import Array, Case, input_name, same_top_1, top_1

_LINES = (
    "The quick brown fox", "jumps over the lazy dog", "0123456789", "Total: 42.50 EUR",
    "dkm-deploy", "lookup tables", "Invoice No. 2026-11", "Hello, world!",
)  # fmt: skip
_PAGES, _PAGE = 6, (320, 320)
# As the package prepares them: height and width of a line for each model.
_UPRIGHT, _LINE = (48, 192), (48, 320)
_INK = 0.3  # the probability from which a pixel is text


def text_images(package: Path, pillow: Path) -> Iterator[Case]:
    """A case for each of the three models."""
    sys.path.insert(0, str(pillow))  # the one use of Pillow, which need not be installed
    models = package / "rapidocr" / "models"
    yield _case(
        next(models.glob("*_det_*.onnx")),
        np.stack([_page(number) for number in range(_PAGES)]),
        _is_text,
        _overlap,
        f"{_PAGES} pages of text; overlap of the text's areas",
    )
    yield _case(
        next(models.glob("*_rec_*.onnx")),
        np.stack([_line(text, _LINE) for text in _LINES]),
        top_1,
        _same_text,
        f"{len(_LINES)} lines of text; read the same",
    )
    lines = np.stack([_line(text, _UPRIGHT) for text in _LINES])
    yield _case(
        next(models.glob("*_cls_*.onnx")),
        np.concatenate([lines, lines[:, :, ::-1, ::-1]]),
        top_1,
        same_top_1,
        f"{len(_LINES)} lines, also upside down; same way up",
    )


def _case(path: Path, images: Array, answers: Any, agreement: Any, what: str) -> Case:
    inputs = {input_name(path): torch.from_numpy(images)}
    return Case(path.stem, path, inputs, answers, agreement, what)


def _is_text(output: Array) -> Array:
    return output > _INK


def _overlap(output: Array, answers: Array) -> float:
    """Mean intersection over union of the pages, in percent."""
    ours, theirs = (a.reshape(len(a), -1) for a in (_is_text(output), answers))
    both, either = (ours & theirs).sum(1), (ours | theirs).sum(1)
    return 100 * float(np.mean(both / np.maximum(either, 1)))


def _same_text(output: Array, answers: Array) -> float:
    """Percent of lines that read the same."""
    pairs = zip(top_1(output), answers, strict=True)
    return 100 * float(np.mean([_text(ours) == _text(theirs) for ours, theirs in pairs]))


def _text(steps: Array) -> list[int]:
    """The letters of a line: repeated ones once, and not the blank, class 0."""
    kept = np.concatenate([[True], steps[1:] != steps[:-1]]) & (steps != 0)
    letters: list[int] = steps[kept].tolist()
    return letters


def _line(text: str, size: tuple[int, int]) -> Array:
    """A line of text, as high as the image, with nothing behind it."""
    height, width = size
    return _normalized(_drawn([(text, (6, 4))], (height, width), int(height * 0.6)))


def _page(number: int) -> Array:
    """Four lines at places that differ from page to page."""
    random = np.random.default_rng(number)
    lines = [
        (_LINES[(number + place) % len(_LINES)], (int(random.integers(10, 60)), 20 + 75 * place))
        for place in range(4)
    ]
    return _normalized(_drawn(lines, _PAGE, 22 + 2 * number))


def _drawn(lines: list[tuple[str, tuple[int, int]]], size: tuple[int, int], letters: int) -> Array:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", size[::-1], 255)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(letters)
    for text, place in lines:
        pen.text(place, text, 0, font=font)
    return np.asarray(image)


def _normalized(image: Array) -> Array:
    """Three equal channels, -1 to 1."""
    values = image.astype(np.float32) / 127.5 - 1
    return np.repeat(values[None], 3, 0)
