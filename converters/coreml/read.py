"""Read the palettes of a Core ML package back from its bytes, on any OS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dkm_deploy.errors import DkmError
from dkm_deploy.palette import Palette
from dkm_deploy.runtimes.mlprogram.constexpr import Constants
from dkm_deploy.runtimes.mlprogram.package import Package, open_package
from dkm_deploy.runtimes.mlprogram.program import Operation, functions

WEIGHTS_KEY = "dkm_deploy.weights"
"""User-defined metadata: JSON, the qualified parameter name of every palette's operation."""


@dataclass(frozen=True)
class PaletteSite:
    """Where a program decodes a palette.

    Attributes:
        name: the qualified parameter name, or the operation's own where the file does not say.
        operation: the ``constexpr_lut_to_dense``.
        constants: of the function it is in.
    """

    name: str
    operation: Operation
    constants: Constants


def read_palettes(path: Path) -> dict[str, Palette]:
    """The palettes of a package by qualified parameter name.

    A palette that the package has no parameter name for (a file of another tool) goes by the name
    of its operation's output. What such a file does to the decoded weight afterwards, such as a
    scale for each channel, is not part of the palette.

    Raises:
        DkmError: the package is damaged, or gives one name to two different palettes.
    """
    found: dict[str, Palette] = {}
    for site in palette_sites(open_package(path)):
        try:
            palette = site.constants.palette(site.operation)
        except DkmError as error:
            raise DkmError(f"{path}: {error}") from error
        if found.setdefault(site.name, palette) != palette:
            raise DkmError(f"{path}: two different palettes are called {site.name!r}")
    return found


def palette_sites(package: Package) -> list[PaletteSite]:
    """All places of all functions where a palette is decoded."""
    names = _weight_names(package)
    sites = []
    for function in functions(package).values():
        constants = Constants(function.body)
        sites += [
            PaletteSite(names.get(operation.output, operation.output), operation, constants)
            for operation in function.body.walk()
            if operation.type == "constexpr_lut_to_dense"
        ]
    return sites


def _weight_names(package: Package) -> dict[str, str]:
    text = package.user_metadata.get(WEIGHTS_KEY, "{}")
    try:
        names = json.loads(text)
    except ValueError as error:
        raise DkmError(f"{package.path}: metadata {WEIGHTS_KEY!r} is not JSON: {error}") from error
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise DkmError(f"{package.path}: metadata {WEIGHTS_KEY!r} is not an object of strings")
    return names
