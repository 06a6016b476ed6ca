"""What an app reads of a file by name: its inputs and outputs, images and class labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from dkm_deploy._support.records import from_plain, parse_json
from dkm_deploy.errors import DkmError

INTERFACE_KEY = "dkm_deploy.interface"
"""Metadata of a file: the interface that ``convert`` was asked for, as JSON."""

_SHOWN = 3  # class labels that differ
_NEAR = 2.0**-9  # relative: what float16 leaves of a scale or a bias, with room


@dataclass(frozen=True)
class Image:
    """How an app gives an image.

    Attributes:
        color: "RGB", "BGR" or "GRAYSCALE".
        pixels: how pixels of 0 to 255 become the model's numbers, ``(scale, bias)`` for each
            channel; of a file all that its program has on the way to the first layer.
    """

    color: str
    pixels: tuple[tuple[tuple[float, float], ...], ...] = ()


@dataclass(frozen=True)
class Feature:
    """An input or output.

    Attributes:
        name: by which an app gives or reads it.
        dtype: "float32", "int32", ..; "image", "string" or "dictionary".
        shape: in words: ``1 x 3 x 16..64``; listed shapes with ``or`` between them.
        image: of an input that is an image.
    """

    name: str
    dtype: str
    shape: str = ""
    image: Image | None = None


@dataclass(frozen=True)
class Interface:
    """What an app reads of a file by name.

    Attributes:
        suffix: of the file, such as ".mlpackage".
        inputs: in their order.
        outputs: in their order.
        labels: of a classifier, in the order of the scores.
        predicted: of a classifier, the outputs with the label and with the scores.
    """

    suffix: str
    inputs: tuple[Feature, ...] = ()
    outputs: tuple[Feature, ...] = ()
    labels: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As the metadata of a file has it; the same interface gives the same text."""
        held = asdict(self, dict_factory=_without_empty)
        del held["suffix"]
        return json.dumps({**asdict(_Version(1)), **held}, separators=(",", ":"), sort_keys=True)


@dataclass(frozen=True)
class _Version:
    version: Literal[1]


def _without_empty(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Fields as a mapping, without those that are empty."""
    return {key: value for key, value in items if value}


@runtime_checkable
class InterfaceReader(Protocol):
    """A reader that tells the interface of a file, and the one that it was asked to have."""

    def read_interface(self, path: Path) -> tuple[Interface, Interface | None]:
        """What an app finds, and what the metadata says it should; None where that says nothing.

        Raises:
            DkmError: the file is damaged, or its metadata cannot be read.
        """
        ...


def interface_from(text: str, suffix: str) -> Interface:
    """What :meth:`Interface.to_json` wrote. Raises DkmError for anything else."""
    try:
        held = parse_json(text)
        from_plain(held, _Version, more_keys=True)
        return from_plain({**held, "suffix": suffix}, Interface, more_keys=True)
    except DkmError as error:
        raise DkmError(f"metadata {INTERFACE_KEY!r}: {error}") from error


def differences(found: Interface, wanted: Interface) -> Iterator[str]:
    """Everything in which one interface is not as another one, in words."""
    yield from _features("input", found.inputs, wanted.inputs)
    yield from _features("output", found.outputs, wanted.outputs)
    if found.predicted != wanted.predicted:
        names = [_list_names(one.predicted) for one in (found, wanted)]
        yield f"predicted are {names[0]}, wanted {names[1]}"
    if len(found.labels) != len(wanted.labels):
        yield f"{len(found.labels)} class labels, wanted {len(wanted.labels)}"
    else:
        pairs = enumerate(zip(found.labels, wanted.labels, strict=True))
        wrong = [f"class label {n} is {a!r}, wanted {b!r}" for n, (a, b) in pairs if a != b]
        yield from wrong[:_SHOWN]
        if wrong[_SHOWN:]:
            yield f"{len(wrong) - _SHOWN} more class labels differ"


def _features(what: str, found: Sequence[Feature], wanted: Sequence[Feature]) -> Iterator[str]:
    names, others = [f.name for f in found], [f.name for f in wanted]
    if names != others:
        yield f"{what}s are {_list_names(names)}, wanted {_list_names(others)}"
        return
    for have, want in zip(found, wanted, strict=True):
        named = f"{what} {have.name!r}"
        if have.dtype != want.dtype:
            yield f"{named} is {have.dtype}, wanted {want.dtype}"
        if have.shape != want.shape:
            yield f"{named} has the shape {have.shape}, wanted {want.shape}"
        if have.image is not None and want.image is not None:
            yield from _images(named, have.image, want.image)


def _images(named: str, found: Image, wanted: Image) -> Iterator[str]:
    if found.color != wanted.color:
        yield f"{named} is a {found.color} image, wanted {wanted.color}"
    if not wanted.pixels or not found.pixels:
        return
    asked = wanted.pixels[0]
    wrong = [list(_pixels(made, asked)) for made in found.pixels]
    if all(wrong):
        yield f"{named}: {min(wrong, key=len)[0]}"


def _pixels(
    made: Sequence[tuple[float, float]], asked: Sequence[tuple[float, float]]
) -> Iterator[str]:
    if len(made) != len(asked):
        yield f"pixels have {len(made)} channels, wanted {len(asked)}"
        return
    for channel, ((scale, bias), (a, b)) in enumerate(zip(made, asked, strict=True)):
        if abs(scale - a) > _NEAR * abs(a):
            yield f"the scale of channel {channel} is {scale:g}, wanted {a:g}"
        if abs(bias - b) > _NEAR * (abs(a) + abs(b)):
            yield f"the bias of channel {channel} is {bias:g}, wanted {b:g}"


def _list_names(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
