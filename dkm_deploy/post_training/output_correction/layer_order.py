"""In which order the layers of a model work, and which BatchNorm reads which layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from dkm_deploy.model.calibration import batch_outputs
from dkm_deploy.nn_utils.hooks import call_hooks

LINEAR = (nn.Linear, _ConvNd)


@dataclass(frozen=True)
class Stage:
    """One step through a model.

    Attributes:
        layer: name of a linear or convolution layer; None for a BatchNorm that none feeds.
        norm: name of the BatchNorm that reads the layer's output, or None.
        calls: of the layer, or of the BatchNorm alone, in one forward pass.
        size_bytes: of what these calls take and give on the first batch.
    """

    layer: str | None
    norm: str | None
    calls: int
    size_bytes: int

    @property
    def name(self) -> str:
        """Of the module that is called."""
        return str(self.norm) if self.layer is None else self.layer


@dataclass
class _Trace:
    calls: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)
    made: dict[int, tuple[str, Tensor]] = field(default_factory=dict)
    read: dict[str, str] = field(default_factory=dict)  # layer -> the BatchNorm behind it

    def note(
        self,
        name: str,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # see hooked
        output: Tensor,
    ) -> None:
        """See :func:`dkm_deploy.nn_utils.hooks.call_hooks`."""
        self.calls[name] += 1
        self.size_bytes[name] += sum(t.nbytes for t in (*args, output) if torch.is_tensor(t))
        if not isinstance(module, _BatchNorm):
            self.made[id(output)] = name, output  # kept, so that no other tensor gets its id
        elif args and id(args[0]) in self.made:
            self.read[self.made[id(args[0])][0]] = name


@torch.no_grad()
def stages(model: nn.Module, inputs: Any) -> list[Stage]:
    """The linear, convolution and BatchNorm layers in the order of their first calls.

    A BatchNorm is one stage with the layer whose output it reads, if each is called once. Those
    without running statistics are passed over.

    Raises:
        DkmError: the model does not run on the inputs, those of calibration batch 1.
    """
    layers = {name: module for name, module in model.named_modules() if _has_stage(module)}
    trace = _trace(model, layers, inputs)
    once = {name for name, count in trace.calls.items() if count == 1}
    pairs = {layer: norm for layer, norm in trace.read.items() if {layer, norm} <= once}
    found = []
    for name in (n for n in trace.calls if n not in pairs.values()):
        alone = isinstance(layers[name], _BatchNorm)
        layer, norm = (None, name) if alone else (name, pairs.get(name))
        found.append(Stage(layer, norm, trace.calls[name], trace.size_bytes[name]))
    return found


def _has_stage(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return module.running_mean is not None
    return isinstance(module, LINEAR)


def _trace(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Any) -> _Trace:
    trace = _Trace()
    with call_hooks(model, layers, trace.note):
        batch_outputs(model, inputs, 1)
    return trace
