"""What a layer gets in the model that is being corrected, and what the original gives there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from dkm_deploy.errors import DkmError
from dkm_deploy.post_training.output_correction.channel_statistics import channel_dim, row_weights
from dkm_deploy.post_training.output_correction.layer_calls import RecordedCall, record_calls
from dkm_deploy.post_training.output_correction.layer_order import Stage

_HELD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class LayerSamples:
    """A stage of the corrected model, what goes into it, and what should come out.

    Attributes:
        layer: linear or convolution; None if the stage is a BatchNorm alone.
        norm: the BatchNorm behind the layer, or alone; None without one.
        calls: of the layer, or of the BatchNorm alone, in the corrected model.
        wanted: what comes out in the original, behind the BatchNorm if there is one.
        weights: of the rows of ``wanted``, see
            :func:`dkm_deploy.post_training.output_correction.channel_statistics.row_weights`.
    """

    layer: nn.Module | None
    norm: _BatchNorm | None
    calls: Sequence[RecordedCall]
    wanted: Sequence[Tensor]
    weights: Sequence[Tensor]

    @property
    def dim(self) -> int:
        """The dimension of channels in the outputs, counted from the last."""
        return _channels(self.layer, self.norm, self.wanted[0])

    def outputs(self) -> list[Tensor]:
        """What comes out now."""
        first, *rest = (module for module in (self.layer, self.norm) if module is not None)
        with parametrize.cached():  # one decoding for all calls
            outputs = [first(*call.args, **call.kwargs) for call in self.calls]
        return [rest[0](output) for output in outputs] if rest else outputs

    def error(self) -> float:
        """``|outputs - wanted| / |wanted|``, with the weights; 0 without a gap."""
        pairs = zip(self.outputs(), self.wanted, strict=True)
        gap = _norm([output - wanted for output, wanted in pairs], self.weights)
        return gap / _norm(self.wanted, self.weights) if gap else 0.0


class Models:
    """Runs the model that is being corrected and the original up to one stage after the other.

    Of a stage as many batches are held as fit into 256 MiB. The original does not change, and runs
    once for as many stages as fit.

    Args:
        corrected: in eval mode.
        original: in eval mode.
        order: of the stages; they are asked for in this order.
        inputs: of the models, batch by batch.
    """

    def __init__(
        self,
        corrected: nn.Module,
        original: nn.Module,
        order: Sequence[Stage],
        inputs: Sequence[Any],
    ) -> None:
        self._corrected, self._original = corrected, original
        self._waiting = list(order)
        self._inputs = inputs
        self._known: dict[str, list[list[RecordedCall]]] = {}

    def samples(self, stage: Stage) -> LayerSamples:
        """What one stage gets and should give.

        Raises:
            DkmError: a model does not run on the inputs, or the outputs of the stage in the two
                have other shapes or are not finite.
        """
        if stage.name not in self._known:
            self._known = self._run(self._original, self._next_stages(), arguments=False)
        ours = self._run(self._corrected, [stage], arguments=True)[stage.name]
        theirs = self._known.pop(stage.name)
        for number, pair in enumerate(zip(ours, theirs, strict=True), 1):
            _check(stage.name or "the model", number, *pair)
        layer, norm = (_module(self._corrected, name) for name in (stage.layer, stage.norm))
        behind = None if layer is None else _module(self._original, stage.norm)
        outputs = [call.output for calls in theirs for call in calls]
        wanted = outputs if behind is None else [behind(output) for output in outputs]
        calls = [call for calls in ours for call in calls]
        weights = row_weights(wanted, _channels(layer, norm, wanted[0]))
        return LayerSamples(layer, cast("_BatchNorm | None", norm), calls, wanted, weights)

    def _next_stages(self) -> list[Stage]:
        """As many as may be held together, at least one."""
        held, group = 0, list[Stage]()
        while self._waiting and (
            not group or held + self._held_samples(self._waiting[0]) <= _HELD_BYTES
        ):
            held += self._held_samples(self._waiting[0])
            group.append(self._waiting.pop(0))
        return group

    def _batches(self, stage: Stage) -> int:
        return min(len(self._inputs), max(1, _HELD_BYTES // max(stage.size_bytes, 1)))

    def _held_samples(self, stage: Stage) -> int:
        return self._batches(stage) * stage.size_bytes

    def _run(
        self, model: nn.Module, some: Sequence[Stage], *, arguments: bool
    ) -> dict[str, list[list[RecordedCall]]]:
        """The calls of stages, batch by batch."""
        found: dict[str, list[list[RecordedCall]]] = {stage.name: [] for stage in some}
        with parametrize.cached():
            for number, batch in enumerate(self._inputs, 1):
                counts = {s.name: s.calls for s in some if number <= self._batches(s)}
                if not counts:
                    break
                for name, calls in record_calls(
                    model, counts, batch, number, arguments=arguments
                ).items():
                    found[name].append(calls)
        return found


def _module(model: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else model.get_submodule(name)


def _check(
    layer: str, number: int, ours: Sequence[RecordedCall], theirs: Sequence[RecordedCall]
) -> None:
    shapes = [[tuple(call.output.shape) for call in calls] for calls in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise DkmError(
            f"{layer}: on calibration batch {number} its outputs are of shapes {shapes[0]}, and in "
            f"the original {shapes[1]}; give the plain model that the frozen one was made of"
        )
    for model, calls in (("frozen model", ours), ("original", theirs)):
        if not all(torch.isfinite(call.output).all() for call in calls):
            raise DkmError(
                f"{layer}: on calibration batch {number} its outputs in the {model} are NaN or "
                "infinite"
            )


def _channels(layer: nn.Module | None, norm: nn.Module | None, output: Tensor) -> int:
    return channel_dim(layer) if layer is not None and norm is None else 1 - output.ndim


def _norm(tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> float:
    pairs = zip(tensors, weights, strict=True)
    return float(torch.stack([(w * t.double().square()).sum() for t, w in pairs]).sum().sqrt())
