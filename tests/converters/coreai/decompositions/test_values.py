"""Decompositions for Core AI, called as they are, against the calls that they stand for."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from tests.converters.coreai.assets import extra

extra()
from converters.coreai.decompositions.table import decompositions  # noqa: E402

aten = torch.ops.aten
TABLE = decompositions()
IMAGE, SOLID, LINE = (2, 3, 9, 7), (2, 3, 7, 6, 5), (2, 4, 6)


def _random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _integers(*shape, low=0, high=4):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(1))


def _windows(call, *shape):
    """Pooling with every choice that changes which values count, or their divisor."""
    x, sides = _random(*shape), len(shape) - 2
    for size, step, pad in ((3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 1)):
        window = ([size] * sides, [step] * sides, [pad] * sides)
        for ceil in (False, True):
            if call is aten.max_pool2d_with_indices.default:
                yield x, *window, [1, 1], ceil
                continue
            for counted in (False, True):
                yield x, *window, ceil, counted
                yield x, *window, ceil, counted, 5


def _strided():
    line, table = _random(20), _random(4, 5)
    yield line, [3, 4], [1, 2]
    yield line, [3, 4], [1, 2], 5
    yield table.T, [3, 4], [1, 2]
    yield table, [4, 5], [5, 1]
    yield _random(2, 3, 1, 1), [2, 3, 1, 1], [3, 1, 3, 3]
    yield table[1:], [2, 5], [5, 1], 5


def _places():
    values = _random(2, 4)
    one, other = torch.tensor([1, 0, 1, -1]), torch.tensor([2, 2, 2, 0])
    x = _random(3, 5, 4)
    yield x, [None, one[:2]], _random(3, 2, 4), True
    yield x, [one, other], _random(4, 4), True
    yield x, [None, one, other], _random(3, 4), True
    yield x, [one, None, other], _random(4, 5), True
    yield x, [one[:2, None], other[None, 1:3]], _random(2, 2, 4), True
    yield x, [one], torch.tensor(2.0), True
    yield values, [torch.tensor([0, 0])], _random(2, 4), True


def _scatters(call, *more, whole=False):
    """``whole``: with an index for each row."""
    x, index = _random(3, 5), torch.tensor([[0, 1, 0], [2, 4, 2]])
    if whole:
        yield call, x.T, 0, torch.tensor([[0, 1, 0], [2, 4, 2]]), _random(3, 4), *more
        yield call, x[0], 0, index[1], _random(4), *more
        return
    yield call, x, 1, index, _random(3, 4), *more
    yield call, x, 0, index.clamp(max=2), _random(2, 5), *more


FLOATS = torch.tensor([-5.0, -2.2, 0.0, 2.0, 7.5, float("inf"), float("nan")])
WHOLE = torch.tensor([-5, -2, 0, 2, 7])
SPECTRUM = torch.fft.rfft(_random(3, 8))
CASES = {
    "average of planes": [(aten.avg_pool2d.default, *a) for a in _windows(aten.avg_pool2d, *IMAGE)],
    "average of solids": [(aten.avg_pool3d.default, *a) for a in _windows(aten.avg_pool3d, *SOLID)],
    "largest": [
        (aten.max_pool2d_with_indices.default, *arguments)
        for arguments in _windows(aten.max_pool2d_with_indices.default, *IMAGE)
    ],
    "adaptive average": [
        (aten._adaptive_avg_pool2d.default, _random(*IMAGE), [11, 4]),
        *((aten._adaptive_avg_pool3d.default, _random(*SOLID), [n, 1, 4]) for n in (2, 7, 9)),
    ],
    "adaptive largest": [
        (aten.adaptive_max_pool2d.default, _random(*IMAGE), size)
        for size in ([3, 1], [4, 5], [9, 7])
    ],
    "nearest": [
        *((aten.upsample_nearest2d.vec, _random(*IMAGE), s, None) for s in ([5, 11], [13, 4])),
        *((aten.upsample_nearest2d.vec, _random(*IMAGE), None, f) for f in ([1.7, 2.0], [0.5] * 2)),
    ],
    "antialiased": [
        (call, _random(*IMAGE), size, corners, None, None)
        for call in (aten._upsample_bilinear2d_aa.default, aten._upsample_bicubic2d_aa.default)
        for size in ([5, 4], [9, 3], [20, 9])
        for corners in (False, True)
    ],
    "antialiased by factors": [
        (aten._upsample_bilinear2d_aa.default, _random(*IMAGE), [4, 3], False, 0.45, 0.45)
    ],
    "strided": [(aten.as_strided.default, *arguments) for arguments in _strided()],
    "diagonal": [
        (aten.diagonal.default, _random(4, 5, 6), *place)
        for place in ((), (1, 1, 2), (-2,), (2, 0, -1), (9,))
    ],
    "sorted": [
        *((aten.sort.default, _random(4, 6), *how) for how in ((), (0, True))),
        (aten.sort.default, torch.tensor(3.0)),
        (partial(aten.sort.stable, stable=True, dim=0), _random(4, 6)),
    ],
    "scattered": [
        *_scatters(aten.scatter_add.default),
        *_scatters(aten.scatter_reduce.two, "sum"),
        *_scatters(aten.scatter_reduce.two, "prod"),
        *(
            case
            for how in ("sum", "mean", "amax", "amin")
            for own in (True, False)
            for case in _scatters(
                partial(aten.scatter_reduce.two, include_self=own), how, whole=True
            )
        ),
    ],
    "added at places": [(aten.index_put.default, *arguments) for arguments in _places()],
    "picked by masks": [
        (aten.index.Tensor, _random(3, 4, 5), [torch.tensor([True, False, True])]),
        (aten.index.Tensor, _random(3, 4), [_random(3, 4) > 0]),
        (aten.index.Tensor, _random(3, 4), [None, torch.tensor([True] * 4)]),
        (aten.index.Tensor, WHOLE, [WHOLE > 9]),
    ],
    "searched": [
        (partial(aten.searchsorted.Tensor, **how), torch.tensor([-1.0, 0.0, 0.0, 1.0]), x)
        for how in ({}, {"right": True}, {"side": "right", "out_int32": True})
        for x in (_random(6), torch.tensor([[0.0, 1.0], [-1.0, 2.0]]))
    ],
    "numbers": [
        *((aten.remainder.Scalar, x, by) for x in (FLOATS, WHOLE) for by in (3, -2.5)),
        *((aten.remainder.Scalar_Tensor, 7, x) for x in (torch.tensor([3.0, -2.5]), WHOLE[3:])),
        *((aten.fmod.Scalar, x, 3) for x in (FLOATS, WHOLE)),
        *((aten.bitwise_and.Scalar, WHOLE, n) for n in (3, 0)),
        *((call, WHOLE, 5) for call in (aten.bitwise_or.Scalar, aten.bitwise_xor.Scalar)),
        (aten.bitwise_and.Scalar, WHOLE > 0, True),
        (aten.isnan.default, FLOATS),
        (aten.isnan.default, WHOLE),
    ],
    "spread": [
        (partial(call, correction=less, keepdim=keep), _random(*LINE), *dim)
        for call in (aten.var.correction, aten.var_mean.correction)
        for dim in ((), ([1],), ([-1, 0],))
        for less, keep in ((None, False), (0, True), (2, False))
    ],
    "reduced": [
        *((call, _random(*LINE)) for call in (aten.amax.default, aten.amin.default)),
        *((aten.argmin.default, _random(*LINE), *how) for how in ((), (1,), (-1, True))),
        (aten.argmin.default, WHOLE),
        *((aten.cumprod.default, _random(*LINE), dim) for dim in (0, 1, -1)),
    ],
    "products": [
        (aten.mul.Tensor, WHOLE > 0, WHOLE > -3),
        (aten._trilinear.default, *(_random(3, 2, 4) for _ in range(3)), [], [], [], [2]),
        (aten._trilinear.default, _random(3, 4), _random(2, 4, 5), _random(3, 5),
         [1, 3], [0], [1, 2], [2, 3]),
        (aten.abs.default, SPECTRUM),
    ],
    "Fourier": [
        *((aten._fft_r2c.default, _random(3, n, 5), dim, norm, norm == 0)
          for n in (8, 9) for dim in ([1], [0, 1], [2, 1]) for norm in (0, 1)),
        *((aten._fft_c2c.default, SPECTRUM, dim, 2, forward)
          for dim in ([1], [0, 1]) for forward in (True, False)),
        *((aten._fft_c2r.default, SPECTRUM, dim, 2, size)
          for dim in ([1], [0, 1]) for size in (8, 9)),
    ],
}  # fmt: skip


def _decomposed(call, *arguments):
    known = call.keywords if isinstance(call, partial) else {}
    plain = call.func if isinstance(call, partial) else call
    return TABLE[plain](*arguments, **known)


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter")
@pytest.mark.parametrize("name", CASES)
def test_a_decomposition_gives_what_the_call_gives(name):
    compared = 0
    for call, *arguments in CASES[name]:
        found = _decomposed(call, *arguments)
        if found is NotImplemented:
            continue
        compared += 1
        expected = call(*arguments)
        pairs = zip(found, expected, strict=True) if type(found) is tuple else [(found, expected)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert compared


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (aten.avg_pool2d.default, (_random(*IMAGE), [3, 3], [2, 2], [1, 1])),
        (aten.max_pool2d_with_indices.default, (_random(*IMAGE), [2, 2])),
        (aten._adaptive_avg_pool2d.default, (_random(*IMAGE), [3, 2])),
        (aten.upsample_nearest2d.vec, (_random(*IMAGE), [18, 21], None)),
        (aten.mul.Tensor, (FLOATS, 2.0)),
        (aten.abs.default, (FLOATS,)),
        (aten.index_put.default, (_random(3, 4), [torch.tensor([0])], _random(1, 4))),
        (aten.amax.default, (_random(*LINE), [1])),
        (aten.index.Tensor, (_random(3, 4), [torch.tensor([0, 2])])),
    ],
)
def test_what_coreai_torch_gets_right_is_left_alone(call, arguments):
    assert TABLE[call](*arguments) is NotImplemented


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (aten.scatter_reduce.two, (_random(3, 5), 1, _integers(2, 1), _random(3, 5), "amax")),
        (aten.argmin.default, (torch.tensor([3, 1], dtype=torch.uint8),)),
        (aten._fft_r2c.default, (torch.zeros(5000), [0], 0, True)),
        (aten.rrelu_with_noise_functional.default, (FLOATS, FLOATS, 0.1, 0.3, True)),
        (aten.as_strided.default, (_random(4, 5)[:, ::2], [2], [1])),
    ],
)  # fmt: skip
def test_what_has_no_right_form_is_refused(call, arguments):
    assert TABLE[call](*arguments) is NotImplemented
