"""What coremltools' front end lacks, taken apart or lowered here, gives PyTorch's values."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.converters.coreml.programs import Functions, check_outputs

INF = float("inf")
X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
X[0, 0, 0] = torch.tensor([0.0, 1.0, -1.0, 0.5])  # zeros, bounds and ties
S = X.reshape(2, 6, 8)
N = torch.arange(-12, 12, dtype=torch.int32).reshape(2, 3, 4)
KNOWN, TWICE = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([2, 2, 0])


def _scatter(s, reduce, **options):
    return s.scatter_reduce(1, (s > 0).long() + 1, s * 2, reduce, **options)


CHOICES = {
    "number_first": lambda x, n: torch.where(x > 0, 0, x),
    "number_last": lambda x, n: torch.where(x > 0, x, 1),
    "number_infinite": lambda x, n: torch.where(x > 0, x, -INF),
    "numbers": lambda x, n: torch.where(x > 0, 0.0, -INF),
    "whole_numbers": lambda x, n: torch.where(x > 0, 3, -1),
    "whole": lambda x, n: torch.where(n > 0, n, 0),
    "whole_and_half": lambda x, n: torch.where(n > 0, n, 0.5),
    "clamp_whole": lambda x, n: x.clamp(-1, 1),
    "clamp_min": lambda x, n: x.clamp_min(0),
    "clamp_min_half": lambda x, n: n.clamp_min(0.5),
    "clamp_max": lambda x, n: n.clamp_max(3),
    "clamp_max_half": lambda x, n: n.clamp_max(2.5),
    "clamp_both": lambda x, n: n.clamp(-2, 3),
    "hardtanh": lambda x, n: functional.hardtanh(x, -1, 1),
    "hardtanh_whole": lambda x, n: functional.hardtanh(n, -2, 3),
    "sqrt": lambda x, n: (n * n).sqrt(),
    "exp": lambda x, n: n.exp(),
}
FUNCTIONS = {
    "celu": lambda x: functional.celu(x, 1.3),
    "logsigmoid": functional.logsigmoid,
    "hardshrink": functional.hardshrink,
    "softshrink": functional.softshrink,
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "asinh": lambda x: torch.asinh(x * 50),
    "acosh": lambda x: torch.acosh(x.abs() + 1),
    "fmod": lambda x: torch.fmod(x, 0.7),
    "fmod_of": lambda x: torch.fmod(x * 5, x.flip(0) + 3),
    "fmax": lambda x: torch.fmax(x, x.sqrt()),
    "fmin": lambda x: torch.fmin(x.sqrt(), x),
    "copysign": lambda x: torch.copysign(x + 2, x.sign() * 0.0),
    "signbit": lambda x: torch.signbit(x),
    "atan2": lambda x: torch.atan2(x.round() / 2 + 0.0, x.flip(0).round() + 0.0),
    "hypot": lambda x: torch.hypot(x, x + 1),
    "logaddexp": lambda x: torch.logaddexp(x, x * 2),
    "copysign_of": lambda x: torch.copysign(x, x.flip(0)),
    "erfc": torch.erfc,
    "trunc": lambda x: torch.trunc(x * 3),
    "lerp": lambda x: torch.lerp(x, x.flip(0), 0.7),
    "lerp_by": lambda x: torch.lerp(x, x.flip(0), x),
    "nan_to_num": lambda x: torch.nan_to_num(x),
    "nan_to_num_of": lambda x: torch.nan_to_num(x.sqrt() / x.round(), 2.0, 3.0, -4.0),
    "relu6": lambda x: functional.relu6((x * 9).int()),
    "shift_left": lambda x: (x * 9).int() << 3,
    "shift_right": lambda x: (x * 9).int() >> 1,
    "truths": lambda x: (x > 0) & (x < 1) | ~(x > -1) ^ (x == 0),
    "low_bits": lambda x: (x * 9).int() & 3,
    "zeroed": lambda x: x.clone().zero_() + x,
}
SHAPES = {
    "diagonal": lambda x, s: x.diagonal(0, -2, -1),
    "diagonal_above": lambda x, s: x.diagonal(1, 2, 3),
    "diagonal_below": lambda x, s: x.diagonal(-2, 1, 3),
    "diagonal_wide": lambda x, s: s.diagonal(3, 1, 2),
    "diag_embed": lambda x, s: torch.diag_embed(s),
    "diag_embed_above": lambda x, s: torch.diag_embed(s, 1),
    "diag_embed_below": lambda x, s: torch.diag_embed(s, -2, 0, 2),
    "shifted": lambda x, s: functional.pad(s, (0, 0, 1, -1)),
    "cut": lambda x, s: functional.pad(s, (-2, 1, 1, -1), value=2.0),
    "cut_replicate": lambda x, s: functional.pad(s, (-2, 3), mode="replicate"),
    "cut_reflect": lambda x, s: functional.pad(s, (2, -1), mode="reflect"),
    "windows": lambda x, s: s.unfold(-1, 3, 2),
    "windows_of": lambda x, s: s.transpose(1, 2).unfold(1, 2, 3),
    "strided": lambda x, s: s.clone().as_strided((2, 3, 4), (40, 8, 2), 1),
    "index_add": lambda x, s: s.index_add(1, torch.tensor([0, 0, 2]), s[:, :3], alpha=2),
    "index_copy": lambda x, s: s.index_copy(1, torch.tensor([4, 2]), s[:, :2]),
    "index_fill": lambda x, s: s.index_fill(1, torch.tensor([4, 2]), 1.5),
    "add_at": lambda x, s: s.index_put((torch.tensor([1, 1]),), s[:1], accumulate=True),
    "written": lambda x, s: torch.arange(96).reshape(2, 6, 8).index_fill(1, torch.tensor(2), 7),
    "powers": lambda x, s: torch.vander(s[0, 0]),
    "masked_scatter": lambda x, s: s.masked_scatter(s > 0, torch.arange(96.0)),
    "masked_select": lambda x, s: torch.masked_select(s, s > 0).sum(),
}
MATRICES = {
    "addbmm": lambda x, s: torch.addbmm(x[0, 0], x[0], x[1], beta=0.5, alpha=2),
    "addr": lambda x, s: torch.addr(s[0], s[0, :, 0], s[1, 0]),
    "dot": lambda x, s: torch.matmul(s[0, 0], s[0, 1]),
    "vector_by_batch": lambda x, s: torch.matmul(x[0, 0, 0], x),
    "distances": lambda x, s: torch.cdist(s, s[:, :3]),
    "distances_1": lambda x, s: torch.cdist(s, s[:, :3], p=1),
    "distances_3": lambda x, s: torch.cdist(s, s[:, :3], p=3.0),
    "distances_most": lambda x, s: torch.cdist(s, s[:, :3], p=INF),
    "distance": lambda x, s: torch.dist(s, s.flip(0)),
    "bilinear": lambda x, s: functional.bilinear(
        s, s, x.reshape(3, 4, 8).repeat(1, 2, 1), s[0, 0, :3]
    ),
}
ORDERS = {
    "scattered_number": lambda s: s.scatter(1, (s > 0).long(), 1),
    "least_of_constants": lambda s: s[..., :3] + KNOWN.scatter_reduce(0, TWICE, KNOWN * 2, "amin"),
    "numbers_of_constants": lambda s: s * (KNOWN.sum() - (KNOWN * KNOWN).sum()),
    "histogram": lambda s: torch.histc(s, 5, -1, 1),
    "histogram_whole": lambda s: torch.histc(s.round(), 4, 0, 3),
    "median": lambda s: s.median(),
    "median_rows": lambda s: s.median(-1)[0],
    "kth": lambda s: s.kthvalue(2, -1)[0],
    "kth_place": lambda s: s[1].kthvalue(2, 0, keepdim=True)[1],
    "quantile": lambda s: s.quantile(0.3, dim=-1),
    "stable_sort": lambda s: s.sort(stable=True, dim=1, descending=True)[0],
    "most_so_far": lambda s: s.round().cummax(1)[0],
    "where_most_so_far": lambda s: s.round().cummax(1)[1],
    "least_so_far": lambda s: s.cummin(-1)[0],
    "cumsum": lambda s: s.cumsum(-2),
    "cumprod": lambda s: s.cumprod(-3),
    "product": lambda s: s.prod(-1),
    "product_kept": lambda s: s.prod(1, keepdim=True),
    "product_of_all": lambda s: s[0, 1:2].prod(),
    "deviation": lambda s: torch.std_mean(s, -1)[0],
    "variance": lambda s: torch.var_mean(s, (1, 2), correction=0)[1],
    "scatter_sum": lambda s: _scatter(s, "sum"),
    "scatter_product": lambda s: _scatter(s, "prod"),
    "scatter_most": lambda s: _scatter(s, "amax"),
    "scatter_least": lambda s: _scatter(s, "amin"),
    "scatter_mean": lambda s: _scatter(s, "mean"),
    "scatter_sum_alone": lambda s: _scatter(s, "sum", include_self=False),
    "scatter_product_alone": lambda s: _scatter(s, "prod", include_self=False),
    "scatter_most_alone": lambda s: _scatter(s, "amax", include_self=False),
    "scatter_mean_alone": lambda s: _scatter(s, "mean", include_self=False),
}

V = torch.randn(1, 2, 8, 6, 5, generator=torch.Generator().manual_seed(1))
resize, pool = functional.interpolate, functional.adaptive_max_pool3d
IMAGES = {
    "bicubic": lambda x, s, v: resize(x, size=(7, 9), mode="bicubic"),
    "bicubic_corners": lambda x, s, v: resize(x, size=(7, 3), mode="bicubic", align_corners=True),
    "bicubic_factor": lambda x, s, v: resize(x, scale_factor=(1.7, 0.6), mode="bicubic"),
    "bicubic_smooth": lambda x, s, v: resize(x, size=(3, 2), mode="bicubic", antialias=True),
    "exact": lambda x, s, v: resize(x, size=(7, 3), mode="nearest-exact"),
    "exact_factor": lambda x, s, v: resize(x, scale_factor=1.7, mode="nearest-exact"),
    "exact_line": lambda x, s, v: resize(s, size=5, mode="nearest-exact"),
    "exact_volume": lambda x, s, v: resize(v, size=(3, 9, 10), mode="nearest-exact"),
    "nearest_factor": lambda x, s, v: resize(x, scale_factor=1.7),
    "nearest_line": lambda x, s, v: resize(s, scale_factor=0.6),
    "nearest_volume": lambda x, s, v: resize(v, size=(3, 4, 10)),
    "linear_volume": lambda x, s, v: resize(v, scale_factor=2, mode="trilinear"),
    "linear_corners": lambda x, s, v: resize(v, (3, 9, 5), mode="trilinear", align_corners=True),
    "linear_line": lambda x, s, v: resize(s, scale_factor=0.6, mode="linear"),
    "linear_factor": lambda x, s, v: resize(x, scale_factor=1.7, mode="bilinear"),
    "means": lambda x, s, v: functional.adaptive_avg_pool3d(v, (3, 5, 1)),
    "means_of_one": lambda x, s, v: functional.adaptive_avg_pool3d(v[0], (4, 3, 5)),
    "most": lambda x, s, v: pool(v, (3, 5, 1)),
    "apart": lambda x, s, v: functional.max_pool2d(x, 2, 2, 1, dilation=(2, 3)),
    "apart_ceil": lambda x, s, v: functional.max_pool2d(x, 2, 2, dilation=2, ceil_mode=True),
    "apart_line": lambda x, s, v: functional.max_pool1d(s, 3, 2, 1, dilation=3),
    "apart_volume": lambda x, s, v: functional.max_pool3d(v, 2, dilation=2, ceil_mode=True),
    "divided": lambda x, s, v: functional.avg_pool2d(x, 3, 1, 1, divisor_override=2),
    "grid": lambda x, s, v: functional.grid_sample(
        x, x.movedim(1, -1)[..., :2].tanh(), mode="bicubic", align_corners=True
    ),
    "turned": lambda x, s, v: functional.grid_sample(
        x, functional.affine_grid(s[:, :2, :3], x.shape, align_corners=False), align_corners=False
    ),
    "fold": lambda x, s, v: _folded(x, 2),
    "fold_padded": lambda x, s, v: _folded(x, 3, padding=1, stride=2),
    "fold_apart": lambda x, s, v: _folded(x, 2, dilation=2),
    "fold_short": lambda x, s, v: _folded(x, (3, 2), stride=2)[0],
}
ROWS = torch.tensor([[3, 1, 3, 0], [5, 5, 2, 4]], dtype=torch.int32)
TABLE = torch.arange(24.0).reshape(6, 4) - 9
BAGS = {
    "mean": lambda rows: functional.embedding_bag(rows, TABLE),
    "sum": lambda rows: functional.embedding_bag(rows, TABLE, mode="sum"),
    "most": lambda rows: functional.embedding_bag(rows, TABLE, mode="max"),
    "weighed": lambda rows: functional.embedding_bag(
        rows, TABLE, mode="sum", per_sample_weights=rows * 0.5
    ),
    "ragged": lambda rows: functional.embedding_bag(
        rows.reshape(-1), TABLE, torch.tensor([0, 3, 3, 7], dtype=torch.int32)
    ),
    "padded": lambda rows: functional.embedding_bag(rows, TABLE, padding_idx=5),
    "alone": lambda rows: functional.embedding_bag(rows[:1], TABLE),
}
WINDOWS = {
    "hann": lambda s: s * torch.hann_window(8),
    "spectrum": lambda s: torch.fft.rfft(s).abs(),
    "frames": lambda s: torch.stft(
        s.reshape(2, 48), 16, 4, window=torch.hann_window(16), return_complex=True
    ).abs(),
}
TURNS = torch.polar(torch.ones(6, 4), torch.arange(24.0).reshape(6, 4))
FACTORS = torch.complex(torch.randn(2, 3, 4), torch.randn(2, 3, 4))


def _filtered(s):
    """A product with weights between transforms of two dimensions."""
    spectrum = torch.fft.rfft2(s, dim=(1, 2), norm="ortho")
    mixed = torch.einsum("bix,iox->box", spectrum[:, :2, :4], FACTORS)
    return torch.fft.irfft2(mixed, s=(4, 6), dim=(1, 2), norm="ortho")


COMPLEX = {
    "filtered": _filtered,
    "turned": lambda s: torch.view_as_real(
        torch.view_as_complex(s.reshape(2, 6, 4, 2)) * TURNS
    ).flatten(2),
    "correlated": lambda s: torch.fft.irfft(
        torch.fft.rfft(s, dim=1) * torch.fft.rfft(s.flip(0), dim=1).conj(), n=6, dim=1
    ),
    "odd": lambda s: torch.fft.irfft(torch.fft.rfft(s[..., :5]) / 2, n=5),
    "mixed": lambda s: torch.fft.ifft(torch.fft.fft(s, dim=1) * s, dim=1).real,
}


def _folded(x, kernel, **options):
    patches = functional.unfold(x, kernel, **options)
    return functional.fold(patches, x.shape[-2:], kernel, **options)


@pytest.mark.parametrize(
    ("functions", "inputs"),
    [
        pytest.param(CHOICES, (X, N), id="choices"),
        pytest.param(FUNCTIONS, (X,), id="functions"),
        pytest.param(SHAPES, (X, S), id="shapes"),
        pytest.param(MATRICES, (X, S), id="matrices"),
        pytest.param(ORDERS, (S,), id="orders"),
        pytest.param(IMAGES, (X, S, V), id="images"),
        pytest.param(BAGS, (ROWS,), id="bags"),
        pytest.param(WINDOWS, (S,), id="windows"),
        pytest.param(COMPLEX, (S,), id="complex"),
    ],
)
def test_values_are_those_of_pytorch(tmp_path, functions, inputs):
    check_outputs(
        Functions(functions), inputs, tmp_path / "m.mlpackage", compute_precision="float32"
    )
