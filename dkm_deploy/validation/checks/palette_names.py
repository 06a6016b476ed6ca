"""Palettes of a file under the names of the reference, where the file has lost these."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dkm_deploy.formats.mlpackage.value_names import CAST, value_name
from dkm_deploy.palette import Palette

_ENDINGS = (CAST, "_to_fp16")  # what coremltools puts behind names


def by_reference_names(
    stored: Mapping[str, Palette], reference: Collection[str]
) -> dict[str, Palette]:
    """The palettes of a file by the names that a reference has for them, if it has any.

    coremltools drops what ``convert`` wrote into the metadata when it joins packages to one of
    several functions. What is left are the names of values: ``0_weight`` for ``0.weight``.
    """
    known = {value_name(name): name for name in reference if name not in stored}
    own = {name: name if name in reference else known.get(_plain(name), name) for name in stored}
    return {own[name]: palette for name, palette in stored.items()}


def _plain(value: str) -> str:
    for ending in _ENDINGS:
        value = value.removesuffix(ending)
    return value
