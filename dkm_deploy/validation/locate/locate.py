"""If a file does not compute the same, where? The first layer that leaves PyTorch's values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.run import Outputs
from dkm_deploy.model.samples import rows, share_samples
from dkm_deploy.model.steps import Steps
from dkm_deploy.parity.output_errors import difference, errors
from dkm_deploy.runtimes import Probe, prober_for
from dkm_deploy.runtimes.run_file import least_batch, run_file
from dkm_deploy.validation.locate.layer_calls import (
    LayerCall,
    LayerValues,
    find_layer_calls,
    layer_values,
    layers_of,
    weights_of,
)
from dkm_deploy.validation.locate.layer_pairs import Pair, groups, norms_of, pair

MOST_BYTES = 1 << 28
_NAMED = 3


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
        seen: layers of the file that can be compared; those after this one need not have been.
        layers: modules of the model with a weight.
        overflow: where the value is infinite, what first became so when it was rounded to fp16;
            None if nothing did or the runtime does not tell.
        unseen: layers between the last one that is right and this place that the file does not
            show: their weights have other names in it, or are inside a subgraph.
    """

    layer: str
    at: Literal["output", "input", "inputs", "after"]
    value: str
    relative: float
    limit: float
    seen: int
    layers: int
    overflow: str | None = None
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class _LayerErrors:
    """A layer with the relative errors of its input and of its output."""

    pair: Pair
    before: float
    after: float

    def right(self, limit: float) -> bool:
        return self.before <= limit and self.after <= limit


def locate(
    path: Path,
    model: nn.Module,
    inputs: Inputs | Steps,
    outputs: tuple[Outputs, Outputs],
    limit: float,
    most: int = MOST_BYTES,
    function: str | None = None,
) -> Divergence:
    """Compare the inputs and outputs of layers in a file with those in PyTorch.

    Args:
        path: the file.
        model: what it was converted from.
        inputs: of both.
        outputs: the file's and the model's, for the input to look at.
        limit: on the relative error of each value.
        most: bytes of values to keep at once, by PyTorch's shapes and in float32, of the file and
            of PyTorch each; for what is beyond, both are run again. A layer that is larger alone
            has a run to itself.
        function: of the file; None is the default one.

    Raises:
        DkmError: the inputs are steps or share no dimension of samples, no runtime shows the values
            inside such a file, or it has none of the layers.
    """
    if isinstance(inputs, Steps):
        raise DkmError("layers are compared in the first step only; give the inputs of that step")
    if not share_samples(inputs):
        raise DkmError(
            "layers are compared on one sample, and the inputs have no common sample dimension"
        )
    weights = weights_of(model)
    layers = layers_of(weights)
    probe = prober_for(path, function).probe(path, weights)
    batch = least_batch(probe)
    start = _worst(*outputs) // batch * batch
    block = rows(inputs, start, start + batch)
    calls = find_layer_calls(model, block, layers)
    pairs = pair(probe.taps, calls, norms_of(model, layers))
    compared: list[_LayerErrors] = []
    left, overflow = len(pairs), None
    for group in groups(pairs, most):
        found, overflow = _compare_group(probe, model, block, layers, group)
        compared, left = compared + found, left - len(group)
        if not all(each.right(limit) for each in found):
            break
    if not compared:
        raise DkmError(
            "no layer of the model is found in the file by the name of its weight; "
            "subgraphs are not searched"
        )
    divergence = _first(compared, calls, limit, (len(compared) + left, len(layers)))
    return replace(divergence, overflow=overflow if divergence.relative == np.inf else None)


def describe_divergence(found: Divergence) -> str:
    """A divergence in words."""
    seen = f"{found.seen} of {found.layers} layers can be compared"
    seen += f"; {_list_names(found.unseen)} cannot" if found.unseen else ""
    if found.at == "after":
        within = f"no layer differs by more than {found.limit:.2e}"
        return f"{within}: it is after {found.layer}, or in single elements ({seen})"
    off = f"relative error {found.relative:.2e} at {found.value!r}"
    off += f", where fp16 overflows first in {found.overflow}" if found.overflow else ""
    if found.at == "inputs":
        why = "inputs are prepared in another way, such as another scale or order of channels"
        return f"first error before {found.layer}, the first layer: {off}; {why} ({seen})"
    if found.at == "input":
        return f"first error before {found.layer}, after the layers in front of it: {off} ({seen})"
    return f"first error in {found.layer}: {off}, its input is right ({seen})"


def _list_names(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])


def _compare_group(
    probe: Probe, model: nn.Module, block: Inputs, layers: Sequence[str], group: Sequence[Pair]
) -> tuple[list[_LayerErrors], str | None]:
    """Run the file and the model for one group: the errors, and what overflowed. No value stays."""
    dump = probe.at([each.tap for each in group])
    given = run_file(dump, block)
    wanted = {n for each in group for n in (each.call, each.folded) if n is not None}
    return list(
        _layer_errors(group, given, layer_values(model, block, layers, wanted))
    ), dump.overflow_text()


def _layer_errors(
    group: Sequence[Pair], given: Outputs, values: Mapping[int, LayerValues]
) -> Iterator[_LayerErrors]:
    """The errors of each pair whose values have the same shapes in both."""
    for each in group:
        taken, made = given[each.tap.input], given[each.tap.output]
        expected = values[each.call].input
        wanted = [values[n].output for n in (each.call, each.folded) if n is not None]
        like = [array for array in wanted if array.shape == made.shape]
        if like and taken.shape == expected.shape:
            after = min(_error(made, array) for array in like)
            yield _LayerErrors(each, _error(taken, expected), after)


def _first(
    compared: Sequence[_LayerErrors],
    calls: Sequence[LayerCall],
    limit: float,
    counts: tuple[int, int],
) -> Divergence:
    """Where the first is off, in the file's order; ``counts`` are layers seen, and all of them."""
    off = next((each for each in compared if not each.right(limit)), None)
    if off is None:
        last, unseen = compared[-1].pair.layer, _unseen(compared, calls, len(calls), limit)
        return Divergence(last, "after", "", 0.0, limit, *counts, unseen=unseen)
    layer, tap = off.pair.layer, off.pair.tap
    if off.before <= limit:
        return Divergence(layer, "output", tap.output, off.after, limit, *counts)
    at: Literal["inputs", "input"] = "inputs" if layer == calls[0].layer else "input"
    unseen = _unseen(compared, calls, off.pair.call, limit)
    return Divergence(layer, at, tap.input, off.before, limit, *counts, unseen=unseen)


def _unseen(
    compared: Sequence[_LayerErrors], calls: Sequence[LayerCall], stop: int, limit: float
) -> tuple[str, ...]:
    """Layers that were not compared, called before call ``stop`` and after the last right one."""
    right = [each.pair for each in compared if each.right(limit)]
    known = [n for one in right for n in (one.call, one.folded) if n is not None and n < stop]
    between = [call.layer for call in calls[max(known, default=-1) + 1 : stop]]
    seen = {each.pair.layer for each in compared}
    return tuple(dict.fromkeys(layer for layer in between if layer not in seen))


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
    gaps = np.abs(difference(ours, theirs)).reshape(len(ours), -1).max(1)
    return int(np.nan_to_num(gaps, nan=np.inf).argmax())
