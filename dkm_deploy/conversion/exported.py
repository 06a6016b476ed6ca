"""The record that every target lowers: a frozen model as one graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.export import ExportedProgram

from dkm_deploy.model.inputs import Inputs
from dkm_deploy.model.steps import Steps
from dkm_deploy.palette import Palette


@dataclass(frozen=True)
class ExportedModel:
    """A frozen model as one graph.

    Attributes:
        program: ATen graph in which each palettized weight is one ``dkm::lut_to_dense`` node, and
            one ``aten.mul`` after it where the palette has a per-channel scale.
        palettes: the frozen palettes by qualified parameter name, but for those that no output
            depends on.
        input_names: one for each tensor input, as in the signature of ``forward``.
        output_names: as :func:`dkm_deploy.model.output_names.output_names` gives them, one for each
            tensor.
        states: buffers that forward writes, by qualified name, with the values they start from;
            each has to be kept from one run of the file to the next.
        notes: remarks on the model, one line each.
        inputs: that it was exported with, one step of a model that keeps state.
    """

    program: ExportedProgram
    palettes: Mapping[str, Palette]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    states: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: Inputs | Steps = ()
