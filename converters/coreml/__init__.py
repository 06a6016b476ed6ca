"""The Core ML target: ``.mlpackage`` ML programs for iOS 16 and macOS 13 or later."""

from __future__ import annotations

from pathlib import Path

from converters.coreml.ledger import ledger
from converters.coreml.read import read_palettes
from dkm_deploy.export import Exported
from dkm_deploy.ledger import Ledger
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import PaletteSpec
from dkm_deploy.targets import Target

_MAX_RANK = 5


class CoreMLTarget:
    """Writes, reads back and weighs ``.mlpackage`` folders."""

    name = "coreml"
    suffixes: tuple[str, ...] = (".mlpackage",)

    def refuse(self, spec: PaletteSpec, shape: tuple[int, ...]) -> str | None:
        """Core ML tensors have at most 5 dimensions, and no scale is written beside the LUT.

        All else is held from iOS 18 on.
        """
        if len(shape) > _MAX_RANK:
            return f"rank {len(shape)}; Core ML has at most {_MAX_RANK}"
        if spec.per_channel_scale:
            return "it has a per-channel scale; set per_channel_scale=False, or convert to ONNX"
        return None

    def write(
        self,
        exported: Exported,
        path: Path,
        *,
        minimum_deployment_target: str = "iOS18",
        compute_precision: str = "float16",
    ) -> None:
        """Write an ML program package.

        Args:
            exported: the frozen model.
            path: the folder to be made, with the suffix ``.mlpackage``.
            minimum_deployment_target: "iOS16" to "iOS18" or "macOS13" to "macOS15". Grouped and
                vector palettes need iOS 18. Bits that a target lacks (5 and 7; 3 before iOS 18)
                are stored in the next width.
            compute_precision: "float16" or "float32", of activations, LUTs and dense weights.

        Raises:
            DkmError: an option is unknown, a palette does not fit the deployment target, or
                coremltools cannot convert the model (with its reason).
        """
        from converters.coreml.write import write  # imports coremltools, which takes seconds

        write(exported, path, minimum_deployment_target, compute_precision)

    def read_palettes(self, path: Path) -> dict[str, Palette]:
        """See :func:`converters.coreml.read.read_palettes`."""
        return read_palettes(path)

    def ledger(self, path: Path) -> Ledger:
        """See :func:`converters.coreml.ledger.ledger`."""
        return ledger(path)


target: Target = CoreMLTarget()
