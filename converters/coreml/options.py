"""What a user may ask of a Core ML package."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.coreml import deployment
from dkm_deploy.errors import DkmError

_PRECISIONS = ("auto", "float16", "float32")
_NAMES = ("short", "full")
_LUTS = ("float", "int8")
_COLORS = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1}
_ABOUT = ("author", "license", "description", "version")


@dataclass(frozen=True)
class Image:
    """How pixels of 0 to 255 become the numbers that the model takes: times scale, plus bias.

    Attributes:
        scale: one factor for all channels.
        bias: one value for all channels, or one a channel.
        color: "RGB", "BGR" or "GRAYSCALE", the order of the channels in the model's input.
    """

    scale: float = 1.0
    bias: Sequence[float] | float = 0.0
    color: str = "RGB"

    def __post_init__(self) -> None:
        _choose("color", self.color, _COLORS)
        _number("scale", self.scale)
        if self.scale == 0:
            raise DkmError("scale is 0, which makes all pixels the same")
        for value in self.biases:
            _number("bias", value)
        if len(self.biases) != self.channels:
            raise DkmError(f"bias has {len(self.biases)} values; {self.color} has {self.channels}")

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return _COLORS[self.color]

    @property
    def biases(self) -> list[float]:
        """One bias a channel."""
        one = isinstance(self.bias, (int, float))
        return [self.bias] * self.channels if one else list(self.bias)  # type: ignore[arg-type,list-item]


@dataclass(frozen=True)
class Options:
    """Options of a Core ML package, see :meth:`converters.coreml.CoreMLTarget.write`.

    Raises:
        DkmError: a value is out of range.
    """

    minimum_deployment_target: str = deployment.DEFAULT
    compute_precision: str = "auto"
    lut_dtype: str = "float"
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shapes: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    class_labels: Sequence[str] | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    names: str = "short"

    def __post_init__(self) -> None:
        deployment.generation(self.minimum_deployment_target)
        _choose("compute_precision", self.compute_precision, _PRECISIONS)
        _choose("names", self.names, _NAMES)
        _choose("lut_dtype", self.lut_dtype, _LUTS)
        refusal = deployment.refuse_int8_luts(self.minimum_deployment_target)
        if self.lut_dtype == "int8" and refusal:
            raise DkmError(f"lut_dtype is 'int8'; {refusal}")
        for name, text in self.about.items():
            _choose("a key of about", name, _ABOUT)
            if not isinstance(text, str):
                raise DkmError(f"about: {name} is {text!r}; it must be a text")
        if self.class_labels is not None:
            _check_labels(self.class_labels)
        for name in self.images:
            self.image(name)

    def image(self, name: str) -> Image | None:
        """How the input called ``name`` is an image, or None if it is not."""
        if name not in self.images:
            return None
        try:
            return Image(**self.images[name])
        except (DkmError, TypeError) as error:  # TypeError: an unknown key, or not a mapping
            raise DkmError(f"images: {name}: {error}") from error


def _choose(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise DkmError(f"{option} is {value!r}; it must be one of {', '.join(known)}")


def _number(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DkmError(f"{name} is {value!r}; it must be a finite number")


def _check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise DkmError("class_labels must be a list of texts, one a class")
    if len(set(labels)) < len(labels):
        raise DkmError("class_labels has a label twice; Core ML gives scores by label")
