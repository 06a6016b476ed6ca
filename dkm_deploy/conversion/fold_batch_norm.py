"""Fold BatchNorm into the layers before it, ahead of clustering."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.conversion.export import export
from dkm_deploy.conversion.exported import ExportedModel
from dkm_deploy.errors import DkmError
from dkm_deploy.model.inputs import Inputs, arguments
from dkm_deploy.nn_utils.copies import independent_copy
from dkm_deploy.nn_utils.in_float32 import model_in_float32
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.state_guard import keep_random_state, own_copies, run_copy
from dkm_deploy.nn_utils.weights import with_plain_parameters

_Layer = nn.Linear | _ConvNd
_TOLERANCE = 1e-2  # of the outputs' norm; a wrong fold is far off, float16 arithmetic is not


@usage("dkm.fold_batch_norm(model, example_inputs)")
@torch.no_grad()
@keep_random_state()
def fold_batch_norm(model: nn.Module, example_inputs: Inputs) -> nn.Module:
    """Copy a model with its BatchNorms folded into the layers before them.

    Call it before ``dkm.prepare`` or ``dkm.palettize``. A palette cannot take up one factor per
    channel, so a BatchNorm after a palettized layer stays an operation in the converted program. A
    BatchNorm is folded if its only input is a linear or convolution layer and each of the two is
    used once. ``nn.Identity`` takes its place.

    Args:
        model: a plain model; it does not change. It is folded as it is in eval mode. Norms, pruning
            masks and parametrizations of its weights are applied, and are no longer in the copy.
        example_inputs: as for :func:`dkm_deploy.convert`; they show which layer feeds which.

    Returns:
        A plain model in eval mode.

    Raises:
        DkmError: the model cannot be exported, or gives other outputs after folding. That happens
            if ``forward`` reads a weight without calling its layer.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4))
        >>> dkm.fold_batch_norm(model, torch.ones(1, 8))[1]
        Identity()
    """
    model = with_plain_parameters(model_of(model))
    folded = independent_copy(model).eval()
    for layer_name, norm_name in _pairs(export(model, example_inputs)):
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        if isinstance(layer, _Layer) and isinstance(norm, _BatchNorm):
            _fold(layer, norm)
            folded.set_submodule(norm_name, nn.Identity())
    _check(model, folded, example_inputs)
    return folded


def _pairs(exported: ExportedModel) -> Iterator[tuple[str, str]]:
    """Names of a layer and of the BatchNorm that alone reads its output."""
    graph, signature = exported.program.graph, exported.program.graph_signature
    reads = Counter(str(argument) for node in graph.nodes for argument in node.all_input_nodes)
    for norm in graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default):
        layer = norm.args[0]
        if not _foldable(layer):
            continue
        weight, mean = str(layer.args[1]), str(norm.args[3])
        known = weight in signature.inputs_to_parameters and mean in signature.inputs_to_buffers
        if known and reads[weight] == reads[mean] == reads[str(layer)] == 1:
            yield (
                signature.inputs_to_parameters[weight].rpartition(".")[0],
                signature.inputs_to_buffers[mean].rpartition(".")[0],
            )


def _foldable(layer: Any) -> bool:
    """Whether the channels of the layer's output are dimension 1, as BatchNorm has them."""
    if not isinstance(layer, Node) or len(layer.args) < 2:
        return False
    if layer.target is torch.ops.aten.linear.default:
        return bool(layer.meta["val"].ndim == 2)
    return str(layer.target).startswith("aten.conv")


def _fold(layer: _Layer, norm: _BatchNorm) -> None:
    """Scale and shift the weights of a layer as the BatchNorm does its outputs."""
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = torch.rsqrt(variance + norm.eps) * (1 if norm.weight is None else norm.weight)
    bias = (0 if layer.bias is None else layer.bias) - mean
    shift = bias * scale + (0 if norm.bias is None else norm.bias)
    layer.weight.copy_(_scale_output_channels(layer, scale))
    if layer.bias is None:
        layer.bias = nn.Parameter(shift.to(layer.weight))
    else:
        layer.bias.copy_(shift)


def _scale_output_channels(layer: _Layer, scale: Tensor) -> Tensor:
    """The weight with each output channel times its factor."""
    weight = layer.weight
    if not isinstance(layer, _ConvNd) or not layer.transposed:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    # (groups, inputs, outputs, ..), the last two of each group
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
    factors = scale.reshape(layer.groups, 1, -1, *[1] * (weight.ndim - 2))
    return (grouped * factors).reshape(weight.shape)


def _outputs(model: nn.Module, example_inputs: Inputs) -> list[Any]:
    args, kwargs = own_copies(arguments(example_inputs))
    with run_copy(model) as copied:
        return pytree.tree_leaves(copied(*args, **kwargs))


def _check(model: nn.Module, folded: nn.Module, example_inputs: Inputs) -> None:
    before, after = (
        _outputs(m, example_inputs) for m in (model_in_float32(model), model_in_float32(folded))
    )
    for expected, found in zip(before, after, strict=True):
        if not torch.is_tensor(expected):
            continue
        difference = (found - expected).float().norm()
        if not difference <= _TOLERANCE * expected.float().norm():
            raise DkmError(
                "the outputs change when BatchNorms are folded, because forward reads a weight "
                "without calling its layer; use the model without folding"
            )
