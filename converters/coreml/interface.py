"""The inputs and outputs of a package: names, shapes, dtypes, images and labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from converters.coreml.options import Image, Options
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.proto import coremltools
from dkm_deploy.model.output_names import unique

ct = coremltools()


def inputs(exported: ExportedModel, options: Options) -> list[Any]:
    """Core ML's input types with the exported shapes.

    Raises:
        DkmError: a free dimension has no upper bound, or an option names an input that is not
            there or does not fit it.
    """
    for option in ("images", "shapes"):
        for name in getattr(options, option):
            if name not in exported.input_names:
                known = ", ".join(exported.input_names)
                raise DkmError(f"{option}: the model has no input {name!r}; it has {known}")
    values = {n.name: n.meta["val"] for n in exported.program.graph.find_nodes(op="placeholder")}
    return [_input(exported, name, values[name], options) for name in exported.input_names]


def outputs(exported: ExportedModel, options: Options) -> list[Any] | None:
    """Core ML's output types; None for a classifier, whose outputs Core ML names."""
    results = exported.program.graph.output_node().args[0]
    if options.class_labels is not None:
        _check_classes(results[0].meta["val"], len(results), options.class_labels)
        return None
    named = zip(_identifiers(exported), results, strict=True)
    return [ct.TensorType(name=name, dtype=_io_dtype(node.meta["val"])) for name, node in named]


def _identifiers(exported: ExportedModel) -> tuple[str, ...]:
    """The names of the outputs as coremltools would write them, each once and none an input's."""
    plain = (re.sub("[^a-zA-Z0-9_]", "_", name) for name in exported.output_names)
    found = (f"var_{name}" if name[:1].isdigit() else name for name in plain)
    return unique(found, exported.input_names)


def classifier(options: Options) -> Any:
    """Core ML's description of the labels, or None if there are none."""
    if options.class_labels is None:
        return None
    return ct.ClassifierConfig(list(options.class_labels))


def _check_classes(scores: Any, count: int, labels: Sequence[str]) -> None:
    if count != 1 or tuple(scores.shape) != (1, len(labels)):
        shape = tuple(scores.shape)
        raise DkmError(
            f"class_labels: {len(labels)} labels need one output of shape (1, {len(labels)}); "
            f"the model has {count}, the first of shape {shape}"
        )


def _input(exported: ExportedModel, name: str, value: Any, options: Options) -> Any:
    if name in options.shapes:
        shape = _enumerated_shapes(exported, name, value, options.shapes[name])
    else:
        shape = [_dimension(exported, name, size) for size in value.shape]
    image = options.image(name)
    if image is None:
        return ct.TensorType(name=name, shape=shape, dtype=_io_dtype(value))
    _check_image(name, value, image)
    color = getattr(ct.colorlayout, image.color)
    bias = image.biases if image.channels > 1 else image.biases[0]
    return ct.ImageType(name=name, shape=shape, scale=image.scale, bias=bias, color_layout=color)


def _check_image(name: str, value: Any, image: Image) -> None:
    of_pixels = value.dtype is torch.uint8
    if (
        value.ndim != 4
        or value.shape[1] != image.channels
        or not (value.is_floating_point() or of_pixels)
    ):
        raise DkmError(
            f"images: input {name!r} has shape {tuple(value.shape)} and dtype {value.dtype}; an "
            f"{image.color} image is floating-point or uint8 (1, {image.channels}, height, width)"
        )
    if of_pixels and (image.scale, *image.biases) != (1, *[0] * image.channels):
        raise DkmError(
            f"images: input {name!r} is uint8, which takes pixels as they are; leave out its scale "
            f"of {image.scale} and bias of {image.bias}"
        )


def _io_dtype(value: Any) -> Any:
    """Apps hand over and get float32 or int32, whatever the program computes in."""
    return np.float32 if value.is_floating_point() else np.int32


def _enumerated_shapes(
    exported: ExportedModel, name: str, value: Any, shapes: Sequence[Sequence[int]]
) -> Any:
    """The shapes that the user lists, each within what was exported."""
    for shape in shapes:
        if len(shape) != value.ndim or not all(
            _fits(exported, have, want) for have, want in zip(value.shape, shape, strict=True)
        ):
            raise DkmError(
                f"shapes: input {name!r} was exported as {tuple(map(str, value.shape))}, which "
                f"{tuple(shape)} does not fit; free its dimensions with dynamic_shapes"
            )
    return ct.EnumeratedShapes([list(shape) for shape in shapes])


def _fits(exported: ExportedModel, have: Any, want: int) -> bool:
    if isinstance(have, int):
        return have == want
    span = exported.program.range_constraints[have.node.expr]
    return bool(span.lower <= want <= span.upper)


def _dimension(exported: ExportedModel, name: str, size: Any) -> Any:
    if isinstance(size, int):
        return size
    span = exported.program.range_constraints[size.node.expr]
    if not span.upper.is_Integer:
        raise DkmError(
            f"input {name!r}: dimension {size} has no upper bound, and Core ML needs one: "
            "torch.export.Dim(.., max=..)"
        )
    return ct.RangeDim(max(1, int(span.lower)), int(span.upper), default=max(1, int(span.lower)))
