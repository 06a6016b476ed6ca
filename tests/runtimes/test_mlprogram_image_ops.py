"""Operators on images against torch: convolution, pooling, normalisation, padding, resizing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from tests.runtimes.mlprogram_packages import Family, mb, n, rand

W = rand(6, 4, 3, 3)
B = rand(6)
DEPTH = rand(4, 1, 3, 3)
GROUPED = rand(8, 2, 3, 3)
UP = rand(4, 6, 3, 3)
UPG = rand(4, 3, 3, 3)
CH = rand(4)
POS = CH.abs() + 0.5


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


def test_the_file_holds_the_operations(family):
    """The numbers above come from these operations, not from others that a pass put there."""
    assert family.count("conv") == 7
    assert family.count("conv_transpose") == 4
    assert family.count("max_pool") == family.count("avg_pool") == 3
    assert family.count("pad") == 3
    assert family.count("upsample_bilinear") == 2
    assert family.count("batch_norm") == 2
