"""Small palettized ONNX models that every runtime must run: what the tests and the runners share.

A case is one layer with one palette spec. Cases that take the same input are the branches of one
model, a bank, which is made with public names and exported once; :func:`single` cuts the model of
one case out of a bank's file. All is seeded.

Coverage: ``linear`` has every spec in ``GRANULARITIES`` that fits it at every width; every other
layer has every width and every spec that fits all its weights, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count, cycle, islice, product, takewhile
from math import ceil
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

import dkm_deploy as dkm

WIDTHS = range(1, 9)
# Bits are set case by case.
GRANULARITIES = {
    "tensor": dkm.PaletteSpec(),
    "rows": dkm.PaletteSpec(group_size=1),
    "groups": dkm.PaletteSpec(group_size=4),
    "groups_axis1": dkm.PaletteSpec(group_size=4, axis=1),
    "vectors2": dkm.PaletteSpec(cluster_dim=2),
    "vectors4": dkm.PaletteSpec(cluster_dim=4),
    "vectors8": dkm.PaletteSpec(cluster_dim=8),
    "vectors2_axis1": dkm.PaletteSpec(cluster_dim=2, axis=1),
    "vectors4_axis1": dkm.PaletteSpec(cluster_dim=4, axis=1),
    "vectors8_axis1": dkm.PaletteSpec(cluster_dim=8, axis=1),
    "vectors2_axis2": dkm.PaletteSpec(cluster_dim=2, axis=2),
    "vectors2_groups": dkm.PaletteSpec(cluster_dim=2, group_size=8),
}
INPUTS: Mapping[str, tuple[int, ...]] = {
    "rows": (5, 16),
    "sequence": (2, 4, 16),
    "signal": (2, 16, 9),
    "image": (2, 16, 6, 6),
    "volume": (1, 16, 4, 4, 4),
    "ids": (4, 6),
}
_VOCABULARY = 24  # ids has each once, so that an embedding shows all its rows


class Odd(nn.Linear):
    """35 weights: at most widths the last byte of the indices is not full."""

    def __init__(self) -> None:
        super().__init__(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 16)`` to ``(n, 5)``."""
        return super().forward(x[:, :7])


class Large(nn.Linear):
    """So many weights that 4-bit ones are applied in two halves."""

    def __init__(self) -> None:
        super().__init__(1024, 1026, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(.., 16)`` to ``(.., 1026)``."""
        return super().forward(x.repeat(*[1] * (x.ndim - 1), 64))


class Recurrent(nn.Module):
    """An LSTM or GRU without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """``(n, t, 16)`` to ``(n, t, 8)``."""
        states: Tensor = self.layer(x)[0]
        return states


class Tied(nn.Module):
    """An embedding whose table is the output layer's weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(_VOCABULARY, 16)
        self.head = nn.Linear(16, _VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``(n, t)`` to scores ``(n, t, 24)``."""
        return self.head(torch.tanh(self.embed(ids)))


def _conv_norm() -> nn.Module:
    """BatchNorm with statistics that show if it is fused into a palette."""
    norm = nn.BatchNorm2d(8)
    nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]  # a buffer, never None here
    for values in (norm.running_var, norm.weight):
        nn.init.uniform_(values, 0.5, 2)  # type: ignore[arg-type]
    return nn.Sequential(nn.Conv2d(16, 8, 3, bias=False), norm, nn.ReLU())


@dataclass(frozen=True)
class Layer:
    """A kind of layer.

    Attributes:
        takes: its input, a key of ``INPUTS``.
        make: makes it.
        only: granularity and bits of each case, if not all.
    """

    takes: str
    make: Callable[[], nn.Module]
    only: tuple[tuple[str, int], ...] = ()


LAYERS = {
    "linear": Layer("rows", lambda: nn.Linear(16, 8)),
    "odd": Layer("rows", Odd),
    "large": Layer("rows", Large, only=(("tensor", 4),)),
    "linear3d": Layer("sequence", lambda: nn.Linear(16, 8)),
    "large3d": Layer("sequence", Large, only=(("tensor", 4),)),
    "lstm": Layer("sequence", lambda: Recurrent(nn.LSTM(16, 8, batch_first=True))),
    "gru": Layer("sequence", lambda: Recurrent(nn.GRU(16, 8, batch_first=True))),
    # Multi-head attention between two linear layers.
    "encoder": Layer("sequence", lambda: nn.TransformerEncoderLayer(16, 2, 24)),
    "conv1d": Layer("signal", lambda: nn.Conv1d(16, 8, 4, stride=2)),
    "conv2d": Layer("image", lambda: nn.Conv2d(16, 8, 2, dilation=2)),
    "transposed": Layer("image", lambda: nn.ConvTranspose2d(16, 8, 2, stride=2)),
    "depthwise": Layer("image", lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16)),
    "conv_norm": Layer("image", _conv_norm),
    "conv3d": Layer("volume", lambda: nn.Conv3d(16, 8, 2)),
    "embedding": Layer("ids", lambda: nn.Embedding(_VOCABULARY, 16)),
    "tied": Layer("ids", Tied),
}


@dataclass(frozen=True)
class Case:
    """One model of the suite.

    Attributes:
        layer: key of ``LAYERS``.
        palettes: granularity, a key of ``GRANULARITIES``, and bits, for each weight of the layer.
    """

    layer: str
    palettes: tuple[tuple[str, int], ...]

    @property
    def name(self) -> str:
        """Of the branch in its bank, and of the branch's output."""
        return "__".join([self.layer, *(f"{name}_{bits}bit" for name, bits in self.palettes)])

    def rules(self) -> list[dkm.Rule]:
        """What gives each weight its palette."""
        return [
            dkm.Rule(f"cases.{self.name}.{weight}", replace(GRANULARITIES[name], bits=bits))
            for weight, (name, bits) in zip(_weights(self.layer), self.palettes, strict=True)
        ]


def _weights(layer: str) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's weights by their names in it."""
    named = LAYERS[layer].make().named_parameters()
    return {name: tuple(weight.shape) for name, weight in named if weight.ndim > 1}


def _cases() -> list[Case]:
    cases = []
    for layer, kind in LAYERS.items():
        if kind.only:
            cases += [Case(layer, (palette,)) for palette in kind.only]
            continue
        shapes = _weights(layer).values()
        fits = [g for g, spec in GRANULARITIES.items() if not any(map(spec.refuse, shapes))]
        if layer == "linear":
            cases += [Case(layer, (palette,)) for palette in product(fits, WIDTHS)]
            continue
        # Each granularity and each width once; a layer with several weights has several a case.
        pairs = zip(cycle(fits), cycle(WIDTHS), strict=False)
        for _ in range(ceil(max(len(fits), len(WIDTHS)) / len(shapes))):
            cases.append(Case(layer, tuple(islice(pairs, len(shapes)))))
    return cases


CASES = _cases()


class Branches(nn.Module):
    """The layers of several cases side by side: one input, an output by case name."""

    def __init__(self, cases: list[Case]) -> None:
        super().__init__()
        self.cases = nn.ModuleDict({case.name: LAYERS[case.layer].make() for case in cases})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Each layer's output for ``x``."""
        return {name: layer(x) for name, layer in self.cases.items()}


@dataclass(frozen=True)
class Bank:
    """Cases that take one input, as one frozen model.

    Attributes:
        cases: its branches.
        x: the input, in the file under this name.
        palettes: of its weights by qualified name; :meth:`weights` tells whose they are.
        expected: PyTorch's output by case name.
    """

    cases: list[Case]
    frozen: nn.Module
    x: Tensor
    palettes: Mapping[str, dkm.Palette]
    expected: Mapping[str, Tensor]

    def weights(self, case: Case) -> list[str]:
        """Names of the weights of a case."""
        return [name for name in self.palettes if name.startswith(f"cases.{case.name}.")]

    def write(self, path: Path, **options: Any) -> None:
        """Convert it to the file ``path``; options are those of :func:`dkm_deploy.convert`."""
        dkm.convert(self.frozen, self.x, path, **options)


def bank(takes: str) -> Bank:
    """The bank of all cases that take the input ``takes``, a key of ``INPUTS``."""
    torch.manual_seed(0)
    cases = [case for case in CASES if LAYERS[case.layer].takes == takes]
    rules = [rule for case in cases for rule in case.rules()]
    frozen = dkm.palettize(Branches(cases).eval(), dkm.Recipe(rules=rules))
    shape = INPUTS[takes]
    x = torch.randperm(_VOCABULARY).reshape(shape) if takes == "ids" else torch.randn(shape)
    with torch.no_grad():
        expected = frozen(x)
    return Bank(cases, frozen, x, dkm.palettes(frozen), expected)


def values(model: onnx.ModelProto) -> set[str]:
    """Names of all values that a model's nodes make."""
    return {name for node in model.graph.node for name in node.output}


def showing(model: onnx.ModelProto, weights: list[str]) -> onnx.ModelProto:
    """A copy of ``model`` that gives these dense weights as outputs too, where it has them.

    A matrix that the model has transposed is turned back; parts are put together.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    for name in weights:
        for value, axis in ((f"{name}.T", 1), (name, 0)):
            names = (f"{value}.part.{number}" for number in count())
            parts = list(takewhile(values(shown).__contains__, names))
            if parts:
                shown.graph.node.append(onnx.helper.make_node("Concat", parts, [value], axis=axis))
        if f"{name}.T" in values(shown):
            shown.graph.node.append(onnx.helper.make_node("Transpose", [f"{name}.T"], [name]))
        elif name not in values(shown):
            continue
        kind = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        shown.graph.output.append(kind)
    return shown


def single(model: onnx.ModelProto, case: Case, weights: list[str]) -> onnx.ModelProto:
    """The model of one case, cut out of its bank's; it gives its dense weights too."""
    shown = onnx.shape_inference.infer_shapes(showing(model, weights))
    outputs = [case.name, *(name for name in weights if name in values(shown))]
    return Extractor(shown).extract_model([shown.graph.input[0].name], outputs)
