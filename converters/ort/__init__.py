"""The ORT target: ONNX Runtime's own format, for its mobile and minimal builds, kept packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dkm_deploy.conversion.target import Target

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dkm_deploy.conversion.exported import ExportedModel
    from dkm_deploy.formats.dense_tensor import DenseTensor
    from dkm_deploy.formats.ledger import Ledger
    from dkm_deploy.palette import Palette
    from dkm_deploy.palette_spec import PaletteSpec


class OrtTarget:
    """Writes, reads back and weighs ``.ort`` files; imports what it does when it does it."""

    name = "ort"
    suffixes: tuple[str, ...] = (".ort",)

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """None if ``spec`` fits ``shape``: the encoding holds all bits, axes and groupings."""
        del gates  # their order stays
        return spec.refuse(shape)

    def write(self, exported: ExportedModel, path: Path, *, opset: int | None = None) -> None:
        """Write the file, and the operators that it needs beside it; see :func:`write`."""
        from converters.ort.write import write

        write(exported, path, opset=opset)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """The palettes that the file's own graph decodes, by weight name."""
        from converters.onnx.reading.read_palettes import palettes_of
        from converters.ort.load import load

        _, model = load(path)
        return palettes_of(model, path)

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """The tensors that no palette is decoded from, by the names of their initializers."""
        from converters.onnx.reading.dense_tensors import dense_of
        from converters.ort.load import load

        _, model = load(path)
        return dense_of(model, path)

    def ledger(self, path: Path) -> Ledger:
        """Every byte of the file."""
        from converters.ort.ledger import ledger

        return ledger(path)


target: Target = OrtTarget()
