"""``bundle.json`` of a golden bundle: names, types, shapes, limits and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from dkm_deploy._support.records import from_json

FORMAT: Final = "dkm-deploy golden bundle"
VERSION: Final = 1


@dataclass(frozen=True)
class TensorEntry:
    """A tensor of a bundle, or of what a device gave.

    Attributes:
        name: of the input or output.
        dtype: as numpy calls it.
        shape: lengths of its dimensions.
        raw: file of its values: little-endian, C order, nothing around them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    raw: str


@dataclass(frozen=True)
class AskedInterface:
    """What an app is to find in files of one kind.

    Attributes:
        suffix: of these files.
        asked: JSON of :meth:`dkm_deploy.formats.interface.Interface.to_json`.
    """

    suffix: str
    asked: str


@dataclass(frozen=True)
class Manifest:
    """What ``bundle.json`` has; what stands last is not in older bundles.

    Attributes:
        format: what the file is.
        version: of the format.
        inputs: of the model; with ``steps``, the step is their first dimension.
        outputs: of the frozen model; so are all below.
        original: outputs of the model before clustering; none if it was not given.
        labels: one entry, or none.
        metric: what the labels are for; None if for top-1 accuracy.
        original_bytes: of the original's tensors, and of its fp16 half.
        limits: what a file must keep, checked by itself: an unknown limit must not be passed over.
        provenance: where all this came from.
        epsilons: of normalization layers, by name.
        interface: what an app is to find in files.
        recipe: TOML of a recipe that lays palettes out like these.
        steps: how many; None if the inputs are no steps.
    """

    format: Literal["dkm-deploy golden bundle"]
    version: Literal[1]
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    original: tuple[TensorEntry, ...]
    labels: tuple[TensorEntry, ...]
    metric: str | None
    original_bytes: tuple[int, int] | None
    limits: Any
    provenance: Mapping[str, Any]
    epsilons: Mapping[str, float] | None = None
    interface: AskedInterface | None = None
    recipe: str = ""
    steps: int | None = None


def manifest_from(text: str) -> Manifest:
    """The manifest in a JSON text. Raises DkmError for anything else, and for other versions."""
    return from_json(text, Manifest, more_keys=True)
