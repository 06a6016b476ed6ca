"""What a package's description lets its inputs be: shapes, sizes of images, default values.

Core ML holds an app to the description, even where the program could compute more. Its rules are
those of ``FeatureTypes.proto`` in Core ML's specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import Function, TensorType
from dkm_deploy.formats.mlpackage.package import Package
from dkm_deploy.runtimes import Arrays, Shape

Range = tuple[int, int | None]
"""Smallest and largest length of a dimension; None where it may be any."""
Box = tuple[Range, ...]
"""A range for each dimension of a shape."""

_UNBOUNDED = 2**31  # coremltools writes its largest number where it means no limit
_CHANNELS = {"GRAYSCALE": 1, "GRAYSCALE_FLOAT16": 1, "RGB": 3, "BGR": 3}


@dataclass(frozen=True)
class Input:
    """An input as the description has it.

    Attributes:
        name: of the input.
        kind: its type in the program.
        boxes: the shapes that are allowed: each lies in one of these.
        enumerated: whether the boxes are a list of shapes, in the description's order.
        default: a value for every element if the input is left out; None if it must be given.
    """

    name: str
    kind: TensorType
    boxes: tuple[Box, ...]
    enumerated: bool
    default: float | None

    @property
    def shape(self) -> Shape:
        """Length of each dimension; None for one that may change."""
        columns = zip(*self.boxes, strict=True)
        return tuple(_only(column) for column in columns) if self.kind.shape else ()

    def to_program(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array in the program's shape: a single number may be given in the shape (1,).

        Raises:
            DkmError: its shape is not allowed, or its values are not of the input's kind.
        """
        if not any(_contains(box, array.shape) for box in self.boxes):
            allowed = " or ".join(_box_text(box) for box in self.boxes)
            raise DkmError(f"input {self.name!r} has shape {array.shape}; the file takes {allowed}")
        self._check_values(array)
        return array.reshape(()) if self.kind.shape == () else array

    def default_value(self) -> NDArray[Any]:
        """The default value in the first shape that is allowed."""
        shape = [low for low, _ in self.boxes[0]] if self.kind.shape else []
        return np.full(shape, self.default, self.kind.dtype.numpy_name)

    def _check_values(self, array: NDArray[Any]) -> None:
        wanted = self.kind.dtype
        if array.dtype.kind not in ("biu" if not wanted.is_floating else "biuf"):
            what = "text" if array.dtype.kind in "US" else str(array.dtype)
            raise DkmError(f"input {self.name!r} is {what}; the program takes {wanted.name}")
        if not wanted.is_floating and array.dtype.kind != "b" and array.size:
            limits = np.iinfo(np.dtype(wanted.numpy_name)) if wanted.numpy_name != "?" else None
            low, high = int(array.min()), int(array.max())
            if limits and not (limits.min <= low and high <= limits.max):
                worst = low if low < limits.min else high
                raise DkmError(
                    f"input {self.name!r} has the value {worst}, too large for {wanted.name}"
                )


def described_inputs(package: Package, function: Function) -> dict[str, Input]:
    """The inputs of a function by name, in the program's order.

    Raises:
        DkmError: one is a list or of any rank, the description lacks it or contradicts the program.
    """
    described = package.model.description
    own = [f.input for f in described.functions if f.name == function.name]
    features = {feature.name: feature.type for feature in (own[0] if own else described.input)}
    inputs = {}
    for name, kind in function.inputs.items():
        if kind is None or kind.any_rank:
            raise DkmError(f"input {name!r} is a list or of any rank, which is not supported")
        if name not in features:
            raise DkmError(f"the program takes an input {name!r}, which the description lacks")
        inputs[name] = _input(name, kind, features[name])
    return inputs


def taken_inputs(inputs: Mapping[str, Input], given: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays for a program's inputs, by name.

    Raises:
        DkmError: a name is unknown or missing, a shape is not allowed or, of inputs with listed
            shapes, not allowed together; or values are not of an input's kind.
    """
    filled = {
        n: i.default_value() for n, i in inputs.items() if i.default is not None and n not in given
    }
    if {*given, *filled} != {*inputs}:
        names, wanted = (", ".join(sorted(table)) or "none" for table in (given, inputs))
        raise DkmError(f"inputs are {names}; the file takes {wanted}")
    taken = {n: i.to_program(np.asarray(given[n])) for n, i in inputs.items() if n not in filled}
    _check_together([i for n, i in inputs.items() if i.enumerated and n in taken], taken)
    return taken | filled


def batch_options(inputs: Mapping[str, Input]) -> tuple[Range, ...]:
    """What the first dimension of the first input that has one may be."""
    first = next((each for each in inputs.values() if each.kind.shape), None)
    return () if first is None else tuple(box[0] for box in first.boxes)


def _check_together(listed: Sequence[Input], taken: Arrays) -> None:
    """Several inputs with listed shapes have as many each: the first go together, and so on."""
    if len(listed) < 2 or len({len(each.boxes) for each in listed}) > 1:
        return
    rows = list(zip(*(each.boxes for each in listed), strict=True))
    shapes = [taken[each.name].shape for each in listed]
    if not any(all(map(_contains, row, shapes)) for row in rows):
        names = ", ".join(repr(each.name) for each in listed)
        allowed = "; ".join(" with ".join(map(_box_text, row)) for row in rows)
        given = " with ".join(map(str, shapes))
        raise DkmError(f"inputs {names} have shapes {given}; the file takes {allowed}")


def _input(name: str, kind: TensorType, feature: Any) -> Input:
    what = feature.WhichOneof("Type")
    if what == "imageType":
        boxes, enumerated = _image_boxes(feature.imageType)
        default = None
    elif what == "multiArrayType":
        boxes, enumerated = _array_boxes(feature.multiArrayType, kind)
        default = _default(feature)
    else:
        raise DkmError(f"input {name!r} is described as {what}, which is not supported")
    if any(len(box) not in (len(kind.shape), len(kind.shape) or 1) for box in boxes):
        described = " or ".join(_box_text(box) for box in boxes)
        raise DkmError(f"input {name!r} is {kind.shape} in the program, described as {described}")
    if kind.shape == ():  # a single number, which the description has in the shape (1,)
        boxes = (*boxes, ())
    return Input(name, kind, boxes, enumerated, default)


def _array_boxes(array: Any, kind: TensorType) -> tuple[tuple[Box, ...], bool]:
    flexible = array.WhichOneof("ShapeFlexibility")
    if flexible == "enumeratedShapes":
        return tuple(_is_fixed(s.shape) for s in array.enumeratedShapes.shapes), True
    if flexible == "shapeRange":
        return (tuple(_range(r) for r in array.shapeRange.sizeRanges),), False
    if array.shape:
        return (_is_fixed(array.shape),), False
    return (tuple((0, None) if n is None else (n, n) for n in kind.shape),), False


def _image_boxes(image: Any) -> tuple[tuple[Box, ...], bool]:
    """Pixels are (1, channels, height, width)."""
    channels = _CHANNELS.get(image.ColorSpace.Name(image.colorSpace), 3)
    fixed: Box = ((1, 1), (channels, channels))
    flexible = image.WhichOneof("SizeFlexibility")
    if flexible == "enumeratedSizes":
        sizes = [(size.height, size.width) for size in image.enumeratedSizes.sizes]
        return tuple(fixed + _is_fixed(size) for size in sizes), True
    if flexible == "imageSizeRange":
        sides = image.imageSizeRange
        return ((*fixed, _range(sides.heightRange), _range(sides.widthRange)),), False
    return (fixed + _is_fixed((image.height, image.width)),), False


def _default(feature: Any) -> float | None:
    which = feature.multiArrayType.WhichOneof("defaultOptionalValue")
    return getattr(feature.multiArrayType, which) if feature.isOptional and which else None


def _is_fixed(lengths: Sequence[int]) -> Box:
    return tuple((int(n), int(n)) for n in lengths)


def _range(proto: Any) -> Range:
    high = int(proto.upperBound)
    return int(proto.lowerBound), None if high < 0 or high >= _UNBOUNDED else high


def _contains(box: Box, shape: Sequence[int]) -> bool:
    return len(box) == len(shape) and all(
        low <= n and (high is None or n <= high) for (low, high), n in zip(box, shape, strict=True)
    )


def _box_text(box: Box) -> str:
    sides = [_side(low, high) for low, high in box]
    return f"({', '.join(sides)}{',' if len(sides) == 1 else ''})"


def _side(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"


def _only(ranges: Sequence[Range]) -> int | None:
    """The one length that all of these ranges allow; None if there are more."""
    lengths = {n for span in ranges for n in span}
    return next(iter(lengths)) if len(lengths) == 1 else None
