"""The Core ML target: ``.mlpackage`` ML programs for iOS 16 and macOS 13 or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.coreml import deployment
from converters.coreml.options import Options
from dkm_deploy.conversion.target import VersionedTarget
from dkm_deploy.formats.mlpackage.package import COMPILED
from dkm_deploy.formats.mlpackage.proto import coremltools

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from dkm_deploy.conversion.exported import ExportedModel
    from dkm_deploy.conversion.plan_subject import PlanSubject
    from dkm_deploy.conversion.target import Rewrite
    from dkm_deploy.formats.dense_tensor import DenseTensor
    from dkm_deploy.formats.interface import Interface
    from dkm_deploy.formats.ledger import Ledger
    from dkm_deploy.model.inputs import Inputs
    from dkm_deploy.model.metric import Metric
    from dkm_deploy.palette import Palette
    from dkm_deploy.palette_spec import PaletteSpec
    from dkm_deploy.recipe import Recipe


class CoreMLTarget:
    """Writes, reads back and weighs ``.mlpackage`` folders.

    What it does is imported when it does it: any command that is given a file asks all targets.

    Args:
        version: the deployment target whose limits :meth:`refuse` knows.
        function: the one whose palettes, dense tensors and interface are read; None is all, and
            the interface of the default one.
    """

    name = "coreml"
    suffixes: tuple[str, ...] = (".mlpackage",)
    version_option = "minimum_deployment_target"
    advice: Mapping[str, str] = {
        ".mlmodelc": COMPILED,
        ".mlmodel": "a model in a single file is not an ML program; "
        "convert the original for iOS 16 or later, to a .mlpackage",
    }

    def __init__(self, version: str = deployment.DEFAULT, function: str | None = None) -> None:
        deployment.generation(version)
        self._version = version
        self._function = function

    def at(self, version: str) -> CoreMLTarget:
        """The target held to a deployment target. Raises DkmError if it is unknown."""
        return CoreMLTarget(version)

    def of_function(self, function: str) -> CoreMLTarget:
        """The same target, to read one function of a package."""
        return CoreMLTarget(self._version, function)

    def refuse_layer(self, layer: nn.Module) -> str | None:
        """Why the format has no operation for a layer, or None if it has or nothing is known."""
        from torch import nn

        projects = isinstance(layer, nn.LSTM) and layer.proj_size > 0
        return deployment.NO_PROJECTION if projects else None

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """See :func:`converters.coreml.deployment.refuse`."""
        return deployment.refuse(spec, shape, self._version, gates)

    def refuse_state(self, start: Tensor) -> str | None:
        """See :func:`converters.coreml.deployment.refuse_state`."""
        return deployment.refuse_state(start, self._version)

    def write(
        self,
        exported: ExportedModel,
        path: Path,
        *,
        minimum_deployment_target: str = deployment.DEFAULT,
        compute_precision: str = "auto",
        lut_dtype: str = "float",
        images: Mapping[str, Mapping[str, Any]] | None = None,
        shapes: Mapping[str, Sequence[Sequence[int]]] | None = None,
        class_labels: Sequence[str] | None = None,
        about: Mapping[str, str] | None = None,
        names: str = "short",
    ) -> tuple[str, ...]:
        """Write an ML program package.

        Args:
            exported: the frozen model.
            path: the folder to be made, with the suffix ``.mlpackage``.
            minimum_deployment_target: "iOS16", "iOS17", "iOS18", "iOS26", or "macOS13", "macOS14",
                "macOS15", "macOS26". Grouped, vector and scaled palettes need iOS 18; before iOS 26
                the LUTs hold the scale. Bits that a target lacks (5 and 7; 3 before iOS 18) are
                stored in the next width, and the artifact's notes say so.
            compute_precision: "float16" or "float32", of activations, LUTs and dense weights.
                "auto" is float16, but float32 for operations whose values overflow float16 on the
                example inputs, if the outputs are wrong for it; notes name them. It takes
                ``try_file``.
            lut_dtype: "float" is that of ``compute_precision``. "int8" stores LUT entries as 8-bit
                integers and one step a weight, from iOS 18 on; it takes a model of
                ``dkm.quantize_luts``, whose LUTs are such multiples.
            images: of inputs that an app gives as images, by name, how pixels become numbers:
                ``{"x": {"scale": 1 / 127.5, "bias": -1.0, "color": "RGB"}}``; bias may be one
                value a channel, color "BGR" or "GRAYSCALE".
            shapes: the only shapes that an input may have, by name; the first is the default.
                ``dynamic_shapes`` must have freed what differs.
            class_labels: makes a classifier of a model with one output of shape (1, classes); an
                app gets the label and the scores by label.
            names: "short" gives operations and values names such as v12; "full" leaves them those
                that coremltools makes of the model's. Inputs, outputs and weights keep theirs.
            about: any of "author", "license", "description" and "version".

        Returns:
            A line for each palette stored in a wider type, and for each BatchNorm that stays.

        Raises:
            DkmError: an option is unknown or does not fit the model, a palette does not fit the
                deployment target, or coremltools cannot convert the model (with its reason).
        """
        options = Options(
            minimum_deployment_target,
            compute_precision,
            lut_dtype,
            images or {},
            shapes or {},
            class_labels,
            about or {},
            names,
        )
        coremltools()  # in silence, which a plain import in what follows would not be
        from converters.coreml.write import write

        return write(exported, path, options)

    def write_wider(
        self, exported: ExportedModel, path: Path, **options: Any
    ) -> tuple[str, ...] | None:
        """See :class:`dkm_deploy.conversion.target.WideningTarget`."""
        from converters.coreml.write import write_wider

        given = {name: value for name, value in options.items() if value is not None}
        return write_wider(exported, path, Options(**given))

    def palettize(self, path: Path, out: Path, recipe: Recipe) -> Rewrite:
        """See :func:`converters.coreml.rewriting.palettize.palettize_package`."""
        from converters.coreml.rewriting.palettize import palettize_package

        return palettize_package(path, out, recipe)

    def subject(
        self, path: Path, batches: Sequence[tuple[Inputs, Any]], metric: Metric | None
    ) -> PlanSubject:
        """See :class:`converters.coreml.rewriting.plan_subject.PackageSubject`."""
        from converters.coreml.rewriting.plan_subject import PackageSubject

        return PackageSubject(path, batches, metric)

    def write_twin(self, path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
        """See :func:`converters.coreml.rewriting.dense_reference.write_twin`."""
        from converters.coreml.rewriting.dense_reference import write_twin

        write_twin(path, palettes, out)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """See :func:`converters.coreml.reading.read_palettes.read_palettes`."""
        from converters.coreml.reading.read_palettes import read_palettes

        return read_palettes(path, self._function)

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """See :func:`converters.coreml.reading.dense_tensors.read_dense`."""
        from converters.coreml.reading.dense_tensors import read_dense

        return read_dense(path, self._function)

    def read_interface(self, path: Path) -> tuple[Interface, Interface | None]:
        """See :func:`converters.coreml.reading.interface.read_interface`."""
        from converters.coreml.reading.interface import read_interface

        return read_interface(path, self._function)

    def ledger(self, path: Path) -> Ledger:
        """See :func:`converters.coreml.reading.ledger.ledger`."""
        from converters.coreml.reading.ledger import ledger

        return ledger(path)


target: VersionedTarget = CoreMLTarget()
