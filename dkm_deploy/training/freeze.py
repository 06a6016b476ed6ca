"""Freeze: a plain module whose weights are decoded from hard palettes by the one op."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy.copies import independent_copy, unwrapped
from dkm_deploy.errors import DkmError
from dkm_deploy.given import model_of
from dkm_deploy.ops import lut_to_dense
from dkm_deploy.palette import Palette
from dkm_deploy.recipe import PaletteSpec, Recipe
from dkm_deploy.stacked import OwnParametrization, Place, bake, plain, put
from dkm_deploy.training.after import AfterTraining, method_named
from dkm_deploy.training.attach import attached, check, places, require_attached
from dkm_deploy.training.calibration import Calibration
from dkm_deploy.untouched import random_state_kept


class _FixedWeightError(DkmError, NotImplementedError):
    """Also a NotImplementedError: that is how torch is told so when a palette is registered."""


class PaletteWeight(OwnParametrization):
    """Parametrization of a frozen weight: uint8 indices in, the dense weight out."""

    lut: Tensor
    scale: Tensor | None

    def __init__(self, lut: Tensor, axis: int, scale: Tensor | None = None) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("lut", lut)
        self.register_buffer("scale", scale)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Refuse to be assigned another weight, which torch asks for by this name."""
        raise _FixedWeightError(
            "the weight is decoded from a palette and cannot be set; dkm.dense(model) gives an "
            "ordinary model"
        )

    def forward(self, indices: Tensor) -> Tensor:
        """Decode, see :func:`dkm_deploy.ops.lut_to_dense`, and multiply with the scale."""
        weight: Tensor = lut_to_dense(indices, self.lut, self.axis)
        return weight if self.scale is None else weight * self.scale


def freeze(model: nn.Module) -> nn.Module:
    """A new module with the hard palettes of a prepared model, in eval mode.

    The trained model is left as it was. The new one is an ordinary module: it runs, exports, and
    its ``state_dict`` holds indices and LUTs in place of the weights. What was stacked on a weight
    before :func:`prepare` is in its palette or, of a dense weight, in its values; a
    parametrization that was registered above a palette is kept there.

    Raises:
        DkmError: the model is not prepared, or a weight holds NaN or infinity.
    """
    require_attached(model)
    frozen = independent_copy(unwrapped(model))
    for layer in list(attached(frozen)):
        weight, above = layer.weight.detach(), layer.above
        if not torch.isfinite(weight).all():
            raise DkmError(f"{layer.name}: the weights hold NaN or infinity; training diverged")
        palette = layer.soft.palette(weight)
        for place in layer.places:
            put(place, nn.Parameter(weight))
        install(layer.places, palette, weight)
        for place, parametrizations in zip(layer.places, above, strict=True):
            for one in parametrizations:
                parametrize.register_parametrization(*place, one, unsafe=True)
    return bake(frozen).eval()


@torch.no_grad()
def soft_copy(model: nn.Module) -> nn.Module:
    """A plain copy of a prepared model whose weights are the soft ones, in eval mode.

    For measuring what the training loop sees beside what :func:`freeze` gives.
    """
    require_attached(model)
    soft_model = independent_copy(unwrapped(model)).eval()
    for layer in list(attached(soft_model)):
        above, soft = layer.above, nn.Parameter(layer.soft.soft(layer.weight.detach())[0])
        for place, parametrizations in zip(layer.places, above, strict=True):
            put(place, soft)
            for one in parametrizations:
                parametrize.register_parametrization(*place, one, unsafe=True)
    return bake(soft_model)


@random_state_kept()
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
        model: a plain model; it is left as it was. Norms, pruning masks and parametrizations on its
            weights are applied, and gone from what is returned.
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
    model = plain(model)
    return with_palettes(model, chosen.palettes(model, specs, calibration))


def with_palettes(model: nn.Module, palettes: Iterable[tuple[str, Palette]]) -> nn.Module:
    """A copy of a plain model, in eval mode, with palettes in place of the parameters named."""
    frozen = independent_copy(model)
    parameters, used_in = dict(frozen.named_parameters()), places(frozen)
    for name, palette in palettes:
        install(used_in[name], palette, parameters[name])
    return frozen.eval()


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
    for prefix, module in unwrapped(frozen).named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():
            if isinstance(chain[0], PaletteWeight) and id(chain[0]) not in found:
                name = f"{prefix}.{attribute}".lstrip(".")
                found[id(chain[0])] = (name, _palette(chain.original, chain[0]))
    return dict(found.values())


def stacked_above(frozen: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parametrizations above palettes of a frozen model, with the names of the weights."""
    for prefix, module in frozen.named_modules():
        if parametrize.is_parametrized(module):
            for attribute, chain in module.parametrizations.items():
                if isinstance(chain[0], PaletteWeight):
                    name = f"{prefix}.{attribute}".lstrip(".")
                    yield from ((name, one) for one in list(chain)[1:])


def _palette(indices: Tensor, decoder: PaletteWeight) -> Palette:
    scale = None if decoder.scale is None else _array(decoder.scale)
    return Palette(indices.cpu().numpy(), _array(decoder.lut), decoder.axis, scale=scale)


def _array(tensor: Tensor) -> NDArray[np.floating]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()
