"""Images sampled at given points: resample, affine, crop_resize. Bilinear or nearest."""

import torch
from torch import Tensor
from torch.nn import functional

from dkm_deploy.errors import DkmError
from dkm_deploy.runtimes.mlprogram.kernels.registry import kernel
from dkm_deploy.runtimes.mlprogram.kernels.resizing import grid
from dkm_deploy.runtimes.mlprogram.limits import check_elements

_PADDINGS = {"border": "border", "reflection": "reflection", "symmetric": "reflection"}
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
    points = _normal(coordinates.float(), x, coordinates_mode, align_corners)
    mode = {"bilinear": "bilinear", "nearest": "nearest"}.get(sampling_mode)
    if mode is None:
        raise DkmError(f"sampling_mode {sampling_mode!r} is unknown")
    if padding_mode == "constant":
        return _constant_outside(x, points, mode, padding_value, align_corners)
    if padding_mode not in _PADDINGS or (
        (padding_mode == "reflection") != align_corners and (padding_mode != "border")
    ):
        # torch mirrors at the corners' centres if they are aligned, at their edges if not.
        raise DkmError(
            f"padding_mode {padding_mode!r} with align_corners={align_corners} is not supported"
        )
    return functional.grid_sample(x, points, mode, _PADDINGS[padding_mode], align_corners)


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
    if given != ("bilinear", "constant", "normalized_minus_one_to_one"):
        raise DkmError(f"affine with {', '.join(given)} is not supported")
    size = [x.shape[0], x.shape[1], output_height, output_width]
    check_elements(size)
    matrices = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    points = functional.affine_grid(matrices, size, align_corners)
    return _constant_outside(x, points, "bilinear", padding_value, align_corners)


def _constant_outside(
    x: Tensor, points: Tensor, mode: str, value: float, align_corners: bool
) -> Tensor:
    # torch has zeros outside, so the image is moved down by the value and the result up again.
    return functional.grid_sample(x - value, points, mode, "zeros", align_corners) + value


def _normal(points: Tensor, x: Tensor, mode: str, align_corners: bool) -> Tensor:
    """Points (x, y) in the range that torch takes, -1 to 1."""
    if mode == "normalized_minus_one_to_one":
        return points
    if mode == "normalized_zero_to_one":
        return 2 * points - 1
    if mode != "unnormalized":
        raise DkmError(f"coordinates_mode {mode!r} is unknown")
    lengths = torch.tensor([x.shape[3], x.shape[2]], dtype=points.dtype)
    if align_corners:
        return 2 * points / (lengths - 1).clamp(min=1) - 1
    return (2 * points + 1) / lengths - 1


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
    if sampling_mode not in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        raise DkmError(f"crop_resize with sampling_mode {sampling_mode!r} is not supported")
    pairs = _images_and_boxes(x, boxes, box_indices, roi)
    check_elements([len(pairs), *x.shape[:2], target_height, target_width])
    units = [n - 1 if normalized_coordinates else spatial_scale for n in x.shape[2:]]
    crops = []
    for images, box in pairs:
        top, left, bottom, right = _corners(box, box_coordinate_mode)
        rows = _places(top, bottom, target_height, units[0], sampling_mode)
        columns = _places(left, right, target_width, units[1], sampling_mode)
        crops.append(_at(images, rows, columns, pad_value))
    return torch.stack(crops) if boxes is None else torch.cat(crops)


def _images_and_boxes(
    x: Tensor, boxes: Tensor | None, indices: Tensor | None, roi: Tensor | None
) -> list[tuple[Tensor, Tensor]]:
    """Each box with the images it is cut from: one since iOS17, before that one or all."""
    if boxes is not None:
        order = range(len(boxes)) if indices is None else indices.tolist()
        return [(x[at : at + 1], box) for at, box in zip(order, boxes, strict=True)]
    if roi is None:
        raise DkmError("crop_resize needs boxes or roi")
    rows = roi.flatten(1)
    if rows.shape[1] == 4:
        return [(x, row) for row in rows]
    return [(x[int(row[0]) : int(row[0]) + 1], row[1:]) for row in rows]


def _corners(box: Tensor, mode: str) -> tuple[float, float, float, float]:
    """Top, left, bottom and right of a box."""
    top, left, bottom, right = (float(box[at]) for at in _BOXES[mode])
    if not mode.startswith("CENTER"):
        return top, left, bottom, right
    return top - bottom / 2, left - right / 2, top + bottom / 2, left + right / 2


def _places(start: float, end: float, new: int, unit: float, mode: str) -> Tensor:
    """Where the rows (or columns) of a crop lie in the image."""
    return unit * (start + grid(2, new, mode) * (end - start))


def _at(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Bilinear samples of ``x`` at every pair of rows and columns."""
    y, w = torch.meshgrid(rows, columns, indexing="ij")
    points = torch.stack([w, y], -1).float().expand(len(x), -1, -1, -1)
    normal = _normal(points, x, "unnormalized", align_corners=True)
    inside = (y >= 0) & (y <= x.shape[2] - 1) & (w >= 0) & (w <= x.shape[3] - 1)
    found = functional.grid_sample(x, normal, "bilinear", "border", align_corners=True)
    return torch.where(inside, found, outside)
