"""The layers that a file and a PyTorch model both show, in groups whose values fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import nn

from dkm_deploy.runtimes import Tap
from dkm_deploy.validation.locate.layer_calls import LayerCall

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BYTES = 4  # of a value, in float32


@dataclass(frozen=True)
class Pair:
    """One computation of a layer in a file, and the call of it in PyTorch.

    Attributes:
        tap: where the file computes it.
        call: place among the model's calls.
        folded: place of the call of the batch normalization after it where the file has none: it
            may have been folded into this layer, which then gives its values.
        size: bytes of its values in PyTorch, as float32.
    """

    tap: Tap
    call: int
    folded: int | None
    size: int

    @property
    def layer(self) -> str:
        """Name of the PyTorch module."""
        return paired_layer(self.tap)


def paired_layer(tap: Tap) -> str:
    """Name of the module whose weight is read at ``tap``."""
    return tap.weight.rpartition(".")[0]


def pair(taps: Sequence[Tap], calls: Sequence[LayerCall], norms: Collection[str]) -> list[Pair]:
    """Every layer that both have, as often as each other, in the file's order.

    Args:
        taps: of the file.
        calls: of the model.
        norms: modules that are batch normalizations.
    """
    in_file, in_model = Counter(map(paired_layer, taps)), Counter(call.layer for call in calls)
    places = {n: iter([i for i, c in enumerate(calls) if c.layer == n]) for n in in_file}
    folded = {
        place
        for place, (_, after) in enumerate(pairwise(calls))
        if after.layer in norms and after.layer not in in_file
    }
    found = []
    for tap in taps:
        layer = paired_layer(tap)
        if in_file[layer] == in_model[layer]:
            place = next(places[layer])
            norm = place + 1 if place in folded else None
            found.append(Pair(tap, place, norm, _size(calls, place, norm)))
    return found


def norms_of(model: nn.Module, layers: Iterable[str]) -> set[str]:
    """Those of ``layers`` that are batch normalizations."""
    return {name for name in layers if isinstance(model.get_submodule(name), _BATCH_NORMS)}


def groups(pairs: Iterable[Pair], most: int) -> Iterator[list[Pair]]:
    """Pairs in their order, as many at a time as ``most`` bytes hold, and at least one.

    In turn rather than by bisection, which would take an error to last: one may fade on its way, so
    a right value says nothing of those before it.
    """
    group: list[Pair] = []
    for each in pairs:
        if group and sum(one.size for one in group) + each.size > most:
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _size(calls: Sequence[LayerCall], place: int, norm: int | None) -> int:
    call = calls[place]
    shapes = [call.input, call.output]
    if norm is not None:  # whose input is this call's output
        shapes += [calls[norm].input, calls[norm].output]
    return _BYTES * sum(map(prod, shapes))
