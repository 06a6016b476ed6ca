"""Where a package takes and gives other things than the model it was made from: images, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.constexpr import Constants
from dkm_deploy.formats.mlpackage.ml_program import Function
from dkm_deploy.formats.mlpackage.package import Package
from dkm_deploy.runtimes import Arrays, NotTakenError, WrongLabelError

IMAGES_KEY = "dkm_deploy.images"
"""User-defined metadata: JSON, by the name of an input that is an image, how pixels become the
model's numbers: {"scale": 0.0078, "bias": [-1.0, -1.0, -1.0]}, one bias a channel."""

_NEAR = 1e-3  # of a pixel's step: what float32 leaves of (pixel * scale + bias - bias) / scale


@dataclass(frozen=True)
class Pixels:
    """How pixels of 0 to 255 become what the model takes: times ``scale``, plus ``bias``."""

    scale: float
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.scale == 0 or not np.isfinite([self.scale, *self.bias]).all():
            raise DkmError(
                f"image scale {self.scale} and bias {self.bias}: all must be finite, and the scale "
                "must not be 0"
            )

    def of(self, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        """The pixels of an input ``(n, channels, height, width)``.

        Raises:
            NotTakenError: its values are no pixels.
        """
        bias = np.array(self.bias, np.float64).reshape(-1, 1, 1)
        exact = (values.astype(np.float64) - bias) / self.scale
        pixels: NDArray[np.float32] = np.rint(exact).astype(np.float32)
        wrong = ~((np.abs(exact - pixels) <= _NEAR) & (pixels >= 0) & (pixels <= 255))
        if wrong.any():
            raise NotTakenError(
                f"input {name!r} is an image in the file: its values must be pixels (integers 0 to "
                f"255) times {self.scale:g} plus {', '.join(f'{b:g}' for b in self.bias)}; "
                f"{np.count_nonzero(wrong)} of {wrong.size} values are not, the first is "
                f"{values[wrong][0]:g}"
            )
        return pixels


@dataclass(frozen=True)
class PackageTranslator:
    """What to change of the model's inputs and outputs.

    Attributes:
        images: by name, the inputs that are images; None where the file does not say how pixels
            become numbers.
        label: name of the output that holds the label; empty if the file is no classifier.
        scores: name of the output that holds a score for each label.
        labels: in the order of the scores.
    """

    images: Mapping[str, Pixels | None]
    label: str = ""
    scores: str = ""
    labels: tuple[Any, ...] = ()

    def to_file_inputs(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """The inputs that the file takes for those that the model takes.

        Raises:
            NotTakenError: there are none.
        """
        return {name: self._given(name, array) for name, array in arrays.items()}

    def to_model_outputs(self, outputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs that the model makes for those that the file makes: ``(1, classes)`` scores.

        Raises:
            WrongLabelError: the label is not that of the highest score.
        """
        if self.label not in outputs or self.scores not in outputs:
            return dict(outputs)
        scores = outputs[self.scores]
        _check_label(np.asarray(outputs[self.label]).item(), scores, self.labels)
        rest = {n: o for n, o in outputs.items() if n not in (self.label, self.scores)}
        return rest | {self.scores: scores.reshape(1, -1)}

    def _given(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        if name not in self.images:
            return array
        pixels = self.images[name]
        if pixels is None:
            raise NotTakenError(
                f"input {name!r} is an image, and the file does not say how its pixels become "
                "what PyTorch takes"
            )
        fits = array.ndim == 4 and array.shape[1] == len(pixels.bias)
        return pixels.of(name, array) if fits else array  # a session says how it does not fit


def package_translator(package: Package, function: Function) -> PackageTranslator:
    """What the description of a package and a function of it say.

    Raises:
        DkmError: the metadata on images is damaged.
    """
    described = package.model.description
    own = [f.input for f in described.functions if f.name == function.name]
    inputs = own[0] if own else described.input
    names = [feature.name for feature in inputs if feature.type.WhichOneof("Type") == "imageType"]
    known = package.metadata(IMAGES_KEY, Pixels)
    images = {name: known.get(name) for name in names}
    for operation in function.body.operations:
        made = operation.outputs
        if operation.type == "classify" and operation.inputs.get("classes") and len(made) == 2:
            labels = Constants(function.body).get(operation.inputs["classes"][0]).tolist()
            return PackageTranslator(images, made[0][0], made[1][0], tuple(labels))
    return PackageTranslator(images)


def _check_label(label: Any, scores: NDArray[Any], labels: Sequence[Any]) -> None:
    best = int(scores.argmax())
    if label not in labels or scores[labels.index(label)] != scores[best]:
        raise WrongLabelError(
            f"the file gives the label {label!r}; the highest score is that of {labels[best]!r}"
        )
