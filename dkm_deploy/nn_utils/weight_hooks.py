"""The hooks by which ``torch.nn.utils`` computes a weight before each forward pass.

``weight_norm`` and ``spectral_norm`` of the old kind, and pruning masks. The layer has other
parameters then (``weight_g`` and ``weight_v``, ``weight_orig``), and its ``weight`` is a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import (
    SpectralNorm,
    SpectralNormLoadStateDictPreHook,
    SpectralNormStateDictHook,
)
from torch.nn.utils.weight_norm import WeightNorm


class HookModule(nn.Module):
    """What a hook computes of its parameters, as a module that a parametrization can be."""

    def __init__(self, hook: Any, buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._hook = hook
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer)

    def forward(self, *parameters: Tensor) -> Tensor:
        """The weight; a spectral norm moves its vectors on in training mode, as the hook does."""
        names = parameter_names(self._hook)
        layer: Any = SimpleNamespace(**dict(zip(names, parameters, strict=True)), **self._buffers)
        if isinstance(self._hook, BasePruningMethod):
            masked: Tensor = self._hook.apply_mask(layer)  # type: ignore[no-untyped-call]
            return masked
        if isinstance(self._hook, SpectralNorm):
            return self._hook.compute_weight(layer, do_power_iteration=self.training)
        return cast(Tensor, self._hook.compute_weight(layer))


def hooks_of(module: nn.Module) -> dict[str, Any]:
    """The hooks of a module, by the name of the weight that each computes."""
    kinds = (WeightNorm, SpectralNorm, BasePruningMethod)
    found = (hook for hook in module._forward_pre_hooks.values() if isinstance(hook, kinds))
    return {_computes(hook): hook for hook in found}


def parameter_names(hook: Any) -> tuple[str, ...]:
    """The parameters that a hook computes a weight of, which other hooks may compute in turn."""
    endings = ("_g", "_v") if isinstance(hook, WeightNorm) else ("_orig",)
    return tuple(_computes(hook) + ending for ending in endings)


def value_of(module: nn.Module, hook: Any) -> Tensor:
    """What a hook computes in eval mode; differentiable. Changes nothing."""
    inner = hooks_of(module)
    parameters = [
        value_of(module, inner[name]) if name in inner else cast(Tensor, getattr(module, name))
        for name in parameter_names(hook)
    ]
    value: Tensor = hook_module(module, hook).eval()(*parameters)
    return value


def sources_of(module: nn.Module, hook: Any) -> Iterator[Tensor]:
    """The parameters that it all starts from."""
    inner = hooks_of(module)
    for name in parameter_names(hook):
        if name in inner:
            yield from sources_of(module, inner[name])
        else:
            yield cast(Tensor, getattr(module, name))


def hook_module(module: nn.Module, hook: Any) -> HookModule:
    """A hook of a module, with its buffers, which are not copied."""
    return HookModule(hook, {name: getattr(module, name) for name in _buffer_names(hook)})


def unhook(module: nn.Module, weight: str) -> None:
    """Take away the hooks that a weight is computed by, their tensors, and the weight."""
    hook = hooks_of(module)[weight]
    for name in parameter_names(hook):
        if name in hooks_of(module):
            unhook(module, name)
    for name in (*parameter_names(hook), *_buffer_names(hook), weight):
        if hasattr(module, name):
            delattr(module, name)
    spectral = (SpectralNormStateDictHook, SpectralNormLoadStateDictPreHook)
    for hooks in (
        module._forward_pre_hooks,
        module._state_dict_hooks,
        module._load_state_dict_pre_hooks,
    ):
        for key, other in list(hooks.items()):
            inner = getattr(other, "hook", other)  # torch 2.13 wraps some
            if other is hook or (isinstance(inner, spectral) and inner.fn is hook):
                del hooks[key]


def _computes(hook: Any) -> str:
    name: str = hook._tensor_name if isinstance(hook, BasePruningMethod) else hook.name
    return name


def _buffer_names(hook: Any) -> tuple[str, ...]:
    if isinstance(hook, SpectralNorm):
        return f"{hook.name}_u", f"{hook.name}_v"
    return (f"{_computes(hook)}_mask",) if isinstance(hook, BasePruningMethod) else ()
