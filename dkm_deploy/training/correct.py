"""Correct the outputs of a palettized model without labels: LUT entries, biases, BatchNorms."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from dkm_deploy.errors import DkmError
from dkm_deploy.export import weight_name
from dkm_deploy.training.calibration import Calibration, batches
from dkm_deploy.training.correct_layer import LayerCorrection, correct_layer
from dkm_deploy.training.freeze import PaletteWeight, independent_copy, palettes
from dkm_deploy.training.layer_samples import Models
from dkm_deploy.training.observe import unfused_attention
from dkm_deploy.training.stages import LINEAR, stages
from dkm_deploy.training.step import parted, to_device


@dataclass(frozen=True)
class Correction:
    """A corrected model and what was done to it.

    Attributes:
        model: frozen, in eval mode.
        layers: in the order in which they work.
        left: reason by palette whose LUT is as it was.
    """

    model: nn.Module
    layers: tuple[LayerCorrection, ...]
    left: Mapping[str, str]


def correct(frozen: nn.Module, original: nn.Module, calibration: Calibration | None) -> nn.Module:
    """A copy of a frozen model whose layers' outputs are nearer to the original's.

    Layer by layer, in the order in which they work and each on what the corrected ones before it
    give: LUT entries by least squares, with the indices as they are; biases by the mean gap of
    each channel; BatchNorms by a factor and a shift of each channel. Labels are not read. Only
    values of LUTs, biases and BatchNorms change, so that files keep their size.

    Args:
        frozen: from ``dkm.palettize`` or ``dkm.freeze``; it is left as it was.
        original: the plain model that it was made of; it is left as it was.
        calibration: batches as :func:`dkm_deploy.fit` takes them, or all samples at once; see
            :func:`dkm_deploy.palettize`. 64 to 256 samples are enough. They are held in memory,
            and of each model's layers up to 256 MiB of inputs and outputs.

    Returns:
        A frozen module in eval mode. :func:`correct_details` also tells what was done where.

    Raises:
        DkmError: the models do not belong together, there is no calibration data, a model does not
            run on it, or a layer's outputs are not finite.
    """
    return correct_details(frozen, original, calibration).model


@torch.no_grad()
def correct_details(
    frozen: nn.Module, original: nn.Module, calibration: Calibration | None
) -> Correction:
    """What :func:`correct` gives, with the figures of each layer. Takes and raises the same."""
    _check_alike(frozen, original)
    copies = independent_copy(frozen).eval(), copy.deepcopy(original).eval()
    device = next(original.parameters()).device
    inputs = [to_device(parted(batch)[0], device) for batch in batches(calibration)]
    users = _users(copies[0])
    alone = {names[0] for names in users.values() if len(names) == 1}
    with unfused_attention():
        order = stages(copies[0], inputs[0])
        models = Models(*copies, order, inputs)
        done = tuple(correct_layer(stage, models.samples(stage), alone) for stage in order)
    called = {stage.layer for stage in order}
    reasons = {names[0]: _reason(copies[0], names, called) for names in users.values()}
    corrected = {name for layer in done for name in layer.corrected}
    left = {name: reason for name, reason in reasons.items() if name not in corrected}
    return Correction(copies[0], done, left)


def _check_alike(frozen: nn.Module, original: nn.Module) -> None:
    """Raise DkmError unless the original has the tensors that the frozen model was made of."""
    found, theirs = palettes(frozen), original.state_dict()
    if not found:
        raise DkmError("the model has no palettes; dkm.freeze or dkm.palettize it first")
    ours = dict.fromkeys(weight_name(name) for name in frozen.state_dict())
    for name in (*ours, *theirs):
        if name not in theirs or name not in ours:
            which = "original" if name in ours else "frozen model"
            raise DkmError(
                f"{name}: the {which} has no such tensor; give the plain model that the frozen one "
                "was made of, with its BatchNorms folded if they were"
            )
    for name, palette in found.items():
        shape = tuple(theirs[name].shape)
        if shape != palette.shape:
            raise DkmError(f"{name}: its shape is {palette.shape}, and {shape} in the original")


def _users(frozen: nn.Module) -> dict[int, list[str]]:
    """The names by which each palette is used, by the identity of its decoder."""
    users: dict[int, list[str]] = {}
    for prefix, module in frozen.named_modules():
        if parametrize.is_parametrized(module):
            for attribute, chain in module.parametrizations.items():
                if isinstance(chain[0], PaletteWeight):
                    name = f"{prefix}.{attribute}".lstrip(".")
                    users.setdefault(id(chain[0]), []).append(name)
    return users


def _reason(frozen: nn.Module, names: Sequence[str], called: Collection[str | None]) -> str:
    """Why the LUT of a palette was left, if it was."""
    layer = names[0].rpartition(".")[0]
    module = frozen.get_submodule(layer)
    if len(names) > 1:
        return f"shared by {', '.join(names)}"
    if not isinstance(module, LINEAR):
        kind = type(module).__name__.removeprefix("Parametrized")
        return f"its layer is of type {kind}; corrected are linear layers and convolutions"
    if layer not in called:
        return "its layer was not called by itself"
    return "no other LUT brought the outputs nearer to the original's"
