"""The interface of a package, as an app finds it and as ``convert`` was asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.coreml.options import Options
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.interface import INTERFACE_KEY, Feature, Image, Interface, interface_from
from dkm_deploy.formats.mlpackage.constexpr import Constants
from dkm_deploy.formats.mlpackage.ml_program import (
    Block,
    Constant,
    Operand,
    Operation,
    chosen,
    functions,
)
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes.mlprogram.interface import package_translator

_SUFFIX = ".mlpackage"
_KINDS = {"FLOAT32": "float32", "FLOAT16": "float16", "INT32": "int32", "DOUBLE": "float64"}
_CHANNELS = {"RGB": 3, "BGR": 3, "GRAYSCALE": 1}

Array = NDArray[Any]


def asked_interface(description: Any, options: Options) -> Interface:
    """What a package is to offer: what it describes, with the images and labels of the options."""
    found = _described_features(description)
    inputs = tuple(_add_asked_image(feature, options) for feature in found.inputs)
    return replace(found, inputs=inputs, labels=tuple(options.class_labels or ()))


def read_interface(path: Path, name: str | None = None) -> tuple[Interface, Interface | None]:
    """What an app finds in a package, and what its metadata says it should.

    Args:
        path: the package.
        name: of the function; None or ``""`` is the default one, which alone metadata tells of.

    Raises:
        DkmError: the package is damaged, its metadata cannot be read, or there is no such function.
    """
    package = open_package(path)
    function = chosen(functions(package), name)
    description = package.model.description
    own = [each for each in description.functions if each.name == function.name]
    described = _described_features(own[0] if own else description)
    inputs = tuple(_add_pixel_scaling(feature, function.body) for feature in described.inputs)
    labels = tuple(map(str, package_translator(package, function).labels))
    told = package.user_metadata.get(INTERFACE_KEY) if not name else None
    try:
        asked = None if told is None else interface_from(told, _SUFFIX)
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    return replace(described, inputs=inputs, labels=labels), asked


def _described_features(description: Any) -> Interface:
    outputs = tuple(map(_feature, description.output))
    names = (description.predictedFeatureName, description.predictedProbabilitiesName)
    return Interface(
        _SUFFIX,
        tuple(map(_feature, description.input)),
        outputs,
        predicted=tuple(name for name in names if name),
    )


def _feature(feature: Any) -> Feature:
    kind = feature.type.WhichOneof("Type")
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        dtype = array.ArrayDataType.Name(array.dataType)
        return Feature(feature.name, _KINDS.get(dtype, dtype), _shape(array))
    if kind == "imageType":
        image = feature.type.imageType
        color = Image(image.ColorSpace.Name(image.colorSpace))
        return Feature(feature.name, "image", f"{image.width} x {image.height}", color)
    return Feature(feature.name, str(kind).removesuffix("Type"), "")


def _shape(array: Any) -> str:
    """In words: the listed shapes, the ranges, or the only shape."""
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        return " or ".join(" x ".join(map(str, s.shape)) for s in array.enumeratedShapes.shapes)
    if flexible == "shapeRange":
        ranges = [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges]
        return " x ".join(str(a) if a == b else f"{a}..{b}" for a, b in ranges)
    return " x ".join(map(str, array.shape))


def _add_asked_image(feature: Feature, options: Options) -> Feature:
    image = options.image(feature.name)
    if image is None:
        return feature
    pixels = tuple((float(image.scale), float(bias)) for bias in image.biases)
    return replace(feature, image=Image(image.color, (pixels,)))


def _add_pixel_scaling(feature: Feature, body: Block) -> Feature:
    """An input with what the program makes of its pixels."""
    if feature.image is None:
        return feature
    channels = _CHANNELS.get(feature.image.color, 1)
    found = tuple(
        tuple(zip(scale.tolist(), bias.tolist(), strict=True))
        for scale, bias in _scalings(feature.name, body, channels)
    )
    return replace(feature, image=Image(feature.image.color, found))


def _scalings(name: str, body: Block, channels: int) -> Iterator[tuple[Array, Array]]:
    """Scale and bias of each channel after none, one, two .. of the first operations."""
    constants, scale, bias = Constants(body), np.ones(channels), np.zeros(channels)
    while True:
        yield scale, bias
        users = [o for o in body.operations if name in _operands(o.inputs.values())]
        if len(users) != 1:
            return
        operation = users[0]
        if operation.type != "cast":
            value = _other(operation, name, constants, channels)
            if value is None:
                return
            if operation.type == "mul":
                scale, bias = scale * value, bias * value
            else:
                bias = bias + value
        name = operation.output


def _other(operation: Operation, name: str, constants: Constants, channels: int) -> Array | None:
    """What an operation adds to a value or multiplies it with; None for other operations."""
    if operation.type not in ("add", "mul"):
        return None
    others = [o for o in _operands(operation.inputs.values()) if o != name]
    constant = [o for o in others if isinstance(o, Constant) or o in constants]
    for operand in constant:
        values: Array = constants.get(operand).astype(np.float64).reshape(-1)
        if values.size in (1, channels):
            return np.broadcast_to(values, channels)
    return None


def _operands(inputs: Iterable[tuple[Operand, ...]]) -> list[Operand]:
    return [operand for operands in inputs for operand in operands]
