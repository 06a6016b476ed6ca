"""Convolution and transposed convolution, one to three spatial dimensions."""

from torch import Tensor
from torch.nn import functional

from dkm_deploy.formats.mlpackage.limits import check_elements
from dkm_deploy.runtimes.mlprogram.kernels.padding import explicit_pads, flat, symmetric
from dkm_deploy.runtimes.mlprogram.kernels.registry import Ints, kernel

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@kernel("conv")
def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints = (),
    pad_type: str = "valid",
    pad: Ints = (),
    dilations: Ints = (),
    groups: int = 1,
) -> Tensor:
    dims = x.ndim - 2
    strides, dilations = strides or (1,) * dims, dilations or (1,) * dims
    windows = _windows(weight, dilations)
    pads = explicit_pads(pad_type, pad, x.shape[2:], windows, strides)
    padding = symmetric(pads)
    if padding is None:
        x, padding = functional.pad(x, flat(pads)), (0,) * dims
    return _CONV[dims](x, weight, bias, strides, padding, dilations, groups)


@kernel("conv_transpose")
def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints = (),
    output_shape: Ints = (),
    pad_type: str = "valid",
    strides: Ints = (),
    dilations: Ints = (),
    groups: int = 1,
) -> Tensor:
    dims = x.ndim - 2
    strides, dilations = strides or (1,) * dims, dilations or (1,) * dims
    wide = [
        n * s + k for n, s, k in zip(x.shape[2:], strides, _windows(weight, dilations), strict=True)
    ]
    check_elements([x.shape[0], weight.shape[1] * groups, *wide])
    full = _TRANSPOSED[dims](x, weight, None, strides, 0, 0, groups, dilations)
    wanted = output_shape[2:] or _lengths(pad_type, pad, x, full, strides)
    starts = _starts(pad_type, pad, full, wanted)
    # A negative amount of padding crops; beyond the full result there is only the bias.
    pads = [
        (-start, start + length - size)
        for start, length, size in zip(starts, wanted, full.shape[2:], strict=True)
    ]
    result = functional.pad(full, flat(pads))
    return result if bias is None else result + bias.reshape([-1] + [1] * dims)


def _windows(weight: Tensor, dilations: Ints) -> Ints:
    return tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))


def _lengths(pad_type: str, pad: Ints, x: Tensor, full: Tensor, strides: Ints) -> Ints:
    if pad_type == "same":
        return tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    if pad_type == "custom":
        cut = [before + after for before, after in zip(pad[::2], pad[1::2], strict=True)]
        return tuple(n - c for n, c in zip(full.shape[2:], cut, strict=True))
    return tuple(full.shape[2:])


def _starts(pad_type: str, pad: Ints, full: Tensor, wanted: Ints) -> Ints:
    if pad_type == "custom":
        return pad[::2]
    return tuple(max(0, n - w) // 2 for n, w in zip(full.shape[2:], wanted, strict=True))
