"""What Core ML can hold from which system version on."""

from __future__ import annotations

from dkm_deploy.errors import DkmError
from dkm_deploy.recipe import PaletteSpec

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
_GROUPS = 18  # also vectors, and indices of 3 bits
_SCALES = 26


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
    :func:`converters.coreml.blocks.reorder`.

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
    return _spans_gates(spec, shape, gates)


def _spans_gates(spec: PaletteSpec, shape: tuple[int, ...], gates: int) -> str | None:
    """Why gates cannot be put in another order without new LUTs."""
    rows = shape[0] // gates
    if spec.axis != 0 or gates == 1:
        return None
    if spec.group_size is not None and spec.group_size < shape[0] and rows % spec.group_size:
        return (
            f"a LUT of {spec.group_size} rows spans two of its {gates} gates; "
            f"choose a group_size that divides {rows}, or axis 1"
        )
    if rows % spec.cluster_dim:
        return (
            f"a vector of {spec.cluster_dim} spans two of its {gates} gates of {rows} rows; "
            "choose another cluster_dim, or axis 1"
        )
    return None


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


def _needs(spec: PaletteSpec, shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """What of a spec some targets lack, and the generation that has it; the newest first."""
    grouped = spec.group_size is not None and spec.group_size < shape[spec.axis]
    wanted = [
        ("per-channel scales (per_channel_scale=True)", _SCALES, spec.per_channel_scale),
        ("vector palettes", _GROUPS, spec.cluster_dim > 1),
        ("grouped palettes", _GROUPS, grouped),
    ]
    return [(what, needed) for what, needed, asked in wanted if asked]
