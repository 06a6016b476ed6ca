"""Samples between pixels: all modes of resample and crop_resize, against torch and numpy."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import mb, n, rand, save

X = rand(2, 3, 5, 4)
POINTS = 1.5 * rand(2, 3, 6, 2)  # in -1 to 1 and far outside
GRID = list(itertools.product(["bilinear", "nearest"], [True, False]))


def _resampled(folder, x, points, **options):
    def body(image, places):
        return mb.resample(
            x=image, coordinates=places, padding_value=np.float32(0.5), name="y", **options
        )

    path = save(folder / "m.mlpackage", body, tuple(x.shape), tuple(points.shape))
    return torch.from_numpy(runtime.load(path).run({"image": n(x), "places": n(points)})["y"])


def _unit(pixels, lengths, align_corners):
    """Columns and rows in torch's range of -1 to 1."""
    if align_corners:
        return 2 * pixels / (lengths - 1) - 1
    return (2 * pixels + 1) / lengths - 1


@pytest.mark.parametrize(("sampling", "align"), GRID)
@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
def test_resample_matches_torch(tmp_path, sampling, align, padding):
    """torch mirrors at centres if corners are aligned, and at edges if not: so it has both."""
    options = {"sampling_mode": sampling, "padding_mode": padding, "align_corners": align}
    made = _resampled(
        tmp_path, X, POINTS, coordinates_mode="normalized_minus_one_to_one", **options
    )
    lengths = torch.tensor([X.shape[3], X.shape[2]])
    pixels = (POINTS + 1) / 2 * (lengths - 1) if align else (POINTS + 1) / 2 * lengths - 0.5
    if padding == "constant":
        expected = f.grid_sample(X - 0.5, POINTS, sampling, "zeros", align) + 0.5
    else:
        ours = {"reflection": True, "symmetric": False}.get(padding, align)
        mode = "border" if padding == "border" else "reflection"
        expected = f.grid_sample(X, _unit(pixels, lengths, ours), sampling, mode, ours)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["reflection", "symmetric"])
def test_mirrors_are_numpys(tmp_path, padding):
    rows, columns = torch.meshgrid(torch.arange(-4, 9), torch.arange(-3, 7), indexing="ij")
    points = torch.stack([columns, rows], -1).float().expand(2, -1, -1, -1)
    options = {"padding_mode": padding, "coordinates_mode": "unnormalized", "align_corners": True}
    made = _resampled(tmp_path, X, points, sampling_mode="bilinear", **options)
    mode = {"reflection": "reflect", "symmetric": "symmetric"}[padding]
    expected = np.pad(n(X), [(0, 0), (0, 0), (4, 4), (3, 3)], mode=mode)
    np.testing.assert_allclose(n(made), expected, rtol=1e-5, atol=1e-5)


def test_coordinates_of_zero_to_one(tmp_path):
    options = {"sampling_mode": "bilinear", "padding_mode": "border", "align_corners": False}
    made = _resampled(
        tmp_path, X, (POINTS + 1) / 2, coordinates_mode="normalized_zero_to_one", **options
    )
    expected = f.grid_sample(X, POINTS, "bilinear", "border", align_corners=False)
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_a_single_pixel_knows_inside_from_outside(tmp_path):
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]).reshape(1, 1, 3, 2)
    options = {"coordinates_mode": "unnormalized", "align_corners": True}
    options |= {"sampling_mode": "bilinear", "padding_mode": "constant"}
    made = _resampled(tmp_path, torch.full((1, 1, 1, 1), 2.5), points, **options)
    torch.testing.assert_close(made.flatten(), torch.tensor([2.5, 0.5, 1.5]))


def _grid_points(x_in, x_out, mode):
    """The formulas of coremltools' documentation of resize_bilinear, for an interval [0, Xin-1]."""
    i = np.arange(x_out)
    if mode == "DEFAULT":
        points = i * (x_in - x_in / x_out) / max(1, x_out - 1)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, x_in - 1) / x_out
        points = 0.5 * delta + i * delta
    elif mode == "UNALIGN_CORNERS":
        points = i * x_in / x_out + 0.5 * x_in / x_out - 0.5
    elif x_out == 1:
        points = np.array([(x_in - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0])
    else:
        points = i * (x_in - 1) / (x_out - 1)
    return np.minimum(x_in - 1, np.maximum(0, points))


def _bilinear(image, rows, columns):
    """Samples of ``(channels, height, width)`` at all pairs, in float64."""

    def along(array, places, axis):
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, array.shape[axis] - 1)
        share = (places - low).reshape([-1] + [1] * (array.ndim - 1 - axis))
        return np.take(array, low, axis) * (1 - share) + np.take(array, high, axis) * share

    return along(along(image.astype(np.float64), rows, 1), columns, 2)


MODES = ["DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS", "ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"]
BOXES = [[0.5, 0.25, 3.25, 2.75], [1, 1, 3, 3], [0, 0, 4, 3], [2, 1, 2, 1.5]]


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (7, 2)])
@pytest.mark.parametrize("mode", MODES)
def test_crop_resize_follows_the_documented_grid(tmp_path, mode, size):
    def body(x):
        return mb.crop_resize(
            x=x,
            boxes=np.array(BOXES, np.float32),
            box_indices=np.zeros(len(BOXES), np.int32),
            target_height=size[0],
            target_width=size[1],
            sampling_mode=mode,
            name="y",
        )

    path = save(tmp_path / "m.mlpackage", body, tuple(X.shape))
    made = runtime.load(path).run({"x": n(X)})["y"]
    for found, (top, left, bottom, right) in zip(made, BOXES, strict=True):
        rows = top + _grid_points(bottom - top + 1, size[0], mode)
        columns = left + _grid_points(right - left + 1, size[1], mode)
        np.testing.assert_allclose(found, _bilinear(n(X[0]), rows, columns), rtol=1e-4, atol=1e-5)


def test_a_crop_of_whole_pixels_is_a_resize_of_the_part(tmp_path):
    def body(x):
        boxes = np.array([[1, 0, 4, 2]], np.float32)
        size = {"target_height": 6, "target_width": 2}
        return mb.crop_resize(x=x, boxes=boxes, sampling_mode="UNALIGN_CORNERS", name="y", **size)

    path = save(tmp_path / "m.mlpackage", body, tuple(X.shape))
    made = torch.from_numpy(runtime.load(path).run({"x": n(X)})["y"])
    expected = f.interpolate(X[:1, :, 1:5, :3], (6, 2), mode="bilinear")
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def _turned(folder, mode):
    def body(x):
        boxes = np.array([[3, 2, 1, 1]], np.float32)
        size = {"target_height": 3, "target_width": 2}
        return mb.crop_resize(x=x, boxes=boxes, sampling_mode=mode, name="y", **size)

    path = save(folder / "m.mlpackage", body, tuple(X.shape))
    return torch.from_numpy(runtime.load(path).run({"x": n(X)})["y"])


def test_a_box_that_ends_before_it_starts(tmp_path):
    made = _turned(tmp_path, "ALIGN_CORNERS")
    torch.testing.assert_close(made, X[:1, :, 1:4, 1:3].flip(2, 3), rtol=1e-5, atol=1e-5)
    with pytest.raises(DkmError, match="a box ends before it starts; sampling_mode 'DEFAULT'"):
        _turned(tmp_path, "DEFAULT")
