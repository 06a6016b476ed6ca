"""The records of a validation. They hold plain values: a view needs only their JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy._support.paths import path_of
from dkm_deploy.validation.check import HALF_A_PROOF, Check, Required, Status

if TYPE_CHECKING:
    from dkm_deploy.parity.output_errors import Errors
    from dkm_deploy.validation.limits import Limits
    from dkm_deploy.validation.locate.locate import Divergence
    from dkm_deploy.validation.measures.confidence_interval import Loss
    from dkm_deploy.validation.measures.cost import Costs
    from dkm_deploy.validation.measures.palette_statistics import Histogram, Layer
    from dkm_deploy.validation.measures.top1_agreement import Flip

FORMAT, VERSION = "dkm-deploy report", 2


@dataclass(frozen=True)
class Model:
    """One row of the table: a PyTorch model, a converted file, or what a device gave.

    Attributes:
        name: "original (fp32)", "frozen (hard)", another PyTorch model's, or the file's name.
        path: of the file, or of the folder that a device wrote; None for a PyTorch model.
        runtime: what ran it; None if nothing did.
        size_bytes: on disk; for PyTorch models of the tensors, palettes packed; None for what a
            device gave.
        size_ratio: of the original's tensor bytes to ``size_bytes``; None without an original.
        half_ratio: the same with the original's floats in float16.
        deflated_bytes: after deflate, as app stores ship files; None for a PyTorch model.
        ideal_bytes: palettes and dense weights with nothing around them; None for a PyTorch model.
        bits_per_weight: indices and LUTs over the palettized weights; of a PyTorch model without
            palettes the bits of its weights, of a file without palettes None.
        metric: on the labels; None without labels.
        metric_loss: of the original's metric, with its confidence interval; None without one.
        agreement: share of top-1 answers that are the original's, 0 to 1; None where outputs are
            not scores.
        top5_overlap: share of the original's five top classes among the model's five.
        flip_count: inputs with another top-1 answer than the original's.
        flips: these inputs, the first 1000 of them.
        errors: of each output against the reference, by name; empty if nothing ran.
        divergence: where a file that failed parity first goes wrong; None if that is unknown.
        bytes_by_kind: of the file's ledger; empty for PyTorch models.
        cost: of loading and running the file; None if it was not measured.
        checks: empty for PyTorch models.
    """

    name: str
    path: str | None = None
    runtime: str | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None
    half_ratio: float | None = None
    deflated_bytes: int | None = None
    ideal_bytes: int | None = None
    bits_per_weight: float | None = None
    metric: float | None = None
    metric_loss: Loss | None = None
    agreement: float | None = None
    top5_overlap: float | None = None
    flip_count: int | None = None
    flips: tuple[Flip, ...] = ()
    errors: Mapping[str, Errors] = field(default_factory=dict)
    divergence: Divergence | None = None
    bytes_by_kind: Mapping[str, int] = field(default_factory=dict)
    cost: Costs | None = None
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Report:
    """Result of a validation: true if a check passed, none failed, and no required one was skipped.

    Attributes:
        models: PyTorch models first, then the files.
        layers: palettized weights of the reference.
        dense: reason or size of every parameter that is not palettized, by name.
        samples: number of inputs.
        metric_name: name of the metric.
        limits: the limits that were set.
        provenance: versions and computer.
        required: whether a skipped check is a failure, or the names of checks for which it is.
        recipe: TOML of a recipe with the palette layouts of the reference; empty if unknown.
        histograms: histograms of the palettized weights, by name.
        pictures: images, PNG in base64, of inputs whose top-1 answer changed, by position.

    Example:
        >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
        >>> report = dkm.validate("model.onnx", reference=frozen, inputs=torch.ones(4, 8))
        >>> bool(report), report.failed, report.samples
        (True, (), 4)
    """

    models: tuple[Model, ...]
    layers: tuple[Layer, ...]
    dense: Mapping[str, str]
    samples: int
    metric_name: str | None
    limits: Limits
    provenance: Mapping[str, str]
    required: Required = False
    recipe: str = ""
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        passed = self._list_checks(
            lambda c: c.status == Status.PASSED and c.name not in HALF_A_PROOF
        )
        return bool(passed) and not (self.failed or self.lacking)

    @property
    def files(self) -> tuple[Model, ...]:
        """The rows that are converted files."""
        return tuple(model for model in self.models if model.path is not None)

    @property
    def failed(self) -> tuple[str, ...]:
        """Every failed check as "file: check: reason"."""
        return self._list_checks(lambda check: check.status == Status.FAILED)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Every skipped check as "file: check: reason"."""
        return self._list_checks(lambda check: check.status == Status.SKIPPED)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Every skipped check that is required, or blocks, as "file: check: reason"."""
        return self._list_checks(self._lacks)

    def _lacks(self, check: Check) -> bool:
        named = self.required
        required = named if isinstance(named, bool) else check.name in named
        return check.status == Status.SKIPPED and (required or check.blocks)

    def _list_checks(self, wanted: Callable[[Check], bool]) -> tuple[str, ...]:
        return tuple(
            f"{model.name}: {check.name}: {check.reason}"
            for model in self.models
            for check in model.checks
            if wanted(check)
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert the report to plain values, as in its JSON.

        Returns:
            Dictionaries, lists, numbers and texts.

        Example:
            >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
            >>> report = dkm.validate("model.onnx", reference=frozen, inputs=torch.ones(4, 8))
            >>> report.to_dict()["samples"]
            4
        """
        about: dict[str, Any] = {"format": FORMAT, "version": VERSION, "passed": bool(self)}
        return {**about, **_finite(asdict(self))}

    def to_json(self, path: str | Path, *, force: bool = False) -> None:
        """Write the report as JSON.

        Args:
            path: the file to write.
            force: replace an existing file.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.

        Example:
            >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
            >>> report = dkm.validate("model.onnx", reference=frozen, inputs=torch.ones(4, 8))
            >>> report.to_json("report.json")
        """
        with atomic_path(path_of(path), force=force) as temporary:
            temporary.write_text(
                json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", "utf-8"
            )

    def to_junit(self, path: str | Path, *, force: bool = False) -> None:
        """Write the checks as JUnit XML.

        Args:
            path: the file to write.
            force: replace an existing file.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.

        Example:
            >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
            >>> report = dkm.validate("model.onnx", reference=frozen, inputs=torch.ones(4, 8))
            >>> report.to_junit("report.xml")
        """
        from dkm_deploy.report.junit import junit

        with atomic_path(path_of(path), force=force) as temporary:
            temporary.write_text(junit(self.to_dict()), "utf-8")

    def to_html(self, path: str | Path, *, force: bool = False) -> None:
        """Write the report as one self-contained HTML page.

        Args:
            path: the file to write.
            force: replace an existing file.

        Raises:
            OutputExistsError: ``path`` exists and ``force`` is not set.

        Example:
            >>> frozen = dkm.load("model.safetensors", nn.Linear(8, 4))
            >>> report = dkm.validate("model.onnx", reference=frozen, inputs=torch.ones(4, 8))
            >>> report.to_html("report.html")
        """
        from dkm_deploy.report.html.page import page  # a view: the records do not depend on it

        with atomic_path(path_of(path), force=force) as temporary:
            temporary.write_text(page(self.to_dict()), "utf-8")


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
