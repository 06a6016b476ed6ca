"""Operators on images against torch: convolution, pooling, normalisation, padding, resizing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from dkm_deploy.runtimes.mlprogram import runtime
from tests.formats.mlpackage.packages import Family, mb, n, rand, save

W = rand(6, 4, 3, 3)
B = rand(6)
DEPTH = rand(4, 1, 3, 3)
GROUPED = rand(8, 2, 3, 3)
UP = rand(4, 6, 3, 3)
UPG = rand(4, 3, 3, 3)
CH = rand(4)
POS = CH.abs() + 0.5
POINTS = rand(2, 5, 6, 2)
SAMPLED = {
    "sampling_mode": "bilinear",
    "coordinates_mode": "normalized_minus_one_to_one",
    "align_corners": True,
}


def even(x):
    return mb.slice_by_size(x=x, begin=[0, 0, 0, 0], size=[-1, -1, 8, 6])


CASES = {  # x: (2, 4, 9, 7)
    "conv": (
        lambda x: mb.conv(x=x, weight=n(W), bias=n(B), pad_type="custom", pad=[1, 1, 1, 1]),
        lambda x: f.conv2d(x, W, B, padding=1),
    ),
    "conv_asymmetric": (
        lambda x: mb.conv(
            x=x, weight=n(W), pad_type="custom", pad=[0, 2, 1, 0], strides=[2, 1], dilations=[1, 2]
        ),
        lambda x: f.conv2d(f.pad(x, [1, 0, 0, 2]), W, stride=(2, 1), dilation=(1, 2)),
    ),
    "conv_depthwise": (
        lambda x: mb.conv(x=x, weight=n(DEPTH), groups=4, pad_type="valid"),
        lambda x: f.conv2d(x, DEPTH, groups=4),
    ),
    "conv_grouped": (
        lambda x: mb.conv(x=x, weight=n(GROUPED), groups=2),
        lambda x: f.conv2d(x, GROUPED, groups=2),
    ),
    "conv_same": (  # 9 -> 5 needs 2 rows in all, 7 -> 4 needs 2 columns
        lambda x: mb.conv(x=x, weight=n(W), pad_type="same", strides=[2, 2]),
        lambda x: f.conv2d(x, W, padding=1, stride=2),
    ),
    "conv_same_uneven": (
        lambda x: mb.conv(x=x, weight=n(W[..., :2, :2]), pad_type="same"),
        lambda x: f.conv2d(f.pad(x, [0, 1, 0, 1]), W[..., :2, :2]),
    ),
    "conv_same_lower": (
        lambda x: mb.conv(x=x, weight=n(W[..., :2, :2]), pad_type="same_lower"),
        lambda x: f.conv2d(f.pad(x, [1, 0, 1, 0]), W[..., :2, :2]),
    ),
    "conv_transpose": (
        lambda x: mb.conv_transpose(
            x=x, weight=n(UP), bias=n(B), strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
        ),
        lambda x: f.conv_transpose2d(x, UP, B, stride=2, padding=1),
    ),
    "conv_transpose_grouped": (
        lambda x: mb.conv_transpose(
            x=x, weight=n(UPG), groups=2, strides=[1, 1], dilations=[2, 2], pad_type="valid"
        ),
        lambda x: f.conv_transpose2d(x, UPG, groups=2, dilation=2),
    ),
    "conv_transpose_output_padding": (
        lambda x: mb.conv_transpose(
            x=x,
            weight=n(UP),
            bias=n(B),
            strides=[2, 2],
            pad_type="custom",
            pad=[0, 0, 0, 0],
            output_shape=[2, 6, 20, 16],
        ),
        lambda x: f.conv_transpose2d(x, UP, B, stride=2, output_padding=1),
    ),
    "conv_transpose_same": (
        lambda x: mb.conv_transpose(x=x, weight=n(UP), strides=[2, 2], pad_type="same"),
        lambda x: f.conv_transpose2d(x, UP, stride=2)[..., :18, :14],
    ),
    "batch_norm": (
        lambda x: mb.batch_norm(
            x=x, mean=n(CH), variance=n(POS), gamma=n(POS), beta=n(CH), epsilon=1e-3
        ),
        lambda x: f.batch_norm(x, CH, POS, POS, CH, eps=1e-3),
    ),
    "batch_norm_plain": (
        lambda x: mb.batch_norm(x=x, mean=n(CH), variance=n(POS)),
        lambda x: f.batch_norm(x, CH, POS),
    ),
    "instance_norm": (
        lambda x: mb.instance_norm(x=x, gamma=n(CH), beta=n(POS), epsilon=1e-5),
        lambda x: f.instance_norm(x, weight=CH, bias=POS),
    ),
    "l2_norm": (
        lambda x: mb.l2_norm(x=x),
        lambda x: x / (x.square().sum((1, 2, 3), keepdim=True) + 1e-6).sqrt(),
    ),
    "local_response_norm": (
        lambda x: mb.local_response_norm(x=x, size=3, alpha=0.5),
        lambda x: f.local_response_norm(x, 3, alpha=0.5),
    ),
    "prelu": (lambda x: mb.prelu(x=x, alpha=n(CH)), lambda x: f.prelu(x, CH)),
    "max_pool": (
        lambda x: mb.max_pool(x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="valid"),
        lambda x: f.max_pool2d(x, 3, 2),
    ),
    "max_pool_ceil": (
        lambda x: mb.max_pool(
            x=x,
            kernel_sizes=[2, 2],
            strides=[2, 2],
            pad_type="custom",
            pad=[0, 0, 0, 0],
            ceil_mode=True,
        ),
        lambda x: f.max_pool2d(x, 2, 2, ceil_mode=True),
    ),
    "max_pool_asymmetric": (
        lambda x: mb.max_pool(
            x=mb.sub(x=x, y=9.0), kernel_sizes=[3, 3], pad_type="custom", pad=[0, 2, 1, 0]
        ),
        lambda x: f.max_pool2d(f.pad(x - 9, [1, 0, 0, 2], value=-torch.inf), 3, 1),
    ),
    "avg_pool": (
        lambda x: mb.avg_pool(
            x=x, kernel_sizes=[3, 3], strides=[2, 2], pad_type="custom", pad=[1, 1, 1, 1]
        ),
        lambda x: f.avg_pool2d(x, 3, 2, 1),
    ),
    "avg_pool_exclude": (
        lambda x: mb.avg_pool(
            x=x,
            kernel_sizes=[3, 3],
            pad_type="custom",
            pad=[1, 1, 1, 1],
            exclude_padding_from_average=True,
        ),
        lambda x: f.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    ),
    "avg_pool_same_uneven": (
        lambda x: mb.avg_pool(
            x=x, kernel_sizes=[2, 2], pad_type="same", exclude_padding_from_average=True
        ),
        # An average over what is there is the average of the nearest pixel repeated.
        lambda x: f.avg_pool2d(f.pad(x, [0, 1, 0, 1], mode="replicate"), 2, 1),
    ),
    "pad_constant": (
        lambda x: mb.pad(x=x, pad=[1, 0, 2, 3], mode="constant", constant_val=1.5),
        lambda x: f.pad(x, [2, 3, 1, 0], value=1.5),
    ),
    "pad_reflect": (
        lambda x: mb.pad(x=x, pad=[1, 2, 3, 0], mode="reflect"),
        lambda x: f.pad(x, [3, 0, 1, 2], mode="reflect"),
    ),
    "pad_replicate": (
        lambda x: mb.pad(x=x, pad=[1, 2, 3, 0], mode="replicate"),
        lambda x: f.pad(x, [3, 0, 1, 2], mode="replicate"),
    ),
    "pixel_shuffle": (
        lambda x: mb.pixel_shuffle(x=x, upscale_factor=2),
        lambda x: f.pixel_shuffle(x, 2),
    ),
    "pixel_unshuffle": (
        lambda x: mb.pixel_unshuffle(x=even(x), downscale_factor=np.uint32(2)),
        lambda x: f.pixel_unshuffle(x[..., :8, :6], 2),
    ),
    "depth_to_space": (  # TensorFlow's order: the channel is the fast part of the depth
        lambda x: mb.depth_to_space(x=x, block_size=2),
        lambda x: torch.stack(
            [torch.stack([x[:, 0], x[:, 1]], -1), torch.stack([x[:, 2], x[:, 3]], -1)], 2
        ).reshape(2, 1, 18, 14),
    ),
    "space_to_depth": (
        lambda x: mb.space_to_depth(x=even(x), block_size=2),
        lambda x: torch.cat([x[..., i:8:2, j:6:2] for i in (0, 1) for j in (0, 1)], 1),
    ),
    "space_to_batch": (
        lambda x: mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[1, 0], [0, 1]]),
        lambda x: torch.cat(
            [f.pad(x, [0, 1, 1, 0])[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        ),
    ),
    "batch_to_space": (
        lambda x: mb.batch_to_space(x=x, block_shape=[2, 1], crops=[[1, 2], [0, 3]]),
        lambda x: torch.stack([x[:1], x[1:]], 3).reshape(1, 4, 18, 7)[..., 1:-2, :-3],
    ),
    "l2_pool": (
        lambda x: mb.l2_pool(x=x, kernel_sizes=[3, 2], strides=[2, 1], pad_type="valid"),
        lambda x: f.lp_pool2d(x, 2, (3, 2), (2, 1)),
    ),
    "resample": (
        lambda x: mb.resample(
            x=x, coordinates=n(POINTS), padding_mode="constant", padding_value=1.5, **SAMPLED
        ),
        lambda x: f.grid_sample(x - 1.5, POINTS, align_corners=True) + 1.5,
    ),
    "resample_border": (
        lambda x: mb.resample(
            x=x, coordinates=n(POINTS), padding_mode="border", padding_value=0.0, **SAMPLED
        ),
        lambda x: f.grid_sample(x, POINTS, padding_mode="border", align_corners=True),
    ),
    "resample_pixels": (  # in pixels: (column, row), here between rows 2 and 3
        lambda x: mb.resample(
            x=x,
            coordinates=np.full((2, 1, 1, 2), [4.0, 2.25], np.float32),
            padding_mode="constant",
            padding_value=0.0,
            **{**SAMPLED, "coordinates_mode": "unnormalized"},
        ),
        lambda x: (0.75 * x[..., 2, 4] + 0.25 * x[..., 3, 4])[..., None, None],
    ),
    "affine": (  # mirrored left to right, and one row down: half of the height is 4 rows
        lambda x: mb.affine(
            x=x,
            transform_matrix=np.array([[-1, 0, 0, 0, 1, 0.25]], np.float32),
            output_height=9,
            output_width=7,
            padding_mode="constant",
            padding_value=0.0,
            **SAMPLED,
        ),
        lambda x: f.pad(x, [0, 0, 0, 1])[..., 1:, :].flip(-1),
    ),
    "crop_resize": (
        lambda x: mb.crop_resize(
            x=x,
            boxes=np.array([[2, 1, 6, 5], [0, 0, 8, 6]], np.float32),
            box_indices=np.array([1, 0], np.int32),
            target_height=3,
            target_width=5,
            sampling_mode="ALIGN_CORNERS",
        ),
        lambda x: torch.cat(
            [
                f.interpolate(part, (3, 5), mode="bilinear", align_corners=True)
                for part in (x[1:, :, 2:7, 1:6], x[:1])
            ]
        ),
    ),
    "crop_resize_outside": (  # rows -4, 0, 4, 8, 12 and the middle column
        lambda x: mb.crop_resize(
            x=x,
            boxes=np.array([[0.5, 0.5, 0.0, 2.0]], np.float32),
            target_height=5,
            target_width=1,
            normalized_coordinates=True,
            box_coordinate_mode="CENTER_SIZE_WIDTH_FIRST",
            sampling_mode="ALIGN_CORNERS",
            pad_value=9.0,
        ),
        lambda x: f.pad(x[:1, :, ::4, 3:4], [0, 0, 1, 1], value=9.0),
    ),
    "crop": (
        lambda x: mb.crop(x=x, crop_height=[1, 2], crop_width=[0, 3]),
        lambda x: x[..., 1:-2, :-3],
    ),
    "upsample_nearest": (
        lambda x: mb.upsample_nearest_neighbor(
            x=x, scale_factor_height=2.0, scale_factor_width=3.0
        ),
        lambda x: f.interpolate(x, scale_factor=(2, 3)),
    ),
    "upsample_bilinear": (
        lambda x: mb.upsample_bilinear(
            x=x, scale_factor_height=2.0, scale_factor_width=3.0, align_corners=False
        ),
        lambda x: f.interpolate(x, scale_factor=(2, 3), mode="bilinear"),
    ),
    "upsample_bilinear_corners": (
        lambda x: mb.upsample_bilinear(
            x=x, scale_factor_height=2.0, scale_factor_width=2.0, align_corners=True
        ),
        lambda x: f.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "resize_unaligned": (
        lambda x: mb.resize_bilinear(
            x=x, target_size_height=5, target_size_width=11, sampling_mode="UNALIGN_CORNERS"
        ),
        lambda x: f.interpolate(x, size=(5, 11), mode="bilinear"),
    ),
    "resize_nearest": (
        lambda x: mb.resize_nearest_neighbor(x=x, target_size_height=4, target_size_width=13),
        lambda x: f.interpolate(x, size=(4, 13)),
    ),
    "resize": (
        lambda x: mb.resize(
            x=x, shape=[12, 0], resized_dims=np.uint32(2), sampling_mode="STRICT_ALIGN_CORNERS"
        ),
        lambda x: f.interpolate(x, size=(12, 7), mode="bilinear", align_corners=True),
    ),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return Family(tmp_path_factory.mktemp("ops"), CASES, (2, 4, 9, 7))


@pytest.mark.parametrize("name", CASES)
def test_matches_torch(family, name):
    family.check(name)


def test_crops_of_all_images_before_ios17(tmp_path):
    def body(x):
        roi = np.array([2, 1, 6, 5], np.float32).reshape(1, 1, 4, 1, 1)
        size = {"target_height": 3, "target_width": 5, "sampling_mode": "STRICT_ALIGN_CORNERS"}
        return mb.crop_resize(x=x, roi=roi, name="y", **size)

    x = rand(2, 4, 9, 7)
    path = save(tmp_path / "m.mlpackage", body, (2, 4, 9, 7), target="iOS16")
    actual = torch.from_numpy(runtime.load(path).run({"x": n(x)})["y"])
    expected = f.interpolate(x[..., 2:7, 1:6], (3, 5), mode="bilinear", align_corners=True)
    torch.testing.assert_close(actual, expected[None])


def test_the_file_holds_the_operations(family):
    """The numbers above come from these operations, not from others that a pass put there."""
    assert family.count("conv") == 7
    assert family.count("conv_transpose") == 4
    assert family.count("max_pool") == family.count("avg_pool") == 3
    assert family.count("pad") == 3
    assert family.count("upsample_bilinear") == 2
    assert family.count("batch_norm") == 2
