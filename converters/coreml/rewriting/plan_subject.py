"""A package as the subject of a plan: what palettes cost its outputs, and how large it gets."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from converters.coreml.reading.ledger import ledger
from converters.coreml.rewriting.dense_reference import put_values
from converters.coreml.rewriting.weight_palette import clustered, not_smaller, refuse, stand_in
from converters.coreml.rewriting.weights import Weight, find_weights
from converters.coreml.rewriting.write_with import check_no_links, write_with
from dkm_deploy._support.measurement_cache import arrays_digest, digest, label_digests
from dkm_deploy.conversion.plan_subject import FileSizes
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import Package, open_package
from dkm_deploy.model.samples import check_labels
from dkm_deploy.post_training.output_loss import OutputLoss
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.run_file import named_arrays, run_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from dkm_deploy.conversion.plan_subject import Specs
    from dkm_deploy.model.inputs import Inputs
    from dkm_deploy.model.metric import Metric
    from dkm_deploy.palette_spec import PaletteSpec

_METHOD = "kmeans"


class PackageSubject:
    """Implements :class:`dkm_deploy.conversion.plan_subject.PlanSubject` by the evaluator.

    It runs the default function, so only the weights of that are planned for.

    Args:
        path: the package.
        batches: inputs and labels, None where there are none.
        metric: what counts; None is the relative squared error of the outputs.

    Raises:
        DkmError: the package is damaged, cannot be palettized, or does not run on the inputs; or
            the metric lacks labels.
    """

    def __init__(
        self, path: Path, batches: Sequence[tuple[Inputs, Any]], metric: Metric | None
    ) -> None:
        for batch in batches:
            check_labels(*batch)
        self._package = open_package(path)
        check_no_links(self._package)
        self._weights = _weights(self._package)
        self.shapes: Mapping[str, tuple[int, ...]] = {n: w.shape for n, w in self._weights.items()}
        self._inputs = [inputs for inputs, _ in batches]
        labels = [one for _, one in batches]
        session = MLProgramEvaluator(path)
        self._outputs_loss = OutputLoss(self._run(session), labels, metric)
        content = _content(path)
        data = [arrays_digest(named_arrays(session, inputs)) for inputs in self._inputs]
        answers = label_digests(labels)
        baseline = self._outputs_loss.baseline
        self.written_from: Sequence[object] = (content,)
        self.measured_on: Sequence[object] = (content, data, answers, metric, baseline, _METHOD)

    def holds(self, name: str, spec: PaletteSpec, target: str) -> bool:
        """Whether the package has such palettes, and one makes the weight smaller."""
        del target
        weight = self._weights[name]
        return refuse(weight, spec) is None and not not_smaller(weight, spec)

    def losses(self, spec: PaletteSpec, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        """On a copy of the package, in which one weight after the other is another one."""
        path = self._package.path
        with TemporaryDirectory() as folder:
            copy = shutil.copytree(path, Path(folder) / path.name, copy_function=shutil.copyfile)
            for name in names:
                weight = self._weights[name]
                file = copy / self._package.weight_file(weight.pointer[0]).relative_to(path)
                put_values(file, weight, clustered(weight, spec).decode())
                try:
                    yield name, self._outputs_loss.loss(self._run(MLProgramEvaluator(copy)))
                finally:
                    put_values(file, weight, weight.read())

    def weigh(self, target: str, specs: Specs) -> FileSizes:
        """By writing it, with other values, to a folder that is removed again."""
        del target
        weights = {name: self._weights[name] for name in specs}
        with TemporaryDirectory() as folder:
            out = Path(folder) / self._package.path.name
            palettes = write_with(
                self._package, weights, lambda weight: stand_in(weight, specs[weight.name]), out
            )
            return FileSizes.of(ledger(out), palettes)

    def _run(self, session: MLProgramEvaluator) -> list[list[Tensor]]:
        """The outputs of each batch that are numbers."""
        made = (run_file(session, inputs).values() for inputs in self._inputs)
        arrays = ([np.asarray(output) for output in outputs] for outputs in made)
        return [
            [torch.tensor(array).float() for array in batch if array.dtype.kind in "fiub"]
            for batch in arrays
        ]


def _weights(package: Package) -> Mapping[str, Weight]:
    """The weights of the default function. Raises DkmError if there is none."""
    default = next(iter(functions(package)))
    found = find_weights(package).tensors
    weights = {n: w for n, w in found.items() if any(name == default for name, _ in w.sites)}
    if not weights:
        raise DkmError(f"{package.path}: there is nothing to palettize in function {default!r}")
    return weights


def _content(path: Path) -> str:
    """A digest of all files of a package."""
    return digest(
        (part.relative_to(path).as_posix(), _file_digest(part))
        for part in sorted(path.rglob("*"))
        if part.is_file()
    )


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
