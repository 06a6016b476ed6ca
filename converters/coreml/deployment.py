"""What Core ML can hold from which system version on."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from converters.coreml.tables.row_blocks import spans
from dkm_deploy.errors import DkmError
from dkm_deploy.palette_spec import scaled_group_count

if TYPE_CHECKING:
    from torch import Tensor

    from dkm_deploy.palette_spec import PaletteSpec

DEFAULT = "iOS18"
MAX_RANK = 5

# The generation of Core ML, counted by iOS, that a deployment target brings.
_GENERATIONS = {
    "iOS16": 16,
    "iOS17": 17,
    "iOS18": 18,
    "iOS26": 26,
    "macOS13": 16,
    "macOS14": 17,
    "macOS15": 18,
    "macOS26": 26,
}
_WIDTHS = (1, 2, 3, 4, 6, 8)
_GROUPS = 18  # also vectors, indices of 3 bits, and 8-bit LUTs
_STATES = 18
_SCALES = 26  # of channels, beside their LUTs

NO_PROJECTION = "an LSTM with proj_size has no operation in Core ML; leave proj_size out"


def generation(deployment_target: str) -> int:
    """The generation of a deployment target: "macOS15" gives 18. Raises DkmError if unknown."""
    if deployment_target not in _GENERATIONS:
        raise DkmError(
            f"minimum_deployment_target is {deployment_target!r}; "
            f"it must be one of {', '.join(_GENERATIONS)}"
        )
    return _GENERATIONS[deployment_target]


def refuse(
    spec: PaletteSpec, shape: tuple[int, ...], deployment_target: str, gates: int = 1
) -> str | None:
    """Why a deployment target cannot hold a weight of ``shape`` with ``spec``, or None if it can.

    ``gates`` blocks along dimension 0 are stored in Core ML's order: see
    :func:`converters.coreml.tables.row_blocks.reorder`.

    Raises:
        DkmError: the deployment target is unknown.
    """
    if len(shape) > MAX_RANK:
        return f"rank {len(shape)}; Core ML has at most {MAX_RANK}"
    misfit = spec.refuse(shape)
    if misfit:
        return misfit
    for what, needed in _needs(spec, shape):
        if generation(deployment_target) < needed:
            return f"{what} need {lowest(needed)}, and the deployment target is {deployment_target}"
    return _outgrows(spec, shape, deployment_target) or _spans_gates(spec, shape, gates)


def refuse_state(start: Tensor, deployment_target: str) -> str | None:
    """Why Core ML cannot keep a buffer that starts as ``start``, or None if it can."""
    if generation(deployment_target) < _STATES:
        return f"states need {lowest(_STATES)}, and the deployment target is {deployment_target}"
    if not start.is_floating_point():
        return f"it is {start.dtype}, and Core ML keeps states in float16"
    if start.any():
        return "it is not zero at the start, as states of Core ML are"
    return None


def _spans_gates(spec: PaletteSpec, shape: tuple[int, ...], gates: int) -> str | None:
    if spec.axis != 0 or gates == 1:
        return None
    return spans(shape[0], gates, group=spec.group_size or shape[0], vector=spec.cluster_dim)


def scales_in_luts(deployment_target: str) -> bool:
    """Whether per-channel scales are multiplied into LUTs, one for each channel.

    coremltools writes a decoded weight times a scale from iOS 26 on only.
    """
    return generation(deployment_target) < _SCALES


def needs_scales(what: str) -> str:
    """That something needs scales beside LUTs, and where these are."""
    return f"{what} need {lowest(_SCALES)}"


def _outgrows(spec: PaletteSpec, shape: tuple[int, ...], deployment_target: str) -> str | None:
    """Why scales in LUTs do not pay, or None if they do or there are none."""
    if not spec.per_channel_scale or not scales_in_luts(deployment_target):
        return None
    bits = stored_bits(spec.bits, deployment_target)
    values = (scaled_group_count(shape, spec) << bits) * spec.cluster_dim
    indices = -(-prod(shape) // spec.cluster_dim * bits // 8)
    size, dense = 2 * values + indices, 2 * prod(shape)  # in float16
    if size < dense:
        return None
    return (
        f"per_channel_scale=True takes a LUT for each channel before {lowest(_SCALES)}, "
        f"{size:,} bytes in place of {dense:,} of the dense weight, "
        f"and the deployment target is {deployment_target}"
    )


def lowest(needed: int) -> str:
    """The deployment targets that bring a generation, such as "iOS18 or macOS15"."""
    return " or ".join(name for name, brings in _GENERATIONS.items() if brings == needed)


def stored_bits(bits: int, deployment_target: str) -> int:
    """The narrowest index type of the target that holds ``bits`` bits."""
    has_3 = generation(deployment_target) >= _GROUPS
    return next(width for width in _WIDTHS if width >= bits and (width != 3 or has_3))


def typed_indices(deployment_target: str) -> bool:
    """Whether indices have types of their own (uint4 ..); before, they are a stream of bytes."""
    return generation(deployment_target) >= _GROUPS


def refuse_int8_luts(deployment_target: str) -> str | None:
    """Why LUTs cannot be 8-bit integers, or None if they can."""
    if generation(deployment_target) >= _GROUPS:
        return None
    return f"8-bit LUTs need {lowest(_GROUPS)}, and the deployment target is {deployment_target}"


def _needs(spec: PaletteSpec, shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """What of a spec some targets lack, and the generation that has it; the newest first."""
    grouped = spec.group_size is not None and spec.group_size < shape[spec.axis]
    wanted = [
        ("per-channel scales (per_channel_scale=True)", _GROUPS, spec.per_channel_scale),
        ("vector palettes", _GROUPS, spec.cluster_dim > 1),
        ("grouped palettes", _GROUPS, grouped),
    ]
    return [(what, needed) for what, needed, asked in wanted if asked]
