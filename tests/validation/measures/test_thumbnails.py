"""Inputs as PNG files, decoded again by hand and by no library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
import torch

import dkm_deploy as dkm
from dkm_deploy.validation.measures.thumbnails import pictures, png
from tests.models import MIXED, images, small_net


def decoded(data):
    """Pixels ``(h, w, c)`` of a PNG file whose rows are not filtered; every sum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (total,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert total == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[b"IEND"] == b""
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_its_pixels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    data = png(pixels)
    assert np.array_equal(decoded(data), pixels)
    rows = np.hstack([np.zeros((5, 1), np.uint8), pixels.reshape(5, -1)])
    assert zlib.compress(rows.tobytes(), 9) in data  # as small as zlib makes it


def shown(tensor, places=(1,)):
    found = pictures(tensor, places)
    return {place: decoded(base64.b64decode(data)) for place, data in found.items()}


@pytest.mark.parametrize("channels", [1, 3])
def test_both_layouts_give_the_same_picture(channels):
    values = torch.rand(4, channels, 8, 9)
    (first,) = shown(values).values()
    (second,) = shown(values.permute(0, 2, 3, 1)).values()
    assert np.array_equal(first, second)
    assert first.shape == (8, 9, channels)
    assert (first.min(), first.max()) == (0, 255)
    assert np.abs(first / 255 - _spread(values[1])).max() < 0.01


def _spread(image):
    values = image.permute(1, 2, 0).numpy()
    return (values - values.min()) / (values.max() - values.min())


def test_each_place_is_shown_once_and_in_order():
    assert list(shown(torch.rand(9, 1, 8, 8), [7, 2, 7])) == ["2", "7"]


def test_large_images_become_small_by_means():
    values = torch.zeros(2, 1, 256, 128)
    values[:, :, :, 64:] = 2.0
    (pixels,) = shown(values).values()
    assert pixels.shape == (64, 32, 1)
    assert (pixels[:, :16] == 0).all()
    assert (pixels[:, 16:] == 255).all()


def test_a_side_of_64_is_left_as_it_is_and_a_longer_one_is_halved():
    values = torch.arange(2 * 65 * 9.0).reshape(2, 1, 65, 9)
    (pixels,) = shown(values).values()
    means = values[1, 0, :64, :8].reshape(32, 2, 4, 2).mean((1, 3))  # edges are cut
    expected = (255 * (means - means.min()) / (means.max() - means.min())).round()
    assert np.array_equal(pixels[:, :, 0], expected.numpy())
    assert shown(values[:, :, :64])["1"].shape == (64, 9, 1)
    assert shown(values.permute(0, 1, 3, 2))["1"].shape == (4, 32, 1)


def test_a_strip_is_shown_too():
    values = torch.arange(8000.0).reshape(2, 1, 4, 1000)
    (pixels,) = shown(values).values()
    assert pixels.shape == (1, 63, 1)  # every 16th pixel
    assert np.array_equal(pixels[0, :, 0], (255 * np.arange(63) / 62).round())
    values = torch.arange(2048.0).reshape(2, 1, 4, 256)
    (pixels,) = shown(values).values()  # one block high
    assert np.array_equal(pixels[0, :, 0], (255 * np.arange(64) / 63).round())
    values[1, 0, 3, 3] = 0  # the last of the first block, whose mean is less
    assert shown(values)["1"][0, 1, 0] > pixels[0, 1, 0]


def test_what_is_not_finite_is_black_or_white():
    values = torch.tensor([torch.nan, -torch.inf, torch.inf, 2.0, 4.0, 3.0, 2.0, 2.0])
    image = values.repeat(8).reshape(1, 1, 8, 8)
    (pixels,) = shown(image, (0,)).values()
    assert pixels[0, :, 0].tolist() == [0, 0, 255, 0, 255, 128, 0, 0]
    for value in (torch.nan, torch.inf, -torch.inf):  # and nothing else
        assert not shown(torch.full((1, 1, 4, 4), value), (0,))["0"].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_images_of_any_kind_of_number_are_shown(dtype):
    values = (torch.arange(64) * 2).reshape(1, 1, 8, 8).to(dtype)
    if dtype.is_floating_point:
        values.requires_grad_()
    (pixels,) = shown(values, (0,)).values()
    assert pixels.ravel().tolist() == np.round(255 * np.arange(64) / 63).tolist()


def test_a_plain_image_and_one_with_nan_are_shown():
    (pixels,) = shown(torch.ones(2, 1, 8, 8)).values()
    assert not pixels.any()
    values = torch.rand(2, 3, 8, 8)
    values[:, 0, 0, 0] = torch.nan
    assert shown(values)["1"].shape == (8, 8, 3)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.rand(4, 8),
        torch.rand(4, 2, 8, 8),
        torch.rand(4, 3, 2, 2),
        torch.rand(4, 3, 3, 8),
        torch.ones(4, 16).long(),
        torch.rand(4, 3, 8),
        torch.rand(4, 3, 8, 8, 8),
        torch.rand(4, 3, 8, 8) > 0.5,
        torch.rand(4, 3, 8, 8) * 1j,
        dkm.Steps([torch.rand(4, 3, 8, 8)]),
    ],
)
def test_what_is_no_image_has_no_picture(inputs):
    assert pictures(inputs, [0]) == {}


def test_the_image_is_found_among_the_inputs():
    inputs = {"ids": torch.ones(4, 16), "pixels": torch.rand(4, 3, 8, 8)}
    assert list(pictures(inputs, [2])) == ["2"]


def test_a_report_shows_the_flips_of_its_files(tmp_path):
    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(frozen, images(1), tmp_path / "m.onnx").path
    report = dkm.validate([path], reference=frozen, original=small_net(3), inputs=images(60))
    flips = [str(flip.input) for flip in report.files[0].flips]
    assert len(flips) > 0
    assert list(report.pictures) == flips[:20]
    assert dkm.validate([], reference=frozen, inputs=images(2)).pictures == {}
