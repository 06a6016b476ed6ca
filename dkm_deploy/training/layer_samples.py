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
from dkm_deploy.training.observe import Call, calls_of
from dkm_deploy.training.stages import Stage

_HELD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Pair:
    """The model that is being corrected, and the one that it is to be like."""

    corrected: nn.Module
    original: nn.Module


@dataclass(frozen=True)
class LayerSamples:
    """A stage of the corrected model, what goes into it, and what should come out.

    Attributes:
        layer: linear or convolution; None if the stage is a BatchNorm alone.
        norm: the BatchNorm behind the layer, or alone; None without one.
        calls: of the layer, or of the BatchNorm alone, in the corrected model.
        targets: what the same calls give in the original.
        wanted: what comes out behind the BatchNorm in the original.
    """

    layer: nn.Module | None
    norm: _BatchNorm | None
    calls: Sequence[Call]
    targets: Sequence[Tensor]
    wanted: Sequence[Tensor]

    def layer_outputs(self) -> list[Tensor]:
        """What the layer, or the BatchNorm alone, gives now."""
        first = cast(nn.Module, self.norm if self.layer is None else self.layer)
        with parametrize.cached():  # one decoding for all calls
            return [first(*call.args, **call.kwargs) for call in self.calls]

    def outputs(self) -> list[Tensor]:
        """What the stage gives now."""
        outputs = self.layer_outputs()
        if self.layer is None or self.norm is None:
            return outputs
        return [self.norm(output) for output in outputs]

    def error(self) -> float:
        """``|outputs - wanted| / |wanted|``, Euclidean over all samples; 0 without a gap."""
        pairs = zip(self.outputs(), self.wanted, strict=True)
        gap = _norm([output - wanted for output, wanted in pairs])
        return gap / _norm(self.wanted) if gap else 0.0


def samples_of(pair: Pair, stage: Stage, inputs: Sequence[Any]) -> LayerSamples:
    """Run both models up to a stage, on as many batches as may be held: 256 MiB.

    Raises:
        DkmError: a model does not run on the inputs, or the outputs of the stage in the two have
            other shapes or are not finite.
    """
    calls: list[Call] = []
    targets: list[Tensor] = []
    with parametrize.cached():
        for number, batch in enumerate(inputs, 1):
            ours, theirs = (
                calls_of(model, stage.name, batch, number, stage.calls)
                for model in (pair.corrected, pair.original)
            )
            _check(stage.name or "the model", number, ours, theirs)
            calls += ours
            targets += [call.output for call in theirs]
            if sum(call.size_bytes for call in calls) > _HELD_BYTES:
                break
    layer, norm = (_module(pair.corrected, name) for name in (stage.layer, stage.norm))
    behind = None if layer is None else _module(pair.original, stage.norm)
    wanted = targets if behind is None else [behind(target) for target in targets]
    return LayerSamples(layer, cast("_BatchNorm | None", norm), calls, targets, wanted)


def _module(model: nn.Module, name: str | None) -> nn.Module | None:
    return None if name is None else model.get_submodule(name)


def _check(layer: str, number: int, ours: Sequence[Call], theirs: Sequence[Call]) -> None:
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


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt())
