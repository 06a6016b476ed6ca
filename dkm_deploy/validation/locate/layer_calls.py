"""What goes into and comes out of the layers of a PyTorch model while it runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.palettized import palettes
from dkm_deploy.model.run import outputs_of
from dkm_deploy.nn_utils.hooks import call_hooks
from dkm_deploy.nn_utils.in_float32 import model_in_float32
from dkm_deploy.nn_utils.state_guard import run_copy

Note = Callable[[str, Tensor, Tensor], None]


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: the shapes of the first tensor in and of the first tensor out."""

    layer: str
    input: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True)
class LayerValues:
    """What went in and what came out in one call of a layer, as float32."""

    input: NDArray[Any]
    output: NDArray[Any]


def weights_of(model: nn.Module) -> list[str]:
    """Names of the weights that modules have, palettized ones too; a bias tells a layer by half."""
    names = [*palettes(model), *(name for name, _ in model.named_parameters())]
    return [name for name in names if "." in name and not name.endswith("bias")]


def layers_of(weights: Iterable[str]) -> list[str]:
    """The modules that have these weights, each once."""
    return list(dict.fromkeys(weight.rpartition(".")[0] for weight in weights))


def find_layer_calls(model: nn.Module, inputs: Inputs, layers: Collection[str]) -> list[LayerCall]:
    """Every call of ``layers`` in one run, in the order in which they end; no value is kept."""
    found: list[LayerCall] = []

    def note(layer: str, taken: Tensor, made: Tensor) -> None:
        found.append(LayerCall(layer, tuple(taken.shape), tuple(made.shape)))

    _run(model, inputs, layers, note)
    return found


def layer_values(
    model: nn.Module, inputs: Inputs, layers: Collection[str], wanted: Collection[int]
) -> dict[int, LayerValues]:
    """The values of some calls, by their place in :func:`find_layer_calls`."""
    found: dict[int, LayerValues] = {}
    places = count()

    def note(_: str, taken: Tensor, made: Tensor) -> None:
        place = next(places)
        if place in wanted:
            found[place] = LayerValues(_copy_tensor(taken), _copy_tensor(made))

    _run(model, inputs, layers, note)
    return found


def _run(model: nn.Module, inputs: Inputs, layers: Collection[str], note: Note) -> None:
    def hook(layer: str, _: nn.Module, args: Any, kwargs: Any, output: Any) -> None:  # noqa: ARG001
        taken, made = _tensor(args), _tensor(output)
        if taken is not None and made is not None:
            note(layer, taken, made)

    with run_copy(model_in_float32(model)) as copied, call_hooks(copied, layers, hook):
        outputs_of(copied, inputs)


def _tensor(values: Any) -> Tensor | None:
    values = values[0] if isinstance(values, (tuple, list)) and values else values
    return values if torch.is_tensor(values) else None


def _copy_tensor(tensor: Tensor) -> NDArray[Any]:
    """A copy, for what comes next may change a tensor in place, as ``ReLU(inplace=True)`` does."""
    return np.array(tensor.detach().cpu().float().numpy())
