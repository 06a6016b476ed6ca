"""Freeze: a plain module whose weights are decoded from hard palettes by the one op."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.errors import DkmError
from dkm_deploy.given import model_of
from dkm_deploy.ops import lut_to_dense
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import PaletteSpec, Recipe
from dkm_deploy.training.after import AfterTraining, method_named
from dkm_deploy.training.attach import Place, attached, check, places, require_attached
from dkm_deploy.training.calibration import Calibration


class PaletteWeight(nn.Module):
    """Parametrization of a frozen weight: uint8 indices in, the dense weight out."""

    lut: Tensor
    scale: Tensor | None

    def __init__(self, lut: Tensor, axis: int, scale: Tensor | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("lut", lut)
        self.register_buffer("scale", scale)

    def forward(self, indices: Tensor) -> Tensor:
        """Decode, see :func:`dkm_deploy.ops.lut_to_dense`, and multiply with the scale."""
        weight: Tensor = lut_to_dense(indices, self.lut, self.axis)
        return weight if self.scale is None else weight * self.scale


def freeze(model: nn.Module) -> nn.Module:
    """A new module with the hard palettes of a prepared model, in eval mode.

    The trained model is left as it was. The new one is an ordinary module: it runs, exports, and
    its ``state_dict`` holds indices and LUTs in place of the weights.

    Raises:
        DkmError: the model is not prepared, or a weight holds NaN or infinity.
    """
    require_attached(model)
    frozen = independent_copy(model)
    for layer in list(attached(frozen)):
        if not torch.isfinite(layer.weight).all():
            raise DkmError(f"{layer.name}: the weights hold NaN or infinity; training diverged")
        palette = layer.soft.palette(layer.weight.detach())
        for module, attribute in layer.places:
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        install(layer.places, palette, layer.weight)
    return frozen.eval()


@torch.no_grad()
def soft_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a prepared model whose weights are the soft ones, in eval mode.

    For measuring what the training loop sees beside what :func:`freeze` gives.
    """
    require_attached(model)
    plain = independent_copy(model)
    for layer in list(attached(plain)):
        soft = layer.soft.soft(layer.weight)[0]
        for module, attribute in layer.places:
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
        layer.weight.copy_(soft)
    return plain.eval()


def palettize(
    model: nn.Module,
    recipe: Recipe | PaletteSpec | int,
    method: str | AfterTraining = "kmeans",
    calibration: Calibration | None = None,
    *,
    targets: Sequence[str] = (),
) -> nn.Module:
    """Cluster the weights of a trained model, without a training loop.

    Args:
        model: a plain model; it is left as it was.
        recipe: which weight gets which palette; a spec or a number of bits is for all.
        method: "kmeans", which looks at the weights alone; "sensitive", which weighs them by
            their squared gradients; "bin_quant", which asks the top-1 accuracy; or a record such
            as ``dkm.Sensitive(loss=..)``.
        calibration: for methods that look at more than weights: batches as :func:`dkm_deploy.fit`
            takes them, ``(inputs, labels)`` or the inputs alone; or all samples at once, a tensor
            or a mapping of keyword inputs. K-means takes none.
        targets: names of targets that must be able to hold the palettes, such as "onnx" or
            "coreml:iOS17".

    Returns:
        A frozen module in eval mode, as :func:`freeze` gives it.

    Raises:
        DkmError: the recipe does not fit the model or a target, a weight holds NaN or infinity, or
            the calibration data does not fit the method or the model.
    """
    model, recipe, chosen = model_of(model), Recipe.of(recipe), method_named(method)
    specs = check(model, recipe, targets)
    return with_palettes(model, chosen.palettes(model, specs, calibration))


def with_palettes(model: nn.Module, palettes: Iterable[tuple[str, Palette]]) -> nn.Module:
    """A copy of a plain model, in eval mode, with palettes in place of the parameters named."""
    frozen = copy.deepcopy(model)
    parameters, used_in = dict(frozen.named_parameters()), places(frozen)
    for name, palette in palettes:
        install(used_in[name], palette, parameters[name])
    return frozen.eval()


def independent_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parametrized modules have classes of their own.

    ``copy.deepcopy`` keeps the class that ``register_parametrization`` made, and
    ``remove_parametrizations`` deletes the weight's property from that class: on a plain copy it
    would break the original (torch 2.13).
    """
    copied = copy.deepcopy(model, _flat_weights(model))
    for module in copied.modules():
        if parametrize.is_parametrized(module):
            cls = type(module)
            module.__class__ = type(cls.__name__, cls.__bases__, dict(cls.__dict__))
    return copied


def _flat_weights(model: nn.Module) -> dict[int, Tensor]:
    """A memo for ``copy.deepcopy`` of LSTMs and GRUs.

    They keep the weights of their last forward pass. Those that come out of parametrizations are
    no leaves and cannot be copied; a copy makes its own.
    """
    cells = (module for module in model.modules() if isinstance(module, nn.RNNBase))
    flat = (t for cell in cells for t in cell._flat_weights if t is not None)
    return {id(t): t.detach() for t in flat if not t.is_leaf}


def install(used_in: Sequence[Place], palette: Palette, like: Tensor) -> None:
    """Put a palette in place of a parameter, everywhere it is used.

    Args:
        used_in: the (module, attribute) pairs that share the parameter.
        palette: of the parameter's shape.
        like: gives the device and the dtype that the decoded weight must have.
    """
    indices = torch.tensor(palette.indices, device=like.device)
    scale = None if palette.scale is None else torch.tensor(palette.scale).to(like)
    decoder = PaletteWeight(torch.tensor(palette.lut).to(like), palette.axis, scale)
    for module, attribute in used_in:
        delattr(module, attribute)
        module.register_buffer(attribute, indices)
        parametrize.register_parametrization(module, attribute, decoder, unsafe=True)


def palettes(frozen: nn.Module) -> dict[str, Palette]:
    """The palettes of a frozen model by qualified parameter name, tied weights once.

    A LUT or scale of bfloat16 is given as float32, which holds it exactly.

    Raises:
        DkmError: the model is prepared but not frozen.
    """
    if next(attached(model_of(frozen)), None):
        raise DkmError("the model is prepared but not frozen; call dkm.freeze(model) first")
    found: dict[int, tuple[str, Palette]] = {}
    for prefix, module in frozen.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():
            if isinstance(chain[0], PaletteWeight) and id(chain[0]) not in found:
                name = f"{prefix}.{attribute}".lstrip(".")
                found[id(chain[0])] = (name, _palette(chain.original, chain[0]))
    return dict(found.values())


def _palette(indices: Tensor, decoder: PaletteWeight) -> Palette:
    scale = None if decoder.scale is None else _array(decoder.scale)
    return Palette(indices.cpu().numpy(), _array(decoder.lut), decoder.axis, scale=scale)


def _array(tensor: Tensor) -> NDArray[np.floating]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
