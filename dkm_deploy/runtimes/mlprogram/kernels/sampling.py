"""Images sampled at given points: resample, affine, crop_resize. Bilinear or nearest."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel
from dkm_deploy.runtimes.mlprogram.kernels.resizing import grid

_SAMPLING = ("bilinear", "nearest")
_ALIGNED = ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS")  # modes in which a box may be turned round
_BOXES = {  # where start (or centre) and end (or size) of height and width stand
    "CORNERS_HEIGHT_FIRST": (0, 1, 2, 3),
    "CORNERS_WIDTH_FIRST": (1, 0, 3, 2),
    "CENTER_SIZE_HEIGHT_FIRST": (0, 1, 2, 3),
    "CENTER_SIZE_WIDTH_FIRST": (1, 0, 3, 2),
}


@kernel("resample")
def _resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    if sampling_mode not in _SAMPLING:
        raise DkmError(f"sampling_mode {sampling_mode!r} is unknown; known: {', '.join(_SAMPLING)}")
    pixels = _pixels(coordinates.float(), x, coordinates_mode, align_corners)
    if padding_mode == "constant":
        return _constant_outside(x, pixels, sampling_mode, padding_value)
    if padding_mode in ("reflection", "symmetric"):
        pixels = _mirror_outside(pixels, x, edges=padding_mode == "symmetric")
    elif padding_mode != "border":
        raise DkmError(f"padding_mode {padding_mode!r} is unknown")
    return _sample_at(x, pixels, sampling_mode, "border")


@kernel("affine")
def _affine(
    x: Tensor,
    transform_matrix: Tensor,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    given = (sampling_mode, padding_mode, coordinates_mode)
    if padding_value != 0 or not align_corners:
        raise DkmError("affine is defined for a padding_value of 0 and aligned corners only")
    if given != ("bilinear", "constant", "normalized_minus_one_to_one"):
        raise DkmError(f"affine with {', '.join(given)} is not supported")
    size = [x.shape[0], x.shape[1], output_height, output_width]
    check_elements(size)
    matrices = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    points = functional.affine_grid(matrices, size, align_corners)
    pixels = _pixels(points, x, coordinates_mode, align_corners)
    return _constant_outside(x, pixels, "bilinear", padding_value)


def _constant_outside(x: Tensor, pixels: Tensor, mode: str, value: float) -> Tensor:
    # torch has zeros outside, so the image is moved down by the value and the result up again.
    return _sample_at(x - value, pixels, mode, "zeros") + value


def _sample_at(x: Tensor, pixels: Tensor, mode: str, padding: str) -> Tensor:
    """Samples of ``x`` at columns and rows, the centre of the first pixel being (0, 0)."""
    # torch's other convention, with aligned corners, cannot tell pixels apart if there is but one.
    points = (2 * pixels + 1) / _lengths(x) - 1
    return functional.grid_sample(x, points, mode, padding, align_corners=False)


def _lengths(x: Tensor) -> Tensor:
    """Columns and rows."""
    return torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float32)


def _pixels(points: Tensor, x: Tensor, mode: str, align_corners: bool) -> Tensor:
    """Points (x, y) as columns and rows."""
    if mode == "unnormalized":
        return points
    if mode == "normalized_minus_one_to_one":
        points = (points + 1) / 2
    elif mode != "normalized_zero_to_one":
        raise DkmError(f"coordinates_mode {mode!r} is unknown")
    lengths = _lengths(x)
    return points * (lengths - 1) if align_corners else points * lengths - 0.5


def _mirror_outside(pixels: Tensor, x: Tensor, edges: bool) -> Tensor:
    """Columns and rows inside, where those outside have their mirror images.

    The mirrors stand at the first and the last pixel's centres, or, so that these are repeated
    too, at their outer edges.
    """
    start = 0.5 if edges else 0.0
    spans = _lengths(x) - (0 if edges else 1)
    places = (pixels + start).abs() % (2 * spans).clamp(min=1)  # a single pixel has no period
    return spans - (places - spans).abs() - start


@kernel("crop_resize")
def _crop_resize(
    x: Tensor,
    boxes: Tensor | None = None,
    box_indices: Tensor | None = None,
    roi: Tensor | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    if box_coordinate_mode not in _BOXES:
        raise DkmError(f"box_coordinate_mode {box_coordinate_mode!r} is unknown")
    pairs = _images_and_boxes(x, boxes, box_indices, roi)
    check_elements([len(pairs), *x.shape[:2], target_height, target_width])
    units = [spatial_scale * (n - 1 if normalized_coordinates else 1) for n in x.shape[2:]]
    crops = []
    for images, box in pairs:
        top, left, bottom, right = _corners(box, box_coordinate_mode)
        rows = _places(units[0] * top, units[0] * bottom, target_height, sampling_mode)
        columns = _places(units[1] * left, units[1] * right, target_width, sampling_mode)
        crops.append(_at(images, rows, columns, pad_value))
    return torch.stack(crops) if boxes is None else torch.cat(crops)


def _images_and_boxes(
    x: Tensor, boxes: Tensor | None, indices: Tensor | None, roi: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Each box with the images it is cut from: one since iOS17, before that one or all."""
    if boxes is not None:
        order = range(len(boxes)) if indices is None else indices.tolist()
        return [(_image(x, at), box) for at, box in zip(order, boxes, strict=True)]
    if roi is None:
        raise DkmError("crop_resize needs boxes or roi")
    rows = roi.flatten(1)
    if rows.shape[1] == 4:
        return [(x, row) for row in rows]
    return [(_image(x, int(row[0])), row[1:]) for row in rows]


def _image(x: Tensor, at: int) -> Tensor:
    if not 0 <= at < len(x):
        raise DkmError(f"a box is for image {at}; there are {len(x)}")
    return x[at : at + 1]


def _corners(box: Tensor, mode: str) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of a box."""
    top, left, bottom, right = (float(box[at]) for at in _BOXES[mode])
    if not mode.startswith("CENTER"):
        return top, left, bottom, right
    return top - bottom / 2, left - right / 2, top + bottom / 2, left + right / 2


def _places(start: float, end: float, new: int, mode: str) -> Tensor:
    """Where the rows (or columns) of a crop lie in the image, as a resize of the box has them."""
    span = end - start
    places = grid(span + 1, new, mode)
    if span < 0 and mode not in _ALIGNED:
        raise DkmError(f"a box ends before it starts; sampling_mode {mode!r} does not define that")
    return start + (places if span < 0 else places.clamp(0, span))


def _at(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Bilinear samples of ``x`` at every pair of rows and columns."""
    y, w = torch.meshgrid(rows, columns, indexing="ij")
    pixels = torch.stack([w, y], -1).float().expand(len(x), -1, -1, -1)
    inside = (y >= 0) & (y <= x.shape[2] - 1) & (w >= 0) & (w <= x.shape[3] - 1)
    return torch.where(inside, _sample_at(x, pixels, "bilinear", "border"), outside)
