"""If a file does not compute the same, where? The first layer that leaves PyTorch's values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.export import Inputs
from dkm_deploy.runtimes import Probe, Tap, prober_for
from dkm_deploy.training.freeze import palettes
from dkm_deploy.validation.metrics import errors
from dkm_deploy.validation.run import Outputs, fixed_batch, rows, run_file, run_model

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class Call:
    """One call of a layer: what went in, and what may come out in a file.

    That is more than one value where a file may have folded the normalization after it into it.
    """

    layer: str
    taken: NDArray[Any]
    made: tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Divergence:
    """Where a file leaves PyTorch's values on the input where its outputs are furthest off.

    Attributes:
        layer: name of a PyTorch module that has a weight; the last one seen if ``at`` is "after".
        at: "output": the layer's output is off and its input is not. "input": its input is off
            already, and the outputs of all layers before it are not: something between them is.
            "inputs": the same of the model's first layer, so it is how inputs are prepared.
            "after": no layer is off, so it is something after the last.
        value: name in the file of the value that is off; empty for "after".
        relative: relative error of it; infinite if it holds NaN or infinity that PyTorch does not.
        limit: on the relative error of a value.
        seen: layers that were compared.
        layers: modules of the model with a weight.
        overflow: where the value is infinite, what first became so when it was rounded to fp16;
            None if nothing did or the runtime does not tell.
    """

    layer: str
    at: Literal["output", "input", "inputs", "after"]
    value: str
    relative: float
    limit: float
    seen: int
    layers: int
    overflow: str | None = None


def locate(
    path: Path,
    model: nn.Module,
    inputs: Inputs,
    outputs: tuple[Outputs, Outputs],
    limit: float,
) -> Divergence:
    """Compare the inputs and outputs of layers in a file with those in PyTorch.

    Args:
        path: the file.
        model: what it was converted from.
        inputs: of both.
        outputs: the file's and the model's, for the input to look at.
        limit: on the relative error of each value.

    Raises:
        DkmError: no runtime shows the values inside such a file, or it has none of the layers.
    """
    weights = _weights(model)
    probe = prober_for(path).probe(path, weights)
    batch = fixed_batch(probe) or 1
    start = _worst(*outputs) // batch * batch
    block = rows(inputs, start, start + batch)
    calls = _with_folded(_calls(model, block, weights), model, {_layer(t) for t in probe.taps})
    compared = list(_pairs(probe, run_file(probe, block), calls))
    if not compared:
        raise DkmError("no layer of the model is found in the file by the name of its weight")
    found = _first(compared, limit, len({weight.rpartition(".")[0] for weight in weights}))
    if found.at == "input" and found.layer == calls[0].layer:
        found = replace(found, at="inputs")
    return replace(found, overflow=probe.lost()) if found.relative == np.inf else found


def told(found: Divergence) -> str:
    """A divergence in words."""
    seen = f"{found.seen} of {found.layers} layers compared"
    if found.at == "after":
        within = f"no layer is off by more than {found.limit:.2e}"
        return f"{within}: it is after {found.layer}, or in single elements ({seen})"
    off = f"relative error {found.relative:.2e} at {found.value!r}"
    off += f", where fp16 overflows first in {found.overflow}" if found.overflow else ""
    if found.at == "inputs":
        why = "inputs are prepared in another way, such as another scale or order of channels"
        return f"first off before {found.layer}, the first layer: {off}; {why} ({seen})"
    if found.at == "input":
        return f"first off before {found.layer}, after the layers in front of it: {off} ({seen})"
    return f"first off in {found.layer}: {off}, its input is right ({seen})"


def _first(compared: list[tuple[Tap, float, float]], limit: float, layers: int) -> Divergence:
    seen = len(compared)
    for tap, before, after in compared:
        if not before <= limit:
            return Divergence(_layer(tap), "input", tap.taken, before, limit, seen, layers)
        if not after <= limit:
            return Divergence(_layer(tap), "output", tap.made, after, limit, seen, layers)
    return Divergence(_layer(compared[-1][0]), "after", "", 0.0, limit, seen, layers)


def _weights(model: nn.Module) -> list[str]:
    """Names of the weights that modules have, palettized ones too; a bias tells a layer by half."""
    names = [*palettes(model), *(name for name, _ in model.named_parameters())]
    return [name for name in names if "." in name and not name.endswith("bias")]


def _calls(model: nn.Module, inputs: Inputs, weights: list[str]) -> list[Call]:
    """First tensor in and first tensor out of each call of a module that has a weight."""
    found: list[Call] = []
    with ExitStack() as stack:
        for layer in {weight.rpartition(".")[0] for weight in weights}:

            def note(_: nn.Module, args: Any, output: Any, layer: str = layer) -> None:
                taken, made = _tensor(args), _tensor(output)
                if taken is not None and made is not None:
                    found.append(Call(layer, taken, (made,)))

            handle = model.get_submodule(layer).register_forward_hook(note)
            stack.callback(handle.remove)
        run_model(model, inputs)
    return found


def _with_folded(calls: list[Call], model: nn.Module, seen: Collection[str]) -> list[Call]:
    """Where a batch normalization is not in the file, the layer before it may give its values."""
    result = list(calls)
    for place, (call, after) in enumerate(pairwise(calls)):
        norm = isinstance(model.get_submodule(after.layer), _BATCH_NORMS)
        if norm and after.layer not in seen:
            result[place] = replace(call, made=(*call.made, *after.made))
    return result


def _tensor(values: Any) -> NDArray[Any] | None:
    values = values[0] if isinstance(values, (tuple, list)) and values else values
    return values.detach().cpu().float().numpy() if torch.is_tensor(values) else None


def _pairs(probe: Probe, values: Outputs, calls: list[Call]) -> Iterator[tuple[Tap, float, float]]:
    """Every layer that both have, as often as each other: its tap, errors of input and output."""
    in_file, in_model = Counter(map(_layer, probe.taps)), Counter(call.layer for call in calls)
    waiting = {n: iter([c for c in calls if c.layer == n]) for n in in_file}
    for tap in probe.taps:
        layer = _layer(tap)
        if in_file[layer] == in_model[layer]:
            call, taken, made = next(waiting[layer]), values[tap.taken], values[tap.made]
            like = [array for array in call.made if array.shape == made.shape]
            if like and taken.shape == call.taken.shape:
                yield tap, _error(taken, call.taken), min(_error(made, array) for array in like)


def _layer(tap: Tap) -> str:
    return tap.weight.rpartition(".")[0]


def _error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    found = errors(actual, expected)
    if found.nonfinite:
        return float("inf")
    return found.relative if found.compared else 0.0


def _worst(actual: Outputs, expected: Outputs) -> int:
    """The input on which the outputs are furthest apart; the first if they cannot be compared."""
    ours, theirs = next(iter(actual.values())), next(iter(expected.values()))
    if ours.shape != theirs.shape or not ours.ndim:
        return 0
    with np.errstate(invalid="ignore"):
        gaps = np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(1)
    return int(np.nan_to_num(gaps, nan=np.inf).argmax())
