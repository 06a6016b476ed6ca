"""What a comparison reads of a report's JSON; the views of one report read all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dkm_deploy._support.argument_checks import integer, real
from dkm_deploy._support.paths import translate_read_errors
from dkm_deploy._support.records import WrittenAs, from_json
from dkm_deploy.errors import DkmError, MissingFileError
from dkm_deploy.validation.check import Status

INSIDE = "report.json"
_LARGEST = 1e100

_Figure = Annotated[
    float,
    WrittenAs(
        lambda value: float(real("figure", value, least=-_LARGEST, most=_LARGEST)),
        "a number that can be drawn, at most 1e+100",
    ),
]
_Bytes = Annotated[
    int,
    WrittenAs(
        lambda value: integer("size", value, 1, int(_LARGEST)), "an integer from 1 to 1e+100"
    ),
]


@dataclass(frozen=True)
class LayerEntry:
    """The palette of a weight."""

    bits: int
    cluster_dim: int
    groups: int


@dataclass(frozen=True)
class CheckEntry:
    """The status of a check."""

    status: Status


@dataclass(frozen=True)
class TimeEntry:
    """Seconds that a run of a file takes."""

    median_s: _Figure | None


@dataclass(frozen=True)
class CostEntry:
    """What it costs to run a file."""

    file: TimeEntry


@dataclass(frozen=True)
class LossEntry:
    """What of the original's metric is lost."""

    value: _Figure | None


@dataclass(frozen=True)
class ModelEntry:
    """A row of a report; see :class:`dkm_deploy.validation.report.Model`."""

    name: str
    path: str | None
    size_bytes: _Bytes | None
    size_ratio: _Figure | None
    bits_per_weight: _Figure | None
    metric: _Figure | None
    metric_loss: LossEntry | None
    agreement: _Figure | None
    cost: CostEntry | None
    checks: tuple[CheckEntry, ...]


@dataclass(frozen=True)
class ReportFile:
    """A report; see :class:`dkm_deploy.validation.report.Report`."""

    format: Literal["dkm-deploy report"]
    version: Literal[2]
    metric_name: str | None
    samples: int
    recipe: str
    models: tuple[ModelEntry, ...]
    layers: tuple[LayerEntry, ...]

    @property
    def files(self) -> tuple[ModelEntry, ...]:
        """The rows that are converted files."""
        return tuple(model for model in self.models if model.path is not None)


def read_report(path: Path) -> ReportFile:
    """The report in a JSON file, or in the ``report.json`` of a folder.

    Raises:
        DkmError: it is missing, or no report that ``dkm-deploy validate --json`` writes.
    """
    path = path / INSIDE if path.is_dir() else path
    if not path.is_file():
        raise MissingFileError(f"{path}: no such report; a golden bundle would have bundle.json")
    with translate_read_errors(path):
        content = path.read_bytes()
    try:
        return from_json(content, ReportFile, more_keys=True)
    except DkmError as error:
        raise DkmError(f"{path}: not a report of dkm-deploy validate --json: {error}") from error
