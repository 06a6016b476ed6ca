"""The ONNX target: n-bit palettes, decoded in the graph by standard operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dkm_deploy.conversion.target import Planner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.onnx.options import Decode
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


class OnnxTarget:
    """Writes, palettizes, reads back and weighs ``.onnx`` files.

    What it does is imported when it does it: any command that is given a file asks all targets.
    """

    name = "onnx"
    suffixes: tuple[str, ...] = (".onnx",)

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """None if ``spec`` fits ``shape``: the encoding holds all bits, axes and groupings."""
        del gates  # their order stays
        return spec.refuse(shape)

    def approximates(self, options: Mapping[str, Any]) -> str | None:
        """The 8-bit kernels round what goes into a product; see :class:`Options`."""
        if options.get("decode") == "int8":
            return "decode='int8' rounds the inputs of matrix products to 8 bits by design"
        return None

    def write(
        self,
        exported: ExportedModel,
        path: Path,
        *,
        opset: int | None = None,
        decode: Decode = "load",
        runtime: str | None = None,
        storage_dtype: str = "float32",
        external_data: bool | None = None,
        names: str = "short",
    ) -> tuple[str, ...]:
        """Write the file, and its data file if there is to be one; see :class:`Options`."""
        from converters.onnx.options import Options
        from converters.onnx.writing.write import write

        options = Options(opset, decode, runtime, storage_dtype, external_data, names=names)
        return write(exported, path, options)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """The palettes that the file's own graph decodes, by weight name."""
        from converters.onnx.reading.read_palettes import read_palettes

        return read_palettes(path)

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """The tensors that no palette is decoded from, by the names of their initializers."""
        from converters.onnx.reading.dense_tensors import read_dense

        return read_dense(path)

    def read_interface(self, path: Path) -> tuple[Interface, Interface | None]:
        """What an app finds in the file, and what its metadata says it should."""
        from converters.onnx.graph.interface import read_interface
        from converters.onnx.graph.load import load

        return read_interface(load(path, largest=0), path)

    def palettize(self, path: Path, out: Path, recipe: Recipe) -> Rewrite:
        """Cluster the weights of the file at ``path`` and write it to ``out``."""
        from converters.onnx.rewriting.palettize import palettize_model

        return palettize_model(path, out, recipe)

    def subject(
        self,
        path: Path,
        batches: Sequence[tuple[Inputs, Any]],
        metric: Metric | None,
    ) -> PlanSubject:
        """The file at ``path`` as the subject of a plan."""
        from converters.onnx.rewriting.plan_subject import OnnxSubject

        return OnnxSubject(path, batches, metric)

    def write_twin(self, path: Path, palettes: Mapping[str, Palette], out: Path) -> None:
        """Write the file at ``path`` with what ``palettes`` decode to as its weights."""
        from converters.onnx.rewriting.dense_reference import write_twin

        write_twin(path, palettes, out)

    def ledger(self, path: Path) -> Ledger:
        """Every byte of the file."""
        from converters.onnx.reading.ledger import ledger

        return ledger(path)


target: Planner = OnnxTarget()
