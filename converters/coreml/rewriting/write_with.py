"""Write a package again with palettes in place of some of its weights, and nothing else changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.coreml.reading.read_palettes import RECIPE_KEY, UNREAD_KEY, unread_rows
from converters.coreml.rewriting.decode_operation import (
    Pointer,
    StoredTensor,
    make_decode,
    make_scaling,
    stored_tensors,
)
from converters.coreml.rewriting.program_edit import (
    ConstPlace,
    lift_to_palettes,
    pointer,
    split_values,
)
from converters.coreml.rewriting.weight_file import WeightFileWriter
from converters.coreml.rewriting.weights import Weight
from converters.coreml.tables.unread_rows import WEIGHT_FILE_IN_PROGRAM
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.package import WEIGHT_NAMES_KEY, Package
from dkm_deploy.palette import Palette

Moved = Mapping[Pointer, int]
"""Where blobs of the input lie in the weight files of the result."""


@dataclass(frozen=True)
class _Written:
    """A palette, and where the parts of it are that lie in a weight file."""

    palette: Palette
    tensors: Mapping[str, StoredTensor]
    places: Mapping[str, Pointer]


def write_with(
    package: Package,
    weights: Mapping[str, Weight],
    palette_of: Callable[[Weight], Palette],
    out: Path,
) -> dict[str, Palette]:
    """Write a package with palettes to a new folder.

    Weight files are written tensor by tensor: a palette where one replaces a weight, and all other
    blobs that the program refers to byte for byte. A program of iOS 15 becomes one of iOS 16.

    Args:
        package: which stays as it is.
        weights: to be replaced, by name.
        palette_of: makes the palette of a weight, in the weight's dtype and of a width that its
            opset has.
        out: the folder.

    Returns:
        The palettes by name.

    Raises:
        DkmError: the package is damaged, or has links.
    """
    model = type(package.model)()
    model.CopyFrom(package.model)
    lift_to_palettes(model)
    sites = {site: name for name, weight in weights.items() for site in weight.sites}
    held, others = split_values(model, sites)
    unread = unread_rows(package)
    copied = {pointer(value) for value in others}
    copied |= {(WEIGHT_FILE_IN_PROGRAM, n) for rows in unread.values() for n in rows.values()}
    replaced = {weight.pointer: weight for weight in weights.values()}
    _copy_other_files(package, {name for name, _ in copied | replaced.keys()}, out)
    written, moved = _write_weight_files(package, replaced, copied, palette_of, out)
    for value in others:
        value.blobFileValue.offset = moved[pointer(value)]
    names = dict(package.weight_names)
    for name in weights:
        for place in held[name]:
            names[_replace(place, name, written[name], names)] = name
    metadata = model.description.metadata.userDefined
    if names:
        metadata[WEIGHT_NAMES_KEY] = json.dumps(names)
    if weights and RECIPE_KEY in metadata:
        del metadata[RECIPE_KEY]  # it says that these weights are dense
    if unread:
        metadata[UNREAD_KEY] = json.dumps(
            {
                name: {key: moved[WEIGHT_FILE_IN_PROGRAM, offset] for key, offset in rows.items()}
                for name, rows in unread.items()
            }
        )
    model_file = out / package.model_file.relative_to(package.path)
    model_file.write_bytes(model.SerializeToString(deterministic=True))
    return {name: written[name].palette for name in weights}


def check_no_links(package: Package) -> None:
    """Raise DkmError for a link in a package: a copy would lead to the files of the input."""
    for part in package.path.rglob("*"):
        if part.is_symlink():
            name = part.relative_to(package.path).as_posix()
            raise DkmError(
                f"{package.path}: {name!r} is a link; give a copy without links (cp -rL)"
            )


def _copy_other_files(package: Package, weight_files: Collection[str], out: Path) -> None:
    """Copy what is not written anew; empty folders too."""
    new = {_path_in(package, name) for name in weight_files}
    new.add(package.model_file.relative_to(package.path))
    for part in sorted(package.path.rglob("*")):
        inside = part.relative_to(package.path)
        if part.is_dir():
            (out / inside).mkdir(parents=True, exist_ok=True)
        elif inside not in new:
            (out / inside.parent).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, out / inside)


def _path_in(package: Package, name: str) -> Path:
    """A weight file as the program calls it, relative to the package."""
    return Path(os.path.normpath(package.weight_file(name).relative_to(package.path)))


def _write_weight_files(
    package: Package,
    replaced: Mapping[Pointer, Weight],
    copied: Collection[Pointer],
    palette_of: Callable[[Weight], Palette],
    out: Path,
) -> tuple[dict[str, _Written], Moved]:
    """Write all weight files, blobs in their old order."""
    written: dict[str, _Written] = {}
    moved: dict[Pointer, int] = {}
    pointers = sorted({*replaced, *copied})
    for name in dict.fromkeys(name for name, _ in pointers):
        with (out / _path_in(package, name)).open("wb") as stream:
            writer = WeightFileWriter(stream)
            for place in (place for place in pointers if place[0] == name):
                if place in replaced:
                    weight = replaced[place]
                    written[weight.name] = _write(palette_of(weight), weight, writer)
                if place in copied:
                    moved[place] = writer.copy(package.weight_file(name), place[1])
            writer.finish()
    return written, moved


def _write(palette: Palette, weight: Weight, writer: WeightFileWriter) -> _Written:
    tensors = stored_tensors(palette, weight.opset)
    places = {
        key: (weight.pointer[0], writer.add(t.dtype, t.data.tobytes(), t.padding_bits))
        for key, t in tensors.items()
        if t.in_file
    }
    return _Written(palette, tensors, places)


def _replace(place: ConstPlace, name: str, written: _Written, names: Mapping[str, str]) -> str:
    """Put the decoding in place of a weight; the name of the value that it decodes to."""
    if names.get(place.output, name) != name:  # another function has another weight of this name
        place.rename(f"{place.output}_of_{place.function}")
    make_decode(place.operation, written.palette, written.tensors, written.places)
    if "scale" in written.tensors:
        scaled = place.add_behind()
        make_scaling(place.operation, scaled, written.tensors["scale"], written.places)
    return place.output
