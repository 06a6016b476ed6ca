"""The evaluator in the place where coremltools talks to Core ML."""

from __future__ import annotations

import platform
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any, cast

import coremltools as ct
import coremltools.models._compiled_model as compiled_model
import coremltools.models.model as model
import coremltools.models.utils as utils
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import dkm_deploy as dkm
from dkm_deploy.runtimes.mlprogram.interface import PackageTranslator
from dkm_deploy.runtimes.mlprogram.numerics import Numerics

_MACOS = (15, 5)
_CORE_MLS_WORDS = "Unable to compute the prediction using ML Program: "  # tests look for them
_DTYPES = {
    "DOUBLE": np.float64,
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "INT8": np.int8,
}
numerics: Numerics = "declared"
"""Of the evaluator."""
predictions = 0
"""How many have been made in this process."""


def install(computed_in: Numerics) -> None:
    """Make coremltools believe that this is a Mac, and that Core ML is the evaluator."""
    global numerics
    numerics = computed_in
    ct._deps._IS_MACOS = True
    for module in (utils, model, compiled_model):
        module._is_macos = lambda: True
        module._macos_version = lambda: _MACOS
    platform.machine = lambda: "arm64"
    model._MLModelProxy = EvaluatorProxy


class EvaluatorProxy:
    """What coremltools asks of a model that Core ML has loaded, by the names of Core ML's class.

    Core ML's own class raises RuntimeError, here with the evaluator's message behind its words.
    Anything else than a DkmError is a fault of the evaluator, and is raised as "evaluator: ..".
    """

    def __init__(self, path: str, units: str, function: str, hints: Any, asset: Any) -> None:
        self._description = _described(utils.load_spec(path).description, function)
        self._evaluator: dkm.MLProgramEvaluator = _guarded(
            lambda: dkm.MLProgramEvaluator(path, function=function or None, numerics=numerics)
        )

    @staticmethod
    def maximum_supported_specification_version() -> int:
        """That of iOS 18, as the pretended macOS has it."""
        return 9

    def newState(self) -> EvaluatorState:  # noqa: N802
        """States of zeros."""
        return EvaluatorState(self._evaluator.make_state())

    def predict(
        self, data: Mapping[str, Any], state: EvaluatorState | None = None
    ) -> dict[str, Any]:
        """Outputs by name, as Core ML gives them."""
        global predictions
        given = {name: self._given(name, value) for name, value in data.items()}
        arrays = None if state is None else state.arrays
        made = _guarded(lambda: self._evaluator.run(given, state=arrays), _CORE_MLS_WORDS)
        predictions += 1
        return {feature.name: self._made(feature, made) for feature in self._description.output}

    def batchPredict(  # noqa: N802
        self, data: list[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Outputs of each."""
        return [self.predict(each) for each in data]

    def _given(self, name: str, value: Any) -> NDArray[Any]:
        kinds = [feature.type for feature in self._description.input if feature.name == name]
        if not kinds:
            return np.asarray(value)
        if kinds[0].WhichOneof("Type") == "imageType":
            return pixels_of(value, _enum(kinds[0].imageType, "colorSpace"))
        return np.asarray(value).astype(_DTYPES[_enum(kinds[0].multiArrayType, "dataType")])

    def _made(self, feature: Any, made: Mapping[str, NDArray[Any]]) -> Any:
        value = made[feature.name]
        what = feature.type.WhichOneof("Type")
        if what == "imageType":
            return image_of(value, _enum(feature.type.imageType, "colorSpace"))
        if what == "dictionaryType":
            labels = cast(PackageTranslator, self._evaluator.interface).labels
            return dict(zip(labels, value.ravel().tolist(), strict=True))
        if what in ("int64Type", "stringType"):
            return value.item()
        return value.reshape(1) if value.shape == () else value


class EvaluatorState:
    """States between predictions, which Core ML lets an app read and write."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def read_state(self, name: str) -> NDArray[np.float32]:
        """The values of a state. Raises RuntimeError if there is none of this name."""
        return self._known(name).astype(np.float32)

    def write_state(self, name: str, value: NDArray[Any]) -> None:
        """Replace a state. Raises RuntimeError if there is none of this name and shape."""
        known = self._known(name)
        if np.shape(value) != known.shape:
            raise RuntimeError(f"state {name!r} has shape {known.shape}, not {np.shape(value)}")
        self.arrays[name] = np.asarray(value).astype(known.dtype)

    def _known(self, name: str) -> NDArray[Any]:
        if name not in self.arrays:
            raise RuntimeError(f"no state {name!r}")
        return self.arrays[name]


def _guarded(act: Callable[[], Any], words: str = "") -> Any:
    try:
        return act()
    except dkm.DkmError as error:
        raise RuntimeError(words + re.sub(r"^\S+\.mlpackage: ", "", str(error))) from error
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise RuntimeError(f"evaluator: {type(error).__name__}: {error} ({where.name})") from error


def _described(description: Any, function: str) -> Any:
    """The description of a function, or of a model that has one function."""
    wanted = function or description.defaultFunctionName
    return next((each for each in description.functions if each.name == wanted), description)


def _enum(message: Any, field: str) -> str:
    """The name of the value that a field of a protobuf message has."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    name: str = enum.values_by_number[getattr(message, field)].name
    return name


def pixels_of(image: Any, space: str) -> NDArray[np.float32]:
    """``(1, channels, height, width)`` of an image for a colour space of the description."""
    pixels = np.asarray(image, np.float32)
    planes = pixels[None] if pixels.ndim == 2 else pixels[..., :3].transpose(2, 0, 1)
    return np.ascontiguousarray(planes[::-1] if space == "BGR" else planes)[None]


def image_of(value: NDArray[Any], space: str) -> Image.Image:
    """The image of an output's pixels in a colour space of the description."""
    planes = value.reshape(value.shape[-3:])
    if space == "GRAYSCALE_FLOAT16":
        return Image.fromarray(planes[0].astype(np.float32))
    whole = np.rint(planes.clip(0, 255)).astype(np.uint8)
    if space == "GRAYSCALE":
        return Image.fromarray(whole[0])
    return Image.fromarray((whole[::-1] if space == "BGR" else whole).transpose(1, 2, 0))
