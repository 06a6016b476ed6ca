"""From a package to a package: its weights become palettes, the rest stays the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.coreml.deployment import lowest
from converters.coreml.reading.ledger import ledger
from converters.coreml.rewriting.checker import check_rewritten
from converters.coreml.rewriting.weight_palette import (
    clustered,
    constant_values,
    deployment_target,
    not_smaller,
    refuse,
    stored_bits,
)
from converters.coreml.rewriting.weights import FoundWeights, Weight, find_weights
from converters.coreml.rewriting.write_with import check_no_links, write_with
from converters.file_weights import assign_to_shapes, first_reasons
from converters.storage import names_in_short
from dkm_deploy.assignment import Assignment
from dkm_deploy.conversion.target import Rewrite
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import Package, open_package

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.recipe import Recipe

_OPSET_OF_PALETTES = 6  # iOS 16
_SHOWN = 3  # names in a note


def palettize_package(path: Path, out: Path, recipe: Recipe) -> Rewrite:
    """Cluster the weights of the package at ``path`` by exact k-means and write it to ``out``.

    A weight (see :mod:`converters.coreml.rewriting.weights`) is replaced by the decoding of its
    palette under its own name, where that takes fewer bytes. Interface, metadata, states, functions
    and all other operations and files are kept. The same package gives the same bytes.

    Raises:
        DkmError: the package is damaged, has links, or is no ML program; the recipe does not fit it
            or asks for what its deployment target lacks; or nothing in it can be palettized.
    """
    package = open_package(path)
    check_no_links(package)
    before = ledger(path).total_bytes
    try:
        found = find_weights(package)
        assignment = _assign_specs(found, recipe)
        specs, dense = _worth_having(found, assignment)
        if not specs:
            raise DkmError(f"there is nothing to palettize: {first_reasons(dense)}")
        weights = {name: found.tensors[name] for name in specs}
        palettes = write_with(package, weights, lambda w: clustered(w, specs[w.name]), out)
    except DkmError as error:
        told = str(error)
        raise DkmError(told if told.startswith(str(path)) else f"{path}: {told}") from error
    adjusted = {n: change for n, change in assignment.adjusted.items() if n in palettes}
    unchecked = tuple(check_rewritten(path, out))
    notes = tuple(_notes(package, weights, specs))
    return Rewrite(palettes, dense, unchecked, before, adjusted, notes)


def _assign_specs(found: FoundWeights, recipe: Recipe) -> Assignment:
    """What the recipe says of each weight: its spec, or the reason to stay dense.

    Raises:
        DkmError: the recipe does not fit the weights, or asks for what the package cannot hold.
    """
    assignment = assign_to_shapes(recipe, {name: w.shape for name, w in found.tensors.items()})
    for name, spec in assignment.specs.items():
        refusal = refuse(found.tensors[name], spec)
        if refusal:
            raise DkmError(f"{name}: {refusal}")
    return assignment


def _worth_having(
    found: FoundWeights, assignment: Assignment
) -> tuple[dict[str, PaletteSpec], dict[str, str]]:
    """The palettes that make the package smaller, and why all other tensors stay as they are."""
    specs: dict[str, PaletteSpec] = {}
    dense = {**found.dense, **assignment.dense}
    for name, spec in assignment.specs.items():
        weight = found.tensors[name]
        equal = constant_values(weight) if name in assignment.defaulted else ""
        reason = equal or not_smaller(weight, spec)
        if reason:
            dense[name] = reason
        else:
            specs[name] = spec
    return specs, dense


def _notes(
    package: Package, weights: Mapping[str, Weight], specs: Mapping[str, PaletteSpec]
) -> Iterator[str]:
    """What changes beside the weights, and which indices take more bits than was asked."""
    if any(f.opset < _OPSET_OF_PALETTES for f in functions(package).values()):
        yield f"it was for iOS 15 and needs {lowest(16)} now, the first that has palettes"
    wider: dict[str, list[str]] = {}
    for name, spec in specs.items():
        bits = stored_bits(weights[name], spec)
        if bits != spec.bits:
            target = deployment_target(weights[name])
            told = f"{spec.bits} bits are stored as {bits}, the next width that {target} has"
            wider.setdefault(told, []).append(name)
    for told, names in wider.items():
        yield f"{told}: {names_in_short(names, _SHOWN)}"
