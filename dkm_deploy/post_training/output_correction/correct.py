"""Correct the outputs of a palettized model without labels: LUT entries, biases, BatchNorms."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.errors import ArgumentError, DkmError
from dkm_deploy.model.calibration import Calibration, batches, tensors_of
from dkm_deploy.model.inputs import split_batch, to_device
from dkm_deploy.model.palettized import PaletteWeight, palettes, weight_name
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.hooks import unfused_attention
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state
from dkm_deploy.nn_utils.weights import with_plain_parameters
from dkm_deploy.post_training.output_correction.layer import LayerCorrection, correct_layer
from dkm_deploy.post_training.output_correction.layer_order import LINEAR, Stage, stages
from dkm_deploy.post_training.output_correction.layer_samples import Models
from dkm_deploy.post_training.output_loss import OutputLoss

_RECORD = "_dkm_correction"  # attribute of a corrected model
_NEARER_WITHOUT = "the model's outputs came nearer to the original's without"


@dataclass(frozen=True)
class Correction:
    """Record of what :func:`dkm_deploy.correct_outputs` changed; :meth:`of` reads it.

    Attributes:
        layers: corrected layers in the order of computation; empty if no correction was better.
        unchanged: reasons of the palettes whose LUT did not change, by name.
        error_before: ``|outputs - original outputs| / |original outputs|`` on the calibration
            data before the correction, 2-norms over all outputs.
        error_after: the same after the correction; never larger.

    Example:
        >>> model, samples = nn.Linear(8, 4), torch.randn(64, 8)
        >>> frozen = dkm.correct_outputs(dkm.palettize(model, 2), model, samples)
        >>> dkm.Correction.of(frozen).unchanged
        {}
    """

    layers: tuple[LayerCorrection, ...]
    unchanged: Mapping[str, str]
    error_before: float
    error_after: float

    @classmethod
    def of(cls, corrected: nn.Module) -> Correction:
        """Read the record of a corrected model or of a copy of it.

        Checkpoints do not hold it.

        Args:
            corrected: a model from :func:`dkm_deploy.correct_outputs`.

        Returns:
            The record, as it was when the model was corrected.

        Raises:
            DkmError: the model has no such record.

        Example:
            >>> model, samples = nn.Linear(8, 4), torch.randn(64, 8)
            >>> frozen = dkm.correct_outputs(dkm.palettize(model, 2), model, samples)
            >>> [layer.corrected for layer in dkm.Correction.of(frozen).layers]
            [('weight', 'bias')]
        """
        found = getattr(unwrap(model_of(corrected, "corrected")), _RECORD, None)
        if not isinstance(found, cls):
            raise DkmError(
                "the model has no record of a correction; give what dkm.correct_outputs(frozen, "
                "model, calibration) gave, for a checkpoint does not hold it"
            )
        return found


@usage("dkm.correct_outputs(frozen, model, calibration)")
@torch.no_grad()
@keep_random_state()
def correct_outputs(
    frozen: nn.Module, original: nn.Module, calibration: Calibration | None
) -> nn.Module:
    """Copy a frozen model with layer outputs that are closer to those of the original.

    Layers are corrected in the order of computation, each with the outputs of the corrected layers
    before it: LUT entries by least squares (indices do not change), biases by the mean difference
    of each channel, BatchNorms by a factor and a shift of each channel. This is done with and
    without the LUTs. Of the two results and the model before, the one is kept whose outputs are
    closest to the original's. Labels are not read. Only values change, so files keep their size.

    Args:
        frozen: from ``dkm.palettize`` or ``dkm.freeze``; it does not change.
        original: the plain model that was palettized; it does not change.
        calibration: batches as for :func:`dkm_deploy.fit`, or all samples at once; see
            :func:`dkm_deploy.palettize`. 64 to 256 samples are enough. Memory holds all samples,
            four copies of the model, and up to 256 MiB of layer inputs and outputs.

    Returns:
        A frozen module in eval mode. :meth:`dkm_deploy.Correction.of` reads what was changed.

    Raises:
        DkmError: the models do not belong together, there is no calibration data, a model does not
            run on it, or a layer's outputs are not finite.

    Example:
        >>> model, samples = nn.Linear(8, 4), torch.randn(64, 8)
        >>> frozen = dkm.correct_outputs(dkm.palettize(model, 2), model, samples)
        >>> done = dkm.Correction.of(frozen)
        >>> done.error_after < done.error_before
        True
    """
    model_of(frozen, "frozen")
    original = with_plain_parameters(model_of(original, "original"))
    _check_alike(frozen, original)
    intact = independent_copy(original).eval()
    device = next(original.parameters()).device
    inputs = [to_device(split_batch(batch)[0], device) for batch in batches(calibration)]
    users = list(_users(frozen).values())
    alone = {names[0] for names in users if len(names) == 1}
    with unfused_attention():
        as_it_was = _Candidate(independent_copy(frozen).eval())
        order = stages(as_it_was.model, inputs[0])
        fitted, without = (
            _correct_layers(as_it_was.model, intact, order, inputs, luts)
            for luts in (alone, set[str]())
        )
        wanted = OutputLoss(_outputs(intact, inputs), [None] * len(inputs), None)
        tried = (fitted, without, as_it_was)
        *_, before = losses = [wanted.loss(_outputs(one.model, inputs)) for one in tried]
    least = min(losses)
    best = tried[losses.index(least)]
    called = {stage.layer for stage in order}
    unchanged = {
        names[0]: _NEARER_WITHOUT if names[0] in fitted.names else _reason(frozen, names, called)
        for names in users
        if names[0] not in best.names
    }
    done = Correction(best.layers, unchanged, math.sqrt(before), math.sqrt(least))
    setattr(best.model, _RECORD, done)
    return best.model


@dataclass(frozen=True)
class _Candidate:
    model: nn.Module
    layers: tuple[LayerCorrection, ...] = ()

    @property
    def names(self) -> set[str]:
        """Of all that has new values."""
        return {name for layer in self.layers for name in layer.corrected}


def _correct_layers(
    frozen: nn.Module,
    original: nn.Module,
    order: Sequence[Stage],
    inputs: Sequence[Any],
    luts: Collection[str],
) -> _Candidate:
    """A copy of the frozen model, corrected layer by layer; of its LUTs only these."""
    copied = independent_copy(frozen)
    models = Models(copied, original, order, inputs)
    done = tuple(correct_layer(stage, models.samples(stage), luts) for stage in order)
    return _Candidate(copied, done)


def _outputs(model: nn.Module, inputs: Sequence[Any]) -> list[list[Tensor]]:
    with parametrize.cached():
        return [tensors_of(model, batch, number) for number, batch in enumerate(inputs, 1)]


def _check_alike(frozen: nn.Module, original: nn.Module) -> None:
    """Raise DkmError unless the original has the tensors that the frozen model was made of."""
    found, theirs = palettes(frozen), original.state_dict()
    if not found:
        raise ArgumentError("frozen has no palettes; dkm.freeze or dkm.palettize it first")
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
