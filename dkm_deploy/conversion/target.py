"""What a target must offer, and what it may: one that converts, rewrites or plans files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dkm_deploy.formats.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from dkm_deploy.conversion.exported import ExportedModel
    from dkm_deploy.conversion.plan_subject import PlanSubject
    from dkm_deploy.model.inputs import Inputs
    from dkm_deploy.model.metric import Metric
    from dkm_deploy.palette import Palette
    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.recipe import Recipe


@dataclass(frozen=True)
class Rewrite:
    """What a target did with a file.

    Attributes:
        palettes: by weight name.
        dense: reason of every other tensor of rank 2 or more by name.
        unchecked: what could not be checked about the result, one sentence each.
        bytes_before: of the input, with all files that it refers to.
        adjusted: where the recipe's default did not fit, and what is there instead, by name.
        notes: what else changed in the file, one sentence each.
    """

    palettes: Mapping[str, Palette]
    dense: Mapping[str, str]
    unchecked: tuple[str, ...]
    bytes_before: int
    adjusted: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Target(Reader, Protocol):
    """A kind of file to convert to. ``options`` are its own keyword arguments of ``convert``."""

    name: str

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """Why a weight of ``shape`` cannot be held with ``spec``, or None if it can.

        ``gates`` are equal blocks along dimension 0 whose order a target may have another way:
        4 of an LSTM's weight, 3 of a GRU's, 1 of any other.
        """
        ...

    def write(
        self, exported: ExportedModel, path: Path, *args: Any, **options: Any
    ) -> Sequence[str] | None:
        """Write the program to ``path``, alone in a new folder, and moved from there afterwards.

        Other files that belong to it are written beside it, under names that start with its own.

        Returns:
            What the user should know of it, a line each; None is nothing.
        """
        ...


@runtime_checkable
class VersionedTarget(Target, Protocol):
    """A target that holds more or less with the version of the system that will run the file."""

    version_option: str
    """The option of ``convert`` that names the version, such as "minimum_deployment_target"."""

    def at(self, version: str) -> Target:
        """The same target, held to what ``version`` can do. Raises DkmError if it is unknown."""
        ...


@runtime_checkable
class StatefulTarget(Target, Protocol):
    """A target whose files keep state; one that is none is given no model that has any.

    What such a file takes and gives beside the model's own inputs and outputs is its own affair.
    """

    def refuse_state(self, start: Tensor) -> str | None:
        """Why a buffer that forward writes cannot be kept from run to run, or None if it can.

        ``start`` is what it holds before the first run.
        """
        ...


@runtime_checkable
class Float32Target(Target, Protocol):
    """A target that is given models of float64 in float32."""

    lacks_float64: str
    """What to tell the user of it: that the format has no such type."""


@runtime_checkable
class ApproximatingTarget(Target, Protocol):
    """A target that can write files which, as the user asked, compute something else."""

    def approximates(self, options: Mapping[str, Any]) -> str | None:
        """Why a file written with these options of ``convert`` differs by more than rounding."""
        ...


@runtime_checkable
class WideningTarget(Target, Protocol):
    """A target that can write a file again, in wider numbers where its own overflow."""

    def write_wider(
        self, exported: ExportedModel, path: Path, **options: Any
    ) -> Sequence[str] | None:
        """Replace a file whose outputs are wrong.

        Args:
            exported: what the file was made of.
            path: the file.
            options: as :meth:`Target.write` got them.

        Returns:
            Notes as from :meth:`Target.write`; None if nothing overflows, or the user asked for the
            numbers that the file has: it is as it was then.
        """
        ...


@runtime_checkable
class LayerTarget(Target, Protocol):
    """A target whose format lacks an operation for some layers, whatever their palettes."""

    def refuse_layer(self, layer: nn.Module) -> str | None:
        """Why a layer cannot be converted, or None if it can or nothing is known."""
        ...


@runtime_checkable
class Rewriter(Target, Protocol):
    """A target that can also palettize a file of its own kind, without the model it came from."""

    def palettize(self, path: Path, out: Path, recipe: Recipe) -> Rewrite:
        """Write the file at ``path`` with palettes to ``out``, which does not exist yet."""
        ...

    def write_twin(self, path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
        """Write the dense file at ``path`` to ``out``, its weights those that palettes decode to.

        Raises:
            DkmError: a palette is of no weight in the file.
        """
        ...


@runtime_checkable
class Planner(Rewriter, Protocol):
    """A target that can also find the palettes for a file of its own kind to fit a byte budget."""

    def subject(
        self,
        path: Path,
        batches: Sequence[tuple[Inputs, Any]],
        metric: Metric | None,
    ) -> PlanSubject:
        """The file at ``path``, and what it is measured on; see :func:`dkm_deploy.plan`.

        ``batches`` are inputs with their labels, None where there are none.
        """
        ...
