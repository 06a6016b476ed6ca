"""A model with palettes: weights that the one op decodes from indices and LUTs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dkm_deploy._support.argument_checks import usage
from dkm_deploy.errors import DkmError
from dkm_deploy.nn_utils.copies import independent_copy, unwrap
from dkm_deploy.nn_utils.model_check import model_of
from dkm_deploy.nn_utils.weights import OwnParametrization, Place, places
from dkm_deploy.ops import lut_to_dense
from dkm_deploy.palette import Palette


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


@usage("dkm.palettes(frozen)")
def palettes(frozen: nn.Module) -> dict[str, Palette]:
    """Read the palettes of a frozen model.

    A LUT or a scale of bfloat16 is converted to float32, which is exact.

    Args:
        frozen: from ``dkm.freeze``, ``dkm.palettize`` or ``dkm.load``.

    Returns:
        Palettes by qualified parameter name; tied weights are listed once.

    Raises:
        DkmError: the model is prepared but not frozen.

    Example:
        >>> dkm.palettes(dkm.palettize(nn.Linear(8, 4), 2))["weight"].bits
        2
    """
    found: dict[int, tuple[str, Palette]] = {}
    for prefix, module in unwrap(model_of(frozen)).named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():
            if any(_trains(one) for one in chain):
                raise DkmError("the model is prepared but not frozen; call dkm.freeze(model) first")
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


def _trains(parametrization: nn.Module) -> bool:
    """Whether it is of a prepared weight, whose palette is still soft."""
    own = isinstance(parametrization, OwnParametrization)
    return own and not isinstance(parametrization, PaletteWeight)


def _palette(indices: Tensor, decoder: PaletteWeight) -> Palette:
    scale = None if decoder.scale is None else _array(decoder.scale)
    return Palette(indices.cpu().numpy(), _array(decoder.lut), decoder.axis, scale=scale)


def _array(tensor: Tensor) -> NDArray[np.floating]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()


_OF_A_PALETTE = re.compile(
    r"(?P<module>(.*\.)?)parametrizations\.(?P<attribute>[^.]+)\.(original|0\.lut|0\.scale)"
)


def weight_name(buffer: str) -> str:
    """The parameter that a buffer of a frozen model belongs to.

    ``fc.parametrizations.weight.0.lut`` and ``fc.parametrizations.weight.original`` both give
    ``fc.weight``; other buffers give themselves, those of parametrizations above a palette too.
    """
    found = _OF_A_PALETTE.fullmatch(buffer)
    return found["module"] + found["attribute"] if found else buffer


def is_scale(buffer: str) -> bool:
    """Whether a buffer of a frozen model is the per-channel scale of a palette."""
    return weight_name(buffer) != buffer and buffer.endswith(".scale")
