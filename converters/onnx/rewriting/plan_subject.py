"""An ONNX file as the subject of a plan: what palettes cost its outputs, and how large it gets."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from converters.onnx.graph.tensors import array_of, default_opset, graph_values
from converters.onnx.reading.ledger import ledger
from converters.onnx.rewriting.palettize import (
    check_free,
    check_model,
    write_with,
)
from converters.onnx.rewriting.source import load_source
from converters.onnx.rewriting.tensor_palettes import (
    cluster_tensor,
    encoding_of,
    is_bfloat16,
    stand_in,
    too_small,
)
from converters.onnx.rewriting.weights import find_weights
from converters.onnx.rewriting.weights_as_inputs import WeightsAsInputs, run_in_batches
from dkm_deploy._support.measurement_cache import arrays_digest, bytes_digest, label_digests
from dkm_deploy.conversion.plan_subject import FileSizes
from dkm_deploy.errors import DkmError
from dkm_deploy.model.samples import check_labels
from dkm_deploy.post_training.output_loss import OutputLoss

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, TensorProto
    from torch import Tensor

    from dkm_deploy.conversion.plan_subject import Specs
    from dkm_deploy.model.inputs import Inputs
    from dkm_deploy.model.metric import Metric
    from dkm_deploy.palette_spec import PaletteSpec

_METHOD = "kmeans"


class OnnxSubject:
    """Implements :class:`dkm_deploy.conversion.plan_subject.PlanSubject`.

    The weights are given to one session with every run, so that another one costs no load.

    Args:
        path: the file.
        batches: inputs and labels, None where there are none. A batch is cut into those that the
            file is fixed to, or into 16 samples.
        metric: what counts; None is the relative squared error of the outputs.

    Raises:
        DkmError: the file is damaged or cannot be palettized, or does not run on the inputs; or
            the metric lacks labels.
    """

    def __init__(
        self,
        path: Path,
        batches: Sequence[tuple[Inputs, Any]],
        metric: Metric | None,
    ) -> None:
        for batch in batches:
            check_labels(*batch)
        self._path = path
        model = load_source(path).model
        self._opset = default_opset(model)
        self._tensors = _weights(path, model)
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(tensor.dims) for name, tensor in self._tensors.items()
        }
        arrays = {name: _array(name, tensor) for name, tensor in self._tensors.items()}
        self._session = WeightsAsInputs(path, model, arrays)
        content = (bytes_digest(model.SerializeToString(deterministic=True)), arrays_digest(arrays))
        self._batches = [
            part for inputs, _ in batches for part in run_in_batches(self._session, inputs)
        ]
        labels = [one for _, one in batches]
        self._outputs_loss = OutputLoss(self._run(), labels, metric)
        data = [arrays_digest(batch) for batch in self._batches]
        self.written_from: Sequence[object] = content
        answers = label_digests(labels)
        baseline = self._outputs_loss.baseline
        self.measured_on: Sequence[object] = (
            *content,
            data,
            answers,
            metric,
            baseline,
            _METHOD,
        )

    def holds(self, name: str, spec: PaletteSpec, target: str) -> bool:
        """Whether the palette alone makes the weight smaller, for else it would stay dense."""
        del target
        tensor = self._tensors[name]
        return not too_small({name: tensor}, {name: encoding_of(name, tensor, spec, self._opset)})

    def losses(self, spec: PaletteSpec, names: Sequence[str]) -> Iterator[tuple[str, float]]:
        """By k-means, as :func:`converters.onnx.rewriting.palettize.palettize_model` clusters."""
        for name in names:
            kept = self._session.weights[name]
            palette = cluster_tensor(name, self._tensors[name], spec)
            self._session.weights[name] = palette.decode().astype(kept.dtype)
            try:
                yield name, self._outputs_loss.loss(self._run())
            finally:
                self._session.weights[name] = kept

    def weigh(self, target: str, specs: Specs) -> FileSizes:
        """By writing it, with other values, to a folder that is removed again."""
        del target
        palettes = {name: stand_in(self._tensors[name], spec) for name, spec in specs.items()}
        model = load_source(self._path).model
        encodings = {
            name: encoding_of(name, self._tensors[name], spec, self._opset)
            for name, spec in specs.items()
        }
        check_free(encodings, graph_values(model))
        with TemporaryDirectory() as folder:
            out = Path(folder) / self._path.name
            write_with(model, palettes, out)
            return FileSizes.of(ledger(out), palettes)

    def _run(self) -> list[list[Tensor]]:
        """The outputs of each batch that are numbers."""
        made = (self._session.run(batch).values() for batch in self._batches)
        return [[torch.tensor(a).float() for a in batch if _is_numbers(a)] for batch in made]


def _weights(path: Path, model: ModelProto) -> Mapping[str, TensorProto]:
    """The weights that can be palettized. Raises DkmError if there is none."""
    try:
        check_model(model)
        tensors = find_weights(model).tensors
    except DkmError as error:
        raise DkmError(f"{path}: {error}") from error
    if not tensors:
        raise DkmError(f"{path}: there is nothing to palettize")
    return tensors


def _array(name: str, tensor: TensorProto) -> NDArray[Any]:
    """The values of a tensor; those of bfloat16 in float32."""
    array = array_of(name, tensor)
    return array.astype(np.float32) if is_bfloat16(tensor) else array


def _is_numbers(value: object) -> bool:
    """Whether an output is a tensor of numbers, and not of text or a list."""
    return getattr(getattr(value, "dtype", None), "kind", "") in tuple("fiub")
