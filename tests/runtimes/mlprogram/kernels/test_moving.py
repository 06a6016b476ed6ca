"""Operators that move, pick and make values, against torch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from tests.formats.mlpackage.packages import Family, mb, n, rand

IDX = torch.tensor([[0, 4, 2], [3, 1, 0]])
COND = rand(2, 5, 8) > 0
QK = rand(2, 5, 8)
COLUMNS = torch.tensor([0, 3, 7]).expand(2, 5, 3)
SCALES = rand(8).abs() * 0.01 + 0.01
AT_012 = torch.zeros(2, 5, 8, dtype=torch.bool)
AT_012[0, 1, 2] = True


def with_rows(x, first, second):
    """x with the rows (0, 1) and (1, 4) replaced."""
    x = x.clone()
    x[0, 1], x[1, 4] = first, second
    return x


CASES = {  # x: (2, 5, 8)
    "reshape": (lambda x: mb.reshape(x=x, shape=[0, -1, 4]), lambda x: x.reshape(2, 10, 4)),
    "reshape_shorter": (lambda x: mb.reshape(x=x, shape=[-1, 0]), lambda x: x.reshape(10, 8)),
    "reshape_longer": (
        lambda x: mb.reshape(x=x, shape=[0, 2, -1, 0]),
        lambda x: x.reshape(1, 2, 5, 8),
    ),
    "transpose": (lambda x: mb.transpose(x=x, perm=[2, 0, 1]), lambda x: x.permute(2, 0, 1)),
    "expand_dims": (
        lambda x: mb.expand_dims(x=x, axes=[0, -1]),
        lambda x: x[None, ..., None],
    ),
    "squeeze": (
        lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2]), axes=[2]),
        lambda x: x[None],
    ),
    "squeeze_all": (lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, 2])), lambda x: x),
    "concat": (
        lambda x: mb.concat(values=(x, n(QK), x), axis=-1),
        lambda x: torch.cat([x, QK, x], -1),
    ),
    "concat_interleave": (
        lambda x: mb.concat(values=(x, n(QK)), axis=1, interleave=True),
        lambda x: torch.stack([x, QK], 2).flatten(1, 2),
    ),
    "concat_scalars": (
        lambda x: mb.concat(values=[mb.reduce_sum(x=x), mb.reduce_max(x=x), 2.5], axis=0),
        lambda x: torch.stack([x.sum(), x.max(), torch.tensor(2.5)]),
    ),
    "stack": (lambda x: mb.stack(values=(x, n(QK)), axis=1), lambda x: torch.stack([x, QK], 1)),
    "split": (
        lambda x: mb.split(x=x, num_splits=4, axis=-1)[2],
        lambda x: x.chunk(4, -1)[2],
    ),
    "split_sizes": (
        lambda x: mb.split(x=x, split_sizes=[1, 4], axis=1)[1],
        lambda x: x[:, 1:],
    ),
    "tile": (lambda x: mb.tile(x=x, reps=[1, 2, 3]), lambda x: x.repeat(1, 2, 3)),
    "reverse": (lambda x: mb.reverse(x=x, axes=[1]), lambda x: x.flip(1)),
    "slice": (
        lambda x: mb.slice_by_index(
            x=x,
            begin=[0, 1, -6],
            end=[2, 4, -1],
            stride=[1, 2, 3],
        ),
        lambda x: x[:, 1:4:2, -6:-1:3],
    ),
    "slice_masked": (
        lambda x: mb.slice_by_index(
            x=x,
            begin=[1, 3, 2],
            end=[0, 0, 5],
            stride=[1, 1, 1],
            begin_mask=[False, True, False],
            end_mask=[False, True, False],
            squeeze_mask=[True, False, False],
        ),
        lambda x: x[1, :, 2:5],
    ),
    "slice_squeeze_last": (
        lambda x: mb.slice_by_index(
            x=x,
            begin=[0, 0, -1],
            end=[0, 0, 0],
            begin_mask=[True, True, False],
            end_mask=[True, True, False],
            squeeze_mask=[False, False, True],
        ),
        lambda x: x[..., -1],
    ),
    "slice_backwards": (
        lambda x: mb.slice_by_index(
            x=x,
            begin=[0, 4, 6],
            end=[2, 0, 0],
            stride=[1, -2, -1],
            begin_mask=[True, False, False],
            end_mask=[True, False, True],
        ),
        lambda x: x.flip(1, 2)[:, 0:4:2, 1:],
    ),
    "slice_by_size": (
        lambda x: mb.slice_by_size(x=x, begin=[0, 1, 2], size=[2, 3, -1]),
        lambda x: x[:, 1:4, 2:],
    ),
    "slice_update": (
        lambda x: mb.slice_update(
            x=x, update=n(QK[:, :2, :4]), begin=[0, 1, 0], end=[2, 3, 8], stride=[1, 1, 2]
        ),
        lambda x: torch.cat(
            [
                x[:, :1],
                torch.stack([QK[:, :2, :4], x[:, 1:3, 1::2]], -1).flatten(2),
                x[:, 3:],
            ],
            1,
        ),
    ),
    "gather": (
        lambda x: mb.gather(x=x, indices=n(IDX).astype(np.int32), axis=1),
        lambda x: x[:, IDX],
    ),
    "gather_batched": (
        lambda x: mb.gather(x=x, indices=n(IDX).astype(np.int32), axis=1, batch_dims=1),
        lambda x: torch.stack([x[0][IDX[0]], x[1][IDX[1]]]),
    ),
    "gather_along_axis": (
        lambda x: mb.gather_along_axis(x=x, indices=n(COND).astype(np.int32)[:, :3], axis=1),
        lambda x: x.gather(1, COND.long()[:, :3]),
    ),
    "gather_nd": (
        lambda x: mb.gather_nd(x=x, indices=np.array([[0, 1], [1, 4]], np.int32)),
        lambda x: torch.stack([x[0, 1], x[1, 4]]),
    ),
    "shape": (lambda x: mb.shape(x=x), lambda x: torch.tensor([2, 5, 8])),
    "fill": (
        lambda x: mb.add(x=mb.fill(shape=[5, 8], value=2.5), y=x),
        lambda x: x + 2.5,
    ),
    "one_hot": (
        lambda x: mb.one_hot(
            indices=mb.reduce_argmax(x=x, axis=-1),
            one_hot_vector_size=8,
            on_value=2.0,
            off_value=-1.0,
            axis=1,
        ),
        lambda x: (f.one_hot(x.argmax(-1), 8) * 3.0 - 1).mT,
    ),
    "band_part": (lambda x: mb.band_part(x=x, lower=1, upper=2), lambda x: x.tril(2).triu(-1)),
    "range": (
        lambda x: mb.mul(x=mb.range_1d(end=8.0, start=0.0, step=1.0), y=x),
        lambda x: torch.arange(8.0) * x,
    ),
    "fill_like": (
        lambda x: mb.add(x=mb.fill_like(ref_tensor=x, value=2.5), y=x),
        lambda x: x + 2.5,
    ),
    "non_zero": (
        lambda x: mb.non_zero(x=mb.relu(x=x)),
        lambda x: x.clamp(min=0).nonzero(),
    ),
    "flatten2d": (lambda x: mb.flatten2d(x=x, axis=-1), lambda x: x.reshape(10, 8)),
    "reshape_like": (
        lambda x: mb.reshape_like(
            x=x,
            ref_tensors=(n(torch.zeros(10, 3)), n(torch.zeros(2, 4, 2))),
            begins=(0, 1),
            ends=(1, 0),
            end_masks=(False, True),
        ),
        lambda x: x.reshape(10, 4, 2),
    ),
    "sliding_windows": (
        lambda x: mb.sliding_windows(x=x, axis=1, size=3, stride=2),
        lambda x: torch.stack([x[:, :3], x[:, 2:]], 1),
    ),
    "sliding_windows_last": (
        lambda x: mb.sliding_windows(x=x, axis=-1, size=7),
        lambda x: torch.stack([x[..., :7], x[..., 1:]], 2),
    ),
    "reverse_sequence": (
        lambda x: mb.reverse_sequence(x=x, lengths=[3, 5], seq_axis=1, batch_axis=0),
        lambda x: torch.stack([x[0, [2, 1, 0, 3, 4]], x[1].flip(0)]),
    ),
    "scatter_update": (
        lambda x: mb.scatter(data=x, indices=[4, 1], updates=n(QK[:, :2]), axis=1, mode="update"),
        lambda x: torch.stack([x[:, 0], QK[:, 1], x[:, 2], x[:, 3], QK[:, 0]], 1),
    ),
    "scatter_add": (
        lambda x: mb.scatter(data=x, indices=[1, 1], updates=n(QK[:, :2]), axis=1, mode="add"),
        lambda x: x.index_add(1, torch.tensor([1, 1]), QK[:, :2]),
    ),
    "scatter_along_axis": (
        lambda x: mb.scatter_along_axis(
            data=x, indices=n(COLUMNS).astype(np.int32), updates=n(QK[..., :3]), axis=2, mode="sub"
        ),
        lambda x: x.scatter_add(2, COLUMNS, -QK[..., :3]),
    ),
    "scatter_nd": (
        lambda x: mb.scatter_nd(
            data=x, indices=np.array([[0, 1], [1, 4]], np.int32), updates=n(QK[0, :2]), mode="max"
        ),
        lambda x: with_rows(x, torch.maximum(x[0, 1], QK[0, 0]), torch.maximum(x[1, 4], QK[0, 1])),
    ),
    "scatter_nd_whole": (
        lambda x: mb.scatter_nd(
            data=x, indices=np.array([[0, 1, 2]], np.int32), updates=np.float32([7]), mode="div"
        ),
        lambda x: torch.where(AT_012, x / 7, x),
    ),
    "quantize": (
        lambda x: mb.quantize(input=x, scale=np.float32(0.01), output_dtype="int8"),
        lambda x: (x / 0.01).round().clamp(-128, 127).int(),
    ),
    "dequantize": (
        lambda x: mb.dequantize(
            input=mb.quantize(
                input=x,
                scale=n(SCALES),
                zero_point=np.arange(100, 108, dtype=np.uint8),
                axis=-1,
                output_dtype="uint8",
            ),
            scale=n(SCALES),
            zero_point=np.arange(100, 108, dtype=np.uint8),
            axis=2,
        ),
        lambda x: (
            ((x / SCALES).round() + torch.arange(100, 108))
            .clamp(0, 255)
            .sub(torch.arange(100, 108))
            * SCALES
        ),
    ),
    "identity": (lambda x: mb.identity(x=x), lambda x: x),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return Family(tmp_path_factory.mktemp("ops"), CASES, (2, 5, 8))


@pytest.mark.parametrize("name", CASES)
def test_matches_torch(family, name):
    family.check(name)


def test_the_file_holds_the_operations(family):
    """The numbers above come from these operations, not from others that a pass put there."""
    assert family.count("slice_by_index") == 4
    assert family.count("gather") == 2
    assert family.count("concat") == 3
    assert family.count("split") == 2
    assert family.count("reshape") == 3
