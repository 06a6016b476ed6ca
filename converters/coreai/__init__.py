"""The Core AI target: ``.aimodel`` assets for iOS and macOS 27; writing needs an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.coreai import index_widths
from converters.coreai.options import Options
from dkm_deploy.conversion.target import Target
from dkm_deploy.runtimes.core_ai.packages import quiet_imports, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dkm_deploy.conversion.exported import ExportedModel
    from dkm_deploy.formats.dense_tensor import DenseTensor
    from dkm_deploy.formats.ledger import Ledger
    from dkm_deploy.palette import Palette
    from dkm_deploy.palette_spec import PaletteSpec


class CoreAITarget:
    """Writes, reads back and weighs ``.aimodel`` folders; imports what it does when it does it."""

    name = "coreai"
    suffixes: tuple[str, ...] = (".aimodel",)
    lacks_float64 = "float64 is written as float32, for Core AI has no float64"

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...], gates: int = 1) -> str | None:
        """None if ``spec`` fits ``shape``: the format holds all axes, groupings and scales."""
        del gates  # a recurrent layer is written step by step, its weights as they are
        return spec.refuse(shape)

    def write(
        self, exported: ExportedModel, path: Path, *, compute_precision: str = "float32"
    ) -> tuple[str, ...]:
        """Write an asset.

        Args:
            exported: the frozen model.
            path: the folder to be made, with the suffix ``.aimodel``.
            compute_precision: "float32" or "float16", of activations, LUTs and dense weights;
                inputs and outputs stay as they are.

        Returns:
            A line for each width that is stored in a wider type: 3, 5 and 7 bits as 4, 6 and 8;
            and one for constants that are too small for float16.

        Raises:
            DkmError: the extra is not installed, an option is unknown, a palette does not fit
                float16, or coreai-torch cannot convert the model (with its reason).
        """
        options = Options(compute_precision)
        require("coreai", "coreai_torch")
        with quiet_imports():
            from converters.coreai.write import write  # imports Apple's packages, which takes long

            lost = write(exported, path, options)
        return (*index_widths.notes(exported.palettes), *lost)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """See :func:`converters.coreai.read_palettes.read_palettes`."""
        from converters.coreai.read_palettes import read_palettes

        return read_palettes(path)

    def read_dense(self, path: Path) -> Iterator[DenseTensor]:
        """See :func:`converters.coreai.dense_tensors.read_dense`."""
        from converters.coreai.dense_tensors import read_dense

        return read_dense(path)

    def ledger(self, path: Path) -> Ledger:
        """See :func:`converters.coreai.ledger.ledger`."""
        from converters.coreai.ledger import ledger

        return ledger(path)


target: Target = CoreAITarget()
