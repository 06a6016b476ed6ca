"""What a package says of itself: where its palettes are, the recipe, author and licence."""

from __future__ import annotations

import glob
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from converters.coreml.lowering.lower import Decodes
from converters.coreml.options import Options
from converters.coreml.reading.interface import asked_interface
from converters.coreml.reading.read_palettes import (
    ORDERS_KEY,
    RECIPE_KEY,
    ROWS_KEY,
    SAME_KEY,
    STACKED_KEY,
    TRANSPOSED_KEY,
    UNREAD_KEY,
)
from converters.coreml.tables.table_rows import TableRows, remaining_rows
from converters.coreml.tables.unread_rows import store
from dkm_deploy.assignment import not_a_weight
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.formats.interface import INTERFACE_KEY
from dkm_deploy.formats.mlpackage.package import WEIGHT_NAMES_KEY
from dkm_deploy.formats.mlpackage.value_names import CAST
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import spec_of
from dkm_deploy.recipe import Recipe
from dkm_deploy.rule import Rule
from dkm_deploy.runtimes.mlprogram.interface import IMAGES_KEY


def describe(
    model: Any,
    exported: ExportedModel,
    options: Options,
    made: Decodes,
) -> None:
    """Write a converted model's metadata, and to its weights the rows that no operation reads.

    Args:
        model: of coremltools, not saved yet.
        exported: what it was converted from.
        options: of the user.
        made: the decode operations, by the names that they were made with.
    """
    decodes = {
        output: name if name in made.weights else name.removesuffix(CAST)
        for output, name in _decodes(model)
    }
    stored = {name: made.weights[base] for name, base in decodes.items()}
    tables: dict[str, Mapping[str, Any]] = {
        WEIGHT_NAMES_KEY: stored,
        ORDERS_KEY: {n: made.orders[base] for n, base in decodes.items() if base in made.orders},
        TRANSPOSED_KEY: {n: True for n, base in decodes.items() if base in made.transposed},
        STACKED_KEY: {n: made.stacked[b] for n, b in decodes.items() if made.stacked.get(b)},
        ROWS_KEY: {n: asdict(made.rows[base]) for n, base in decodes.items() if base in made.rows},
        UNREAD_KEY: _unread(Path(model.weights_dir), made, set(decodes.values()), options),
        SAME_KEY: _merged_weight_names(exported.palettes, stored.values(), options),
        IMAGES_KEY: _images(options),
    }
    for key, table in tables.items():
        if table:
            model.user_defined_metadata[key] = json.dumps(table)
    if exported.palettes:
        model.user_defined_metadata[RECIPE_KEY] = recipe(exported).to_toml()
    asked = asked_interface(model.get_spec().description, options)
    model.user_defined_metadata[INTERFACE_KEY] = asked.to_json()
    _about(model, options.about)


def recipe(exported: ExportedModel) -> Recipe:
    """A recipe that gives a model palettes of the layouts that this one has."""
    specs = {name: spec_of(palette) for name, palette in exported.palettes.items()}
    ((default, _),) = Counter(specs.values()).most_common(1)
    others = [Rule(glob.escape(name), spec) for name, spec in specs.items() if spec != default]
    dense = [Rule(glob.escape(name), skip=True) for name in _dense(exported)]
    return Recipe(default, [*others, *dense])


def _dense(exported: ExportedModel) -> Iterator[str]:
    for name, parameter in exported.program.named_parameters():
        if not_a_weight(parameter) is None:
            yield name


def _decodes(model: Any) -> Iterator[tuple[str, str]]:
    """The outputs and names of all operations that decode a palette."""
    for function in model.get_spec().mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                if operation.type in ("constexpr_lut_to_dense", "constexpr_sparse_to_dense"):
                    (name,) = operation.attributes["name"].immediateValue.tensor.strings.values
                    yield operation.outputs[0].name, name


def _unread(
    folder: Path, made: Decodes, names: Set[str], options: Options
) -> dict[str, dict[str, int]]:
    """Store the rows that no operation holds of all tables whose rows some do; say where."""
    parts: dict[str, list[TableRows]] = {}
    for name in sorted(names & made.rows.keys()):
        parts.setdefault(made.weights[name], []).append(made.rows[name])
    for name in names - made.rows.keys():
        parts.pop(made.weights[name], None)  # the program has the whole table too
    dtype = np.dtype(options.compute_precision)
    rests = {w: remaining_rows(made.tables[w].astype(dtype), held) for w, held in parts.items()}
    return {
        weight: store(rest, folder, luts=parts[weight][0].luts)
        for weight, rest in rests.items()
        if rest is not None
    }


def _merged_weight_names(
    palettes: Mapping[str, Palette], stored: Collection[str], options: Options
) -> dict[str, str]:
    """Of weights that coremltools has merged with an equal one: that one's name."""
    dtype = np.dtype(options.compute_precision)
    missing = {name: p.astype(dtype) for name, p in palettes.items() if name not in stored}
    held = {name: palettes[name].astype(dtype) for name in stored} if missing else {}
    equal = ((name, o) for name, p in missing.items() for o, other in held.items() if p == other)
    return dict(equal)


def _images(options: Options) -> dict[str, dict[str, Any]]:
    found = {name: options.image(name) for name in options.images}
    return {n: {"scale": i.scale, "bias": i.biases} for n, i in found.items() if i is not None}


def _about(model: Any, about: Mapping[str, str]) -> None:
    for key, attribute in _ATTRIBUTES.items():
        if key in about:
            setattr(model, attribute, about[key])


_ATTRIBUTES = {
    "author": "author",
    "license": "license",
    "description": "short_description",
    "version": "version",
}
