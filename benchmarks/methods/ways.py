"""The rows of the table: every method, with the widths and models it is tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn

import dkm_deploy as dkm
from benchmarks.methods import after, peers, training
from benchmarks.methods.subject import Subject
from dkm_deploy.training.methods.gwk import Gradients

WIDTHS: Mapping[str, tuple[int, int]] = {
    "8": (8, 1), "6": (6, 1), "4": (4, 1), "3": (3, 1), "2": (2, 1), "1": (1, 1),
    "3/4": (3, 4), "3/8": (3, 8),
}  # fmt: skip
"""Bits of an index and values of a LUT entry, by how the table calls them."""

RESNET, MINILM, EFFICIENTNET = "resnet20", "minilm", "efficientnet"
MODELS = (RESNET, MINILM, EFFICIENTNET)
_SCALARS = ("8", "6", "4", "3", "2")
_TRAINED = (*_SCALARS, "1", "3/4", "3/8")

Make = Callable[[Subject, dkm.PaletteSpec, int], nn.Module]


@dataclass(frozen=True)
class Way:
    """A method.

    Attributes:
        make: a frozen model of a subject, a palette and a seed.
        widths: that it is tried with.
        models: that it is tried on.
        chance: whether seeds differ.
    """

    make: Make
    widths: tuple[str, ...] = _SCALARS
    models: tuple[str, ...] = MODELS
    chance: bool = True


def _trained(method: str, widths: tuple[str, ...] = _TRAINED) -> Way:
    return Way(partial(training.trained, method=method), widths)


def _bins(*, means: bool) -> Way:
    make = partial(after.binned, means=means, evaluations=200)
    return Way(make, models=(RESNET,))


def _gwk(gradients: Gradients, widths: tuple[str, ...], models: tuple[str, ...]) -> Way:
    method = dkm.GWK(every=20, gradients=gradients)
    return Way(partial(training.trained, method=method), widths, models)


def _peer_dkm(temperature: float) -> Way:
    make = partial(peers.coremltools_dkm, temperature=temperature)
    return Way(make, ("4", "3", "2", "1"), (RESNET,))


WAYS: Mapping[str, Way] = {
    "kmeans": Way(after.kmeans, (*_SCALARS, "3/4"), chance=False),
    "kmeans+correct": Way(partial(after.corrected, method="kmeans"), (*_SCALARS, "3/4")),
    "sensitive": Way(after.sensitive, (*_SCALARS, "3/4")),
    "sensitive+correct": Way(partial(after.corrected, method="sensitive"), (*_SCALARS, "3/4")),
    "sensitive-outputs": Way(after.sensitive_to_outputs, (*_SCALARS, "3/4"), (RESNET,)),
    "plan": Way(after.planned),
    "plan+correct": Way(after.planned_corrected, ("4", "3", "2")),
    "bin_quant": _bins(means=True),
    "bin_quant-midpoints": _bins(means=False),
    "coremltools-kmeans": Way(peers.coremltools_kmeans, chance=False),
    "coremltools-sensitive": Way(peers.coremltools_sensitive, ("4", "3", "2")),
    "coreai-opt-kmeans": Way(peers.coreai_kmeans, chance=False),
    "coreai-opt-sensitive": Way(peers.coreai_sensitive, ("4", "3", "2")),
    "dkm": _trained("dkm"),
    "ste": _trained("ste"),
    "ewgs": _trained("ewgs", (*_SCALARS, "1")),
    "ewgs-hessian": Way(partial(training.curved, every=15), ("4", "3", "2", "1"), (RESNET,)),
    "gwk": _gwk("mean", _TRAINED, MODELS),
    "gwk-last": _gwk("last", ("2", "3/4", "3/8"), (RESNET,)),
    "gwk-unweighted": _gwk("none", ("2", "3/4", "3/8"), (RESNET,)),
    "r2+dkm": Way(partial(training.narrowed, factor=0.01), ("2", "1")),
    "coremltools-dkm": _peer_dkm(1e-4),  # its default
    "coremltools-dkm-1e-3": _peer_dkm(1e-3),
}
"""By the name that ``--methods`` and the table use."""


def spec_of(width: str, axis: int) -> dkm.PaletteSpec:
    """The palette of a width, with vectors along ``axis``."""
    bits, dim = WIDTHS[width]
    return dkm.PaletteSpec(bits, dim, axis if dim > 1 else 0)
